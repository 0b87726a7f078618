//! A frame: one record with its header.

use super::{Fields, aligned};

/// The size of a frame's header in bytes.
pub(crate) const FRAME_HEADER: usize = 32;

/// The longest payload in bytes: 16 MiB.
pub(crate) const MAX_RECORD: usize = 16 << 20;

/// The most bytes of frames that one batch may have: 64 MiB.
pub(crate) const MAX_BATCH: usize = 64 << 20;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) crc: u32,
    /// Length of the payload in bytes.
    pub(crate) length: u32,
    pub(crate) seq: u64,
    /// Time of the append, in nanoseconds since 1970.
    pub(crate) time: u64,
    pub(crate) kind: u16,
}

/// Size of header, payload and padding, in bytes.
pub(crate) const fn frame_size(payload: u64) -> u64 {
    FRAME_HEADER as u64 + aligned(payload)
}

impl Frame {
    /// Reads a header; `None` if there are too few bytes, or if fields are set that version 1 does not have.
    #[inline]
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; FRAME_HEADER] = bytes.first_chunk()?;
        let mut fields = Fields(header);
        let frame = Self {
            crc: fields.u32()?,
            length: fields.u32()?,
            seq: fields.u64()?,
            time: fields.u64()?,
            kind: fields.u16()?,
        };
        (fields.bytes::<6>()? == [0; 6]).then_some(frame)
    }

    /// Size of the whole frame, in bytes.
    #[inline]
    pub(crate) fn size(&self) -> u64 {
        frame_size(u64::from(self.length))
    }

    /// The range that the checksum runs over, from the frame's start: everything behind checksum and length, without the
    /// padding. The length is covered as the seed ([`Frame::seed`]), so that the range begins at a multiple of eight bytes,
    /// which the processor's CRC instruction handles fastest.
    #[inline]
    pub(crate) fn covered(&self) -> std::ops::Range<u64> {
        8..FRAME_HEADER as u64 + u64::from(self.length)
    }

    /// The initial value of the checksum: the payload's length, so that the length is covered too.
    #[inline]
    pub(crate) fn seed(&self) -> u32 {
        self.length
    }

    /// Returns true if the frame, which starts at `frame[0]`, has the checksum that its header states.
    #[inline]
    pub(crate) fn holds(&self, frame: &[u8]) -> bool {
        let end = FRAME_HEADER + self.length as usize;
        frame.get(8..end).is_some_and(|covered| crc32c::crc32c_append(self.seed(), covered) == self.crc)
    }
}

/// Appends a frame. The payload is at most [`MAX_RECORD`] long.
pub(crate) fn push_frame(bytes: &mut Vec<u8>, seq: u64, time: u64, kind: u16, payload: &[u8]) {
    push_frame_with(bytes, seq, time, kind, |bytes| bytes.extend_from_slice(payload));
}

/// Appends a frame whose payload is written where it will lie. `write` only appends, at most [`MAX_RECORD`] bytes.
pub(crate) fn push_frame_with(bytes: &mut Vec<u8>, seq: u64, time: u64, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let at = bytes.len();
    let mut header = [0; FRAME_HEADER];
    let mut place = header.as_mut_slice();
    for field in [&[0; 8][..], &seq.to_le_bytes(), &time.to_le_bytes(), &kind.to_le_bytes()] {
        let Some((here, rest)) = place.split_at_mut_checked(field.len()) else { break };
        here.copy_from_slice(field);
        place = rest;
    }
    bytes.extend_from_slice(&header);
    write(bytes);
    let covered = bytes.get(at + 8..).unwrap_or_default();
    let length = u32::try_from(covered.len().saturating_sub(FRAME_HEADER - 8)).unwrap_or(u32::MAX);
    let crc = crc32c::crc32c_append(length, covered);
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<8>) {
        *place = (u64::from(crc) | (u64::from(length) << 32)).to_le_bytes();
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}
