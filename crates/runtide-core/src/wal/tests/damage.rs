//! What no crash leaves: bytes that are not what was written.

use std::{path::Path, sync::Arc};

use super::{KIND, assert_records, copy, log_of, model::Model, payload, read_with, segments, small};
use crate::{
    ErrorKind,
    wal::{OnDamage, ReadFrom, Wal, WalOptions, WalReader, fs::Disk, verify},
};

/// The bytes of a record's payload, wherever it is.
fn place_of(bytes: &[u8], seq: u64) -> usize {
    let payload = payload(seq);
    bytes.windows(payload.len()).position(|window| window == payload).unwrap()
}

#[test]
fn every_flipped_byte_is_found_or_lies_outside_of_any_record() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 60);
    let names = segments(dir.path());
    assert!(names.len() > 1);
    let path = &names[0];
    let sound = std::fs::read(path).unwrap();
    let damaged = copy(dir.path());
    let damaged_path = damaged.path().join(path.file_name().unwrap());
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&damaged_path, &bytes).unwrap();
        let verified = verify(damaged.path(), None, None);
        let found = verified.map_or(true, |verified| verified.damage.is_some());
        let reader = WalReader::open(damaged.path(), ReadFrom::Start, WalOptions::default());
        let records: Vec<_> = reader.map_or_else(|error| vec![Err(error)], Iterator::collect);
        let told = records.iter().any(Result::is_err);
        let good: Vec<_> = records.into_iter().map_while(Result::ok).collect();
        let next = assert_records(&good, 1);
        assert!(told || next == 61, "byte {at}: {} records are missing in silence", 61 - next);
        assert!(found || next == 61, "byte {at}: verify has not seen it");
        if told {
            assert!(found, "byte {at}: the reader sees what verify does not");
        }
    }
}

#[test]
fn every_flipped_byte_of_the_last_segment_is_found_or_lies_outside_or_is_the_tail() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 12);
    let path = segments(dir.path()).remove(0);
    let sound = std::fs::read(&path).unwrap();
    let folder = Path::new("/log");
    let damaged_path = folder.join(path.file_name().unwrap());
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        let damaged = Model::with_file(&damaged_path, bytes);
        match Wal::open(folder, small().with_disk(Arc::new(damaged) as Arc<dyn Disk>)) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}"),
            Ok(wal) => {
                // A checkpoint spares looking at what is before it; reading looks.
                let records: Vec<_> = wal.reader(ReadFrom::Start).unwrap().collect();
                let told = records.iter().any(Result::is_err);
                let good: Vec<_> = records.into_iter().map_while(Result::ok).collect();
                let next = assert_records(&good, 1);
                assert!(told || next == 13 || wal.repaired().is_some(), "byte {at}: next {next}");
                assert!(wal.repaired().is_none() || next >= 12, "byte {at}: more than the tail was cut");
            }
        }
    }
}

#[test]
fn damage_before_the_tail_is_refused_and_named_and_passed_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), WalOptions::default()).unwrap();
    for seq in 1..=20 {
        wal.append_blocking(KIND, &payload(seq)).unwrap();
    }
    // Not closed: there is no footer, and all of the segment is looked at.
    let damaged = copy(dir.path());
    let path = segments(damaged.path()).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let place = place_of(&bytes, 10);
    bytes[place + 3] ^= 0x40;
    std::fs::write(&path, &bytes).unwrap();

    let error = Wal::open(damaged.path(), WalOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let context = |key| error.context().iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone()).unwrap();
    assert_eq!(context("segment"), path.display().to_string());
    assert_eq!((context("seq"), context("last_seq")), ("10".to_owned(), "10".to_owned()));
    assert!(
        context("offset").parse::<usize>().unwrap() <= place && context("until").parse::<usize>().unwrap() >= place
    );
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is repaired");

    let wal = Wal::open(damaged.path(), WalOptions::default().with_on_damage(OnDamage::GoOn)).unwrap();
    assert_eq!(wal.damage().unwrap().seqs.as_ref().map(|seqs| (seqs.start().0, seqs.end().0)), Some((10, 10)));
    assert!(wal.repaired().is_none());
    assert_eq!(wal.append_blocking(KIND, &payload(21)).unwrap().0, 21);
    drop(wal);
    let records = read_with(damaged.path(), WalOptions::default().with_on_damage(OnDamage::GoOn));
    assert_eq!(records.iter().filter(|record| record.is_err()).count(), 1);
    let good: Vec<u64> = records.iter().flatten().map(|record| record.seq.0).collect();
    assert_eq!(good, (1..=21).filter(|seq| *seq != 10).collect::<Vec<_>>());
    let stopped = read_with(damaged.path(), WalOptions::default());
    assert_eq!(stopped.len(), 10, "nine records, and the error that ends it");
    assert_eq!(stopped[9].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_missing_segment_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 200);
    let names = segments(dir.path());
    assert!(names.len() > 3);
    std::fs::remove_file(&names[1]).unwrap();
    let damage = verify(dir.path(), None, None).unwrap().damage.unwrap();
    assert_eq!(damage.segment, names[1]);
    let records = read_with(dir.path(), WalOptions::default().with_on_damage(OnDamage::GoOn));
    assert_eq!(records.iter().filter(|record| record.is_err()).count(), 1);
    let missing = damage.seqs.unwrap();
    let good: Vec<u64> = records.iter().flatten().map(|record| record.seq.0).collect();
    assert_eq!(good, (1..=200).filter(|seq| !(missing.start().0..=missing.end().0).contains(seq)).collect::<Vec<_>>());
}

#[test]
fn a_byte_that_is_missing_costs_the_records_that_it_touches() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), small(), 100);
    let path = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let place = place_of(&bytes, 10);
    bytes.remove(place);
    std::fs::write(&path, &bytes).unwrap();
    let records = read_with(dir.path(), WalOptions::default().with_on_damage(OnDamage::GoOn));
    let good: Vec<u64> = records.iter().flatten().map(|record| record.seq.0).collect();
    assert_eq!(good, (1..=100).filter(|seq| *seq != 10).collect::<Vec<_>>());
    assert!(verify(dir.path(), None, None).unwrap().damage.is_some());
}
