//! The peer `raft-engine`.

use std::{
    cell::Cell,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use runtide_benches::log::{Records, Seen, million};

use crate::{Store, store::STEP};

/// The log of a million records.
const LARGE: u64 = 1;

/// Number of threads with their own log.
static LOGS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This thread's log, which no other process writes to, and the number of its next entry.
    static OWN: Cell<(u64, u64)> = Cell::new((
        (u64::from(std::process::id()) << 32) + LOGS.fetch_add(1, Ordering::Relaxed),
        1,
    ));
}

/// An entry is bytes with the number before them, since the engine asks each for its number.
struct Entries;

impl MessageExt for Entries {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |number| u64::from_le_bytes(*number))
    }
}

fn entry(number: u64, record: &[u8]) -> BytesValue {
    let mut entry = BytesValue::new();
    entry.value.reserve_exact(8 + record.len());
    entry.value.extend_from_slice(&number.to_le_bytes());
    entry.value.extend_from_slice(record);
    entry
}

/// An engine of the crate's.
pub struct RaftEngine(Engine);

impl std::fmt::Debug for RaftEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RaftEngine").finish()
    }
}

impl RaftEngine {
    fn read(&self, from: u64, to: u64) -> Vec<BytesValue> {
        let mut entries = Vec::new();
        self.0.fetch_entries_to::<Entries>(LARGE, from, to, None, &mut entries).expect("a read");
        entries
    }
}

impl Store for RaftEngine {
    const NAME: &'static str = "raft-engine";
    const NOTE: &'static str = "each thread has a log of its own, so there is no order among them. It compresses nothing here, \
                                and reads the whole log when it is opened, on four threads.";
    const SHARES_SYNCS: bool = true;

    fn open(dir: &Path) -> Self {
        let dir = dir.to_str().expect("a path in UTF-8").to_owned();
        let config = Config { dir, batch_compression_threshold: ReadableSize(0), ..Config::default() };
        Self(Engine::open(config).expect("an engine"))
    }

    fn append(&self, record: &[u8]) {
        let (log, number) = OWN.get();
        OWN.set((log, number + 1));
        let mut batch = LogBatch::default();
        batch.add_entries::<Entries>(log, &[entry(number, record)]).expect("an entry");
        self.0.write(&mut batch, true).expect("a write");
    }

    fn append_all(&self, records: &Records, count: usize) {
        for begin in (0..count).step_by(STEP) {
            let entry = |n: usize| entry(n as u64 + 1, records.get(n));
            let entries: Vec<_> = (begin..count.min(begin + STEP)).map(entry).collect();
            let mut batch = LogBatch::default();
            batch.add_entries::<Entries>(LARGE, &entries).expect("entries");
            // The last one syncs all: `Engine::sync` writes an empty batch, and to write an empty one does nothing.
            self.0.write(&mut batch, begin + STEP >= count).expect("a write");
        }
    }

    fn replay(dir: &Path) -> Box<dyn FnMut(&mut Seen)> {
        let engine = Self::open(dir);
        Box::new(move |seen| {
            let end = million() as u64 + 1;
            for from in (1..end).step_by(STEP) {
                for entry in engine.read(from, end.min(from + STEP as u64)) {
                    seen.record(&entry.value[8..]);
                }
            }
        })
    }

    fn tail(&self, count: usize) -> usize {
        let end = million() as u64 + 1;
        self.read(end - count as u64, end).len()
    }
}
