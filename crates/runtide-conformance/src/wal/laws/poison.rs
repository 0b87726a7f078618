//! W6: after a failure, nothing more.

use runtide_core::wal::{ReadFrom, Retention, Seq};

use super::{Held, Tried, options, payload};
use crate::wal::{Effort, Fault, LogHarness, Looked, ModelDisk, OpenLog, WalLaw, WalLawResult};

const RECORDS: u64 = 40;

/// Each write, sync, growing of a file and change of a name in a log's life fails, one after the other: once, so that trying
/// again would seem to work, and for good. What was acknowledged survives that and a power cut behind it.
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

/// Lives with a failure; false if it never came.
fn fails(tried: Tried<'_>, fault: Fault, nth: u64, for_good: bool) -> Held<bool> {
    let disk = ModelDisk::new();
    disk.fail(fault, nth, for_good);
    let mut acknowledged = 0;
    if let Ok(log) = tried.log.open(super::DIR.as_ref(), options(&disk)) {
        let failed = live(&*log, &mut acknowledged);
        let happened = disk.heal();
        if let Err(error) = failed {
            tried.ensure(happened, "no error on a sound disk", &error)?;
            poisoned(tried, &*log, acknowledged, &error)?;
        }
        let again = disk.load().syncs_tried_again;
        tried.ensure(again == 0, "a failed sync not to be tried again", format!("{again} that were"))?;
        survives(tried, &disk.crash(), acknowledged)?;
        let _ = log.close();
        drop(log);
        if !happened {
            return Ok(false);
        }
    } else if !disk.heal() {
        return Err(tried.broken("to open a log on a sound disk", "an error"));
    }
    // The process goes on, and opens it anew: what the system shows then may not be on the disk.
    survives(tried, &disk, acknowledged)?;
    Ok(true)
}

/// Appends and drops, until something fails.
fn live(log: &dyn OpenLog, acknowledged: &mut u64) -> runtide_core::Result<()> {
    for n in 1..=RECORDS {
        log.append(&payload(n))?;
        *acknowledged = n;
    }
    log.sync()
}

/// Every call gets that failure, also now that the disk is well again; what was acknowledged can be read.
fn poisoned(tried: Tried<'_>, log: &dyn OpenLog, acknowledged: u64, error: &runtide_core::Error) -> Held {
    let policy = || Retention::default().with_keep_from(Seq(1));
    for _ in 0..2 {
        let calls = [
            ("append", log.append(b"more").err()),
            ("append a batch", log.append_batch(&[b"more", b"and more"]).err()),
            ("sync", log.sync().err()),
            ("drop old segments", log.retain(policy()).err()),
        ];
        for (call, got) in calls {
            let same = got.as_ref().is_some_and(|got| got.kind() == error.kind() && got.message() == error.message());
            tried.ensure(same, &format!("'{error}' again, asked to {call}"), format!("{got:?}"))?;
        }
    }
    let entries = tried.works("read after a failure", log.reader(ReadFrom::Start))?;
    let entries: Vec<_> = tried.works("read after a failure", entries.collect::<Result<_, _>>())?;
    let next = tried.in_order(&entries, 1)?;
    tried.ensure(next == acknowledged + 1, &format!("{acknowledged} acknowledged records"), next - 1)
}

/// Opened anew, the log has what was acknowledged, goes on, and keeps all it shows over a power cut.
fn survives(tried: Tried<'_>, disk: &ModelDisk, acknowledged: u64) -> Held {
    let log = tried.open(disk)?;
    let next = tried.in_order(&tried.all(&*log)?, 1)?;
    tried.ensure(next > acknowledged, &format!("{acknowledged} acknowledged records"), next - 1)?;
    let shown = disk.crash();
    tried.append(&*log, next)?;
    let appended = disk.crash();
    drop(log);
    for (disk, expected) in [(shown, next), (appended, next + 1)] {
        let log = tried.open(&disk)?;
        let there = tried.in_order(&tried.all(&*log)?, 1)?;
        tried.ensure(there == expected, &format!("{} records that were shown", expected - 1), there - 1)?;
    }
    Ok(())
}
