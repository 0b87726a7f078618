//! A store on the write-ahead log: [`JournaledStore`].

mod format;
mod history;
mod replay;
mod scribe;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use self::scribe::{Desk, Task};
use crate::{
    JournalOptions,
    blocking::{BlockingStream, handle, run_blocking},
};
use runtide_core::store::{
    Applied, Document, LocalStore, Page, PageOptions, PlannedChange, Precondition, Resource, ResourceFormat,
    ResourceRef, Revision, Selector, StoreBackend, StoreSnapshotReader, StoreSnapshotSeal, StoreStats, StoreStream,
    StoreWatchOptions,
};
use runtide_core::{
    Error, ErrorKind, Result,
    backend::lock,
    wal::{Anchor, ReadFrom, Repair, Wal},
};

const APPLY: &str = "store.apply";
const RESTORE: &str = "store.restore";

/// Room for writes that are under way, in KiB; each takes one at least.
const ROOM: u32 = 64 << 10;

/// A local store on the write-ahead log: what it acknowledged is there after a crash, as the log's
/// [`Durability`](runtide_core::wal::Durability) says; by default also after a power cut. Clones are the same store.
///
/// # Behavior
/// * A write is decided, made durable, and only then shown: nobody reads or watches what a crash could take back. Many writers
///   share a sync.
/// * An answer that rests on an earlier write (`Unchanged`, or `Conflict` with its revision) waits until that one is durable.
/// * A checkpoint is written while writers go on, after [`JournalOptions::checkpoint_every`] records and at least as many as
///   there are resources, so that checkpoints take half of the log at most. Opening reads one checkpoint, what came after it,
///   and what there is of the next one: about three times as many records as there are resources, or as `checkpoint_every`
///   says if that is more.
/// * Opened again, revisions go on rising, and a watch `After` a revision resumes as far back as the records that were read:
///   [`StoreStats::oldest`] says how far.
/// * Nothing is dropped from the log unless [`JournalOptions::retention`] says so: [`history`](Self::history) and
///   [`at`](Self::at) reach as far back as it does.
/// * A restore is in the log as a whole or not at all. Reads go on meanwhile, writes wait.
///
/// # Recovery
/// A write or a sync that fails is told to all whose writes were not yet durable, and to every later write, until the store
/// is opened again; none of these writes is shown, and each may be there after the next opening (`outcome=unknown`). Reading
/// and watching go on.
///
/// ```
/// # async fn example(memory: impl runtide_core::store::LocalStore) -> runtide_core::Result<()> {
/// use runtide_core::store::{Document, Precondition, ResourceRef, StoreBackend};
/// use runtide_journal::{JournaledStore, JournalOptions};
/// use std::path::Path;
///
/// let store = JournaledStore::open(Path::new("/var/lib/shop/store"), memory, JournalOptions::default())?;
/// let web = ResourceRef::new("apps", "Deployment", "shop", "web")?;
/// let applied = store.apply(&web, Document::json("{}"), Precondition::None).await?; // And it is on the disk.
/// store.delete(&web, Precondition::Is(applied.revision)).await?;
/// assert!(store.at(&web, applied.revision).await?.is_some(), "as it was");
/// # Ok(()) }
/// ```
pub struct JournaledStore<S: LocalStore> {
    inner: Arc<Owner<S>>,
}

/// Dropped, it lets the scribe finish.
struct Owner<S: LocalStore> {
    name: String,
    desk: Arc<Desk<S>>,
    room: Arc<Semaphore>,
    scribe: Mutex<Option<JoinHandle<()>>>,
}

