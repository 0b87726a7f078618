//! The header of a commit. A commit holds the records that one sync made durable together.

use super::{FRAME_HEADER, Fields, Hash, LogId};

/// The size of a commit's header in bytes.
pub(crate) const COMMIT_HEADER: usize = 104;

/// Magic number at the start of each commit.
pub(crate) const COMMIT_MAGIC: [u8; 4] = *b"RTC1";

/// Offset in the commit from which the hash covers it, up to its end: one contiguous range, so that it is computed in one call.
pub(crate) const HASHED_FROM: usize = 40;

/// The fields of a commit's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitHeader {
    /// BLAKE3 of the rest of the header and of all frames.
    pub(crate) hash: Hash,
    /// The hash of the commit before it.
    pub(crate) prev: Hash,
    /// The epoch of the opening that wrote it.
    pub(crate) epoch: u64,
    /// The sequence number of its first record.
    pub(crate) first: u64,
    /// Every record up to this number was durable when the commit was written. An unreadable commit whose records lie within
    /// this range is therefore corruption, and not a torn tail.
    pub(crate) synced: u64,
    /// Number of records; at least one.
    pub(crate) count: u32,
    /// Bytes of frames behind the header.
    pub(crate) length: u32,
}

impl CommitHeader {
    /// The sequence number of its last record.
    pub(crate) fn last(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count).saturating_sub(1))
    }

    /// Size of header and frames, in bytes.
    pub(crate) fn size(&self) -> u64 {
        COMMIT_HEADER as u64 + u64::from(self.length)
    }

    /// Writes the fields that the hash covers.
    pub(crate) fn write_hashed(&self, commit: &mut [u8]) {
        let mut bytes = Vec::with_capacity(COMMIT_HEADER - HASHED_FROM);
        bytes.extend_from_slice(&self.prev);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.synced.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        if let Some(slot) = commit.get_mut(HASHED_FROM..COMMIT_HEADER) {
            slot.copy_from_slice(&bytes);
        }
    }

    /// Writes the rest: magic number, hash and checksum, for this log and this offset in the segment.
    pub(crate) fn write_seal(commit: &mut [u8], hash: &Hash, log: &LogId, at: u64) {
        if let Some(slot) = commit.get_mut(8..HASHED_FROM) {
            slot.copy_from_slice(hash);
        }
        let crc = commit.get(8..COMMIT_HEADER).map_or(0, |covered| checksum(log, at, covered));
        if let Some((magic, rest)) = commit.split_first_chunk_mut::<4>() {
            *magic = COMMIT_MAGIC;
            if let Some(slot) = rest.first_chunk_mut::<4>() {
                *slot = crc.to_le_bytes();
            }
        }
    }

    /// Reads a header; `None` if these bytes are not the header of a commit of this log at this offset.
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
        // A reader that goes by the headers alone must not believe in more records than fit into `length`.
        let has_room = u64::from(header.count) * FRAME_HEADER as u64 <= u64::from(header.length);
        (header.count > 0 && header.first > 0 && has_room).then_some(header)
    }

    /// An id for a log whose own is lost: the one, of those that are zero but for the last four bytes, with which this header's
    /// checksum holds. All checksums of the log hold with it, as they depend on the id only by its checksum. `None` if these bytes
    /// are no header; for any others there is one, so that the frames behind them have to prove it.
    pub(crate) fn id_of(bytes: &[u8], at: u64) -> Option<LogId> {
        let mut fields = Fields(bytes.get(..COMMIT_HEADER)?);
        if fields.bytes()? != COMMIT_MAGIC {
            return None;
        }
        let (stated, covered) = (fields.u32()?, bytes.get(8..COMMIT_HEADER)?);
        let id = |tail: u32| {
            let mut id = LogId::default();
            if let Some(place) = id.last_chunk_mut() {
                *place = tail.to_le_bytes();
            }
            id
        };
        let plain = checksum(&id(0), at, covered);
        // The checksum is linear: each bit of the id flips the same bits of it, whatever the others are. So this is a system of 32
        // equations, which elimination solves. Each row: bits of the checksum, and the bits of the id that flip them.
        let reduce =
            |rows: &[(u32, u32)], start: (u32, u32)| {
                rows.iter().fold(start, |(flips, tail), row| {
                    if flips ^ row.0 < flips { (flips ^ row.0, tail ^ row.1) } else { (flips, tail) }
                })
            };
        let mut rows = Vec::with_capacity(32);
        for bit in 0..u32::BITS {
            let tail = 1 << bit;
            rows.push(reduce(&rows, (checksum(&id(tail), at, covered) ^ plain, tail)));
        }
        let (rest, tail) = reduce(&rows, (stated ^ plain, 0));
        (rest == 0).then(|| id(tail))
    }
}

/// The header's checksum. It covers the log's id and the offset, so that a commit is valid only where it was written.
fn checksum(log: &LogId, at: u64, covered: &[u8]) -> u32 {
    let mut slot = [0; 24];
    let (id, offset) = slot.split_at_mut(16);
    id.copy_from_slice(log);
    offset.copy_from_slice(&at.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&slot), covered)
}
