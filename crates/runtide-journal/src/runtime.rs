//! [`RuntimeJournal`]: open, watch, history. The appends are in [`writer`](super::writer).

use std::{fmt, path::Path, sync::Arc};

use super::{
    blocking::{BlockingStream, handle, run_blocking},
    history,
    options::JournalOptions,
    stream::{Journaled, Watching},
    writer::Inner,
};
use runtide_core::{
    BackendId, Cursor, Error, ErrorKind, EventStream, InstanceFilter, InstanceId, InstanceTable, Result,
    RuntimeBackend, TransitionStream, WatchOptions,
    wal::{Anchor, ReadFrom, Repair},
};

const WATCH: &str = "journal.watch";
const HISTORY: &str = "journal.history";

/// The events of backends in a log: after a crash, or a week switched off, no event is lost and none is emitted twice.
///
/// Clones share one journal. It holds the events of any number of backends.
///
/// # Behavior
/// * An event is in the log, with its cursor, in one record, durably, before the stream yields it. Events that arrive together
///   share one commit.
/// * Opened again, a watch resumes where the log ends: the backend gets the last cursor and the table that the log
///   folds to. The events since arrive in the form that the backend has: as edges from the runtime's own history, or as a
///   resync with its gap, whose net effects `transitions` and [`InstanceTable`] mark as such.
/// * A fact that the runtime reported with its own token ([`RuntimeEvent::key`](runtide_core::RuntimeEvent::key)) is in the
///   log once, even if the runtime reports it again: the last 512 keys of each backend are remembered. A repeated fact is
///   neither logged nor yielded, so that its number is missing from the sequence.
/// * The log holds every event of the backend; the filter of [`WatchOptions`] applies to the stream only.
/// * A checkpoint of the table bounds what opening reads. No record is dropped by default:
///   [`JournalOptions::retention`](super::JournalOptions) sets a limit.
/// * Memory grows with the number of instances, not with the length of the log.
///
/// # Recovery
/// An append that fails ends the stream with that error, and every later append fails with it too, until the journal is
/// opened again. Every event that was yielded is in the log.
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
///     println!("{}", event?.kind.name()); // the log has it already
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RuntimeJournal {
    inner: Arc<Inner>,
}

impl RuntimeJournal {
    /// Opens or creates the journal in a folder. Blocks while it reads the records from the last checkpoint on.
    ///
    /// # Errors
    /// `Conflict` while another process, or another value, has it open; `InvalidInput` if the folder holds another log;
    /// `Unsupported` for a journal of another format version; as [`Wal::open`](runtide_core::wal::Wal::open).
    pub fn open(dir: &Path, options: JournalOptions) -> Result<Self> {
        Ok(Self { inner: Arc::new(Inner::open(dir, options)?) })
    }

    /// Closes the journal for all clones: its streams end with `Cancelled`, an append that is under way becomes durable or is
    /// `Cancelled`, and the folder's lock is free when this returns. Blocks for about one sync. Later calls are `Cancelled`;
    /// [`table`](Self::table), [`cursor`](Self::cursor) and [`anchor`](Self::anchor) still answer. Closing twice is harmless.
    ///
    /// Dropping the last clone and the last stream does the same, but a write under way may hold the lock for a moment longer.
    ///
    /// ```
    /// # fn main() -> runtide_core::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use runtide_journal::{JournalOptions, RuntimeJournal};
    ///
    /// let journal = RuntimeJournal::open(dir.path(), JournalOptions::default())?;
    /// journal.close()?;
    /// RuntimeJournal::open(dir.path(), JournalOptions::default())?; // no `Conflict`
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of the disk. After a failure of the log it is closed without an error: that failure was reported before.
    pub fn close(&self) -> Result<()> {
        self.inner.close()
    }

    /// Watches the backend and logs its events; resumes where the log ends. The stream keeps the backend alive.
    ///
    /// # Errors
    /// `Conflict` while this journal watches that backend already; `Cancelled` after [`close`](Self::close); `InvalidInput` for options with a position to
    /// resume from, since the journal resumes where its log ends; as [`RuntimeBackend::watch`], and as an append to the log.
    ///
    /// # Cancel safety
    /// A dropped future may leave the begin of a watch in the log, which is harmless.
    pub async fn watch(&self, backend: Arc<dyn RuntimeBackend>, options: WatchOptions) -> Result<EventStream> {
        self.begin(backend, options).await.map(|(events, _)| events)
    }

