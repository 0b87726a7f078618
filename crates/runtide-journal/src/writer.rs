//! The shared state of one journal and its only writer: append, deduplication, checkpoints.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio_util::sync::CancellationToken;

use super::{
    fold::{Entry, Fold},
    format::{self, Journal},
    options::JournalOptions,
};
use runtide_core::{
    BackendId, Cursor, Error, ErrorKind, Instance, InstanceTable, Result, RuntimeEvent, RuntimeEventKind,
    backend::lock,
    wal::{RecordKind, Seq, Wal, WalPurpose},
};

const WATCH: &str = "journal.watch";

/// Bytes of payloads in one commit, well below the log's own limit.
const COMMIT: usize = 16 << 20;

pub(super) struct Inner {
    pub(super) wal: Wal,
    /// Cancelled once the journal is closed; ends its streams.
    pub(super) closed: CancellationToken,
    options: JournalOptions,
    /// Serializes all appends. Locked while the disk works.
    writer: Mutex<Writer>,
    /// Never locked while the disk works.
    state: Mutex<State>,
}

#[derive(Debug)]
struct Writer {
    /// First record of the last checkpoint; 0 before the first one.
    checkpoint: Seq,
    /// Records since the last checkpoint.
    since: u64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) fold: Fold,
    /// Number of the present watch of each watched backend.
    pub(super) watching: BTreeMap<BackendId, u64>,
    /// Watches so far; numbers them.
    watches: u64,
}

impl Inner {
    /// Opens the log and folds its records from the last checkpoint on.
    pub(super) fn open(dir: &Path, options: JournalOptions) -> Result<Self> {
        let wal = Wal::open(dir, options.wal.clone().with_purpose(WalPurpose::Events))?;
        let (checkpoint, records) = format::replay(Journal::Events, &wal)?;
        let (mut state, mut since) = (State::default(), 0);
        for record in records {
            if let Some(entry) = format::decode::<Entry>(Journal::Events, &record?)? {
                state.fold.read(entry);
            }
            since += 1;
        }
        let (writer, state) = (Mutex::new(Writer { checkpoint, since }), Mutex::new(state));
        Ok(Self { wal, closed: CancellationToken::new(), options, writer, state })
    }

    /// Ends the streams, waits until each append under way is durable, and releases the folder's lock.
    pub(super) fn close(&self) -> Result<()> {
        self.closed.cancel();
        self.wal.close()
    }

