//! Resources in memory: [`MemoryStore`].

mod ahead;
mod collection;
mod history;
mod index;
mod options;
mod pass;
mod subscription;
mod tree;
mod view;
mod write;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::SystemTime,
};

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, Result,
    store::{
        Applied, Document, LocalStore, Page, PageOptions, PageToken, Planned, Precondition, Resource, ResourceFormat,
        ResourceRef, Revision, Selector, StoreBackend, StoreImage, StoreSnapshotReader, StoreSnapshotSeal,
        StoreSnapshotWriter, StoreStats, StoreStream, StoreWatchOptions,
    },
};
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::options::StoreOptions;
use self::{
    ahead::{FEW, ask_for_bytes},
    history::History,
    index::Index,
    subscription::Subscription,
    tree::{Growing, Tree},
};

const LIST: &str = "store.list";

/// Default number of writes that the history keeps.
const HISTORY: usize = 10_000;

/// Resources in memory. Clones share them.
///
/// # Behavior
/// * Revisions have one order for the whole store; writers and listings have a lock for each kind and namespace. A get waits
///   for neither. The first listing after an addition or a removal sorts the names of that kind and namespace, and its writers
///   wait for the sort.
/// * Watchers are positions in one history of the last 10,000 writes ([`StoreOptions::history`]), so that memory does not grow
///   with their number. A write wakes the watchers that wait for it, and does nothing else for them. A watcher that falls
///   behind the history gets a `Reset` with the number of writes that it missed, and then every resource as `Added`.
/// * Bodies are shared by the store, its history and all readers; none is copied.
/// * A listing without a limit is one page. Each page of a listing shows the store at the first page's revision, as long as
///   the history reaches back to it.
/// * Nothing survives the process: for durability, wrap the store in a `JournaledStore` (`runtide-journal`).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> runtide_core::Result<()> {
/// use runtide_core::{ErrorKind, store::{ApplyOutcome, Document, Precondition, ResourceRef, StoreBackend}};
/// use runtide_memory::MemoryStore;
///
/// let store = MemoryStore::new();
/// let web = ResourceRef::new("apps", "Deployment", "shop", "web")?;
/// let first = store.apply(&web, Document::json(r#"{"replicas":1}"#), Precondition::Absent).await?;
/// assert_eq!(first.outcome, ApplyOutcome::Created);
///
/// // Compare and set: a write succeeds only with the present revision.
/// let more = Document::json(r#"{"replicas":2}"#);
/// store.apply(&web, more.clone(), Precondition::Is(first.revision)).await?;
/// let late = store.apply(&web, more, Precondition::Is(first.revision)).await;
/// assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    /// Each write holds it for reading: no write runs while it is held for writing.
    tree: RwLock<Tree>,
    /// Taken inside of the locks of the tree and of a scope, and held only briefly.
    history: Mutex<History>,
    /// Its locks are always the last to be taken.
    index: Index,
}

