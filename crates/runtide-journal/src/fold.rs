//! What the log comes to: the table, the places to resume from, and which facts are in it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use runtide_core::{BackendId, Cursor, Freshness, Instance, InstanceTable, RuntimeEvent, RuntimeEventKind};

/// Keys of facts that are remembered for each backend: twice as many as the daemon with the longest history of the field
/// (Docker, 256 events) can tell again.
const KEYS: usize = 512;

/// Rows in one record of a checkpoint.
const ROWS: usize = 512;

/// One record of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// A watch begins: a bracket that was open is open no more.
    Watch { backend: BackendId, from: Option<Cursor> },
    /// What happened, with its cursor.
    Event(Arc<RuntimeEvent>),
    /// What follows, up to its end, is all that came before.
    Checkpoint,
    /// Some rows of it.
    Rows { backend: BackendId, rows: Vec<Arc<Instance>> },
    /// Its end.
    CheckpointEnd(BTreeMap<BackendId, Stored>),
}

/// Of one backend, beside its rows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stored {
    place: Option<(Cursor, Freshness)>,
    resume: Option<Cursor>,
    keys: Vec<String>,
}

/// Keys in the order in which they came; the oldest are forgotten.
#[derive(Clone, Debug, Default)]
struct Keys {
    order: VecDeque<[u8; 32]>,
    known: HashSet<[u8; 32]>,
}

impl Keys {
    fn insert(&mut self, key: [u8; 32]) {
        if self.known.insert(key) {
            self.order.push_back(key);
        }
        while self.order.len() > KEYS {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

/// What the log comes to.
#[derive(Clone, Debug, Default)]
pub(super) struct Fold {
    table: InstanceTable,
    resume: BTreeMap<BackendId, Cursor>,
    keys: BTreeMap<BackendId, Keys>,
    /// Backends with an open bracket.
    brackets: BTreeSet<BackendId>,
    /// Rows of a checkpoint that is being read.
    reading: Vec<(BackendId, Vec<Arc<Instance>>)>,
}

impl Fold {
    pub(super) fn table(&self) -> &InstanceTable {
        &self.table
    }

    /// Where a watch of this backend goes on.
    pub(super) fn resume(&self, backend: &BackendId) -> Option<&Cursor> {
        self.resume.get(backend)
    }

    /// Whether this very fact is in the log.
    pub(super) fn knows(&self, event: &RuntimeEvent) -> bool {
        let Some(keys) = self.keys.get(&event.backend).filter(|keys| !keys.known.is_empty()) else { return false };
        event.key().is_some_and(|key| keys.known.contains(&key))
    }

    /// Whether a bracket is open: then the table cannot be stored whole.
    pub(super) fn is_between(&self) -> bool {
        !self.brackets.is_empty()
    }

    /// A bracket that will never be closed.
    pub(super) fn abandon(&mut self, backend: &BackendId) {
        self.table.discard_resync(backend);
        self.brackets.remove(backend);
    }

    /// Takes an event in.
    pub(super) fn apply(&mut self, event: &RuntimeEvent) {
        let backend = &event.backend;
        match &event.kind {
            RuntimeEventKind::ResyncBegin { .. } => drop(self.brackets.insert(backend.clone())),
            RuntimeEventKind::ResyncEnd | RuntimeEventKind::BackendDisconnected { .. } => {
                self.brackets.remove(backend);
            }
            _ => {}
        }
        if let Some(key) = event.key() {
            self.keys.entry(backend.clone()).or_default().insert(key);
        }
        self.table.apply(event);
        let (inside, known) = (self.brackets.contains(backend), self.resume.get(backend));
        // The state of the link has no place of its own where nothing of the history is known: the last one is better.
        let blind = event.instance().is_none()
            && event.kind != RuntimeEventKind::ResyncEnd
            && event.cursor.native.is_none()
            && known.is_some_and(|known| known.native.is_some());
        if !inside && !blind {
            self.resume.insert(backend.clone(), event.cursor.clone());
        }
    }

    /// Takes a record in that was read.
    pub(super) fn read(&mut self, entry: Entry) {
        match entry {
            Entry::Watch { backend, .. } => self.abandon(&backend),
            Entry::Event(event) => self.apply(&event),
            Entry::Checkpoint => self.reading.clear(),
            Entry::Rows { backend, rows } => self.reading.push((backend, rows)),
            Entry::CheckpointEnd(stored) => {
                let mut whole = Self::default();
                for (backend, rows) in self.reading.drain(..) {
                    whole.table.restore(&backend, rows, None);
                }
                for (backend, Stored { place, resume, keys }) in stored {
                    whole.table.restore(&backend, Vec::new(), place);
                    whole.resume.extend(resume.map(|cursor| (backend.clone(), cursor)));
                    let known = whole.keys.entry(backend).or_default();
                    let keys = keys.iter().filter_map(|key| blake3::Hash::from_hex(key).ok());
                    keys.for_each(|key| known.insert(*key.as_bytes()));
                }
                *self = whole;
            }
        }
    }

    /// Everything, as records; the last one is the end.
    pub(super) fn checkpoint(&self) -> Vec<Entry> {
        let mut entries = vec![Entry::Checkpoint];
        let mut all = BTreeMap::new();
        for backend in self.table.backends() {
            let rows: Vec<Arc<Instance>> = self.table.of(backend).cloned().collect();
            entries.extend(rows.chunks(ROWS).map(|rows| Entry::Rows { backend: backend.clone(), rows: rows.to_vec() }));
            let keys = self.keys.get(backend).into_iter().flat_map(|keys| &keys.order);
            let stored = Stored {
                place: self.table.position(backend).map(|(cursor, fresh)| (cursor.clone(), fresh)),
                resume: self.resume.get(backend).cloned(),
                keys: keys.map(|key| blake3::Hash::from_bytes(*key).to_hex().to_string()).collect(),
            };
            all.insert(backend.clone(), stored);
        }
        entries.push(Entry::CheckpointEnd(all));
        entries
    }
}
