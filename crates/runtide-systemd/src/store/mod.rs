//! Unit files as declared resources: [`UnitStore`].

mod config;
mod feed;
mod folder;
mod form;
mod manager;
mod name;
mod notices;
mod record;
mod sections;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::{
    collections::BTreeSet,
    fmt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, Result,
    backend::lock,
    manager::Effect,
    store::{
        Applied, Document, LocalStore, Page, PageOptions, PlannedChange, Precondition, Resource, ResourceFormat,
        ResourceRef, Revision, Selector, StoreBackend, StoreSnapshotReader, StoreSnapshotSeal, StoreStats, StoreStream,
        StoreWatchOptions,
    },
    wal::fs::{Disk, OsDisk},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, OnceCell, mpsc, oneshot},
    task::{JoinError, JoinHandle},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use self::{
    config::{UnitStoreConfig, Verify},
    form::{UnitForm, Units},
    name::UnitFileName,
};
use self::{
    feed::{Shown, shown},
    folder::{Folder, Names, OsNames, Sort},
    manager::Manager,
    record::Record,
    writer::{Ask, Body, Fresh, Shared, Write, Writer},
};
use crate::client::Client;

const OPEN: &str = "store.open";
const APPLY: &str = "store.apply";
const RESTORE: &str = "store.restore";

const LARGEST: usize = UnitStoreConfig::LARGEST;

/// Number of queued writes; further callers wait for room.
const QUEUE: usize = 1024;

/// Time for which an opening waits for an earlier store to release the folder.
const HANDOVER: Duration = Duration::from_secs(2);

/// The unit files of a folder, as declared resources. Clones are the same store.
///
/// The files are in the folder, the state that readers and watchers see in a given front (a `MemoryStore`), and the
/// rest, which is the revisions and the bodies that were not written as text, in a record next to the folder.
///
/// # Behavior
/// * `Ok` means that the file is on the disk, that the manager has reloaded and accepted it, and that the record has
///   it. Writes that come together share one reload.
/// * A unit that the manager refuses (`LoadState` is `bad-setting` or `error`), or `systemd-analyze verify` if it can
///   be run, is `InvalidInput` with systemd's own message: the previous file is back, and was reloaded. No watcher saw
///   the refused one.
/// * A file that the manager does not use for the unit, since one of the same name comes before it in its path, or the
///   unit is masked, is a `Conflict` that names the other, and is taken back. A drop-in of a unit that does not exist
///   yet is kept for it.
/// * An equal resource is `Unchanged`, as soon as the manager has read it as well, even if another program wrote it.
/// * A delete stops the unit and waits for its end, disables it in every folder, and removes its file and its drop-ins,
///   each of which has a revision. Instances of a template are not stopped. A restore does the same with the units that
///   it removes.
/// * Units are stopped and disabled after all other files were written and the manager accepted them. A delete or a
///   restore that fails after that, because a unit cannot be stopped, or a file not removed, or the manager goes away,
///   leaves those stopped and disabled that were: the files are put back, and nothing else.
/// * Changes by other programs are detected before each write, at each signal of the manager, and every
///   [`UnitStoreConfig::poll`]. They raise the revision, watchers get an event, and a precondition with an older
///   revision is a `Conflict`. A write compares the file right before it is replaced. A changed file is shown as it is
///   on the disk, even if the manager was not reloaded.
/// * A file keeps its mode and its owner when it is replaced or put back; a new one is readable by all (0644).
/// * Links are never followed. They, files without a unit's name, and files longer than 4 MiB are left alone:
///   [`skipped`](Self::skipped) lists them, and a write to one is a `Conflict`.
/// * One process has a folder open at a time; for others every call is a `Conflict`.
///
/// # Recovery
/// Unacknowledged writes of a process that died are taken back by the next opening, and the manager reloads; a unit
/// that was stopped or disabled stays so. Revisions continue to rise; a watch from an earlier revision is `Expired`. If
/// the record cannot be written, every later write is that error until the store is opened again. Without its record
/// (it may be removed while no store is open) all files are adopted again.
///
/// # Cancel safety
/// A dropped write may still happen, whole. Every other call can be dropped at any time.
///
/// ```no_run
/// # async fn example(front: impl runtide_core::store::LocalStore) -> runtide_core::Result<()> {
/// use runtide_core::store::{Document, Precondition, ResourceFormat, ResourceRef, StoreBackend};
/// use runtide_systemd::{Config, UnitStore, UnitStoreConfig};
///
/// let config = UnitStoreConfig::new(Config::system(), "/etc/systemd/system").with_prefix("shop-");
/// let store = UnitStore::new(config, front)?;
/// let web = ResourceRef::new("", "service", None, "shop-web")?;
/// let unit = Document::new(ResourceFormat::Native, "[Service]\nExecStart=/usr/bin/shop\n");
/// store.apply(&web, unit, Precondition::Absent).await?; // And systemd has it.
/// store.enable(&web).await?;
/// # Ok(()) }
/// ```
pub struct UnitStore<S: LocalStore> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    config: UnitStoreConfig,
    name: String,
    shared: Arc<Shared<S>>,
    manager: Option<Manager>,
    disk: Arc<dyn Disk>,
    names: Arc<dyn Names>,
    writer: OnceCell<mpsc::Sender<Ask>>,
    /// The record that is being opened, which goes on when the call that began it is dropped. Locked by the writer's initialiser.
    opening: tokio::sync::Mutex<Option<JoinHandle<Result<Record>>>>,
    closed: CancellationToken,
    /// Cancelled when the folder that was opened is released.
    released: Mutex<Option<CancellationToken>>,
    /// Task that listens for signals; aborted with the last clone.
    listening: Mutex<Option<tokio::task::AbortHandle>>,
}