    /// Refuses a call on a journal that is closed.
    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.is_cancelled() { Err(closed(operation)) } else { Ok(()) }
    }

    /// Registers a watch of this backend and returns its number.
    pub(super) fn claim(&self, backend: &BackendId) -> Result<u64> {
        let mut state = self.state();
        if state.watching.contains_key(backend) {
            let twice = "this journal watches that backend already, and a fact is in it once";
            return Err(Error::new(ErrorKind::Conflict, WATCH, twice).with_context("backend", backend));
        }
        state.watches += 1;
        let number = state.watches;
        state.watching.insert(backend.clone(), number);
        Ok(number)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Appends the begin of a watch; returns the cursor from which it resumes and the table there.
    pub(super) fn begin(&self, backend: &BackendId, number: u64) -> Result<(Option<Cursor>, InstanceTable)> {
        let mut writer = lock(&self.writer);
        self.check(backend, number)?;
        let (from, known) = {
            let mut state = self.state();
            state.fold.abandon(backend);
            (state.fold.resume(backend).cloned(), state.fold.table().only(backend))
        };
        self.append(&mut writer, &[Entry::Watch { backend: backend.clone(), from: from.clone() }])?;
        Ok((from, known))
    }

    /// Appends the events that are not in the log yet; returns each of them with the instance as it was before.
    pub(super) fn record(
        &self,
        backend: &BackendId,
        number: u64,
        events: Vec<Arc<RuntimeEvent>>,
    ) -> Result<Vec<Recorded>> {
        let mut writer = lock(&self.writer);
        self.check(backend, number)?;
        let fresh: Vec<Entry> = {
            let state = self.state();
            let mut seen = std::collections::HashSet::new();
            let mut again =
                |event: &RuntimeEvent| state.fold.knows(event) || event.key().is_some_and(|key| !seen.insert(key));
            events.into_iter().filter(|event| !again(event)).map(Entry::Event).collect()
        };
        self.append(&mut writer, &fresh)?;
        let mut recorded = Vec::with_capacity(fresh.len());
        let (rows, inside_resync) = {
            let mut state = self.state();
            for entry in fresh {
                let Entry::Event(event) = entry else { continue };
                let before = event.instance().filter(|_| !matches!(event.kind, RuntimeEventKind::Present(_)));
                let before = before.and_then(|now| state.fold.table().get(&event.backend, &now.id)).cloned();
                state.fold.apply(&event);
                recorded.push(Recorded { event, before });
            }
            (state.fold.table().len(), state.fold.is_inside_resync())
        };
        if !inside_resync
            && self.options.is_due(writer.since, rows)
            && let Err(error) = self.checkpoint(&mut writer)
        {
            // The events are durable and the log is intact; the next opening only reads more of it.
            tracing::warn!(error = format_args!("{error:#}"), "the checkpoint failed");
        }
        Ok(recorded)
    }

    /// Refuses a watch that was dropped, or replaced by a later one.
    fn check(&self, backend: &BackendId, number: u64) -> Result<()> {
        if self.state().watching.get(backend) == Some(&number) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Cancelled, WATCH, "the stream was dropped").with_context("backend", backend))
    }

    fn append(&self, writer: &mut Writer, entries: &[Entry]) -> Result<()> {
        // Recovery starts at the newest record's pointer, so the end of a checkpoint points to that checkpoint.
        let begin = format::next(&self.wal);
        let mut payloads = Vec::with_capacity(entries.len());
        for entry in entries {
            let checkpoint = if matches!(entry, Entry::CheckpointEnd(_)) { begin } else { writer.checkpoint };
            payloads.push(format::encode(Journal::Events, checkpoint, entry)?);
        }
        let kind = Journal::Events.kind();
        let mut rest: &[Vec<u8>] = &payloads;
        while !rest.is_empty() {
            let mut bytes = 0_usize;
            let fits = rest.iter().take_while(|payload| {
                bytes = bytes.saturating_add(payload.len());
                bytes <= COMMIT
            });
            let count = fits.count().max(1);
            let (now, later) = rest.split_at(count.min(rest.len()));
            let records: Vec<(RecordKind, &[u8])> = now.iter().map(|payload| (kind, payload.as_slice())).collect();
            self.wal.append_reserved_blocking(&records).map_err(|error| match error.kind() {
                ErrorKind::Cancelled => closed(WATCH),
                _ => error,
            })?;
            writer.since = writer.since.saturating_add(records.len() as u64);
            rest = later;
        }
        Ok(())
    }

    fn checkpoint(&self, writer: &mut Writer) -> Result<()> {
        let at = format::next(&self.wal);
        let entries = self.state().fold.checkpoint();
        let before = writer.since;
        // If it fails, the next one waits for as many records again.
        writer.since = 0;
        self.append(writer, &entries)?;
        tracing::debug!(records = before, at = %at, "wrote a checkpoint");
        (writer.checkpoint, writer.since) = (at, 0);
        let Some(policy) = self.options.retention.clone() else { return Ok(()) };
        let keep = policy.keep_from.map_or(at, |keep| keep.min(at));
        // A log that is not synced with each commit is synced here, before the records that the checkpoint replaces are dropped.
        self.wal.sync_blocking()?;
        self.wal.retain(policy.with_keep_from(keep)).map(drop)
    }
}

/// The error of every call on a journal that is closed.
pub(super) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Cancelled, operation, "the journal was closed")
}

/// An event that is in the log.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) event: Arc<RuntimeEvent>,
    /// The instance before this event; `None` if it was unknown, and for events inside a resync.
    pub(super) before: Option<Arc<Instance>>,
}
