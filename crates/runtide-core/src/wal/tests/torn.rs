//! Remnants of a crash: a torn tail, and an unfinished segment.

use super::{KIND, assert_records, log_of, payload, read, segments, small};
use crate::wal::{Wal, WalOptions};

/// Offset of the end of each commit in a log's only segment, by the sizes of its records.
fn commit_ends(bytes: &[u8], records: u64) -> Vec<usize> {
    let mut at = 4096;
    (1..=records)
        .map(|seq| {
            let frame = at + 104;
            assert_eq!(bytes[frame + 8..frame + 16], seq.to_le_bytes());
            at = frame + 32 + payload(seq).len().next_multiple_of(8);
            at
        })
        .collect()
}

#[test]
fn a_tail_that_was_cut_never_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 10);
    let path = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let ends = commit_ends(&bytes, 10);
    // The header of record 6 is torn. The commits behind it are whole and state that record 6 was durable, so the log is first
    // made to end at record 6, and they are put back later.
    bytes[ends[4]] ^= 1;
    let stale = bytes[ends[5]..ends[9]].to_vec();
    bytes[ends[5]..].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let wal = Wal::open(dir.path(), small()).unwrap();
    assert!(wal.repaired().is_some());
    assert_eq!(wal.append_blocking(KIND, &payload(6)).unwrap().0, 6);
    drop(wal);
    // A disk that brings old sectors back, at the very offset where they fit by length.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[ends[5]..ends[9]].copy_from_slice(&stale);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(assert_records(&read(dir.path()), 1), 7);
    let wal = Wal::open(dir.path(), small()).unwrap();
    assert!(wal.repaired().is_some(), "the old commits are cut, not accepted");
    assert_eq!(wal.anchor().seq.0, 6);
}

#[test]
fn an_unfinished_segment_left_by_a_crash_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("next.tmp"), b"half a segment").unwrap();
    let wal = Wal::open(dir.path(), WalOptions::default()).unwrap();
    assert_eq!(wal.append_blocking(KIND, b"one").unwrap().0, 1);
    drop(wal);
    assert!(!dir.path().join("next.tmp").exists());
}
