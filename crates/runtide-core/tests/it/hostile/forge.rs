//! Segments that no log wrote, with checksums and hashes that hold: made after `docs/wal-format.md` alone, without the
//! crate's own code.

const DATA: usize = 4096;
const COMMIT: usize = 104;
const FRAME: usize = 32;
const LOG: [u8; 16] = *b"a forged log 016";

/// The name of a segment.
pub(crate) fn name(first: u64) -> String {
    format!("{first:020}.wal")
}

/// A first segment with these records, each in its own commit. Hashes and checksums are still missing.
pub(crate) fn segment(records: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; DATA];
    bytes[..8].copy_from_slice(b"RUNTIDEW");
    put(&mut bytes, 8, &1_u32.to_le_bytes());
    put(&mut bytes, 16, &LOG);
    put(&mut bytes, 32, &1_u64.to_le_bytes());
    put(&mut bytes, 80, &1_u64.to_le_bytes());
    for ((kind, payload), seq) in records.iter().zip(1_u64..) {
        let at = bytes.len();
        let size = (FRAME + payload.len()).next_multiple_of(8);
        bytes.resize(at + COMMIT + size, 0);
        put(&mut bytes, at, b"RTC1");
        put(&mut bytes, at + 72, &1_u64.to_le_bytes());
        put(&mut bytes, at + 80, &seq.to_le_bytes());
        put(&mut bytes, at + 88, &(seq - 1).to_le_bytes());
        put(&mut bytes, at + 96, &1_u32.to_le_bytes());
        put(&mut bytes, at + 100, &u32::try_from(size).unwrap().to_le_bytes());
        let frame = at + COMMIT;
        put(&mut bytes, frame + 4, &u32::try_from(payload.len()).unwrap().to_le_bytes());
        put(&mut bytes, frame + 8, &seq.to_le_bytes());
        put(&mut bytes, frame + 24, &kind.to_le_bytes());
        put(&mut bytes, frame + FRAME, payload);
    }
    bytes
}

/// Makes every checksum and hash of a segment valid again, as far as its lengths lead.
pub(crate) fn seal(bytes: &mut [u8]) {
    if bytes.len() < DATA {
        return;
    }
    let log: [u8; 16] = bytes[16..32].try_into().unwrap();
    if number(bytes, 32, 8) == 1 && number(bytes, 12, 4) == 0 {
        let genesis = blake3::Hasher::new().update(b"runtide wal 1 genesis ").update(&log).finalize();
        put(bytes, 40, genesis.as_bytes());
    }
    let crc = crc32c::crc32c(&bytes[..DATA - 4]);
    put(bytes, DATA - 4, &crc.to_le_bytes());
    let mut prev: [u8; 32] = bytes[40..72].try_into().unwrap();
    let mut at = DATA;
    while bytes.get(at..at + 4) == Some(&b"RTC1"[..]) && bytes.len() >= at + COMMIT {
        let end = at + COMMIT + usize::try_from(number(bytes, at + 100, 4)).unwrap();
        let (end, whole) = (end.min(bytes.len()), end <= bytes.len());
        seal_frames(bytes, at + COMMIT, end);
        put(bytes, at + 40, &prev);
        prev = *blake3::hash(&bytes[at + 40..end]).as_bytes();
        put(bytes, at + 8, &prev);
        let mut place = log.to_vec();
        place.extend_from_slice(&(at as u64).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&place), &bytes[at + 8..at + COMMIT]);
        put(bytes, at + 4, &crc.to_le_bytes());
        if !whole {
            break;
        }
        at = end;
    }
    seal_footer(bytes, &log, at);
}

fn seal_frames(bytes: &mut [u8], mut at: usize, end: usize) {
    while at + FRAME <= end {
        let length = number(bytes, at + 4, 4);
        let next = at + FRAME + usize::try_from(length).unwrap();
        if next > end {
            break;
        }
        // Continued from the value of the length field.
        let crc = crc32c::crc32c_append(u32::try_from(length).unwrap(), &bytes[at + 8..next]);
        put(bytes, at, &crc.to_le_bytes());
        at = next.next_multiple_of(8);
    }
}

fn seal_footer(bytes: &mut [u8], log: &[u8; 16], behind: usize) {
    let size = bytes.len();
    if size < behind + 128 || bytes[size - 4..] != *b"RTF1" {
        return;
    }
    let entries = number(bytes, size - 48, 8);
    let length = entries.saturating_mul(16).saturating_add(128);
    let Some(start) = usize::try_from(length).ok().and_then(|length| size.checked_sub(length)) else { return };
    let crc = crc32c::crc32c_append(crc32c::crc32c(log), &bytes[start..size - 8]);
    put(bytes, size - 8, &crc.to_le_bytes());
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let mut number = [0; 8];
    number[..size].copy_from_slice(&bytes[at..at + size]);
    u64::from_le_bytes(number)
}