impl<S: LocalStore> JournaledStore<S> {
    /// Opens, or makes, the store in a folder; blocks while it reads the last checkpoint and what came after it. What the
    /// inner store held is replaced.
    ///
    /// # Errors
    /// `Conflict` while somebody else has it open; `InvalidInput` if the folder holds another log; `Unsupported` for a store
    /// of another format version; `Corrupt` if it is corrupt; as [`Wal::open`].
    pub fn open(dir: &Path, inner: S, options: JournalOptions) -> Result<Self> {
        let wal = Wal::open(dir, options.wal.clone())?;
        let replayed = replay::replay(&wal, &inner)?;
        let last = replayed.last.unwrap_or_else(|| inner.image().revision);
        let desk = Arc::new(Desk::new(inner, wal, options, last));
        let works = Arc::clone(&desk);
        let (checkpoint, since) = (replayed.checkpoint, replayed.since);
        let scribe =
            thread::Builder::new().name("runtide-store".to_owned()).spawn(move || works.run(checkpoint, since));
        let scribe = scribe.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "store.open", "the system gives no thread").with_source(error)
        })?;
        let room = Arc::new(Semaphore::new(usize::try_from(ROOM).unwrap_or(usize::MAX)));
        let name = format!("dir:{}", dir.display());
        Ok(Self { inner: Arc::new(Owner { name, desk, room, scribe: Mutex::new(Some(scribe)) }) })
    }

    /// The life of one resource, as far back as the log goes, up to now; then the stream ends.
    ///
    /// What the log begins with, since the rest was dropped, comes as `Added`. It reads the whole log, 4,096 records at a
    /// time, on a thread that may block.
    ///
    /// # Errors
    /// As [`Wal::reader`]. In the stream, `Corrupt` where the log is corrupt.
    pub async fn history(&self, reference: &ResourceRef) -> Result<StoreStream> {
        const HISTORY: &str = "store.history";
        let reading = self.reading(HISTORY, reference).await?;
        Ok(StoreStream::new(BlockingStream::new(reading, HISTORY, handle(HISTORY)?)))
    }

    /// The resource as it was at a revision, or `None` if it was not there.
    ///
    /// It reads the whole log, on a thread that may block.
    ///
    /// # Errors
    /// `Expired` if the log does not reach back to that revision, or the store has not come to it; as [`Self::history`].
    pub async fn at(&self, reference: &ResourceRef, revision: Revision) -> Result<Option<Arc<Resource>>> {
        let newest = self.inner.desk.store.stats().await?.revision;
        if revision > newest {
            let error = Error::new(ErrorKind::Expired, "store.at", "the store has not come to that revision");
            return Err(error.with_context("revision", revision).with_context("newest", newest));
        }
        let reading = self.reading("store.at", reference).await?;
        run_blocking("store.at", move || reading.at(revision)).await
    }

    async fn reading(&self, operation: &'static str, reference: &ResourceRef) -> Result<history::Reading> {
        let (desk, reference) = (Arc::clone(&self.inner.desk), reference.clone());
        run_blocking(operation, move || {
            let head = desk.wal.anchor().seq;
            Ok(history::Reading::new(desk.wal.reader(ReadFrom::Start)?, head, reference))
        })
        .await
    }

    /// The head of the log's chain: kept elsewhere, it tells a tail that was cut or rewritten.
    /// [`wal::verify`](runtide_core::wal::verify()) takes it.
    pub fn anchor(&self) -> Anchor {
        self.inner.desk.wal.anchor()
    }

    /// The torn tail that opening cut, if there was one: nothing in it had been acknowledged.
    pub fn repaired(&self) -> Option<&Repair> {
        self.inner.desk.wal.repaired()
    }

    /// Closes the store for all clones: what is under way becomes durable, and the folder's lock is given back. Blocks for
    /// about one sync. Later writes are `Cancelled`; reading goes on.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn close(&self) -> Result<()> {
        self.inner.finish();
        self.inner.desk.wal.close()
    }

    /// Room for a write; taken in the order of the calls.
    async fn room(&self, kib: u32) -> Result<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.inner.room).acquire_many_owned(kib).await;
        room.map_err(|_| Error::new(ErrorKind::Cancelled, APPLY, "the store was closed"))
    }

    /// Decides a write, and waits until it is durable and shown.
    async fn write(
        &self,
        reference: &ResourceRef,
        document: Option<Document>,
        precondition: Precondition,
    ) -> Result<(PlannedChange, Revision)> {
        let kib = document.as_ref().map_or(0, |document| document.bytes.len() >> 10).saturating_add(1);
        let room = self.room(u32::try_from(kib).unwrap_or(ROOM).min(ROOM)).await?;
        let desk = &self.inner.desk;
        let (done, waits) = oneshot::channel();
        let decided = {
            let mut queue = desk.queue();
            queue.check()?;
            let decided = desk.store.prepare(reference, document, precondition);
            match decided {
                Ok(planned) if planned.change != PlannedChange::Nothing => {
                    let decided = (planned.change, planned.revision);
                    desk.push(&mut queue, Task::Write { planned, done, room });
                    Ok(decided)
                }
                // The answer rests on what may not be durable yet.
                decided if !queue.is_at_rest() => {
                    desk.push(&mut queue, Task::Barrier { done, room });
                    decided.map(|planned| (planned.change, planned.revision))
                }
                decided => return decided.map(|planned| (planned.change, planned.revision)),
            }
        };
        waits.await.unwrap_or_else(|_| Err(gone(APPLY)))?;
        decided
    }
}

