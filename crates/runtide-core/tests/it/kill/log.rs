//! The log as both processes know it: its options, and the payload of each record.

use std::num::NonZeroU64;

use runtide_core::wal::{Durability, RecordKind, WalKey, WalOptions};

pub(crate) const KIND: RecordKind = RecordKind(3);

/// The options of one log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    pub(crate) durability: Durability,
    pub(crate) key: Option<[u8; 32]>,
}

impl Mode {
    pub(crate) fn key(self) -> Option<WalKey> {
        self.key.map(WalKey::new)
    }

    /// Options with segments so small that there is a new one every few dozen records.
    pub(crate) fn options(self) -> WalOptions {
        let options = WalOptions::default().with_durability(self.durability).with_key(self.key());
        options.with_segment_bytes(NonZeroU64::new(16 << 10))
    }

    pub(crate) fn name(self) -> &'static str {
        match self.durability {
            Durability::Every(_) => "every",
            Durability::Os => "os",
            _ => "commit",
        }
    }
}

/// The identity of a record: no other record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) incarnation: u32,
    pub(crate) writer: u32,
    /// Number of the call, among those of that writer.
    pub(crate) call: u32,
    /// Index of the record in its batch of `parts` records.
    pub(crate) part: u32,
    pub(crate) parts: u32,
}

const IDENTITY: usize = 20;

impl Identity {
    /// The call that it is a part of: its incarnation, its writer, and its number there.
    pub(crate) fn of_call(self) -> (u32, u32, u32) {
        (self.incarnation, self.writer, self.call)
    }

    /// The identity, then bytes that follow from it.
    pub(crate) fn payload(self) -> Vec<u8> {
        let mut payload = Vec::new();
        for number in [self.incarnation, self.writer, self.call, self.part, self.parts] {
            payload.extend_from_slice(&number.to_le_bytes());
        }
        let mut reader = blake3::Hasher::new().update(&payload).finalize_xof();
        let mut size = [0; 4];
        reader.fill(&mut size);
        // Small in most cases; now and then one that needs its own segment.
        let size = u32::from_le_bytes(size);
        let most = if size % 61 == 0 { 20_000 } else { 400 };
        payload.resize(IDENTITY + usize::try_from(size / 64).unwrap() % most, 0);
        reader.fill(&mut payload[IDENTITY..]);
        payload
    }

    pub(crate) fn of(payload: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(*payload.get(4 * at..)?.first_chunk()?));
        let identity =
            Self { incarnation: number(0)?, writer: number(1)?, call: number(2)?, part: number(3)?, parts: number(4)? };
        (identity.payload() == payload).then_some(identity)
    }
}
