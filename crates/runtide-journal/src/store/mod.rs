//! A store on the write-ahead log: [`JournaledStore`].

mod format;
mod history;
mod replay;
mod shared;

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{AcquireError, SemaphorePermit},
};

use self::shared::{ROOM, Shared, store_error};
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
    wal::{Anchor, ReadFrom, Repair, Wal, WalPurpose},
};

const APPLY: &str = "store.apply";
const RESTORE: &str = "store.restore";

/// A local store on the write-ahead log: an acknowledged write is there after a crash, as the log's
/// [`Durability`](runtide_core::wal::Durability) says; by default also after a power cut. Clones are the same store.
///
/// # Behavior
/// * A write is decided, made durable, and only then published: readers and watchers never see a write that a crash could take
///   back. Many writers share a sync.
/// * An answer that rests on an earlier write (`Unchanged`, or `Conflict` with its revision) waits until that one is durable.
/// * A checkpoint is written while writers go on, after [`JournalOptions::checkpoint_every`] records and at least as many as
///   there are resources, so that checkpoints take half of the log at most. Opening reads one checkpoint, the records after it,
///   and as much as there is of the next one: about three times as many records as there are resources, or three times
///   `checkpoint_every` if that is more.
/// * After a reopening, revisions go on rising, and a watch `After` a revision resumes as far back as the records that were
///   read: the limit is [`StoreStats::oldest`].
/// * Nothing is dropped from the log unless [`JournalOptions::retention`] is set: [`history`](Self::history) and
///   [`at`](Self::at) reach as far back as the log does.
/// * A restore is in the log as a whole or not at all. While it runs, reads go on and writes wait.
///
/// # Recovery
/// After a failed write or sync of the log, every write that was not yet durable and every later write gets that failure,
/// until the store is opened again. None of these writes is published, and each that was handed to the log may be there after the
/// next opening (`outcome=unknown`). Reading and watching go on.
///
/// ```
/// # async fn example(memory: impl runtide_core::store::LocalStore) -> runtide_core::Result<()> {
/// use runtide_core::store::{Document, Precondition, ResourceRef, StoreBackend};
/// use runtide_journal::{JournaledStore, JournalOptions};
/// use std::path::Path;
///
/// let store = JournaledStore::open(Path::new("/var/lib/shop/store"), memory, JournalOptions::default())?;
/// let web = ResourceRef::new("apps", "Deployment", "shop", "web")?;
/// let applied = store.apply(&web, Document::json("{}"), Precondition::None).await?; // It is on the disk now.
/// store.delete(&web, Precondition::Is(applied.revision)).await?;
/// assert!(store.at(&web, applied.revision).await?.is_some(), "as it was");
/// # Ok(()) }
/// ```
pub struct JournaledStore<S: LocalStore> {
    inner: Arc<Owner<S>>,
}

/// The log and the state of the store, shared by all clones; the log is closed when it is dropped.
struct Owner<S: LocalStore> {
    name: String,
    shared: Arc<Shared<S>>,
    wal: Wal,
}

impl<S: LocalStore> JournaledStore<S> {
    /// Opens the store in a folder, or creates it; blocks while it reads the last checkpoint and the records after it. The
    /// contents of the inner store are replaced.
    ///
    /// # Errors
    /// `Conflict` while the store is open already, in this process or another; `InvalidInput` if the folder holds another log;
    /// `Unsupported` for a store of another format version; `Corrupt` if it is corrupt; as [`Wal::open`].
    pub fn open(dir: &Path, inner: S, options: JournalOptions) -> Result<Self> {
        let wal = Wal::open(dir, options.wal.clone().with_purpose(WalPurpose::Store))?;
        let replayed = replay::replay(&wal, &inner)?;
        let last = replayed.last.unwrap_or_else(|| inner.image().revision);
        let (head, checkpoint) = (wal.anchor().seq, (replayed.checkpoint, replayed.since));
        let shared = Arc::new(Shared::new(inner, options, head, checkpoint, last));
        wal.set_commit_hook(Arc::clone(&shared) as _)?;
        Ok(Self { inner: Arc::new(Owner { name: format!("dir:{}", dir.display()), shared, wal }) })
    }

    /// The changes of one resource, from as far back as the log goes up to now; then the stream ends.
    ///
    /// If the log's beginning was dropped, the oldest known state of the resource comes as `Added`. The stream reads the whole
    /// log, 4,096 records at a time, on a blocking thread.
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
    /// It reads the whole log, on a blocking thread.
    ///
    /// # Errors
    /// `Expired` if the log does not reach back to that revision, or the store has not come to it; as [`Self::history`].
    pub async fn at(&self, reference: &ResourceRef, revision: Revision) -> Result<Option<Arc<Resource>>> {
        let newest = self.inner.shared.store.stats().await?.revision;
        if revision > newest {
            let error = Error::new(ErrorKind::Expired, "store.at", "the store has not come to that revision");
            return Err(error.with_context("revision", revision).with_context("newest", newest));
        }
        let reading = self.reading("store.at", reference).await?;
        run_blocking("store.at", move || reading.at(revision)).await
    }

