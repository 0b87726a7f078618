//! The header of a commit: the records that one sync made durable together.

use super::{FRAME_HEADER, Fields, Hash, LogId};

/// The size of a commit's header in bytes.
pub(crate) const COMMIT_HEADER: usize = 104;

/// What a commit begins with.
pub(crate) const COMMIT_MAGIC: [u8; 4] = *b"RTC1";

/// The hash covers the commit from here to its end: one run of bytes, so that it is computed in one go.
pub(crate) const HASHED_FROM: usize = 40;

/// What a commit says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitHeader {
    /// BLAKE3 of the rest of the header and of all frames.
    pub(crate) hash: Hash,
    /// The hash of the commit before it.
    pub(crate) prev: Hash,
    /// The opening that wrote it.
    pub(crate) epoch: u64,
    /// The sequence number of its first record.
    pub(crate) first: u64,
    /// Everything up to this record was durable when it was written: a later commit with a bad one before it that lies
    /// within this is what tells corruption from a torn tail.
    pub(crate) synced: u64,
    /// How many records; never none.
    pub(crate) count: u32,
    /// Bytes of frames behind the header.
    pub(crate) length: u32,
}

impl CommitHeader {
    /// The sequence number of its last record.
    pub(crate) fn last(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count).saturating_sub(1))
    }

    /// Header and frames, in bytes.
    pub(crate) fn size(&self) -> u64 {
        COMMIT_HEADER as u64 + u64::from(self.length)
    }

    /// Fills in what the hash covers.
    pub(crate) fn write_hashed(&self, commit: &mut [u8]) {
        let mut bytes = Vec::with_capacity(COMMIT_HEADER - HASHED_FROM);
        bytes.extend_from_slice(&self.prev);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.synced.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        if let Some(place) = commit.get_mut(HASHED_FROM..COMMIT_HEADER) {
            place.copy_from_slice(&bytes);
        }
    }

    /// Fills in the rest: magic number, hash and checksum, for this log and this place in the segment.
    pub(crate) fn write_seal(commit: &mut [u8], hash: &Hash, log: &LogId, at: u64) {
        if let Some(place) = commit.get_mut(8..HASHED_FROM) {
            place.copy_from_slice(hash);
        }
        let crc = commit.get(8..COMMIT_HEADER).map_or(0, |covered| checksum(log, at, covered));
        if let Some((magic, rest)) = commit.split_first_chunk_mut::<4>() {
            *magic = COMMIT_MAGIC;
            if let Some(place) = rest.first_chunk_mut::<4>() {
                *place = crc.to_le_bytes();
            }
        }
    }

    /// Reads a header; `None` if these bytes are not the header of a commit of this log at this place.
    pub(crate) fn decode(bytes: &[u8], log: &LogId, at: u64) -> Option<Self> {
        let mut fields = Fields(bytes.get(..COMMIT_HEADER)?);
        if fields.bytes()? != COMMIT_MAGIC || fields.u32()? != checksum(log, at, bytes.get(8..COMMIT_HEADER)?) {
            return None;
        }
        let header = Self {
            hash: fields.bytes()?,
            prev: fields.bytes()?,
            epoch: fields.u64()?,
            first: fields.u64()?,
            synced: fields.u64()?,
            count: fields.u32()?,
            length: fields.u32()?,
        };
        // Whoever goes by the headers alone must not take more records for told than can be there.
        let has_room = u64::from(header.count) * FRAME_HEADER as u64 <= u64::from(header.length);
        (header.count > 0 && header.first > 0 && has_room).then_some(header)
    }
}

/// The log and the place are part of it, so that a commit is recognised nowhere but where it was written.
fn checksum(log: &LogId, at: u64, covered: &[u8]) -> u32 {
    let mut place = [0; 24];
    let (id, offset) = place.split_at_mut(16);
    id.copy_from_slice(log);
    offset.copy_from_slice(&at.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), covered)
}
