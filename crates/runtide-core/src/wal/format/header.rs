//! The header of a segment: its first 4 KiB.

use super::{Fields, Hash, LogId};

/// The size of a segment's header in bytes: a page, so that the commits behind it are aligned to one.
pub(crate) const SEGMENT_HEADER: usize = 4096;

/// The version of the format that this code writes.
pub(crate) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"RUNTIDEW";
const KEYED: u32 = 1;
const CRC_AT: usize = SEGMENT_HEADER - 4;

/// The fields of a segment's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log: LogId,
    /// The sequence number of the segment's first record, which is not yet written when the header is.
    pub(crate) first: u64,
    /// The hash of the commit before it.
    pub(crate) prev: Hash,
    /// Time at which it was begun, in nanoseconds since 1970: no record in the segment before it is younger.
    pub(crate) created: u64,
    /// The epoch of the opening that began it.
    pub(crate) epoch: u64,
    /// Every record up to this number was durable when it was begun.
    pub(crate) synced: u64,
    /// Check value of a keyed chain's key; `None` for a chain without a key.
    pub(crate) keyed: Option<[u8; 16]>,
    /// Code of the log's purpose; 0 in segments from before there was one.
    pub(crate) purpose: u16,
}

/// The reason why a header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// The header is too short, or its magic number or its checksum is wrong.
    Corrupt,
    /// The header is of this other version of the format.
    Version(u32),
    /// The header is of version 1, with a flag that version 1 does not have.
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
        bytes.extend_from_slice(&self.purpose.to_le_bytes());
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
        // The header's size, magic number, version and checksum keep their offsets in every version of the format.
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
            purpose: fields.bytes().map(u16::from_le_bytes)?,
        }))
    }
}
