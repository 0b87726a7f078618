//! W8: retention.

use std::{path::Path, time::Duration};

use runtide_core::wal::{OnCorruption, ReadFrom, Retention, Seq};

use super::{DIR, Held, SEGMENT, Tried, after, is_data, options};
use crate::wal::{Effort, Entries, LogHarness, Looked, ModelDisk, OpenLog, WalLaw, WalLawResult};

const RECORDS: u64 = 150;

/// The log that policies are tried on has many segments, so that one segment more or less differs from a wrong cut.
const LONG: u64 = 600;

/// Each policy drops old records of a log, under open readers: no more than it asks for, and no less than whole segments
/// allow. Ages are none and a year, since the writer's clock cannot be set. And each retention is cut off at every operation
/// with every subset of the names and bytes that were not synced, then opened, read, appended to and cut off again.
pub(crate) fn w8_retention(log: &dyn LogHarness, effort: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W8, log };
    let whole = ModelDisk::new();
    tried.written(&whole, RECORDS)?;
    policies(tried)?;
    let mut states = 0;
    for keep in [30, 70, RECORDS] {
        states += interrupted(tried, &whole.copy(), keep, effort)?;
    }
    Ok(Looked::at(states, "crash states"))
}

/// A file with fewer bytes is no segment.
const SMALL: u64 = 64;

/// Reads every record; the first number, when the rest is complete up to the end.
fn first_of(tried: Tried<'_>, log: &dyn OpenLog, end: u64) -> Held<u64> {
    let entries = tried.all(log)?;
    let first = (end + 1).saturating_sub(entries.len() as u64);
    let next = tried.in_order(&entries, first)?;
    tried.ensure(next == end + 1, "every record up to the last", next - 1)?;
    Ok(first)
}

/// Bytes of the log's data files.
fn size(disk: &ModelDisk) -> u64 {
    disk.files().iter().filter(|(path, _)| is_data(path)).map(|(_, bytes)| bytes.len() as u64).sum()
}

fn policies(tried: Tried<'_>) -> Held {
    let whole = &ModelDisk::new();
    tried.written(whole, LONG)?;
    let half = size(whole) / 2;
    let year = Duration::from_secs(366 * 86_400);
    let keep = |seq| Retention::default().with_keep_from(Seq(seq));
    let nothing_goes =
        [Retention::default(), Retention::default().with_max_bytes(u64::MAX), Retention::default().with_max_age(year)];
    for policy in nothing_goes {
        let log = tried.open(&whole.copy())?;
        let first = tried.works("drop nothing", log.retain(policy.clone()))?;
        tried.ensure(first == 1, &format!("nothing to go by {policy:?}"), format!("the log begins with {first}"))?;
    }
    let policies = [
        (keep(100), 100),
        (keep(300), 300),
        (keep(LONG), LONG),
        (Retention::default().with_max_bytes(0), LONG),
        (Retention::default().with_max_age(Duration::ZERO), LONG),
        (keep(300).with_max_bytes(0), 300),
        (keep(300).with_max_age(Duration::ZERO), 300),
        (Retention::default().with_max_bytes(half), LONG),
    ];
    for (policy, newest) in policies {
        let disk = whole.copy();
        let log = tried.open(&disk)?;
        let read = |reader: runtide_core::Result<Entries>| {
            let mut reader = tried.works("read", reader)?;
            let first = reader.next();
            Ok::<_, super::Broken>((first, reader))
        };
        let readers = [
            read(log.reader(ReadFrom::Start))?,
            read(tried.log.reader(Path::new(DIR), ReadFrom::Start, options(&disk)))?,
        ];
        let before = size(&disk);
        let first = tried.works("drop old records", log.retain(policy.clone()))?;
        let fine = first > 1 && first <= newest && size(&disk) < before;
        tried.ensure(
            fine,
            &format!("old segments to go by {policy:?}, and nothing from {newest} on"),
            format!("the log begins with {first}"),
        )?;
        let left = size(&disk);
        if policy.max_bytes == Some(half) {
            // In addition to the segments there is the file with the log's first number.
            let within = left <= half + SMALL && left + SEGMENT > half;
            tried.ensure(within, &format!("{half} bytes to be left, or up to a segment less"), left)?;
        } else {
            // The segment with the first record that stays, and the room in the newest one.
            let most = before * (LONG + 1 - newest) / LONG + 2 * SEGMENT;
            tried.ensure(left <= most, &format!("{policy:?} to leave {most} bytes at most"), left)?;
        }
        tried.append(&*log, LONG + 1)?;
        tried.ensure(first_of(tried, &*log, LONG + 1)? == first, "the log to begin where it says", "another number")?;
        let expired = log.reader(ReadFrom::Seq(Seq(first - 1))).err().map(|error| error.kind());
        tried.ensure(
            expired == Some(runtide_core::ErrorKind::Expired),
            "dropped records to be Expired",
            format!("{expired:?}"),
        )?;
        // An open reader reads on.
        for (begun, rest) in readers {
            let rest = begun.into_iter().chain(tried.to_the_end(rest)?).collect::<Result<Vec<_>, _>>();
            let rest = tried.works("read on under retention", rest)?;
            let next = tried.in_order(&rest, 1)?;
            tried.ensure(
                next > LONG,
                "an open reader to read on to the end",
                format!("it ends behind {}", next - 1),
            )?;
        }
    }
    Ok(())
}

fn interrupted(tried: Tried<'_>, disk: &ModelDisk, keep: u64, effort: Effort) -> Held<u64> {
    let log = tried.open(disk)?;
    let begun = disk.operations();
    let new = tried.works("drop old records", log.retain(Retention::default().with_keep_from(Seq(keep))))?;
    disk.mark(1);
    let done = disk.operations();
    drop(log);
    disk.crashes(begun..done + 1, effort.pick(256, 8), 6, |crash| {
        let check = || {
            // A reader does not wait for a writer to clean up.
            let read = tried.read(&crash.disk, OnCorruption::Stop)?;
            let read: Vec<_> = tried.works("read the remaining records", read.into_iter().collect::<Result<_, _>>())?;
            let log = tried.open(&crash.disk)?;
            let first = first_of(tried, &*log, RECORDS)?;
            tried.ensure(
                read.len() as u64 == RECORDS + 1 - first,
                "readers to see the same records as a writer",
                read.len(),
            )?;
            let old_or_new = first == new || (first == 1 && crash.mark.is_none());
            tried.ensure(
                old_or_new,
                &format!("the log to begin with 1 or {new}, and with {new} once it was acknowledged"),
                first,
            )?;
            tried.append(&*log, RECORDS + 1)?;
            // The retention can be repeated.
            let again = tried.works("drop again", log.retain(Retention::default().with_keep_from(Seq(keep))))?;
            tried.ensure(again == new, "the same retention again", again)?;
            let anchor = log.anchor();
            let second = crash.disk.crash();
            drop(log);
            tried.sound(&second, Some(&anchor))?;
            let log = tried.open(&second)?;
            tried.ensure(first_of(tried, &*log, RECORDS + 1)? == new, "it to last", "another beginning")
        };
        check().map_err(after(crash))
    })
}
