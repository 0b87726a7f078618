//! The bare loops' format: a frame says as much of its record as Runtide's does, its length, number, time and kind, under a
//! CRC-32C; a block of frames may have a BLAKE3 before it.

/// Checksum, length, number, time, kind.
pub(super) const HEADER: usize = 32;

/// Encodes one record. Its time is the block's, which costs nothing.
#[inline]
pub(super) fn push_frame(out: &mut Vec<u8>, number: usize, record: &[u8]) {
    let at = out.len();
    let length = u32::try_from(record.len()).expect("256 bytes");
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..16].copy_from_slice(&(number as u64).to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(record);
    let crc = crc32c::crc32c_append(length, &out[at + 8..]);
    out[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads whole frames off the front, and returns how many bytes they had.
#[inline]
pub(super) fn read_frames(bytes: &[u8], mut see: impl FnMut(&[u8])) -> usize {
    let mut rest = bytes;
    while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
        let [c0, c1, c2, c3, l0, l1, l2, l3, ..] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let Some((frame, after)) = rest.split_at_checked(HEADER + length as usize) else { break };
        let crc = crc32c::crc32c_append(length, &frame[8..]);
        assert_eq!(crc, u32::from_le_bytes([c0, c1, c2, c3]), "a corrupt record");
        see(&frame[HEADER..]);
        rest = after;
    }
    bytes.len() - rest.len()
}
