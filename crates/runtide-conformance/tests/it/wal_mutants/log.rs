//! Runtide's own log, on a broken disk or with a broken caller.

use std::{
    ops::RangeInclusive,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use runtide_conformance::wal::{Audit, Cut, Entries, Entry, LogHarness, OpenLog, RealLog, Salvaged};
use runtide_core::{
    Result,
    wal::{Durability, OnCorruption, ReadFrom, Retention, Seq, WalOptions},
};

use super::disk::{BuggyDisk, DiskBug};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogBug {
    PublishesBeforeSync,
    SkipsCorruption,
    NumbersByCaller,
    AnchorIsANumber,
    ReadsAll,
    DropsHalf,
}

/// The log, with a broken disk or a broken caller, or neither.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broken {
    disk: Option<DiskBug>,
    log: Option<LogBug>,
}

impl Broken {
    pub(crate) fn nowhere() -> Self {
        Self { disk: None, log: None }
    }

    pub(crate) fn on(disk: DiskBug) -> Self {
        Self { disk: Some(disk), log: None }
    }

    pub(crate) fn by(log: LogBug) -> Self {
        Self { disk: None, log: Some(log) }
    }

    fn has(self, bug: LogBug) -> bool {
        self.log == Some(bug)
    }

    fn options(self, mut options: WalOptions) -> WalOptions {
        if let Some(bug) = self.disk {
            let disk = options.disk.take().unwrap();
            options.disk = Some(Arc::new(BuggyDisk { disk, bug }));
        }
        if self.has(LogBug::PublishesBeforeSync) {
            options.durability = Durability::Os;
        }
        if self.has(LogBug::SkipsCorruption) {
            options.on_corruption = OnCorruption::Continue;
        }
        options
    }

    fn entries(self, entries: Result<Entries>) -> Result<Entries> {
        let entries = entries?;
        Ok(match self.log {
            Some(LogBug::SkipsCorruption) => Box::new(entries.flatten().map(Ok)),
            Some(LogBug::NumbersByCaller) => Box::new(entries.map(|entry| entry.map(numbered_by_caller))),
            Some(LogBug::ReadsAll) => Box::new(entries.collect::<Vec<_>>().into_iter()),
            _ => entries,
        })
    }
}

/// Takes the number that the caller wrote before the payload.
fn numbered_by_caller(entry: Entry) -> Entry {
    // The entry of a lost record has no payload.
    let Some((seq, bytes)) = entry.bytes.split_first_chunk() else { return entry };
    Entry { seq: u64::from_le_bytes(*seq), bytes: bytes.to_vec(), lost: entry.lost }
}

impl LogHarness for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn open(&self, dir: &Path, options: WalOptions) -> Result<Box<dyn OpenLog>> {
        let log = RealLog.open(dir, self.options(options))?;
        if self.has(LogBug::ReadsAll) {
            log.reader(ReadFrom::Start)?.for_each(drop);
        }
        Ok(Box::new(Open { log, how: *self, count: AtomicU64::new(0) }))
    }

    fn reader(&self, dir: &Path, from: ReadFrom, options: WalOptions) -> Result<Entries> {
        self.entries(RealLog.reader(dir, from, self.options(options)))
    }

    fn verify(&self, dir: &Path, anchor: Option<&str>, options: &WalOptions) -> Result<Audit> {
        let options = self.options(options.clone());
        let mut audit = RealLog.verify(dir, anchor, &options)?;
        if let Some(anchor) = anchor.filter(|_| self.has(LogBug::AnchorIsANumber)) {
            let number: u64 = anchor.split(':').nth(3).unwrap().parse().unwrap();
            let last = RealLog.reader(dir, ReadFrom::Start, options)?.filter_map(Result::ok).last();
            audit.anchored = last.is_some_and(|last| last.seq >= number);
        }
        Ok(audit)
    }

    fn salvage(&self, dir: &Path, out: &Path, options: &WalOptions) -> Result<Salvaged> {
        RealLog.salvage(dir, out, &self.options(options.clone()))
    }

    fn dump(&self, dir: &Path, out: &mut dyn std::io::Write, options: &WalOptions) -> Result<()> {
        RealLog.dump(dir, out, &self.options(options.clone()))
    }
}

struct Open {
    log: Box<dyn OpenLog>,
    how: Broken,
    /// Number of records that this process appended.
    count: AtomicU64,
}

impl Open {
    /// The bytes to append for a payload, and the number that the caller gave it.
    fn stamped(&self, payload: &[u8]) -> (u64, Vec<u8>) {
        let seq = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        (seq, [&seq.to_le_bytes(), payload].concat())
    }
}

impl OpenLog for Open {
    fn append(&self, payload: &[u8]) -> Result<u64> {
        if self.how.has(LogBug::NumbersByCaller) {
            let (seq, bytes) = self.stamped(payload);
            return self.log.append(&bytes).map(|_| seq);
        }
        self.log.append(payload)
    }

    fn append_in_task(&self, payload: &[u8]) -> Result<u64> {
        if self.how.has(LogBug::NumbersByCaller) {
            return self.append(payload);
        }
        self.log.append_in_task(payload)
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<RangeInclusive<u64>> {
        if self.how.has(LogBug::NumbersByCaller) {
            let stamped: Vec<_> = payloads.iter().map(|payload| self.stamped(payload)).collect();
            let batch: Vec<_> = stamped.iter().map(|(_, bytes)| bytes.as_slice()).collect();
            return self.log.append_batch(&batch).map(|_| stamped[0].0..=stamped[stamped.len() - 1].0);
        }
        self.log.append_batch(payloads)
    }

    fn sync(&self) -> Result<()> {
        self.log.sync()
    }

    fn reader(&self, from: ReadFrom) -> Result<Entries> {
        self.how.entries(self.log.reader(from))
    }

    fn tail(&self, n: usize) -> Result<Vec<Entry>> {
        if self.how.has(LogBug::ReadsAll) {
            let mut all: Vec<_> = self.log.reader(ReadFrom::Start)?.collect();
            return all.split_off(all.len().saturating_sub(n)).into_iter().collect();
        }
        let tail = self.log.tail(n)?.into_iter();
        Ok(if self.how.has(LogBug::NumbersByCaller) { tail.map(numbered_by_caller).collect() } else { tail.collect() })
    }

    fn anchor(&self) -> String {
        self.log.anchor()
    }

    fn retain(&self, mut policy: Retention) -> Result<u64> {
        if self.how.has(LogBug::DropsHalf) {
            policy.keep_from = policy.keep_from.map(|keep| Seq(keep.0 / 2));
        }
        self.log.retain(policy)
    }

    fn cut(&self) -> Option<Cut> {
        self.log.cut()
    }

    fn close(&self) -> Result<()> {
        self.log.close()
    }
}