/// Ignores poison: no code that holds a lock panics, and if it did, the locked value is consistent between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tree_mut(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_options(StoreOptions::default())
    }

    /// An empty store with these options.
    pub fn with_options(options: StoreOptions) -> Self {
        let capacity = options.history.map_or(HISTORY, std::num::NonZeroUsize::get);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let micros = || Revision(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        let inner = Inner {
            name: options.name.unwrap_or_else(|| "memory".to_owned()),
            tree: RwLock::default(),
            history: Mutex::new(History::new(capacity, options.first.unwrap_or_else(micros))),
            index: Index::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    fn find(&self, reference: &ResourceRef) -> Option<Arc<Resource>> {
        let index = &self.inner.index;
        index.get(index.key(reference.as_str()))
    }
}

#[async_trait]
impl StoreBackend for MemoryStore {
    fn name(&self) -> &str {
        &self.inner.name
    }

    async fn apply(&self, reference: &ResourceRef, document: Document, precondition: Precondition) -> Result<Applied> {
        self.inner.apply(reference, document, precondition)
    }

    async fn get(&self, reference: &ResourceRef, format: Option<ResourceFormat>) -> Result<Option<Arc<Resource>>> {
        match (self.find(reference), format) {
            (Some(resource), Some(format)) => resource.convert(format).map(Some),
            (found, _) => Ok(found),
        }
    }

    async fn list(&self, selector: &Selector, options: PageOptions) -> Result<Page> {
        let after = options.after.as_ref().map(read_token).transpose()?;
        let (at, behind) = after.map_or((None, None), |(at, behind)| (Some(at), Some(behind)));
        let most = options.limit.map_or(usize::MAX, |limit| usize::try_from(limit.get()).unwrap_or(usize::MAX));
        let found = self.inner.rows(at, selector, behind.as_ref(), most)?;
        let (mut rows, mut cut) = (found.rows, found.cut);
        if rows.len() > most {
            rows.truncate(most);
            cut = rows.last().map(|last| last.reference.clone());
        }
        if !selector.labels.is_empty() {
            rows.retain(|row| selector.matches(row));
        }
        if options.format.is_some() {
            for row in &mut rows {
                *row = row.shown(options.format);
            }
        }
        let revision = found.point.revision;
        Ok(Page::new(rows, revision, cut.map(|cut| PageToken::from(format!("{revision}:{cut}")))))
    }

    async fn delete(&self, reference: &ResourceRef, precondition: Precondition) -> Result<Option<Revision>> {
        self.inner.delete(reference, precondition)
    }

    async fn watch(&self, selector: &Selector, options: StoreWatchOptions) -> Result<StoreStream> {
        Ok(StoreStream::from_feed(Subscription::new(&self.inner, selector, &options)?))
    }

    async fn snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<StoreSnapshotSeal> {
        let image = self.image();
        let mut writer = StoreSnapshotWriter::begin(out, image.revision, image.resources.len() as u64);
        let mut resources = image.resources.into_iter();
        while !resources.as_slice().is_empty() {
            ask_for_bytes(resources.as_slice().iter().take(FEW));
            // Each resource is released while it is still in the L1 cache.
            for resource in resources.by_ref().take(FEW) {
                writer.put(&resource).await?;
            }
        }
        writer.seal().await
    }

    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision> {
        let mut reader = StoreSnapshotReader::begin(from).await?;
        let guess = self.inner.guess();
        let mut fresh = Growing::new(&self.inner.index);
        while let Some(mut resource) = reader.next().await? {
            // Stamped here, while the resource is still in the L1 cache.
            Arc::make_mut(&mut resource).revision = guess;
            fresh.push(resource);
        }
        self.inner.replace(fresh, guess)
    }

    async fn stats(&self) -> Result<StoreStats> {
        let history = lock(&self.inner.history);
        Ok(StoreStats::new(history.count, history.subscribers(), history.revision(), history.oldest()))
    }
}

impl LocalStore for MemoryStore {
    fn prepare(
        &self,
        reference: &ResourceRef,
        document: Option<Document>,
        precondition: Precondition,
    ) -> Result<Planned> {
        self.inner.prepare(reference, document, precondition)
    }

    fn publish(&self, planned: Vec<Planned>) {
        self.inner.publish(planned);
    }

    fn forget(&self, planned: Planned) {
        self.inner.forget(&planned);
    }

    fn count(&self) -> u64 {
        lock(&self.inner.history).count
    }

    fn image(&self) -> StoreImage {
        // Only a listing at a given revision can fail, and this one is at the newest.
        match self.inner.rows(None, &Selector::all(), None, usize::MAX) {
            Ok(all) => StoreImage::new(all.point.revision, all.rows),
            Err(_) => StoreImage::default(),
        }
    }

    fn load(&self, image: StoreImage) {
        self.inner.load(image);
    }
}

/// Parses a page token: `revision:group/kind/namespace/name`.
fn read_token(token: &PageToken) -> Result<(Revision, ResourceRef)> {
    let read = || {
        let (revision, reference) = token.as_str().split_once(':')?;
        Some((Revision(revision.parse().ok()?), reference.parse().ok()?))
    };
    read().ok_or_else(|| {
        let shown: String = token.as_str().chars().take(64).collect();
        Error::new(ErrorKind::InvalidInput, LIST, "this is not a page token of this store")
            .with_context("token", format!("{shown:?}"))
    })
}
