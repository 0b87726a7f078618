//! Corruption, which no crash leaves: bytes that are not those that were written.

use super::{KIND, copy, log_of, payload, read_with, segments, small};
use crate::{
    error::ErrorKind,
    wal::{OnCorruption, Wal, WalOptions, verify},
};

/// Offset of a record's payload in the file.
fn offset_of(bytes: &[u8], seq: u64) -> usize {
    let payload = payload(seq);
    bytes.windows(payload.len()).position(|window| window == payload).unwrap()
}

#[test]
fn corruption_before_the_tail_is_refused_with_its_range_unless_the_options_say_to_continue() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), WalOptions::default()).unwrap();
    for seq in 1..=20 {
        wal.append_blocking(KIND, &payload(seq)).unwrap();
    }
    // The log is not closed: there is no footer, so that opening reads the whole segment.
    let corrupt = copy(dir.path());
    let path = segments(corrupt.path()).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let offset = offset_of(&bytes, 10);
    bytes[offset + 3] ^= 0x40;
    std::fs::write(&path, &bytes).unwrap();

    let error = Wal::open(corrupt.path(), WalOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let context = |key| error.context().iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone()).unwrap();
    assert_eq!(context("segment"), path.display().to_string());
    assert_eq!((context("seq"), context("last_seq")), ("10".to_owned(), "10".to_owned()));
    assert!(
        context("offset").parse::<usize>().unwrap() <= offset && context("until").parse::<usize>().unwrap() >= offset
    );
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is repaired");

    let wal = Wal::open(corrupt.path(), WalOptions::default().with_on_corruption(OnCorruption::Continue)).unwrap();
    assert_eq!(wal.corruption().unwrap().seqs.as_ref().map(|seqs| (seqs.start().0, seqs.end().0)), Some((10, 10)));
    assert!(wal.repaired().is_none());
    assert_eq!(wal.append_blocking(KIND, &payload(21)).unwrap().0, 21);
    drop(wal);
    let records = read_with(corrupt.path(), WalOptions::default().with_on_corruption(OnCorruption::Continue));
    assert_eq!(records.iter().filter(|record| record.is_err()).count(), 1);
    let good: Vec<u64> = records.iter().flatten().map(|record| record.seq.0).collect();
    assert_eq!(good, (1..=21).filter(|seq| *seq != 10).collect::<Vec<_>>());
    let stopped = read_with(corrupt.path(), WalOptions::default());
    assert_eq!(stopped.len(), 10, "nine records, and the error that ends it");
    assert_eq!(stopped[9].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_byte_that_is_missing_costs_the_records_that_it_touches() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 100);
    let path = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let offset = offset_of(&bytes, 10);
    bytes.remove(offset);
    std::fs::write(&path, &bytes).unwrap();
    let records = read_with(dir.path(), WalOptions::default().with_on_corruption(OnCorruption::Continue));
    let good: Vec<u64> = records.iter().flatten().map(|record| record.seq.0).collect();
    assert_eq!(good, (1..=100).filter(|seq| *seq != 10).collect::<Vec<_>>());
    assert!(verify(dir.path(), None, None).unwrap().corruption.is_some());
}
