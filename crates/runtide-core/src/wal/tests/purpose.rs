//! A log is written only for what it is for; reading is open to all.

use std::path::Path;

use super::{KIND, log_of, payload, read, segments, small};
use crate::{
    error::ErrorKind,
    wal::{RecordKind, Wal, WalPurpose, salvage, verify},
};

const PURPOSES: [WalPurpose; 4] =
    [WalPurpose::Application, WalPurpose::Events, WalPurpose::Operations, WalPurpose::Store];

/// Writes a log of several segments for this purpose, and closes it.
fn log_for(dir: &Path, purpose: WalPurpose) {
    let wal = Wal::open(dir, small().with_purpose(purpose)).unwrap();
    let kind = purpose.kind().unwrap_or(KIND);
    for seq in 1..=100 {
        wal.append_reserved_blocking(&[(kind, &payload(seq))]).unwrap();
    }
    wal.close().unwrap();
    assert!(segments(dir).len() > 1);
}

/// Makes the log one from before there was a purpose.
fn forget(dir: &Path) {
    for path in segments(dir) {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[112..114].fill(0);
        let crc = crc32c::crc32c(&bytes[..4092]);
        bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
    }
}

fn files(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    segments(dir).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn a_log_is_written_only_for_what_it_is_for_and_read_by_all() {
    for purpose in PURPOSES {
        for is_old in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            log_for(dir.path(), purpose);
            if is_old {
                forget(dir.path());
            }
            let before = files(dir.path());
            for other in PURPOSES.into_iter().filter(|other| *other != purpose) {
                let error = Wal::open(dir.path(), small().with_purpose(other)).unwrap_err();
                let named = error.message().contains(&format!("belongs to {purpose}, and {other}"));
                assert!(error.kind() == ErrorKind::InvalidInput && named, "{error}");
            }
            assert!(files(dir.path()) == before, "a refused opening changes nothing");
            assert_eq!(read(dir.path()).len(), 100);
            assert!(verify(dir.path(), None, None).unwrap().corruption.is_none());
            // Its own use goes on, and says from the next segment on what the log is for.
            log_for(dir.path(), purpose);
            assert_eq!(read(dir.path()).len(), 200);
            let last = segments(dir.path()).pop().unwrap();
            assert_ne!(std::fs::read(last).unwrap()[112..114], [0, 0]);
        }
    }
}

#[test]
fn a_log_without_records_that_says_nothing_may_be_for_anything() {
    let dir = tempfile::tempdir().unwrap();
    Wal::open(dir.path(), small()).unwrap().close().unwrap();
    assert!(Wal::open(dir.path(), small().with_purpose(WalPurpose::Store)).is_err());
    forget(dir.path());
    let wal = Wal::open(dir.path(), small().with_purpose(WalPurpose::Store)).unwrap();
    wal.append_reserved_blocking(&[(RecordKind(0x8003), b"x")]).unwrap();
    wal.close().unwrap();
    assert!(Wal::open(dir.path(), small()).is_err());
}

#[test]
fn a_purpose_of_a_later_version_is_refused_and_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 3);
    let path = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[112..114].copy_from_slice(&0x8FFF_u16.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..4092]);
    bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    for purpose in PURPOSES {
        let error = Wal::open(dir.path(), small().with_purpose(purpose)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    assert_eq!(read(dir.path()).len(), 3);
}

#[test]
fn salvage_leaves_foreign_records_out_and_keeps_the_purpose() {
    for is_old in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        log_for(&old, WalPurpose::Store);
        // As an older version allowed any program to do.
        let wal = Wal::open(&old, small().with_purpose(WalPurpose::Store)).unwrap();
        wal.append_batch_blocking(&[(RecordKind(2), b"foreign"), (RecordKind(3), b"too")]).unwrap();
        wal.close().unwrap();
        if is_old {
            forget(&old);
        }
        let report = salvage(&old, &new).unwrap();
        assert_eq!((report.recovered, report.foreign, report.lost.len()), (100, 2, 0));
        assert!(read(&new).iter().all(|record| record.kind == RecordKind(0x8003)));
        assert_eq!(read(&new).len(), 100);
        assert!(Wal::open(&new, small()).is_err());
        assert_eq!(Wal::open(&new, small().with_purpose(WalPurpose::Store)).unwrap().anchor().seq.0, 100);
    }
    // An application chooses its kinds.
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    log_of(&old, small(), 3);
    Wal::open(&old, small()).unwrap().append_blocking(RecordKind(2), b"").unwrap();
    assert_eq!((salvage(&old, &new).unwrap().foreign, read(&new).len()), (0, 4));
}
