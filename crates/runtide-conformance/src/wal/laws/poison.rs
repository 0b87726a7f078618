//! W6: no call works after a failure.

use runtide_core::{
    Error,
    wal::{ReadFrom, Retention, Seq},
};

use super::{Held, Tried, options, payload};
use crate::wal::{Effort, Entry, Fault, LogHarness, Looked, ModelDisk, OpenLog, WalLaw, WalLawResult, disk::Hit};

const RECORDS: u64 = 70;

/// First record that is kept when old ones are dropped; the number of the record after which that is done.
const KEEP: u64 = 45;
const RETAINED_AT: u64 = 60;

/// Each write, sync, growing of a file and change of a name in a log's history fails, one after the other: once, so that a
/// retry would seem to work, and for good. The history is appends over several segments, a sync, a retention and an orderly end.
/// The acknowledged records survive that and a power cut behind it.
///
/// A failure that no call reports is a violation, with two exceptions: making the file for the next segment, before anything
/// is in it, may fail, and is retried once when it is needed; and a leftover that cannot be removed may stay.
pub(crate) fn w6_failed_sync(log: &dyn LogHarness, effort: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W6, log };
    let mut failures = 0;
    for &fault in Fault::ALL {
        for for_good in [false, true] {
            for nth in (0..).step_by(effort.pick(1, 5)) {
                let happened = fails(tried, fault, nth, for_good).map_err(|mut broken| {
                    let how = if for_good { "for good from" } else { "once at" };
                    broken.found = format!("{}, with {fault:?} failing {how} operation {nth}", broken.found);
                    broken
                })?;
                if !happened {
                    break;
                }
                failures += 1;
            }
        }
    }
    Ok(Looked::at(failures, "failures"))
}

/// Runs a log with a failure; `false` if the failure never came.
fn fails(tried: Tried<'_>, fault: Fault, nth: u64, for_good: bool) -> Held<bool> {
    let disk = ModelDisk::new();
    disk.fail(fault, nth, for_good);
    let mut acknowledged = 0;
    if let Ok(log) = tried.log.open(super::DIR.as_ref(), options(&disk)) {
        let lived = live(&*log, &mut acknowledged);
        let happened = disk.heal();
        match lived {
            Ok(retained) => {
                let silent = disk.hits().into_iter().find(|hit| !may_go_unseen(hit));
                tried.ensure(silent.is_none(), "a failure to be reported", format!("{silent:?} in silence"))?;
                let dropped = happened || retained > 1;
                tried.ensure(dropped, "old segments to go", format!("the log begins with {retained}"))?;
            }
            Err(Failed::On(error)) => {
                tried.ensure(happened, "no error on a sound disk", &error)?;
                poisoned(tried, &*log, acknowledged, &error)?;
            }
            Err(Failed::OnClosing(error)) => {
                tried.ensure(happened, "no error on a sound disk", &error)?;
                let later = [log.append(b"more").is_err(), log.append_in_task(b"more").is_err(), log.sync().is_err()];
                tried.ensure(later == [true; 3], "no call to work after a failed closing", format!("{later:?}"))?;
            }
        }
        survives(tried, &disk.crash(), acknowledged)?;
        drop(log);
        // Closing is over by now, and so is the work of the log's own threads.
        let load = disk.load();
        let again = (load.writes_tried_again, load.syncs_tried_again);
        tried.ensure(again == (0, 0), "nothing to be retried", format!("{again:?} writes and syncs that were"))?;
        if !happened {
            return Ok(false);
        }
    } else if !disk.heal() {
        return Err(tried.broken("to open a log on a sound disk", "an error"));
    }
    // The process goes on, and opens the log again: the bytes that the system shows then may not be on the disk.
    survives(tried, &disk, acknowledged)?;
    Ok(true)
}

/// `true` if a log may go on as if nothing had happened.
fn may_go_unseen(hit: &Hit) -> bool {
    hit.blank && hit.path.extension().is_some_and(|end| end == "tmp")
}

enum Failed {
    On(Error),
    OnClosing(Error),
}

/// Appends, drops and closes, until a call fails; the first number of the log.
fn live(log: &dyn OpenLog, acknowledged: &mut u64) -> Result<u64, Failed> {
    let mut first = 1;
    for n in 1..=RECORDS {
        log.append(&payload(n)).map_err(Failed::On)?;
        *acknowledged = n;
        if n == RETAINED_AT {
            // Not at the very end: a sync with nothing to write may get a failure only with the next call.
            log.sync().map_err(Failed::On)?;
            first = log.retain(Retention::default().with_keep_from(Seq(KEEP))).map_err(Failed::On)?;
        }
    }
    log.close().map_err(Failed::OnClosing)?;
    Ok(first)
}

/// Every call gets that failure, also now that the disk is well again, and also once the log is closed; the acknowledged
/// records can be read.
fn poisoned(tried: Tried<'_>, log: &dyn OpenLog, acknowledged: u64, error: &Error) -> Held {
    let policy = || Retention::default().with_keep_from(Seq(1));
    for _ in 0..2 {
        let calls = [
            ("append", log.append(b"more").err()),
            ("append in a task", log.append_in_task(b"more").err()),
            ("append a batch", log.append_batch(&[b"more", b"and more"]).err()),
            ("sync", log.sync().err()),
            ("drop old segments", log.retain(policy()).err()),
        ];
        for (call, got) in calls {
            // The call that meets the failure itself may lack the words that the log takes no more.
            let same =
                got.as_ref().is_some_and(|got| got.kind() == error.kind() && got.message().contains(error.message()));
            tried.ensure(same, &format!("'{error}' again, asked to {call}"), format!("{got:?}"))?;
        }
        // The failure was reported before, so closing need not report it again.
        let closed = log.close().err();
        let fine = closed.as_ref().is_none_or(|got| got.kind() == error.kind());
        tried.ensure(fine, &format!("'{error}' or nothing, asked to close"), format!("{closed:?}"))?;
    }
    let entries = tried.works("read after a failure", log.reader(ReadFrom::Start))?;
    let entries: Vec<_> = tried.works("read after a failure", entries.collect::<Result<_, _>>())?;
    let next = behind(tried, &entries)?;
    tried.ensure(next == acknowledged + 1, &format!("{acknowledged} acknowledged records"), next - 1)
}

/// The number behind the last record; the first one is where a retention may have left it.
fn behind(tried: Tried<'_>, entries: &[Entry]) -> Held<u64> {
    let first = entries.first().map_or(1, |entry| entry.seq);
    tried.ensure(first <= KEEP, &format!("the kept records, from {KEEP} on"), format!("nothing before {first}"))?;
    tried.in_order(entries, first)
}

/// Opened again, the log has every acknowledged record, goes on, and keeps all it shows over a power cut.
fn survives(tried: Tried<'_>, disk: &ModelDisk, acknowledged: u64) -> Held {
    let log = tried.open(disk)?;
    let next = behind(tried, &tried.all(&*log)?)?;
    tried.ensure(next > acknowledged, &format!("{acknowledged} acknowledged records"), next - 1)?;
    let shown = disk.crash();
    tried.append(&*log, next)?;
    let appended = disk.crash();
    drop(log);
    for (disk, expected) in [(shown, next), (appended, next + 1)] {
        let log = tried.open(&disk)?;
        let there = behind(tried, &tried.all(&*log)?)?;
        tried.ensure(there == expected, &format!("{} records that were shown", expected - 1), there - 1)?;
    }
    Ok(())
}
