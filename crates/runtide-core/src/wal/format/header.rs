//! A segment's first 4 KiB.

use super::{Fields, Hash, LogId};

/// The size of a segment's header in bytes: a page, so that what follows is aligned to one.
pub(crate) const SEGMENT_HEADER: usize = 4096;

/// The version of the format that this code writes.
pub(crate) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"RUNTIDEW";
const KEYED: u32 = 1;
const CRC_AT: usize = SEGMENT_HEADER - 4;

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log: LogId,
    /// The sequence number of the first record that will be in it.
    pub(crate) first: u64,
    /// The hash of the commit before it.
    pub(crate) prev: Hash,
    /// When it was begun, in nanoseconds since 1970: nothing in the segment before it is younger.
    pub(crate) created: u64,
    /// The opening that began it.
    pub(crate) epoch: u64,
    /// Everything up to this record was durable when it was begun.
    pub(crate) synced: u64,
    /// Recognises the key of a keyed chain.
    pub(crate) keyed: Option<[u8; 16]>,
}

/// Why a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Too short, another magic number, or a wrong checksum.
    Corrupt,
    /// A later version of the format.
    Version(u32),
    /// Version 1 with a flag that version 1 has not.
    Flags(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(if self.keyed.is_some() { KEYED } else { 0 }).to_le_bytes());
        bytes.extend_from_slice(&self.log);
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.prev);
        bytes.extend_from_slice(&self.created.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.synced.to_le_bytes());
        bytes.extend_from_slice(&self.keyed.unwrap_or_default());
        bytes.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let (covered, crc) =
            bytes.get(..SEGMENT_HEADER).and_then(|bytes| bytes.split_last_chunk::<4>()).ok_or(BadHeader::Corrupt)?;
        let mut fields = Fields(covered);
        if fields.bytes() != Some(MAGIC) || crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err(BadHeader::Corrupt);
        }
        // The header's size, magic number, version and checksum keep their places in every version of the format.
        let version = fields.u32().ok_or(BadHeader::Corrupt)?;
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        Self::fields(fields).ok_or(BadHeader::Corrupt)?
    }

    fn fields(mut fields: Fields<'_>) -> Option<Result<Self, BadHeader>> {
        let flags = fields.u32()?;
        if flags & !KEYED != 0 {
            return Some(Err(BadHeader::Flags(flags)));
        }
        Some(Ok(Self {
            log: fields.bytes()?,
            first: fields.u64()?,
            prev: fields.bytes()?,
            created: fields.u64()?,
            epoch: fields.u64()?,
            synced: fields.u64()?,
            keyed: fields.bytes().filter(|_| flags & KEYED != 0),
        }))
    }
}
