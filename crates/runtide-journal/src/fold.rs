//! [`Fold`]: the state that the log folds to (table, resume positions, known facts). Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use runtide_core::{
    BackendId, Completeness, Cursor, Freshness, Instance, InstanceTable, RuntimeEvent, RuntimeEventKind,
};

/// Keys of facts remembered for each backend: twice as many as the daemon with the longest history (Docker, 256 events)
/// can report again.
const KEYS: usize = 512;

/// Rows in one record of a checkpoint.
const ROWS: usize = 512;

/// Payload of one record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// A watch began; an open resync of this backend is abandoned.
    Watch { backend: BackendId, from: Option<Cursor> },
    /// An event, with its cursor.
    Event(Arc<RuntimeEvent>),
    /// Begin of a checkpoint: the records up to its end replace all earlier ones.
    Checkpoint,
    /// Rows of the checkpoint, at most [`ROWS`].
    Rows { backend: BackendId, rows: Vec<Arc<Instance>> },
    /// End of the checkpoint.
    CheckpointEnd(BTreeMap<BackendId, Stored>),
}

/// A checkpoint's state of one backend, except its rows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stored {
    /// Position of the table. The name in the log is `place`.
    #[serde(rename = "place")]
    position: Option<(Cursor, Freshness)>,
    /// Completeness of the rows. Checkpoints of earlier versions do not have it: it is unknown there.
    #[serde(default)]
    completeness: Completeness,
    resume: Option<Cursor>,
    keys: Vec<String>,
}

/// The last [`KEYS`] keys, in the order of their events.
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

/// The state that the log folds to.
#[derive(Clone, Debug, Default)]
pub(super) struct Fold {
    table: InstanceTable,
    resume: BTreeMap<BackendId, Cursor>,
    keys: BTreeMap<BackendId, Keys>,
    /// Backends with an open resync.
    resyncs: BTreeSet<BackendId>,
    /// Rows of a checkpoint that is read but not complete.
    reading: Vec<(BackendId, Vec<Arc<Instance>>)>,
}

impl Fold {
    pub(super) fn table(&self) -> &InstanceTable {
        &self.table
    }

    /// The cursor from which a watch of this backend resumes.
    pub(super) fn resume(&self, backend: &BackendId) -> Option<&Cursor> {
        self.resume.get(backend)
    }

    /// This fact is in the log already.
    pub(super) fn knows(&self, event: &RuntimeEvent) -> bool {
        let Some(keys) = self.keys.get(&event.backend).filter(|keys| !keys.known.is_empty()) else { return false };
        event.key().is_some_and(|key| keys.known.contains(&key))
    }

    /// A resync is open, so the table is incomplete and no checkpoint may be taken.
    pub(super) fn is_inside_resync(&self) -> bool {
        !self.resyncs.is_empty()
    }

    /// Discards an open resync that will have no end.
    pub(super) fn abandon(&mut self, backend: &BackendId) {
        self.table.discard_resync(backend);
        self.resyncs.remove(backend);
    }

    /// Applies an event.
    pub(super) fn apply(&mut self, event: &RuntimeEvent) {
        let backend = &event.backend;
        match &event.kind {
            RuntimeEventKind::ResyncBegin { .. } => drop(self.resyncs.insert(backend.clone())),
            RuntimeEventKind::ResyncEnd(_) | RuntimeEventKind::BackendDisconnected { .. } => {
                self.resyncs.remove(backend);
            }
            _ => {}
        }
        if let Some(key) = event.key() {
            self.keys.entry(backend.clone()).or_default().insert(key);
        }
        self.table.apply(event);
        let (inside, known) = (self.resyncs.contains(backend), self.resume.get(backend));
        // A link event without a token would replace a cursor that can resume by one that cannot: keep the earlier cursor.
        let blind = event.instance().is_none()
            && !matches!(event.kind, RuntimeEventKind::ResyncEnd(_))
            && event.cursor.native.is_none()
            && known.is_some_and(|known| known.native.is_some());
        if !inside && !blind {
            self.resume.insert(backend.clone(), event.cursor.clone());
        }
    }

