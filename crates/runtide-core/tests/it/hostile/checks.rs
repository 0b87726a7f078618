//! The properties that hold for any files in the folder of a log. Shared by the tests and the fuzz targets.

use std::io;

use runtide_core::wal::{
    OnCorruption, ReadFrom, Record, RecordKind, Seq, Wal, WalReader, dump_with, salvage_with, verify_with,
};
use runtide_journal::{JournalOptions, OperationLog, RuntimeJournal};

use super::{
    change::{Change, Original},
    forge,
    place::{KIND, Place},
};

const BOTH: [OnCorruption; 2] = [OnCorruption::Stop, OnCorruption::Continue];

/// Far more records than the files of any check have: a reader that gives so many never ends.
const MANY: usize = 100_000;

/// Checks any bytes as a segment.
pub(crate) fn any_segment(place: &Place, first: u64, bytes: &[u8]) {
    place.put(&forge::name(first), bytes);
    everything(place);
}

/// Checks the same with valid checksums and hashes, so that the fields behind them are read as well.
pub(crate) fn any_sealed_segment(place: &Place, bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    forge::seal(&mut bytes);
    any_segment(place, 1, &bytes);
}

/// Checks a log whose files were changed.
pub(crate) fn changed_log(place: &Place, original: &Original, changes: &[Change]) {
    original.put(changes, place);
    let whole = |records: &[Record]| records.iter().map(|record| record.seq.0).eq(seqs(original));
    let mut shown = Vec::new();
    for on_corruption in BOTH {
        let Ok(reader) = WalReader::open(&place.log(), ReadFrom::Start, place.with(on_corruption)) else { continue };
        let records = records(reader);
        assert_original(&records, original, on_corruption);
        shown.push(records);
    }
    if let Ok(verified) = verify_with(&place.log(), Some(&original.anchor), &place.options())
        && verified.corruption.is_none()
        && verified.first == original.records[0].seq
    {
        // A log that verifies has the written records, as far as it goes; with its anchor it has all of them.
        let stopped = shown.first().unwrap();
        assert_eq!(stopped.len() as u64, verified.records, "{verified:?}");
        assert!(stopped.iter().zip(&original.records).all(|(shown, original)| shown == original));
        assert!(!verified.anchored || whole(stopped), "anchored, and not all of it: {verified:?}");
    }
    everything(place);
    let Ok(reader) = WalReader::open(&place.log(), ReadFrom::Start, place.with(OnCorruption::Continue)) else { return };
    // Openings and appends have neither destroyed a record nor brought one back.
    let mut records = records(reader);
    records.retain(|record| record.bytes != STILL_USABLE);
    assert_original(&records, original, OnCorruption::Continue);
}

fn seqs(original: &Original) -> impl Iterator<Item = u64> + '_ {
    original.records.iter().map(|record| record.seq.0)
}

/// Asserts that each record is one of the originals, none comes twice, and none is left out where reading stops at corruption.
fn assert_original(records: &[Record], original: &Original, on_corruption: OnCorruption) {
    for pair in records.windows(2) {
        let (before, after) = (pair[0].seq.0, pair[1].seq.0);
        assert!(
            before < after && (on_corruption == OnCorruption::Continue || before + 1 == after),
            "{after} follows {before}"
        );
    }
    for record in records {
        let at = original.records.binary_search_by_key(&record.seq, |record| record.seq);
        // Retention had dropped the earlier records. A lost begin file hides that they were dropped; it changes no contents.
        let Ok(at) = at else { panic!("record {} was never there, or was dropped", record.seq) };
        assert_eq!(record, &original.records[at]);
    }
}

fn records(reader: WalReader) -> Vec<Record> {
    let mut found = Vec::new();
    for (number, record) in reader.enumerate() {
        assert!(number < MANY, "it never ends");
        found.extend(record);
    }
    found
}

const STILL_USABLE: &[u8] = b"still usable";

