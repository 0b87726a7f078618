//! Arbitrary files in the place of segments, and arbitrary payloads in the place of a journal's.
//!
//! Each property here has a fuzz target in `fuzz/`, which runs the same checks.

mod change;
mod checks;
mod forge;
mod place;

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use runtide_core::{
    ErrorKind,
    wal::{OnCorruption, ReadFrom, Wal, WalReader, fs::OsDisk, verify},
};

use self::{
    change::{Change, Original},
    place::{KIND, Place},
};

static ORIGINAL: LazyLock<Original> = LazyLock::new(|| on_disk(Original::make));

/// The seeds of the fuzzer: sound journals, a record in each line.
const EVENTS: &[u8] = include_bytes!("../../../../fuzz/seeds/journal/events");
const OPERATIONS: &[u8] = include_bytes!("../../../../fuzz/seeds/journal/operations");

fn lines(journal: &[u8]) -> Vec<&[u8]> {
    journal.split(|byte| *byte == b'\n').collect()
}

/// Runs in a folder that is removed afterwards.
fn on_disk<T>(work: impl FnOnce(&Place) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    work(&Place::new(Arc::new(OsDisk::default()), dir.path()))
}

/// A sound segment, with a record for each payload.
fn forged(payloads: &[Vec<u8>]) -> Vec<u8> {
    let records: Vec<_> = payloads.iter().map(|payload| (KIND.0, &payload[..])).collect();
    forge::segment(&records)
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_as_a_segment_are_an_error_and_no_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..12_000),
        first in 0_u64..4,
        headed in any::<bool>(),
    ) {
        if headed {
            // Without a sound header nothing behind it is ever read.
            let mut header = forged(&[]);
            forge::seal(&mut header);
            bytes.splice(..0, header);
        }
        on_disk(|place| checks::any_segment(place, first, &bytes));
    }

    #[test]
    fn numbers_that_lie_under_right_checksums_are_not_believed(
        payloads in payloads(),
        lies in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 1_usize..9), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = forged(&payloads);
        for (place, number, size) in lies {
            let at = place.index(bytes.len() - 8);
            bytes[at..at + size].copy_from_slice(&number.to_le_bytes()[..size]);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        on_disk(|place| checks::any_sealed_segment(place, &bytes));
    }

    #[test]
    fn lengths_that_lie_under_right_checksums_are_not_believed(
        payloads in payloads(),
        field in prop::sample::select(vec![(4096 + 80, 8), (4096 + 96, 4), (4096 + 100, 4), (4096 + 104 + 4, 4)]),
        number in any::<u64>(),
    ) {
        let mut bytes = forged(&payloads);
        bytes.resize(bytes.len().max(4096 + 256), 0);
        let (at, size) = field;
        bytes[at..at + size].copy_from_slice(&number.to_le_bytes()[..size]);
        on_disk(|place| checks::any_sealed_segment(place, &bytes));
    }

    #[test]
    fn a_log_with_changed_files_shows_only_written_records(
        changes in prop::collection::vec(any::<(u8, u8, u16, u16, u16)>().prop_map(Change), 1..6),
    ) {
        on_disk(|place| checks::changed_log(place, &ORIGINAL, &changes));
    }

    #[test]
    fn any_bytes_as_the_records_of_a_journal_are_an_error_and_no_panic(
        payloads in payloads(),
        checkpoint in any::<u64>(),
        enveloped in any::<bool>(),
    ) {
        let texts: Vec<String> = payloads
            .iter()
            .map(|payload| format!(r#"{{"v":1,"checkpoint":{checkpoint},"record":{:?}}}"#, String::from_utf8_lossy(payload)))
            .collect();
        let raw = payloads.iter().map(Vec::as_slice);
        let texts = texts.iter().map(String::as_bytes);
        let payloads: Vec<&[u8]> = if enveloped { texts.collect() } else { raw.collect() };
        on_disk(|place| checks::any_journal(place, &payloads));
    }

    #[test]
    fn a_sound_journal_whose_records_changed_is_an_error_or_opens_and_no_panic(
        journal in prop::sample::select(vec![EVENTS, OPERATIONS]),
        changes in prop::collection::vec(any::<(u8, prop::sample::Index, prop::sample::Index, u8)>(), 1..4),
    ) {
        let mut lines: Vec<Vec<u8>> = lines(journal).into_iter().map(<[u8]>::to_vec).collect();
        for (what, line, at, byte) in changes {
            let line = line.index(lines.len());
            let at = at.index(lines[line].len().max(1));
            match what % 5 {
                // In most cases another digit, letter or sign, so that it is still JSON.
                0 if !lines[line].is_empty() => lines[line][at] = b' ' + byte % 95,
                1 if lines.len() > 1 => drop(lines.remove(line)),
                2 => lines.push(lines[line].clone()),
                3 => {
                    let other = usize::from(byte) % lines.len();
                    lines.swap(line, other);
                }
                _ => lines[line].truncate(at),
            }
        }
        let payloads: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        on_disk(|place| checks::any_journal(place, &payloads));
    }
}

#[test]
fn a_log_forged_after_the_format_description_is_a_log() {
    let payloads = [b"first".to_vec(), vec![], vec![3; 1000]];
    on_disk(|place| {
        let mut bytes = forged(&payloads);
        forge::seal(&mut bytes);
        place.put(&forge::name(1), &bytes);
        let verified = verify(&place.log(), None, None).unwrap();
        assert!(verified.corruption.is_none() && verified.torn.is_none(), "{verified:?}");
        let reader = WalReader::open(&place.log(), ReadFrom::Start, place.options()).unwrap();
        let read: Vec<_> = reader.map(|record| record.unwrap().bytes.to_vec()).collect();
        assert_eq!(read, payloads);
    });
}

#[test]
fn a_commit_that_counts_more_records_than_it_has_room_for_is_none() {
    let mut bytes = forged(&[vec![1; 8], vec![2; 8], vec![3; 8]]);
    // The second commit, behind one of 104 + 40 bytes.
    let count = 4096 + 144 + 96;
    bytes[count..count + 4].copy_from_slice(&3_u32.to_le_bytes());
    forge::seal(&mut bytes);
    // Room for later appends, in this very segment.
    bytes.resize(8 << 10, 0);
    on_disk(|place| {
        place.put(&forge::name(1), &bytes);
        let refused = Wal::open(&place.log(), place.options()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
        let reader = WalReader::open(&place.log(), ReadFrom::Start, place.with(OnCorruption::Continue)).unwrap();
        let seqs: Vec<_> = reader.flatten().map(|record| record.seq.0).collect();
        // A frame that is whole is a record, and so are the frames behind it.
        assert_eq!(seqs, [1, 2, 3]);
        let wal = Wal::open(&place.log(), place.with(OnCorruption::Continue)).unwrap();
        let seq = wal.append_blocking(KIND, b"behind it").unwrap();
        assert_eq!(wal.tail(1).unwrap().last().unwrap().seq, seq);
    });
}

#[test]
fn a_commit_that_counts_the_records_of_later_commits_is_corrupt() {
    let mut bytes = forged(&[vec![1; 8], vec![2; 40], vec![3; 8]]);
    let count = 4096 + 144 + 96;
    bytes[count..count + 4].copy_from_slice(&2_u32.to_le_bytes());
    forge::seal(&mut bytes);
    bytes.resize(8 << 10, 0);
    on_disk(|place| {
        place.put(&forge::name(1), &bytes);
        for on_corruption in [OnCorruption::Stop, OnCorruption::Continue] {
            let refused = Wal::open(&place.log(), place.with(on_corruption)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt);
        }
        assert_eq!(place.files(), [(forge::name(1), bytes)], "nothing was changed");
    });
}

#[test]
fn an_empty_journal_opens_and_one_with_foreign_records_does_not() {
    assert_eq!(on_disk(|place| checks::any_journal(place, &[])), [true, true]);
    assert_eq!(on_disk(|place| checks::any_journal(place, &[b"hello"])), [false, false]);
}

#[test]
fn the_journals_that_the_fuzzer_begins_with_open() {
    let [events, _] = on_disk(|place| checks::any_journal(place, &lines(EVENTS)));
    let [_, operations] = on_disk(|place| checks::any_journal(place, &lines(OPERATIONS)));
    assert!(events && operations, "events: {events}, operations: {operations}");
}

#[test]
fn a_segment_that_is_cut_anywhere_is_read_to_its_end() {
    on_disk(|place| {
        let payloads: Vec<_> = (0..20).map(|size| vec![9; size * 7]).collect();
        let mut whole = forged(&payloads);
        forge::seal(&mut whole);
        for cut in 0..whole.len() {
            place.put(&forge::name(1), &whole[..cut]);
            let reader = WalReader::open(&place.log(), ReadFrom::Start, place.with(OnCorruption::Continue));
            if cut < 4096 {
                assert!(reader.into_iter().flatten().all(|record| record.is_err()), "cut at {cut}");
                continue;
            }
            let records: Vec<_> = reader.unwrap().map(Result::unwrap).collect();
            let same = records.iter().zip(&payloads).all(|(record, payload)| record.bytes == payload);
            assert!(same && records.len() < payloads.len(), "cut at {cut}");
        }
    });
}
