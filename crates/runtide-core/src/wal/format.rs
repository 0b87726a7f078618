//! The file format, version 1: pure functions between values and little-endian bytes. `docs/wal-format.md` describes the bytes.

mod commit;
mod footer;
mod frame;
mod header;

pub(super) use self::{
    commit::{COMMIT_HEADER, COMMIT_MAGIC, CommitHeader, HASHED_FROM},
    footer::{Entry, Footer, TRAILER},
    frame::{FRAME_HEADER, Frame, MAX_BATCH, MAX_RECORD, frame_size, push_frame, push_frame_with},
    header::{BadHeader, SEGMENT_HEADER, SegmentHeader, VERSION},
};

/// Id of one log: 16 random bytes, the same in all its segments.
pub(super) type LogId = [u8; 16];

/// A BLAKE3 hash: 32 bytes.
pub(super) type Hash = [u8; 32];

/// Reads fields one after the other; `None` past the end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    #[inline]
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    #[inline]
    fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    #[inline]
    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    #[inline]
    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
}

/// Rounds up to eight bytes, the alignment of everything in a segment, so that a length field is never torn.
pub(super) const fn aligned(len: u64) -> u64 {
    len.next_multiple_of(8)
}
