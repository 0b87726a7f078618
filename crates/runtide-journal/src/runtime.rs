//! [`RuntimeJournal`]: opening, writing, checkpoints.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

use super::{
    blocking::{BlockingStream, handle, run_blocking},
    fold::{Entry, Fold},
    format::{self, Journal},
    history,
    options::JournalOptions,
    stream::{Journaled, Watching},
};
use runtide_core::{
    BackendId, Cursor, Error, ErrorKind, EventStream, InstanceId, InstanceTable, Result, RuntimeBackend, RuntimeEvent,
    RuntimeEventKind, WatchOptions,
    backend::lock,
    wal::{Anchor, RecordKind, Repair, Seq, Wal},
};

const WATCH: &str = "journal.watch";

/// Bytes of payloads in one commit: well below what the log takes.
const COMMIT: usize = 16 << 20;

/// What backends tell, in a log: a crash, or a week switched off, loses nothing, and tells nothing twice.
///
/// Clones are the same journal. Several backends may be in one.
///
/// # Behavior
/// * An event is in the log, with its cursor, in one record, durably, before the stream yields it. What is at hand together is
///   one commit.
/// * Opened again, a watch resumes where the log ends: the backend is handed the last cursor and the table that the log
///   comes to. What happened meanwhile arrives as the backend can tell it: as edges from the runtime's own history, or as a
///   bracket with its gap, whose net effects `transitions` and [`InstanceTable`] token.
/// * A fact that the runtime reported with a token of its own ([`RuntimeEvent::key`]) is in the log once, though the runtime
///   tells it again: of each backend the last 512 keys are remembered. What is told again is neither logged nor yielded, so
///   that a place in the numbering stays empty.
/// * The log has everything that the backend tells; the filter of [`WatchOptions`] is for what the stream yields.
/// * A checkpoint of the table bounds what opening reads. Nothing is dropped unless
///   [`JournalOptions::retention`](super::JournalOptions) says so.
/// * Memory grows with the number of instances, not with the length of the log.
///
/// # Recovery
/// An append that fails ends the stream with that error, and every later append fails alike, until the journal is opened
/// again. What was yielded is in the log.
///
/// ```
/// # async fn example(backend: std::sync::Arc<dyn runtide_core::RuntimeBackend>) -> runtide_core::Result<()> {
/// use runtide_core::WatchOptions;
/// use runtide_journal::{JournalOptions, RuntimeJournal};
/// use std::path::Path;
///
/// let journal = RuntimeJournal::open(Path::new("/var/lib/shop/journal"), JournalOptions::default())?;
/// let mut events = journal.watch(backend, WatchOptions::default()).await?;
/// while let Some(event) = events.next().await {
///     println!("{}", event?.kind.name()); // and it is in the log
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RuntimeJournal {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    wal: Wal,
    options: JournalOptions,
    /// Who writes; held while the disk works.
    pen: Mutex<Pen>,
    /// Never held while the disk works.
    state: Mutex<State>,
}

#[derive(Debug)]
struct Pen {
    checkpoint: Seq,
    since: u64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) fold: Fold,
    /// The backends that are watched, each by its present watch.
    pub(super) watching: BTreeMap<BackendId, u64>,
    watches: u64,
}

impl RuntimeJournal {
    /// Opens, or makes, the journal in a folder; blocks while it reads what came after the last checkpoint.
    ///
    /// # Errors
    /// `Conflict` while somebody else has it open; `InvalidInput` if the folder holds another log; `Unsupported` for a
    /// journal of another format version; as [`Wal::open`](runtide_core::wal::Wal::open).
    pub fn open(dir: &Path, options: JournalOptions) -> Result<Self> {
        let wal = Wal::open(dir, options.wal.clone())?;
        let (checkpoint, records) = format::replay(Journal::Events, &wal)?;
        let (mut state, mut since) = (State::default(), 0);
        for record in records {
            if let Some(entry) = format::decode::<Entry>(Journal::Events, &record?)? {
                state.fold.read(entry);
            }
            since += 1;
        }
        let (pen, state) = (Mutex::new(Pen { checkpoint, since }), Mutex::new(state));
        Ok(Self { inner: Arc::new(Inner { wal, options, pen, state }) })
    }