    /// As [`RuntimeJournal::watch`], folded: steps of single instances, and the state of the link. The fold begins with the
    /// journal's table, so that a new process gets the steps since the last one, and none that the last one had.
    ///
    /// Each item is of an event that is in the log. A step may be in the log and not have been yielded, as with
    /// [`RuntimeJournal::watch`].
    ///
    /// ```
    /// # async fn example(backend: std::sync::Arc<dyn runtide_core::RuntimeBackend>) -> runtide_core::Result<()> {
    /// use runtide_core::WatchOptions;
    /// use runtide_journal::{JournalOptions, RuntimeJournal};
    /// use std::path::Path;
    ///
    /// let journal = RuntimeJournal::open(Path::new("/var/lib/shop/journal"), JournalOptions::default())?;
    /// let mut changes = journal.transitions(backend, WatchOptions::default()).await?;
    /// while let Some(change) = changes.next().await {
    ///     println!("{}", change?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`RuntimeJournal::watch`].
    ///
    /// # Cancel safety
    /// As [`RuntimeJournal::watch`].
    pub async fn transitions(
        &self,
        backend: Arc<dyn RuntimeBackend>,
        options: WatchOptions,
    ) -> Result<TransitionStream> {
        // The fold applies the filter: it must see an instance cease to match.
        let whole = options.clone().with_filter(InstanceFilter::default());
        let (events, known) = self.begin(backend, whole).await?;
        Ok(TransitionStream::new(events, &options.with_known(known)))
    }

    /// Opens the stream; returns it with the table of its beginning.
    async fn begin(
        &self,
        backend: Arc<dyn RuntimeBackend>,
        options: WatchOptions,
    ) -> Result<(EventStream, InstanceTable)> {
        if options.from.is_some() || options.known.is_some() {
            let own = "a journaled watch resumes where its log ends: it takes no other position";
            return Err(Error::new(ErrorKind::InvalidInput, WATCH, own).with_context("backend", backend.id()));
        }
        self.inner.check_open(WATCH)?;
        let handle = handle(WATCH)?;
        let watching = Watching::new(Arc::clone(&self.inner), backend.id().clone())?;
        let (inner, id, number) = (Arc::clone(&self.inner), backend.id().clone(), watching.number());
        let (from, known) = run_blocking(WATCH, move || inner.begin(&id, number)).await?;
        let filter = options.filter.clone();
        let whole = options.with_filter(InstanceFilter::default()).with_known(from.as_ref().map(|_| known.clone()));
        let stream = backend.watch(whole.with_from(from)).await?;
        Ok((stream.layered(|stream| Journaled::new(stream, backend, watching, handle, filter)), known))
    }

    /// The cursor from which a watch of this backend would resume. `None`: the log has no event of it.
    pub fn cursor(&self, backend: &BackendId) -> Option<Cursor> {
        self.inner.state().fold.resume(backend).cloned()
    }

    /// The table that the log folds to.
    pub fn table(&self) -> InstanceTable {
        self.inner.state().fold.table().clone()
    }

    /// All events of one instance, from the log's first record to its present end; then the stream ends.
    ///
    /// The stream has every event of the instance, in order, and the begin and the end of each resync that lists it or finds
    /// it gone, so that net effects stay marked as such. Folded with [`InstanceTable`], it gives the exact steps.
    ///
    /// It reads the whole log, 4,096 records at a time, on a blocking thread, and buffers no more than those.
    ///
    /// # Errors
    /// As [`Wal::reader`](runtide_core::wal::Wal::reader); `Cancelled` after [`close`](Self::close). In the stream, `Corrupt` where
    /// the log is corrupt.
    pub async fn history(&self, backend: &BackendId, id: &InstanceId) -> Result<EventStream> {
        self.inner.check_open(HISTORY)?;
        let inner = Arc::clone(&self.inner);
        let records = run_blocking(HISTORY, move || inner.wal.reader(ReadFrom::Start)).await?;
        let (head, handle) = (self.anchor().seq, handle(HISTORY)?);
        let selection = history::Selection::new(backend.clone(), id.clone());
        let reader = history::HistoryReader::new(records, head, selection, self.inner.closed.clone());
        Ok(EventStream::new(BlockingStream::new(reader, HISTORY, handle)))
    }

    /// The head of the log's hash chain. Stored elsewhere, it reveals a tail that was cut or rewritten.
    /// [`wal::verify`](runtide_core::wal::verify()) takes it.
    pub fn anchor(&self) -> Anchor {
        self.inner.wal.anchor()
    }

    /// The torn tail that opening cut, if there was one. No event in it had been yielded.
    pub fn repaired(&self) -> Option<&Repair> {
        self.inner.wal.repaired()
    }
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
