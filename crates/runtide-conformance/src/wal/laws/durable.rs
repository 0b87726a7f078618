//! W1: what was acknowledged is there.

use std::path::Path;

use runtide_core::{
    ErrorKind,
    wal::{Durability, ReadFrom},
};

use super::{DIR, Held, Tried, after, durabilities, options, payload};
use crate::wal::{Crash, Effort, LogHarness, Looked, ModelDisk, WalLaw, WalLawResult};

/// What was promised at a place in a log's life.
#[derive(Clone, Copy, Debug)]
struct Promised {
    /// Records that outlive the process.
    acknowledged: u64,
    /// Records that outlive a power cut.
    durable: u64,
}

/// A log's life: what it was promised, mark by mark, and where batches lie.
#[derive(Default)]
struct Life {
    disk: ModelDisk,
    promised: Vec<Promised>,
    batches: Vec<(u64, u64)>,
}

impl Life {
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
/// what was not synced, in each durability. What is left is read and verified as it is, opened, appended to and cut off
/// again, at once and, for a part of the states, at every operation of the opening.
pub(crate) fn w1_durable(log: &dyn LogHarness, effort: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W1, log };
    let mut states = 0;
    for durability in durabilities() {
        let life = live(tried, durability, effort.pick(30, 20))?;
        let (mut shown, mut inner) = (0, 0);
        let told = |mut broken: super::Broken| {
            broken.found = format!("{}, with {durability:?}", broken.found);
            broken
        };
        states += life.disk.crashes(0..usize::MAX, effort.pick(64, 4), 1, |crash| {
            shown += 1;
            if shown % effort.pick(16, 64) == 0 {
                inner += survives_twice(tried, &life, crash).map_err(after(crash)).map_err(told)?;
            }
            survives(tried, &life, crash).map_err(after(crash)).map_err(told)
        })?;
        states += inner;
    }
    Ok(Looked::at(states, "crash states"))
}

fn live(tried: Tried<'_>, durability: Durability, steps: u64) -> Held<Life> {
    let mut life = Life::default();
    let mut last = 0;
    for _ in 0..2 {
        let log = tried.open_with(options(&life.disk).with_durability(durability))?;
        let mut durable = last;
        for step in 0..steps {
            if step % 7 == 3 {
                let payloads: Vec<_> = (last + 1..=last + 3).map(payload).collect();
                let batch: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
                tried.works("append a batch", log.append_batch(&batch))?;
                life.batches.push((last + 1, last + 3));
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
            life.promise(last, durable);
        }
        tried.works("close the log", log.close())?;
        life.promise(last, last);
    }
    Ok(life)
}

/// How many records are there, which are the first that were appended, with all that was promised, and no half batch.
fn kept(tried: Tried<'_>, life: &Life, crash: &Crash<'_>, entries: &[crate::wal::Entry]) -> Held<u64> {
    let there = tried.in_order(entries, 1)? - 1;
    let promised = life.promised(crash);
    let least = if crash.kept_all { promised.acknowledged } else { promised.durable };
    tried.ensure(there >= least, &format!("all {least} acknowledged records"), format!("{there} of them"))?;
    let torn = life.batches.iter().find(|(first, last)| (*first..*last).contains(&there));
    tried.ensure(
        torn.is_none(),
        "a batch to be there as a whole or not at all",
        format!("{there} records, of {torn:?}"),
    )?;
    Ok(there)
}

fn survives(tried: Tried<'_>, life: &Life, crash: &Crash<'_>) -> Held {
    unrepaired(tried, life, crash)?;
    let log = tried.open(&crash.disk)?;
    let there = kept(tried, life, crash, &tried.all(&*log)?)?;
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
        "what was appended after a crash to survive the next one",
        format!("{} records", next - 1),
    )
}

/// The power goes again while the log is being opened.
fn survives_twice(tried: Tried<'_>, life: &Life, crash: &Crash<'_>) -> Held<u64> {
    let disk = crash.disk.copy();
    drop(tried.open(&disk)?);
    disk.crashes(0..usize::MAX, 4, 2, |second| {
        let log = tried.open(&second.disk)?;
        let entries = tried.works("read from the start", log.reader(ReadFrom::Start))?;
        let entries: Vec<_> = tried.works("read to the end", entries.collect())?;
        kept(tried, life, crash, &entries).map_err(after(second))?;
        let audit = tried.works("verify", tried.log.verify(Path::new(DIR), None, &options(&second.disk)))?;
        tried.ensure(audit.corruption.is_none(), "a crash to corruption nothing", format!("{audit:?}"))
    })
}

/// Who reads before anybody opens the log for writing finds the same, and no corruption.
fn unrepaired(tried: Tried<'_>, life: &Life, crash: &Crash<'_>) -> Held {
    let read = match tried.log.reader(Path::new(DIR), ReadFrom::Start, options(&crash.disk)) {
        // There is no log yet.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => tried.to_the_end(tried.works("read before the repair", read)?)?,
    };
    let read: Vec<_> = tried.works("read before the repair", read.into_iter().collect::<Result<_, _>>())?;
    kept(tried, life, crash, &read)?;
    tried.sound(&crash.disk, None)
}
