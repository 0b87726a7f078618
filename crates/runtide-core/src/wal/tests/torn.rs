//! What a crash leaves: a tail that was not finished.

use std::{path::Path, sync::Arc};

use super::{KIND, assert_records, copy, log_of, model::Model, payload, read, read_with, segments, small};
use crate::wal::{Wal, WalOptions, fs::Disk, verify_with};

/// Where each commit of a log's only segment ends, by the last bytes of its records.
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
fn a_tail_torn_at_any_byte_is_cut_before_the_first_append_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 8);
    let path = segments(dir.path()).remove(0);
    let bytes = std::fs::read(&path).unwrap();
    let ends = commit_ends(&bytes, 8);
    let folder = Path::new("/log");
    let torn_path = folder.join(path.file_name().unwrap());
    for cut in 4096..=*ends.last().unwrap() {
        for zeros in [false, true] {
            let mut left = bytes[..cut].to_vec();
            if zeros {
                left.resize(8192, 0);
            }
            let torn = Model::with_file(&torn_path, left.clone());
            let options = || small().with_disk(Arc::new(torn.clone()) as Arc<dyn Disk>);
            // What is cut off may have been zeros.
            let whole = ends.iter().filter(|end| left.get(..**end) == Some(&bytes[..**end])).count() as u64;
            // Read alone, before anybody repairs it.
            let records: Vec<_> = read_with(folder, options()).into_iter().map(Result::unwrap).collect();
            assert_eq!(assert_records(&records, 1), whole + 1, "cut at {cut}");
            let verified = verify_with(folder, None, &options()).unwrap();
            assert_eq!((verified.records, verified.damage), (whole, None), "cut at {cut}");

            let wal = Wal::open(folder, options()).unwrap();
            let kept = ends[..usize::try_from(whole).unwrap()].last().copied().unwrap_or(4096);
            let garbage = left[kept..].iter().rposition(|byte| *byte != 0);
            assert_eq!(wal.repaired().is_some(), garbage.is_some(), "cut at {cut}");
            if let (Some(repair), Some(last)) = (wal.repaired(), garbage) {
                assert_eq!(repair.cut.bytes, kept as u64..=(kept + last) as u64);
                assert_eq!(torn.read(&repair.copy), left[kept..=kept + last]);
            }
            for seq in whole + 1..=whole + 3 {
                assert_eq!(wal.append_blocking(KIND, &payload(seq)).unwrap().0, seq);
            }
            drop(wal);
            let again = Wal::open(folder, options()).unwrap();
            assert!(again.repaired().is_none());
            assert_eq!(assert_records(&again.tail(100).unwrap(), 1), whole + 4);
            drop(again);
            assert!(verify_with(folder, None, &options()).unwrap().damage.is_none());
        }
    }
}

#[test]
fn a_log_that_was_not_closed_is_read_to_its_last_record() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), small()).unwrap();
    for seq in 1..=130 {
        wal.append_blocking(KIND, &payload(seq)).unwrap();
        if seq % 10 == 0 {
            // As it would be after a crash just now.
            let crashed = copy(dir.path());
            let wal = Wal::open(crashed.path(), small()).unwrap();
            assert!(wal.repaired().is_none());
            assert_eq!(assert_records(&wal.tail(1000).unwrap(), 1), seq + 1);
            assert_eq!(wal.append_blocking(KIND, &payload(seq + 1)).unwrap().0, seq + 1);
        }
    }
}

#[test]
fn what_was_cut_never_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 10);
    let path = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let ends = commit_ends(&bytes, 10);
    // The header of record 6 is torn; the commits behind it are still whole, but say themselves that it was durable: so put
    // back only what is not theirs to say, by making the log end there first.
    bytes[ends[4]] ^= 1;
    let stale = bytes[ends[5]..ends[9]].to_vec();
    bytes[ends[5]..].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let wal = Wal::open(dir.path(), small()).unwrap();
    assert!(wal.repaired().is_some());
    assert_eq!(wal.append_blocking(KIND, &payload(6)).unwrap().0, 6);
    drop(wal);
    // A disk that brings old sectors back, at the very place where they fit by length.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[ends[5]..ends[9]].copy_from_slice(&stale);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(assert_records(&read(dir.path()), 1), 7);
    let wal = Wal::open(dir.path(), small()).unwrap();
    assert!(wal.repaired().is_some(), "it is cut, not believed");
    assert_eq!(wal.anchor().seq.0, 6);
}

#[test]
fn what_creation_left_unfinished_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("next.tmp"), b"half a segment").unwrap();
    let wal = Wal::open(dir.path(), WalOptions::default()).unwrap();
    assert_eq!(wal.append_blocking(KIND, b"one").unwrap().0, 1);
    drop(wal);
    assert!(!dir.path().join("next.tmp").exists());
}