    /// Applies a record that recovery read.
    pub(super) fn read(&mut self, entry: Entry) {
        match entry {
            Entry::Watch { backend, .. } => self.abandon(&backend),
            Entry::Event(event) => self.apply(&event),
            Entry::Checkpoint => self.reading.clear(),
            Entry::Rows { backend, rows } => self.reading.push((backend, rows)),
            Entry::CheckpointEnd(stored) => {
                let mut whole = Self::default();
                for (backend, rows) in self.reading.drain(..) {
                    whole.table.restore(&backend, rows);
                }
                for (backend, Stored { position, completeness, resume, keys }) in stored {
                    whole.table.restore_position(&backend, position, completeness);
                    whole.resume.extend(resume.map(|cursor| (backend.clone(), cursor)));
                    let known = whole.keys.entry(backend).or_default();
                    let keys = keys.iter().filter_map(|key| blake3::Hash::from_hex(key).ok());
                    keys.for_each(|key| known.insert(*key.as_bytes()));
                }
                *self = whole;
            }
        }
    }

    /// The whole state as the records of a checkpoint, its end last.
    pub(super) fn checkpoint(&self) -> Vec<Entry> {
        let mut entries = vec![Entry::Checkpoint];
        let mut all = BTreeMap::new();
        for backend in self.table.backends() {
            let rows: Vec<Arc<Instance>> = self.table.of(backend).cloned().collect();
            entries.extend(rows.chunks(ROWS).map(|rows| Entry::Rows { backend: backend.clone(), rows: rows.to_vec() }));
            let keys = self.keys.get(backend).into_iter().flat_map(|keys| &keys.order);
            let stored = Stored {
                position: self.table.position(backend).map(|(cursor, fresh)| (cursor.clone(), fresh)),
                completeness: self.table.completeness(backend).clone(),
                resume: self.resume.get(backend).cloned(),
                keys: keys.map(|key| blake3::Hash::from_bytes(*key).to_hex().to_string()).collect(),
            };
            all.insert(backend.clone(), stored);
        }
        entries.push(Entry::CheckpointEnd(all));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtide_core::{Gap, RuntimeEventKind};

    fn event(seq: u64, kind: RuntimeEventKind) -> Arc<RuntimeEvent> {
        let cursor = Cursor::new("e".into(), seq, Some("t".into()));
        Arc::new(RuntimeEvent::new("b".into(), cursor, std::time::SystemTime::UNIX_EPOCH, kind))
    }

    /// The entry as a version wrote it that had no completeness.
    fn older(entry: &Entry) -> Entry {
        let text = serde_json::to_string(entry).unwrap();
        let older = text.replace(",\"data\":\"complete\"", "").replace("\"completeness\":\"complete\",", "");
        assert!(!older.contains("complete"), "{older}");
        serde_json::from_str(&older).unwrap()
    }

    #[test]
    fn records_of_an_earlier_version_are_read_and_their_completeness_is_unknown() {
        let (backend, begin) = ("b".into(), RuntimeEventKind::ResyncBegin { gap: Gap::Initial });
        let events = [event(1, begin), event(2, RuntimeEventKind::ResyncEnd(Completeness::Complete))].map(Entry::Event);
        let (mut now, mut before) = (Fold::default(), Fold::default());
        for entry in events {
            before.read(older(&entry));
            now.read(entry);
        }
        assert_eq!(now.table().completeness(&backend), &Completeness::Complete);
        assert_eq!(before.table().completeness(&backend), &Completeness::Unknown);
        let (mut again, mut old) = (Fold::default(), Fold::default());
        for entry in now.checkpoint() {
            old.read(older(&entry));
            again.read(entry);
        }
        assert_eq!(again.table(), now.table(), "a checkpoint has all of it");
        assert_eq!(old.table(), before.table());
    }
}