/// Makes every call that a log has: nothing panics, reading ends, and a log that opens can be written.
pub(crate) fn everything(place: &Place) {
    let log = &place.log();
    let mut last = Seq(0);
    for on_corruption in BOTH {
        for from in [ReadFrom::Start, ReadFrom::End, ReadFrom::Seq(Seq(3))] {
            if let Ok(reader) = WalReader::open(log, from, place.with(on_corruption)) {
                last = last.max(records(reader).last().map_or(Seq(0), |record| record.seq));
            }
        }
    }
    let verified = verify_with(log, None, &place.options());
    let _ = dump_with(log, ReadFrom::Start, &mut io::sink(), &place.options());
    // Salvage writes a record for each missing number, and a forged number may skip many: that takes time, but no memory.
    if last < Seq(MANY as u64)
        && let Ok(report) = salvage_with(log, &place.salvaged(), &place.options())
    {
        let saved = verify_with(&place.salvaged(), None, &place.options()).unwrap();
        assert!(saved.corruption.is_none() && saved.records >= report.recovered, "{report:?}: {saved:?}");
    }
    for on_corruption in BOTH {
        let Ok(wal) = Wal::open(log, place.with(on_corruption)) else { continue };
        let head = wal.anchor().seq;
        // A log that verifies opens without loss.
        if let Ok(verified) = &verified
            && verified.corruption.is_none()
            && let Some(verified) = verified.head
        {
            assert!(head >= verified.seq, "{head} is left of {}", verified.seq);
        }
        let Ok(seq) = wal.append_blocking(KIND, STILL_USABLE) else { continue };
        // Behind corruption, forged commits may still lead the reader past it.
        if wal.corruption().is_none() {
            let last = wal.tail(1).unwrap();
            assert_eq!((last[0].seq, &last[0].bytes[..]), (seq, STILL_USABLE));
        }
        wal.close().unwrap();
        let end = WalReader::open(log, ReadFrom::End, place.with(OnCorruption::Continue)).unwrap();
        assert!(end.next_seq() == seq.next() || wal.corruption().is_some());
    }
}

/// The kinds of the journals: of events, and of operations.
pub(crate) const JOURNALS: [RecordKind; 2] = [RecordKind(0x8001), RecordKind(0x8002)];

/// Checks any bytes as the records of a journal: it opens, or fails with an error.
pub(crate) fn any_journal(place: &Place, payloads: &[&[u8]]) -> [bool; 2] {
    let journal = |name: &str, kind: RecordKind| {
        let records: Vec<_> = payloads.iter().map(|payload| (kind.0, *payload)).collect();
        let mut bytes = forge::segment(&records);
        forge::seal(&mut bytes);
        let place = Place::new(std::sync::Arc::clone(&place.disk), &place.log().join(name));
        place.put(&forge::name(1), &bytes);
        place
    };
    let (events, operations) = (journal("events", JOURNALS[0]), journal("operations", JOURNALS[1]));
    let options = |place: &Place| JournalOptions::default().with_wal(place.options());
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let opened = RuntimeJournal::open(&events.log(), options(&events));
    let events_opened = opened.is_ok();
    if let Ok(journal) = opened {
        let row = journal.table().iter().next().map(|row| (row.backend.clone(), row.id.clone()));
        let (backend, id) = row.unwrap_or_else(|| ("docker:local".into(), "web".into()));
        let _ = journal.cursor(&backend);
        tokio.block_on(async {
            let mut history = journal.history(&backend, &id).await.unwrap();
            let mut events = 0;
            while history.next().await.is_some() {
                events += 1;
                assert!(events < MANY, "it never ends");
            }
        });
    }
    let opened = OperationLog::open(&operations.log(), "owner".into(), options(&operations));
    let operations_opened = opened.is_ok();
    if let Ok(log) = opened {
        let before = log.in_flight().len();
        let submitted = tokio.block_on(log.submit("still usable", &()));
        assert_eq!(log.in_flight().len(), before + usize::from(submitted.is_ok()));
    }
    [events_opened, operations_opened]
}