    /// The backend's watch, in the log: it resumes where the log ends. The stream keeps the backend.
    ///
    /// # Errors
    /// `Conflict` while this journal watches that backend already; `InvalidInput` for options that say where to resume,
    /// which is the journal's to say; as [`RuntimeBackend::watch`], and as an append to the log.
    ///
    /// # Cancel safety
    /// Dropped, the log may say that a watch began, which is harmless.
    pub async fn watch(&self, backend: Arc<dyn RuntimeBackend>, options: WatchOptions) -> Result<EventStream> {
        if options.from.is_some() || options.known.is_some() {
            let own = "a journaled watch resumes where its log ends: it takes no other place";
            return Err(Error::new(ErrorKind::InvalidInput, WATCH, own).with_context("backend", backend.id()));
        }
        let handle = handle(WATCH)?;
        let watching = self.claim(backend.id())?;
        let (inner, id, number) = (Arc::clone(&self.inner), backend.id().clone(), watching.number());
        let (from, known) = run_blocking(WATCH, move || inner.begin(&id, number)).await?;
        let filter = options.filter.clone();
        let whole =
            options.with_filter(runtide_core::InstanceFilter::default()).with_known(from.as_ref().map(|_| known));
        let stream = backend.watch(whole.with_from(from)).await?;
        Ok(EventStream::new(Journaled::new(stream, backend, watching, handle, filter)))
    }

    fn claim(&self, backend: &BackendId) -> Result<Watching> {
        let mut state = lock(&self.inner.state);
        if state.watching.contains_key(backend) {
            let twice = "this journal watches that backend already, and a fact is in it once";
            return Err(Error::new(ErrorKind::Conflict, WATCH, twice).with_context("backend", backend));
        }
        state.watches += 1;
        let number = state.watches;
        state.watching.insert(backend.clone(), number);
        Ok(Watching::new(Arc::clone(&self.inner), backend.clone(), number))
    }

    /// Where a watch of this backend would resume. `None`: the log has nothing of it.
    pub fn cursor(&self, backend: &BackendId) -> Option<Cursor> {
        lock(&self.inner.state).fold.resume(backend).cloned()
    }

    /// What the log comes to.
    pub fn table(&self) -> InstanceTable {
        lock(&self.inner.state).fold.table().clone()
    }

    /// The life of one instance, as far back as the log goes, up to now; then the stream ends.
    ///
    /// Every event that speaks of it, in order, and the begin and the end of each bracket that shows it or finds it gone: what
    /// was not seen to happen stays marked as such, and folding the stream with [`InstanceTable`] gives the exact steps.
    ///
    /// It reads the whole log, 4,096 records at a time, on a thread that may block, and holds no more than those.
    ///
    /// # Errors
    /// As [`Wal::reader`](runtide_core::wal::Wal::reader). In the stream, `Corrupt` where the log is corrupt.
    pub async fn history(&self, backend: &BackendId, id: &InstanceId) -> Result<EventStream> {
        let inner = Arc::clone(&self.inner);
        let reader =
            run_blocking("journal.history", move || inner.wal.reader(runtide_core::wal::ReadFrom::Start)).await?;
        let (head, handle) = (self.anchor().seq, handle("journal.history")?);
        let reading = history::Reading::new(reader, head, backend.clone(), id.clone());
        Ok(EventStream::new(BlockingStream::new(reading, "journal.history", handle)))
    }

    /// The head of the log's chain: kept elsewhere, it tells a tail that was cut or rewritten.
    /// [`wal::verify`](runtide_core::wal::verify()) takes it.
    pub fn anchor(&self) -> Anchor {
        self.inner.wal.anchor()
    }

    /// The torn tail that opening cut, if there was one: nothing in it had been yielded.
    pub fn repaired(&self) -> Option<&Repair> {
        self.inner.wal.repaired()
    }
}

