//! A log is written only for what it is for; reading is open to all.

use std::{num::NonZeroU64, path::Path};

use super::{KIND, log_of, payload, read, segments, small};
use crate::{
    error::ErrorKind,
    wal::{Durability, OnCorruption, RecordKind, Wal, WalOptions, WalPurpose, salvage, verify},
};

const PURPOSES: [WalPurpose; 4] =
    [WalPurpose::Application, WalPurpose::Events, WalPurpose::Operations, WalPurpose::Store];

/// Writes a log of several segments for this purpose, and closes it.
fn log_for(dir: &Path, purpose: WalPurpose) {
    append_to(dir, small().with_purpose(purpose));
    assert!(segments(dir).len() > 1);
}

/// Appends 100 records of the purpose's kind, one commit each, and closes the log.
fn append_to(dir: &Path, options: WalOptions) {
    let purpose = options.purpose;
    let wal = Wal::open(dir, options).unwrap();
    let kind = purpose.kind().unwrap_or(KIND);
    for seq in 1..=100 {
        wal.append_reserved_blocking(&[(kind, &payload(seq))]).unwrap();
    }
    wal.close().unwrap();
}

fn change(path: &Path, change: impl FnOnce(&mut [u8])) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Offset of the kind in a segment's first record.
const FIRST_KIND: usize = 4096 + 104 + 24;

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
    // Salvage keeps what it does not know.
    let new = dir.path().join("new");
    assert_eq!(salvage(dir.path(), &new).unwrap().recovered, 3);
    assert_eq!(Wal::open(&new, small()).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(read(&new).len(), 3);
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

/// A way to corrupt the bytes of a log's first segment.
type Corrupt = fn(&mut [u8]);

#[test]
fn a_salvaged_log_opens_for_its_own_use_with_every_sound_record() {
    let corruptions: [(&str, Corrupt); 5] = [
        ("magic number of the header", |bytes| bytes[0] ^= 1),
        ("kind, which becomes another journal's", |bytes| bytes[FIRST_KIND] ^= 2),
        ("kind, which becomes unknown", |bytes| bytes[FIRST_KIND] ^= 16),
        ("magic number of the first commit", |bytes| bytes[4096] ^= 1),
        ("header and first commits", |bytes| bytes[..8192].fill(0)),
    ];
    for (place, corrupt) in corruptions {
        for purpose in PURPOSES {
            for (is_old, segment) in [(false, 16 << 10), (true, 16 << 10), (false, 64 << 10), (true, 64 << 10)] {
                let dir = tempfile::tempdir().unwrap();
                let (old, new) = (dir.path().join("old"), dir.path().join("new"));
                let options = WalOptions::default()
                    .with_durability(Durability::Os)
                    .with_segment_bytes(NonZeroU64::new(segment))
                    .with_purpose(purpose);
                append_to(&old, options.clone());
                if is_old {
                    forget(&old);
                }
                let paths = segments(&old);
                change(&paths[0], corrupt);
                let case = format!("{place}, {purpose}, old: {is_old}, segments: {}", paths.len());

                let report = salvage(&old, &new).unwrap();
                let mut offset = 4096;
                let sound = (1..=100)
                    .filter(|seq| {
                        let frame = offset + 104;
                        offset = frame + 32 + payload(*seq).len().next_multiple_of(8);
                        match place {
                            "header and first commits" => frame >= 8192,
                            _ => !place.starts_with("kind") || *seq != 1,
                        }
                    })
                    .collect::<Vec<_>>();
                let records = read(&new);
                let kind = purpose.kind().unwrap_or(KIND);
                let kept = records.iter().filter(|record| record.kind == kind && record.bytes == payload(record.seq.0));
                let kept = kept.map(|record| record.seq.0).collect::<Vec<_>>();
                assert!(records.iter().all(|record| [kind, RecordKind::LOST].contains(&record.kind)), "{case}");
                assert_eq!((kept, report.foreign), (sound, 0), "{case}: {:#?}", report.lost);
                for other in PURPOSES.into_iter().filter(|other| *other != purpose) {
                    assert!(Wal::open(&new, options.clone().with_purpose(other)).is_err(), "{case}: {other}");
                }
                append_to(&new, options);
            }
        }
    }
}

#[test]
fn an_older_log_whose_first_record_is_corrupt_is_still_its_own() {
    for purpose in PURPOSES {
        for flip in [2, 16] {
            let dir = tempfile::tempdir().unwrap();
            append_to(dir.path(), WalOptions::default().with_purpose(purpose));
            forget(dir.path());
            change(&segments(dir.path())[0], |bytes| bytes[FIRST_KIND] ^= flip);
            // An orderly close would let the next opening begin at the footer.
            change(&segments(dir.path())[0], |bytes| bytes.rchunks_mut(4096).next().unwrap().fill(0));
            let options = WalOptions::default().with_purpose(purpose);
            let error = Wal::open(dir.path(), options.clone()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.context().iter().any(|(name, _)| name == "offset"), "{error}");
            let options = options.with_on_corruption(OnCorruption::Continue);
            for other in PURPOSES.into_iter().filter(|other| *other != purpose) {
                let error = Wal::open(dir.path(), options.clone().with_purpose(other)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            }
            Wal::open(dir.path(), options).unwrap();
        }
    }
}

#[test]
fn an_older_log_whose_last_segment_has_no_record_is_still_its_own() {
    for purpose in PURPOSES {
        let dir = tempfile::tempdir().unwrap();
        log_for(dir.path(), purpose);
        forget(dir.path());
        // As if the process had ended between the segment's header and its first commit.
        change(&segments(dir.path()).pop().unwrap(), |bytes| bytes[4096..].fill(0));
        for other in PURPOSES.into_iter().filter(|other| *other != purpose) {
            let error = Wal::open(dir.path(), small().with_purpose(other)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        Wal::open(dir.path(), small().with_purpose(purpose)).unwrap();
    }
}

#[test]
fn salvage_gives_a_log_back_to_the_store_although_foreign_records_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let options = WalOptions::default().with_purpose(WalPurpose::Store);
    let wal = Wal::open(&old, options.clone()).unwrap();
    for kind in [0x8003, 2, 0x8003, 3] {
        wal.append_reserved_blocking(&[(RecordKind(kind), b"x")]).unwrap();
    }
    wal.close().unwrap();
    forget(&old);
    change(&segments(&old)[0], |bytes| bytes[FIRST_KIND] ^= 1);
    let report = salvage(&old, &new).unwrap();
    assert_eq!((report.recovered, report.foreign), (1, 2));
    Wal::open(&new, options).unwrap();
}
