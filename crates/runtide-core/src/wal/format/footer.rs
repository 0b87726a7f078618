//! The footer of a segment that is full or was closed in order: its contents, and an index of them.

use super::{Fields, Hash, LogId};

/// The size of a footer's fixed part in bytes; it ends at the file's end.
pub(crate) const TRAILER: usize = 128;

/// The size of an entry of the index in bytes.
const ENTRY: usize = 16;

const MAGIC: [u8; 4] = *b"RTF1";

/// An entry of the index: the offset of a commit, by the number of its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) at: u64,
}

/// The contents of a segment when the footer was written. Later commits may have been appended to the same segment since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) first: u64,
    /// Number of the last record; `first - 1` if the segment has none.
    pub(crate) last: u64,
    pub(crate) commits: u64,
    /// The hash of the last commit.
    pub(crate) hash: Hash,
    /// Offset behind the last commit.
    pub(crate) end: u64,
    /// The epoch of the last commit.
    pub(crate) epoch: u64,
    /// Every record up to this number was durable when the footer was written.
    pub(crate) synced: u64,
    /// A sparse index of the commits, ascending by number and by offset.
    pub(crate) index: Vec<Entry>,
}

impl Footer {
    pub(crate) fn encode(&self, log: &LogId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.index.len() * ENTRY + TRAILER);
        for entry in &self.index {
            bytes.extend_from_slice(&entry.seq.to_le_bytes());
            bytes.extend_from_slice(&entry.at.to_le_bytes());
        }
        let trailer = bytes.len();
        for field in [self.first, self.last, self.commits] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&self.hash);
        for field in [self.end, self.epoch, self.synced, self.index.len() as u64] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.resize(trailer + TRAILER - 8, 0);
        let crc = crc32c::crc32c_append(crc32c::crc32c(log), &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&MAGIC);
        bytes
    }

    /// The length of the whole footer in bytes, by the file's last [`TRAILER`] bytes; not yet checked against anything.
    pub(crate) fn length(trailer: &[u8]) -> Option<u64> {
        let mut fields = Fields(trailer.get(..TRAILER)?);
        if trailer.last_chunk() != Some(&MAGIC) {
            return None;
        }
        fields.bytes::<80>()?;
        fields.u64()?.checked_mul(ENTRY as u64)?.checked_add(TRAILER as u64)
    }

    /// Reads a whole footer; `None` if its magic number, checksum or size is wrong.
    pub(crate) fn decode(bytes: &[u8], log: &LogId) -> Option<Self> {
        let (rest, magic) = bytes.split_last_chunk::<4>()?;
        let (covered, crc) = rest.split_last_chunk::<4>()?;
        let sound = crc32c::crc32c_append(crc32c::crc32c(log), covered) == u32::from_le_bytes(*crc);
        if *magic != MAGIC || !sound {
            return None;
        }
        let (entries, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER)?)?;
        let index = entries.chunks_exact(ENTRY).filter_map(|entry| {
            let mut fields = Fields(entry);
            Some(Entry { seq: fields.u64()?, at: fields.u64()? })
        });
        let index: Vec<Entry> = index.collect();
        let mut fields = Fields(trailer);
        let footer = Self {
            first: fields.u64()?,
            last: fields.u64()?,
            commits: fields.u64()?,
            hash: fields.bytes()?,
            end: fields.u64()?,
            epoch: fields.u64()?,
            synced: fields.u64()?,
            index,
        };
        (fields.u64()? == footer.index.len() as u64).then_some(footer)
    }
}