impl Inner {
    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Says that a watch begins, and where it resumes.
    fn begin(&self, backend: &BackendId, number: u64) -> Result<(Option<Cursor>, InstanceTable)> {
        let mut pen = lock(&self.pen);
        self.check(backend, number)?;
        let (from, known) = {
            let mut state = self.state();
            state.fold.abandon(backend);
            (state.fold.resume(backend).cloned(), state.fold.table().only(backend))
        };
        self.append(&mut pen, &[Entry::Watch { backend: backend.clone(), from: from.clone() }])?;
        Ok((from, known))
    }

    /// Puts events into the log, and gives those that were not there, each with what was known of its instance before.
    pub(super) fn record(
        &self,
        backend: &BackendId,
        number: u64,
        events: Vec<Arc<RuntimeEvent>>,
    ) -> Result<Vec<Recorded>> {
        let mut pen = lock(&self.pen);
        self.check(backend, number)?;
        let fresh: Vec<Entry> = {
            let state = self.state();
            let mut seen = std::collections::HashSet::new();
            let mut again =
                |event: &RuntimeEvent| state.fold.knows(event) || event.key().is_some_and(|key| !seen.insert(key));
            events.into_iter().filter(|event| !again(event)).map(Entry::Event).collect()
        };
        self.append(&mut pen, &fresh)?;
        let mut recorded = Vec::with_capacity(fresh.len());
        let (rows, between) = {
            let mut state = self.state();
            for entry in fresh {
                let Entry::Event(event) = entry else { continue };
                let before = event.instance().filter(|_| !matches!(event.kind, RuntimeEventKind::Present(_)));
                let before = before.and_then(|now| state.fold.table().get(&event.backend, &now.id)).cloned();
                state.fold.apply(&event);
                recorded.push(Recorded { event, before });
            }
            (state.fold.table().len(), state.fold.is_between())
        };
        if !between
            && self.options.is_due(pen.since, rows)
            && let Err(error) = self.checkpoint(&mut pen)
        {
            // The events are durable, and the log is as good as it was: only longer to read than it need be.
            tracing::warn!(%error, "no checkpoint");
        }
        Ok(recorded)
    }

    /// A watch that was dropped writes no more.
    fn check(&self, backend: &BackendId, number: u64) -> Result<()> {
        if self.state().watching.get(backend) == Some(&number) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Cancelled, WATCH, "the stream was dropped").with_context("backend", backend))
    }

    fn append(&self, pen: &mut Pen, entries: &[Entry]) -> Result<()> {
        // Only the newest record is asked where to begin: the end of a checkpoint points to that checkpoint.
        let begin = format::next(&self.wal);
        let mut payloads = Vec::with_capacity(entries.len());
        for entry in entries {
            let checkpoint = if matches!(entry, Entry::CheckpointEnd(_)) { begin } else { pen.checkpoint };
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
            self.wal.append_reserved_blocking(&records)?;
            pen.since = pen.since.saturating_add(records.len() as u64);
            rest = later;
        }
        Ok(())
    }

    fn checkpoint(&self, pen: &mut Pen) -> Result<()> {
        let at = format::next(&self.wal);
        let entries = self.state().fold.checkpoint();
        let before = pen.since;
        // Not tried again at once if it fails.
        pen.since = 0;
        self.append(pen, &entries)?;
        tracing::debug!(records = before, at = %at, "a checkpoint");
        (pen.checkpoint, pen.since) = (at, 0);
        let Some(policy) = self.options.retention.clone() else { return Ok(()) };
        let keep = policy.keep_from.map_or(at, |keep| keep.min(at));
        // A log that is not synced with each commit must be, before what the checkpoint stands for goes.
        self.wal.sync_blocking()?;
        self.wal.retain(policy.with_keep_from(keep)).map(drop)
    }
}

/// An event that is in the log now.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) event: Arc<RuntimeEvent>,
    pub(super) before: Option<Arc<runtide_core::Instance>>,
}

impl fmt::Debug for RuntimeJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, watching) = {
            let state = self.inner.state();
            (state.fold.table().len(), state.watching.len())
        };
        f.debug_struct("RuntimeJournal").field("rows", &rows).field("watching", &watching).finish_non_exhaustive()
    }
}