    async fn reading(&self, operation: &'static str, reference: &ResourceRef) -> Result<history::Reading> {
        let (wal, reference) = (self.inner.wal.clone(), reference.clone());
        run_blocking(operation, move || {
            let head = wal.anchor().seq;
            Ok(history::Reading::new(wal.reader(ReadFrom::Start)?, head, reference))
        })
        .await
    }

    /// The head of the log's chain. Keep it elsewhere: with it, [`wal::verify`](runtide_core::wal::verify()) detects a tail that
    /// was cut or rewritten.
    pub fn anchor(&self) -> Anchor {
        self.inner.wal.anchor()
    }

    /// The torn tail that opening cut, if there was one: nothing in it had been acknowledged.
    pub fn repaired(&self) -> Option<&Repair> {
        self.inner.wal.repaired()
    }

    /// Closes the store for all clones: writes under way become durable, and the folder's lock is released. Blocks for
    /// about one sync. Later writes are `Cancelled`; reading goes on.
    ///
    /// # Errors
    /// The errors of the disk.
    pub fn close(&self) -> Result<()> {
        self.inner.wal.close()
    }

    /// Waits for a share of the memory for writes under way, in KiB; granted in the order of the calls.
    async fn room(&self, kib: u32) -> Result<SemaphorePermit<'_>> {
        self.inner.shared.room.acquire_many(kib).await.map_err(no_room)
    }

    /// Decides a write, and waits until it is durable and published.
    async fn write(
        &self,
        reference: &ResourceRef,
        document: Option<Document>,
        precondition: Precondition,
    ) -> Result<(PlannedChange, Revision)> {
        let length = document.as_ref().map_or(0, |document| document.bytes.len());
        let kib = u32::try_from((length >> 10).saturating_add(1)).unwrap_or(ROOM).min(ROOM);
        let room = self.room(kib).await?;
        let (shared, mut begun) = (&*self.inner.shared, false);
        let payload = length.min(Document::MAX_BYTES).saturating_add(format::overhead(reference));
        let handed = self.inner.wal.hand_over(payload, |forming| {
            let (decided, pushed) = shared.decide(forming, reference, document, precondition, kib);
            begun = pushed;
            if pushed {
                // `committed` or `failed` releases it, even if the caller is dropped.
                room.forget();
                return (decided, None);
            }
            (decided, Some(room))
        });
        match handed.await {
            Ok((decided, _room)) => decided,
            Err(error) => Err(store_error(&error, begun)),
        }
    }
}

/// All of the memory for writes under way; released on drop.
struct AllRoom<S: LocalStore>(Arc<Owner<S>>);

impl<S: LocalStore> Drop for AllRoom<S> {
    fn drop(&mut self) {
        self.0.shared.room.add_permits(usize::try_from(ROOM).unwrap_or(usize::MAX));
    }
}

fn no_room(_: AcquireError) -> Error {
    Error::new(ErrorKind::Cancelled, APPLY, "the store was closed")
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
        self.inner.shared.store.get(reference, format).await
    }

    async fn list(&self, selector: &Selector, options: PageOptions) -> Result<Page> {
        self.inner.shared.store.list(selector, options).await
    }

    async fn delete(&self, reference: &ResourceRef, precondition: Precondition) -> Result<Option<Revision>> {
        let (change, revision) = self.write(reference, None, precondition).await?;
        Ok(Some(revision).filter(|_| change != PlannedChange::Nothing))
    }

    async fn watch(&self, selector: &Selector, options: StoreWatchOptions) -> Result<StoreStream> {
        self.inner.shared.store.watch(selector, options).await
    }

    async fn snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<StoreSnapshotSeal> {
        self.inner.shared.store.snapshot(out).await
    }

    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision> {
        let mut reader = StoreSnapshotReader::begin(from).await?;
        let mut resources = Vec::new();
        while let Some(resource) = reader.next().await? {
            resources.push(resource);
        }
        // With all of the room taken, no write is under way, and none can begin.
        self.room(ROOM).await?.forget();
        let room = AllRoom(Arc::clone(&self.inner));
        run_blocking(RESTORE, move || room.0.shared.restore(&room.0.wal, resources)).await
    }

    async fn stats(&self) -> Result<StoreStats> {
        self.inner.shared.store.stats().await
    }
}
