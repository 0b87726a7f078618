//! The bare loops' format: a frame is length, CRC-32C of the record, record; a block of frames may have a BLAKE3 before it.

/// Length and checksum.
pub(super) const HEADER: usize = 8;

/// Encodes one record.
#[inline]
pub(super) fn push_frame(out: &mut Vec<u8>, record: &[u8]) {
    let length = u32::try_from(record.len()).expect("256 bytes");
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&crc32c::crc32c(record).to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(record);
}

/// Reads whole frames off the front, and returns how many bytes they had.
#[inline]
pub(super) fn read_frames(bytes: &[u8], mut see: impl FnMut(&[u8])) -> usize {
    let mut rest = bytes;
    while let Some((header, behind)) = rest.split_first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let Some((record, after)) = behind.split_at_checked(length) else { break };
        assert_eq!(crc32c::crc32c(record), u32::from_le_bytes([c0, c1, c2, c3]), "a damaged record");
        see(record);
        rest = after;
    }
    bytes.len() - rest.len()
}
