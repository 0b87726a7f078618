//! Durable applies to a journaled store, compared with appends of records of the same size to the log alone.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use criterion::Criterion;
use runtide_core::{
    store::{ApplyOutcome, Document, Precondition, ResourceRef, StoreBackend},
    wal::{ReadFrom, RecordKind, Wal, WalOptions, WalReader},
};
use runtide_journal::{JournalOptions, JournaledStore};
use runtide_memory::MemoryStore;

use super::{contender::Contender, objects::Objects, runtide::Runtide};
use crate::{
    Contest, Table, count,
    log::{Appends, Folder, RECORD, Tasks},
    met, span, times,
};

const ALONE: &str = "the log alone";
const STORE: &str = "JournaledStore";
const MEMORY: &str = "MemoryStore alone";

/// Number of resources, which are written one after the other, round and round.
const RESOURCES: usize = 1_024;

/// Number of bytes that precede the reference in a store record.
const HEAD: usize = 21;

/// Numbers the writes: the number is part of the body, so that no two bodies are equal and no apply is `Unchanged`.
struct Writes {
    references: Vec<ResourceRef>,
    next: AtomicUsize,
}

impl Writes {
    fn new() -> Arc<Self> {
        let references = (0..RESOURCES).map(|n| Runtide::key(&Objects::namespace(n), &Objects::name(n))).collect();
        Arc::new(Self { references, next: AtomicUsize::new(0) })
    }

    fn next(&self) -> (usize, &ResourceRef) {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        (n, self.references.get(n % RESOURCES).expect("one of them"))
    }

    /// The body of write number `n`, after `room` zero bytes.
    fn body(n: usize, room: usize, record: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(room + record.len());
        body.resize(room, 0);
        body.extend_from_slice(&n.to_le_bytes());
        body.extend_from_slice(record.get(n.to_le_bytes().len()..).expect("a record"));
        body
    }
}

struct Stored {
    store: JournaledStore<MemoryStore>,
    writes: Arc<Writes>,
}

impl Stored {
    fn open(dir: &Path) -> Self {
        let store = JournaledStore::open(dir, MemoryStore::new(), JournalOptions::default()).expect("a store");
        Self { store, writes: Writes::new() }
    }
}

impl Appends for Stored {
    async fn append(&self, record: &[u8]) {
        let (n, reference) = self.writes.next();
        let document = Document::json(Writes::body(n, 0, record));
        let applied = self.store.apply(reference, document, Precondition::None).await.expect("an apply");
        assert_ne!(applied.outcome, ApplyOutcome::Unchanged);
    }
}

/// The store that the journaled one has inside, without a log: what deciding and publishing cost by themselves.
struct InMemory {
    store: MemoryStore,
    writes: Arc<Writes>,
}

impl Appends for InMemory {
    async fn append(&self, record: &[u8]) {
        let (n, reference) = self.writes.next();
        let document = Document::json(Writes::body(n, 0, record));
        let applied = self.store.apply(reference, document, Precondition::None).await.expect("an apply");
        assert_ne!(applied.outcome, ApplyOutcome::Unchanged);
    }
}

struct Alone {
    wal: Wal,
    writes: Arc<Writes>,
}

impl Appends for Alone {
    async fn append(&self, record: &[u8]) {
        let (n, reference) = self.writes.next();
        let payload = Writes::body(n, HEAD + reference.as_str().len(), record);
        self.wal.append(RecordKind(1), &payload).await.expect("an append");
    }
}

/// Checks that a record of the log alone is as long as a store record.
fn check(dir: &Path) {
    let stored = Stored::open(dir);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(stored.append(&[7; RECORD]));
    stored.store.close().expect("a close");
    let reference = stored.writes.references.first().expect("one of them");
    let mut reader = WalReader::open(dir, ReadFrom::Start, WalOptions::default()).expect("a reader");
    let mut longest = 0;
    while let Some(record) = reader.next_ref().expect("a record") {
        longest = longest.max(record.bytes.len());
    }
    assert_eq!(longest, HEAD + reference.as_str().len() + RECORD, "the store's records have another form now");
}

/// Prints the table.
pub fn durable(criterion: &mut Criterion) {
    let folder = Folder::new().expect("a folder next to the executable");
    check(&folder.new_dir());
    let mut table = Table::new(["writers", "by", "figure", "best turn", "CPU each", "the store is", "goal"]);
    for writers in [1, 64, 512] {
        eprintln!("{writers} writers");
        let stored = Arc::new(Stored::open(&folder.new_dir()));
        let alone = Wal::open(&folder.new_dir(), WalOptions::default()).expect("a log");
        let memory = InMemory { store: MemoryStore::new(), writes: Writes::new() };
        let figures = Contest::new(format!("durable/{writers}"))
            .with(STORE, Tasks::new(writers).turn(Arc::clone(&stored)))
            .with(ALONE, Tasks::new(writers).turn(Arc::new(Alone { wal: alone, writes: Writes::new() })))
            .with(MEMORY, Tasks::new(writers).turn(Arc::new(memory)))
            .run(criterion);
        for name in figures.names() {
            let faster = figures.faster(STORE, name);
            let (is, goal) = match name {
                ALONE if writers == 64 => (times(faster), met("≥ 0.8×", faster >= 0.8)),
                ALONE if writers == 512 => (times(faster), met("≥ 0.7×", faster >= 0.7)),
                ALONE | MEMORY => (times(faster), String::new()),
                _ => Default::default(),
            };
            let rate = |rate: f64| format!("{}/s", count(rate));
            let (figure, best) = (rate(figures.rate(name)), rate(figures.best_rate(name)));
            table.row([writers.to_string(), name.to_owned(), figure, best, span(figures.cpu_each(name)), is, goal]);
        }
        stored.store.close().expect("a close");
    }
    criterion.final_summary();
    table.print();
}
