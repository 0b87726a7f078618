//! The laws' tests, by subject.

pub(super) mod bounded;
pub(super) mod chain;
pub(super) mod corruption;
pub(super) mod cost;
pub(super) mod durable;
pub(super) mod hostile;
pub(super) mod poison;
pub(super) mod retention;
pub(super) mod sequence;
pub(super) mod torn;
pub(super) mod writer;

use std::{fmt, num::NonZeroU64, path::Path, sync::Arc};

use runtide_core::wal::{Durability, OnCorruption, ReadFrom, WalOptions};

use super::{Crash, Entries, Entry, LogHarness, ModelDisk, OpenLog, WalLaw};
use crate::Violation;

/// The log's folder.
const DIR: &str = "/log";

/// Bytes of a segment: the smallest size there is.
const SEGMENT: u64 = 8 << 10;

type Broken = Violation<WalLaw>;
type Held<T = ()> = Result<T, Broken>;

/// The payload of the nth record: it contains its number, and has another length than its neighbours.
fn payload(n: u64) -> Vec<u8> {
    let mut payload = n.to_le_bytes().to_vec();
    payload.resize(8 + usize::try_from(n * 7 % 90).unwrap_or(0), n.to_le_bytes()[0] | 1);
    payload
}

/// The options of every log here.
fn options(disk: &ModelDisk) -> WalOptions {
    WalOptions::default().with_segment_bytes(NonZeroU64::new(SEGMENT)).with_disk(Some(Arc::new(disk.clone()) as Arc<_>))
}

/// A log of one kind, and the law that is being tested on it.
#[derive(Clone, Copy)]
struct Tried<'a> {
    law: WalLaw,
    log: &'a dyn LogHarness,
}

impl Tried<'_> {
    fn broken(self, expected: impl Into<String>, found: impl fmt::Display) -> Broken {
        Violation::of(self.law, expected, found.to_string())
    }

    fn ensure(self, holds: bool, expected: &str, found: impl fmt::Display) -> Held {
        if holds { Ok(()) } else { Err(self.broken(expected, found)) }
    }

    /// The value of a call that must work.
    fn works<T, E: fmt::Display>(self, doing: &str, result: Result<T, E>) -> Held<T> {
        result.map_err(|error| self.broken(format!("to {doing}"), error))
    }

    fn open(self, disk: &ModelDisk) -> Held<Box<dyn OpenLog>> {
        self.open_with(options(disk))
    }

    fn open_with(self, options: WalOptions) -> Held<Box<dyn OpenLog>> {
        self.works("open the log for writing", self.log.open(Path::new(DIR), options))
    }

    fn append(self, log: &dyn OpenLog, n: u64) -> Held<u64> {
        self.works(&format!("append record {n}"), log.append(&payload(n)))
    }

    /// Writes a new log of this many records, one by one, closed in order.
    fn written(self, disk: &ModelDisk, records: u64) -> Held {
        let log = self.open(disk)?;
        for n in 1..=records {
            self.append(&*log, n)?;
        }
        self.works("close the log", log.close())
    }

    /// Every record that a writer shows; none may be missing.
    fn all(self, log: &dyn OpenLog) -> Held<Vec<Entry>> {
        let entries = self.works("read from the start", log.reader(ReadFrom::Start))?;
        self.works("read to the end", entries.collect())
    }

    /// Every record and every error that a reader without a writer returns. Reading has to end.
    fn read(self, disk: &ModelDisk, on_corruption: OnCorruption) -> Held<Vec<runtide_core::Result<Entry>>> {
        let options = options(disk).with_on_corruption(on_corruption);
        match self.log.reader(Path::new(DIR), ReadFrom::Start, options) {
            Ok(entries) => self.to_the_end(entries),
            Err(error) => Ok(vec![Err(error)]),
        }
    }

    fn to_the_end(self, entries: Entries) -> Held<Vec<runtide_core::Result<Entry>>> {
        const MOST: usize = 100_000;
        let read: Vec<_> = entries.take(MOST).collect();
        self.ensure(read.len() < MOST, "reading to end", "it goes on")?;
        Ok(read)
    }

    /// Checks that these are the records from `first` on, each with its payload; the number of the next one.
    fn in_order<'e>(self, entries: impl IntoIterator<Item = &'e Entry>, first: u64) -> Held<u64> {
        let mut next = first;
        for entry in entries {
            let expected = || format!("the record that was appended as number {next}");
            if entry.bytes != payload(next) {
                return Err(self.broken(expected(), format!("another one, with number {}", entry.seq)));
            }
            next += 1;
        }
        Ok(next)
    }

    /// Checks that `verify` finds nothing wrong.
    fn sound(self, disk: &ModelDisk, anchor: Option<&str>) -> Held {
        let audit = self.log.verify(Path::new(DIR), anchor, &options(disk));
        let audit = self.works("verify", audit)?;
        let fine = audit.corruption.is_none() && audit.anchored == anchor.is_some();
        self.ensure(fine, "verify to find nothing wrong", format!("{audit:?}"))
    }
}

/// Adds the crash and the operations before it to a violation.
fn after(crash: &Crash<'_>) -> impl FnOnce(Broken) -> Broken {
    move |mut broken| {
        broken.found = format!("{}, {crash}", broken.found);
        broken.after(crash.trail())
    }
}

/// `true` if a file holds data of the log: all do but the lock, and temporary files.
fn is_data(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name != "lock") && path.extension().is_none_or(|end| end != "tmp")
}

/// The value of this key in an error's context, as a number.
fn context(error: &runtide_core::Error, key: &str) -> Option<u64> {
    error.context().iter().find(|(name, _)| *name == key).and_then(|(_, value)| value.parse().ok())
}

/// Every durability.
fn durabilities() -> [Durability; 3] {
    [Durability::Commit, Durability::Os, Durability::Every(std::time::Duration::from_millis(1))]
}