fn gone(operation: &'static str) -> Error {
    Error::new(ErrorKind::Cancelled, operation, "the store was closed").with_context("outcome", "unknown")
}

impl<S: LocalStore> Owner<S> {
    fn finish(&self) {
        self.desk.close();
        // A waker that the scribe calls may drop the last clone: it cannot wait for itself.
        let mut scribe = lock(&self.scribe);
        if scribe.as_ref().is_some_and(|scribe| scribe.thread().id() == thread::current().id()) {
            return;
        }
        if let Some(scribe) = scribe.take() {
            // It catches nothing and throws nothing.
            let _ = scribe.join();
        }
    }
}

impl<S: LocalStore> Drop for Owner<S> {
    fn drop(&mut self) {
        self.finish();
    }
}

impl<S: LocalStore> Clone for JournaledStore<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S: LocalStore> fmt::Debug for JournaledStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournaledStore").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: LocalStore> StoreBackend for JournaledStore<S> {
    fn name(&self) -> &str {
        &self.inner.name
    }

    async fn apply(&self, reference: &ResourceRef, document: Document, precondition: Precondition) -> Result<Applied> {
        let bytes = document.bytes.clone();
        let (change, revision) = self.write(reference, Some(document), precondition).await?;
        Ok(Applied::new(change.outcome(), revision, bytes))
    }

    async fn get(&self, reference: &ResourceRef, format: Option<ResourceFormat>) -> Result<Option<Arc<Resource>>> {
        self.inner.desk.store.get(reference, format).await
    }

    async fn list(&self, selector: &Selector, options: PageOptions) -> Result<Page> {
        self.inner.desk.store.list(selector, options).await
    }

    async fn delete(&self, reference: &ResourceRef, precondition: Precondition) -> Result<Option<Revision>> {
        let (change, revision) = self.write(reference, None, precondition).await?;
        Ok(Some(revision).filter(|_| change != PlannedChange::Nothing))
    }

    async fn watch(&self, selector: &Selector, options: StoreWatchOptions) -> Result<StoreStream> {
        self.inner.desk.store.watch(selector, options).await
    }

    async fn snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<StoreSnapshotSeal> {
        self.inner.desk.store.snapshot(out).await
    }

    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision> {
        let mut reader = StoreSnapshotReader::begin(from).await?;
        let mut resources = Vec::new();
        while let Some(resource) = reader.next().await? {
            resources.push(resource);
        }
        // All the room there is: nothing is under way, and nothing begins.
        let room = self.room(ROOM).await?;
        let (done, waits) = oneshot::channel();
        {
            let mut queue = self.inner.desk.queue();
            queue.check()?;
            self.inner.desk.push(&mut queue, Task::Restore { resources, done, room });
        }
        waits.await.unwrap_or_else(|_| Err(gone(RESTORE)))
    }

    async fn stats(&self) -> Result<StoreStats> {
        self.inner.desk.store.stats().await
    }
}