impl<S: LocalStore> UnitStore<S> {
    /// Creates a store of unit files. Nothing is opened or connected before the first call.
    ///
    /// # Errors
    /// `InvalidInput` for an impossible configuration; `Unsupported` if the manager's files are not visible from here.
    pub fn new(config: UnitStoreConfig, front: S) -> Result<Self> {
        Self::with_form(config, front, Units)
    }

    /// Creates a store with another mapping of resources to unit files.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_form(config: UnitStoreConfig, front: S, form: impl UnitForm) -> Result<Self> {
        let client = Client::new(config.systemd.clone())?;
        let manager = Manager::new(client, config.directory.clone(), config.is_runtime());
        Self::made(config, front, Arc::new(form), Some(manager), Arc::new(OsDisk::default()), Arc::new(OsNames))
    }

    fn made(
        config: UnitStoreConfig,
        front: S,
        form: Arc<dyn UnitForm>,
        manager: Option<Manager>,
        disk: Arc<dyn Disk>,
        names: Arc<dyn Names>,
    ) -> Result<Self> {
        config.validate()?;
        let name = format!("{}:{}", config.systemd.backend_id(), config.directory.join(&config.prefix).display());
        let inner = Inner {
            name,
            config,
            shared: Arc::new(Shared { front, form, skipped: Mutex::default() }),
            manager,
            disk,
            names,
            writer: OnceCell::new(),
            opening: tokio::sync::Mutex::default(),
            closed: CancellationToken::new(),
            released: Mutex::default(),
            listening: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Closes the store for all clones: every later call is `Cancelled`. A write under way may be done or not, and is taken
    /// back by the next opening if it was not. Returns once the folder is released, so that another store may open it.
    ///
    /// # Cancel safety
    /// A dropped call has closed the store; the folder is released a moment later.
    pub async fn close(&self) {
        self.inner.closed.cancel();
        if let Some(listening) = lock(&self.inner.listening).take() {
            listening.abort();
        }
        // An opening under way comes to its end first.
        let last = self.inner.writer.get_or_try_init(|| async {
            let mut opening = self.inner.opening.lock().await;
            if let Some(record) = &mut *opening {
                // Its record is dropped, and the lock with it.
                drop(record.await);
                *opening = None;
            }
            Err(closed(OPEN))
        });
        let _ = last.await;
        let released = lock(&self.inner.released).clone();
        if let Some(released) = released {
            released.cancelled().await;
        }
    }

    /// Files in the folder that are not resources, each with the reason, as of the last scan.
    ///
    /// # Errors
    /// As every call: if the folder cannot be opened.
    pub async fn skipped(&self) -> Result<Vec<(String, &'static str)>> {
        self.opened().await?;
        Ok(self.inner.shared.skipped())
    }

    /// Enables a unit as its `[Install]` section says, and reloads the manager. Below `/run` that lasts until the next
    /// boot.
    ///
    /// # Errors
    /// `NotFound` if there is no such resource; `InvalidInput` if its `[Install]` section is missing or empty.
    ///
    /// # Cancel safety
    /// A dropped call may still happen.
    pub async fn enable(&self, reference: &ResourceRef) -> Result<Effect> {
        let (manager, unit) = self.installable("systemd.store.enable", reference).await?;
        manager.enable(&unit).await
    }

    /// Disables a unit. It goes on if it runs.
    ///
    /// # Errors
    /// `NotFound` if there is no such resource.
    ///
    /// # Cancel safety
    /// A dropped call may still happen.
    pub async fn disable(&self, reference: &ResourceRef) -> Result<Effect> {
        let (manager, unit) = self.installable("systemd.store.disable", reference).await?;
        manager.disable(&unit).await
    }

    async fn installable(&self, operation: &'static str, reference: &ResourceRef) -> Result<(&Manager, String)> {
        let error = |kind, why: &str| Error::new(kind, operation, why).with_context("resource", reference);
        if self.get(reference, None).await?.is_none() {
            return Err(error(ErrorKind::NotFound, "there is no such resource"));
        }
        let file = self.inner.shared.form.file(reference)?;
        if file.drop_in_name().is_some() {
            return Err(error(ErrorKind::InvalidInput, "a drop-in is not enabled by itself: its unit is"));
        }
        let manager = self.inner.manager.as_ref();
        let manager = manager.ok_or_else(|| error(ErrorKind::Unsupported, "no manager reads these files"))?;
        Ok((manager, file.unit_name().to_owned()))
    }

    /// Opens the store with its first call.
    async fn opened(&self) -> Result<&mpsc::Sender<Ask>> {
        if self.inner.closed.is_cancelled() {
            return Err(closed(OPEN));
        }
        let open = || async {
            // It may have been closed while an earlier opening was waited for.
            if self.inner.closed.is_cancelled() { Err(closed(OPEN)) } else { self.open().await }
        };
        self.inner.writer.get_or_try_init(open).await
    }

    async fn open(&self) -> Result<mpsc::Sender<Ask>> {
        let inner = &self.inner;
        let folder = Folder {
            disk: Arc::clone(&inner.disk),
            names: Arc::clone(&inner.names),
            path: inner.config.folder(),
            prefix: inner.config.prefix.clone(),
        };
        self.plain(&folder.path)?;
        let until = Instant::now() + HANDOVER;
        let record = loop {
            match self.record().await.map_err(|error| closed(OPEN).with_source(error))? {
                // A store that was dropped just now finishes its current write.
                Err(error) if error.kind() == ErrorKind::Conflict && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                record => break record?,
            }
        };
        *lock(&inner.released) = Some(record.released());
        let writer = Writer::open(Arc::clone(&inner.shared), folder, record, inner.manager.clone()).await?;
        let (ask, asks) = mpsc::channel(QUEUE);
        let (changed, closed, poll) = (Arc::new(Notify::new()), inner.closed.clone(), inner.config.poll);
        if let Some(manager) = &inner.manager {
            let listening = tokio::spawn(notices::listen(manager.client().clone(), Arc::clone(&changed)));
            *lock(&inner.listening) = Some(listening.abort_handle());
        }
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = closed.cancelled() => {}
                () = writer.run(asks, changed, poll) => {}
            }
        });
        Ok(ask)
    }

    /// Opens the record, or waits for the opening that a dropped call began.
    async fn record(&self) -> std::result::Result<Result<Record>, JoinError> {
        let mut opening = self.inner.opening.lock().await;
        let begin = || {
            let (disk, path) = (Arc::clone(&self.inner.disk), self.inner.config.record());
            tokio::task::spawn_blocking(move || Record::open(disk, &path))
        };
        let opened = opening.get_or_insert_with(begin).await;
        *opening = None;
        opened
    }

    /// With another root no part of the path may be a link: it would be followed from this process's root.
    fn plain(&self, folder: &Path) -> Result<()> {
        let root = self.inner.config.systemd.root.as_deref().unwrap_or(Path::new("/"));
        if self.inner.config.is_here() {
            return Ok(());
        }
        for part in folder.ancestors().take_while(|part| *part != root && part.starts_with(root)) {
            if matches!(self.inner.names.sort(part), Ok(Some(Sort::Other | Sort::File))) {
                let error =
                    Error::new(ErrorKind::InvalidInput, OPEN, "the folder's path has a link in it, below the root");
                return Err(error.with_context("path", part.display()));
            }
        }
        Ok(())
    }

    async fn ask<T>(&self, operation: &'static str, ask: impl FnOnce(oneshot::Sender<Result<T>>) -> Ask) -> Result<T> {
        let writer = self.opened().await?;
        let (done, waits) = oneshot::channel();
        if writer.send(ask(done)).await.is_err() {
            return Err(closed(operation));
        }
        waits.await.unwrap_or_else(|_| Err(closed(operation).with_context("outcome", "unknown")))
    }

    /// Formats a body as a unit file, if it is valid.
    async fn body(&self, reference: &ResourceRef, document: Document) -> Result<Body> {
        let refused = |why: &str| Error::new(ErrorKind::InvalidInput, APPLY, why).with_context("resource", reference);
        if document.bytes.len() > LARGEST {
            let error = refused("the document is too long");
            return Err(error.with_context("bytes", document.bytes.len()).with_context("most", LARGEST));
        }
        let file = self.file(reference)?;
        let text = self.inner.shared.form.text(reference, &document)?;
        if text.len() as u64 > folder::LONGEST {
            return Err(refused("the unit file would be too long").with_context("bytes", text.len()));
        }
        let there = self.inner.shared.front.get(reference, None).await?;
        let new = there.is_none_or(|there| *there.written() != document);
        Ok(Body { document, file, text, new })
    }

    /// Runs systemd-analyze on changed units, if it sees the same files as the manager; all together, since one may
    /// need another.
    async fn verified(&self, bodies: &[&Body]) -> Result<()> {
        let config = &self.inner.config;
        let Some(manager) = self.inner.manager.as_ref().filter(|_| config.verify == Verify::Auto && config.is_here())
        else {
            return Ok(());
        };
        let whole =
            |unit: &str| bodies.iter().any(|body| body.file.drop_in_name().is_none() && body.file.unit_name() == unit);
        let mut units = BTreeSet::new();
        for body in bodies.iter().filter(|body| body.new) {
            let unit = body.file.unit_name();
            // Drop-ins of a unit that does not exist yet have no effect.
            if !units.contains(unit) && (whole(unit) || manager.knows(unit).await?) {
                units.insert(unit);
            }
        }
        if units.is_empty() {
            return Ok(());
        }
        let files: Vec<_> = bodies.iter().map(|body| (&body.file, &body.text)).collect();
        verify::verify(&config.systemd, &files, &units).await
    }

    /// Formats a body of a snapshot. A text that the form does not write, but reads as it is, was another program's
    /// file: it is written as it was.
    async fn restored(&self, reference: &ResourceRef, document: Document) -> Result<Body> {
        let form = &self.inner.shared.form;
        if document.format == ResourceFormat::Native
            && document.bytes.len() <= LARGEST
            && form.text(reference, &document).is_err()
        {
            let (file, text) = (self.file(reference)?, document.bytes.clone());
            if form.read(&file, &text).is_some_and(|read| read.0 == *reference && read.1 == document) {
                // systemd itself accepted it before.
                return Ok(Body { document, file, text, new: false });
            }
        }
        self.body(reference, document).await
    }

    /// Returns the file of a resource of this store.
    fn file(&self, reference: &ResourceRef) -> Result<UnitFileName> {
        let file = self.inner.shared.form.file(reference)?;
        if !file.unit_name().starts_with(&self.inner.config.prefix) {
            let error = Error::new(ErrorKind::InvalidInput, APPLY, "its name does not begin with the store's prefix");
            return Err(error.with_context("resource", reference).with_context("prefix", &self.inner.config.prefix));
        }
        Ok(file)
    }
}

fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Cancelled, operation, "the store was closed")
}

impl<S> Drop for Inner<S> {
    fn drop(&mut self) {
        let listening = lock(&self.listening).take();
        if let Some(listening) = listening {
            listening.abort();
        }
    }
}

impl<S: LocalStore> Clone for UnitStore<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S: LocalStore> fmt::Debug for UnitStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnitStore").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: LocalStore> StoreBackend for UnitStore<S> {
    fn name(&self) -> &str {
        &self.inner.name
    }

    async fn apply(&self, reference: &ResourceRef, document: Document, precondition: Precondition) -> Result<Applied> {
        self.opened().await?;
        let bytes = document.bytes.clone();
        let body = self.body(reference, document).await?;
        self.verified(&[&body]).await.map_err(|error| error.with_context("resource", reference))?;
        let reference = reference.clone();
        let (change, revision) =
            self.ask(APPLY, |done| Ask::Write(Write { reference, fresh: Some(body), precondition, done })).await?;
        Ok(Applied::new(change.outcome(), revision, bytes))
    }

    async fn get(&self, reference: &ResourceRef, format: Option<ResourceFormat>) -> Result<Option<Arc<Resource>>> {
        self.opened().await?;
        let found = self.inner.shared.front.get(reference, None).await?;
        match (found, format) {
            (Some(found), Some(format)) => self.inner.shared.form.shown(&found, format).map(Some),
            (found, _) => Ok(found),
        }
    }

    async fn list(&self, selector: &Selector, mut options: PageOptions) -> Result<Page> {
        self.opened().await?;
        let format = options.format.take();
        let mut page = self.inner.shared.front.list(selector, options).await?;
        if let Some(format) = format {
            let form = &*self.inner.shared.form;
            page.items = page.items.into_iter().map(|one| shown(form, one, format)).collect();
        }
        Ok(page)
    }

    async fn delete(&self, reference: &ResourceRef, precondition: Precondition) -> Result<Option<Revision>> {
        let reference = reference.clone();
        let asked = self.ask("store.delete", |done| Ask::Write(Write { reference, fresh: None, precondition, done }));
        let (change, revision) = asked.await?;
        Ok(Some(revision).filter(|_| change != PlannedChange::Nothing))
    }

    async fn watch(&self, selector: &Selector, mut options: StoreWatchOptions) -> Result<StoreStream> {
        self.opened().await?;
        let format = options.format.take();
        let inner = self.inner.shared.front.watch(selector, options).await?;
        Ok(match format {
            Some(format) => StoreStream::new(Shown { inner, form: Arc::clone(&self.inner.shared.form), format }),
            None => inner,
        })
    }

    async fn snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<StoreSnapshotSeal> {
        self.opened().await?;
        self.inner.shared.front.snapshot(out).await
    }

    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision> {
        self.opened().await?;
        let mut reader = StoreSnapshotReader::begin(from).await?;
        let mut resources = Vec::new();
        while let Some(resource) = reader.next().await? {
            resources.push(resource);
        }
        let mut bodies = Vec::new();
        for resource in &resources {
            bodies.push(self.restored(&resource.reference, resource.written().clone()).await?);
        }
        self.verified(&bodies.iter().collect::<Vec<_>>()).await?;
        let fresh = resources.into_iter().zip(bodies);
        let fresh = fresh.map(|(resource, Body { file, text, .. })| Fresh { resource, file, text }).collect();
        self.ask(RESTORE, |done| Ask::Restore { fresh, done }).await
    }

    async fn stats(&self) -> Result<StoreStats> {
        self.opened().await?;
        self.inner.shared.front.stats().await
    }
}
