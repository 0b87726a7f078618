//! Chains, keys and anchors.

use super::{log_of, payload, segments, small};
use crate::{
    error::ErrorKind,
    wal::{ReadFrom, Wal, WalKey, WalOptions, WalReader, verify},
};

fn keyed(key: u8) -> WalOptions {
    small().with_key(WalKey::new([key; 32]))
}

#[test]
fn a_keyed_log_opens_and_verifies_with_its_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), keyed(1), 100);
    let opened = |options| Wal::open(dir.path(), options).map(drop).map_err(|error| error.kind());
    assert_eq!(opened(keyed(1)), Ok(()));
    assert_eq!(opened(keyed(2)), Err(ErrorKind::Unauthenticated));
    assert_eq!(opened(small()), Err(ErrorKind::Unauthenticated));
    let verified = |key: Option<WalKey>| verify(dir.path(), None, key.as_ref()).map_err(|error| error.kind());
    assert_eq!(verified(Some(WalKey::new([1; 32]))).unwrap().records, 100);
    assert_eq!(verified(Some(WalKey::new([2; 32]))).unwrap_err(), ErrorKind::Unauthenticated);
    assert_eq!(verified(None).unwrap_err(), ErrorKind::Unauthenticated);
    // Reading needs no key: payloads are not encrypted.
    assert_eq!(WalReader::open(dir.path(), ReadFrom::Start, WalOptions::default()).unwrap().count(), 100);
    assert!(WalReader::open(dir.path(), ReadFrom::Start, keyed(2)).is_err());
    assert_eq!(format!("{:?}", keyed(1).key.unwrap()), "[redacted]");
    assert!(!format!("{:?}", keyed(255)).contains("255"));
}

#[test]
fn a_log_without_a_key_takes_none_later() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 3);
    assert_eq!(Wal::open(dir.path(), keyed(1)).unwrap_err().kind(), ErrorKind::InvalidInput);
    let key = WalKey::new([1; 32]);
    assert_eq!(verify(dir.path(), None, Some(&key)).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_record_rewritten_with_a_new_checksum_breaks_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 100);
    let path = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    // The first frame: checksum and length, then the bytes that the checksum covers.
    let (frame, length) = (4096 + 104, 32 + payload(1).len());
    bytes[frame + length - 1] ^= 1;
    let seed = u32::try_from(payload(1).len()).unwrap();
    let crc = crc32c::crc32c_append(seed, &bytes[frame + 8..frame + length]);
    bytes[frame..frame + 4].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let verified = verify(dir.path(), None, None).unwrap();
    assert_eq!((verified.records, verified.corruption.unwrap().bytes.start()), (0, &4096));
}

#[test]
fn segments_of_another_log_do_not_continue_this_one() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    log_of(a.path(), small(), 100);
    log_of(b.path(), small(), 100);
    let (ours, theirs) = (segments(a.path()), segments(b.path()));
    assert_eq!(ours[1].file_name(), theirs[1].file_name());
    std::fs::copy(&theirs[1], &ours[1]).unwrap();
    assert_eq!(verify(a.path(), None, None).unwrap().corruption.unwrap().segment, ours[1]);
    let records: Vec<_> = WalReader::open(a.path(), ReadFrom::Start, WalOptions::default()).unwrap().collect();
    assert_eq!(records.last().unwrap().as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
}
