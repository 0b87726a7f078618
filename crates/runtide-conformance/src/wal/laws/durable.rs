//! W1: acknowledged records survive.

use std::path::Path;

use runtide_core::{
    ErrorKind,
    wal::{Durability, ReadFrom},
};

use super::{DIR, Held, Tried, after, durabilities, options, payload};
use crate::wal::{Crash, Effort, LogHarness, Looked, ModelDisk, WalLaw, WalLawResult};

/// The promises at a position in a log's history.
#[derive(Clone, Copy, Debug)]
struct Promised {
    /// Records that outlive the process.
    acknowledged: u64,
    /// Records that outlive a power cut.
    durable: u64,
}

/// A log's history: its promises, mark by mark, and the numbers of its batches.
#[derive(Default)]
struct History {
    disk: ModelDisk,
    promised: Vec<Promised>,
    batches: Vec<(u64, u64)>,
}

impl History {
    fn promise(&mut self, acknowledged: u64, durable: u64) {
        self.promised.push(Promised { acknowledged, durable });
        self.disk.mark(self.promised.len() as u64);
    }

    fn promised(&self, crash: &Crash<'_>) -> Promised {
        let nothing = Promised { acknowledged: 0, durable: 0 };
        let index = crash.mark.and_then(|mark| usize::try_from(mark).ok()?.checked_sub(1));
        index.and_then(|index| self.promised.get(index)).copied().unwrap_or(nothing)
    }
}

/// Two openings, several segments, batches, each acknowledgement marked, is cut off at every operation with every subset of
/// the unsynced writes, in each durability. The remaining log is read and verified as it is, opened, appended to and cut off
/// again, at once and, for a part of the states, at every operation of the opening.
pub(crate) fn w1_durable(log: &dyn LogHarness, effort: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W1, log };
    let mut states = 0;
    for durability in durabilities() {
        let history = live(tried, durability, effort.pick(30, 20))?;
        let (mut shown, mut inner) = (0, 0);
        let named = |mut broken: super::Broken| {
            broken.found = format!("{}, with {durability:?}", broken.found);
            broken
        };
        states += history.disk.crashes(0..usize::MAX, effort.pick(64, 4), 1, |crash| {
            shown += 1;
            if shown % effort.pick(16, 64) == 0 {
                inner += survives_twice(tried, &history, crash).map_err(after(crash)).map_err(named)?;
            }
            survives(tried, &history, crash).map_err(after(crash)).map_err(named)
        })?;
        states += inner;
    }
    Ok(Looked::at(states, "crash states"))
}

fn live(tried: Tried<'_>, durability: Durability, steps: u64) -> Held<History> {
    let mut history = History::default();
    let mut last = 0;
    for _ in 0..2 {
        let log = tried.open_with(options(&history.disk).with_durability(durability))?;
        let mut durable = last;
        for step in 0..steps {
            if step % 7 == 3 {
                let payloads: Vec<_> = (last + 1..=last + 3).map(payload).collect();
                let batch: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
                tried.works("append a batch", log.append_batch(&batch))?;
                history.batches.push((last + 1, last + 3));
                last += 3;
            } else {
                last += 1;
                tried.append(&*log, last)?;
            }
            if step % 10 == 9 {
                tried.works("sync", log.sync())?;
            }
            if durability == Durability::Commit || step % 10 == 9 {
                durable = last;
            }
            history.promise(last, durable);
        }
        tried.works("close the log", log.close())?;
        history.promise(last, last);
    }
    Ok(history)
}

/// The number of records, which are the first that were appended, with every promised one, and no half batch.
fn kept(tried: Tried<'_>, history: &History, crash: &Crash<'_>, entries: &[crate::wal::Entry]) -> Held<u64> {
    let there = tried.in_order(entries, 1)? - 1;
    let promised = history.promised(crash);
    let least = if crash.kept_all { promised.acknowledged } else { promised.durable };
    tried.ensure(there >= least, &format!("all {least} acknowledged records"), format!("{there} of them"))?;
    let torn = history.batches.iter().find(|(first, last)| (*first..*last).contains(&there));
    tried.ensure(
        torn.is_none(),
        "a batch to be there as a whole or not at all",
        format!("{there} records, of {torn:?}"),
    )?;
    Ok(there)
}

fn survives(tried: Tried<'_>, history: &History, crash: &Crash<'_>) -> Held {
    unrepaired(tried, history, crash)?;
    let log = tried.open(&crash.disk)?;
    let there = kept(tried, history, crash, &tried.all(&*log)?)?;
    tried.append(&*log, there + 1)?;
    let anchor = log.anchor();
    // The power goes again, right after the acknowledgement.
    let again = crash.disk.crash();
    drop(log);
    tried.sound(&again, Some(&anchor))?;
    let log = tried.open(&again)?;
    let entries = tried.all(&*log)?;
    let next = tried.in_order(&entries, 1)?;
    tried.ensure(
        next == there + 2,
        "a record appended after a crash to survive the next one",
        format!("{} records", next - 1),
    )
}

/// The power goes again while the log is being opened.
fn survives_twice(tried: Tried<'_>, history: &History, crash: &Crash<'_>) -> Held<u64> {
    let disk = crash.disk.copy();
    drop(tried.open(&disk)?);
    disk.crashes(0..usize::MAX, 4, 2, |second| {
        let log = tried.open(&second.disk)?;
        let entries = tried.works("read from the start", log.reader(ReadFrom::Start))?;
        let entries: Vec<_> = tried.works("read to the end", entries.collect())?;
        kept(tried, history, crash, &entries).map_err(after(second))?;
        let audit = tried.works("verify", tried.log.verify(Path::new(DIR), None, &options(&second.disk)))?;
        tried.ensure(audit.corruption.is_none(), "a crash to corrupt nothing", format!("{audit:?}"))
    })
}

/// A reader before the repair by a writer finds the same records, and no corruption.
fn unrepaired(tried: Tried<'_>, history: &History, crash: &Crash<'_>) -> Held {
    let read = match tried.log.reader(Path::new(DIR), ReadFrom::Start, options(&crash.disk)) {
        // There is no log yet.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => tried.to_the_end(tried.works("read before the repair", read)?)?,
    };
    let read: Vec<_> = tried.works("read before the repair", read.into_iter().collect::<Result<_, _>>())?;
    kept(tried, history, crash, &read)?;
    tried.sound(&crash.disk, None)
}
