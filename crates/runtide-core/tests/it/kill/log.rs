//! What both processes know of the log: how it is opened, and which record has which payload.

use std::num::NonZeroU64;

use runtide_core::wal::{Durability, RecordKind, WalKey, WalOptions};

pub(crate) const KIND: RecordKind = RecordKind(3);

/// One log's choices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    pub(crate) durability: Durability,
    pub(crate) key: Option<[u8; 32]>,
}

impl Mode {
    pub(crate) fn key(self) -> Option<WalKey> {
        self.key.map(WalKey::new)
    }

    /// Segments so small that there is a new one every few dozen records.
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

/// Who a record is: nobody else writes this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) life: u32,
    pub(crate) writer: u32,
    /// The how-manyth call of that writer.
    pub(crate) call: u32,
    /// Which record of a batch, and of how many.
    pub(crate) part: u32,
    pub(crate) parts: u32,
}

const IDENTITY: usize = 20;

impl Identity {
    /// The call that it is a part of: its life, its writer, and its number there.
    pub(crate) fn of_call(self) -> (u32, u32, u32) {
        (self.life, self.writer, self.call)
    }

    /// The identity, then bytes that follow from it.
    pub(crate) fn payload(self) -> Vec<u8> {
        let mut payload = Vec::new();
        for number in [self.life, self.writer, self.call, self.part, self.parts] {
            payload.extend_from_slice(&number.to_le_bytes());
        }
        let mut reader = blake3::Hasher::new().update(&payload).finalize_xof();
        let mut size = [0; 4];
        reader.fill(&mut size);
        // Mostly small; now and then one that needs a segment of its own.
        let size = u32::from_le_bytes(size);
        let most = if size % 61 == 0 { 20_000 } else { 400 };
        payload.resize(IDENTITY + usize::try_from(size / 64).unwrap() % most, 0);
        reader.fill(&mut payload[IDENTITY..]);
        payload
    }

    pub(crate) fn of(payload: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(*payload.get(4 * at..)?.first_chunk()?));
        let identity =
            Self { life: number(0)?, writer: number(1)?, call: number(2)?, part: number(3)?, parts: number(4)? };
        (identity.payload() == payload).then_some(identity)
    }
}
