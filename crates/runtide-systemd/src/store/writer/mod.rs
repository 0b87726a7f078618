//! The writer: it processes writes in groups, and is the only task that changes the record or the front.

mod carry;
mod look;
mod restore;
mod write;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use runtide_core::{
    Error, ErrorKind, Result,
    backend::lock,
    store::{
        Digest, Document, LocalStore, Planned, PlannedChange, Precondition, Resource, ResourceRef, Revision, StoreImage,
    },
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use self::write::take_group;
use super::{
    folder::{Access, Folder, Stamp},
    form::UnitForm,
    manager::{Manager, again},
    name::UnitFileName,
    record::{Intent, Record, decode, encode},
};

const APPLY: &str = "store.apply";

/// Largest number of writes that share one reload.
const GROUP: usize = 256;

/// Time that a group waits for the writers of the last one to come back: a reload takes some fifty times as long.
const LINGER: Duration = Duration::from_millis(2);

/// Pause after a failed reload before the next one in the background: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Number of times that a group begins again because another program writes to the same files.
const ATTEMPTS: usize = 8;

/// A request to the writer.
pub(super) enum Ask {
    Write(Write),
    Restore { fresh: Vec<Fresh>, done: oneshot::Sender<Result<Revision>> },
}

/// A requested write; without a document it is a delete.
pub(super) struct Write {
    pub(super) reference: ResourceRef,
    /// The body, its file and its text.
    pub(super) fresh: Option<Body>,
    pub(super) precondition: Precondition,
    pub(super) done: oneshot::Sender<Result<(PlannedChange, Revision)>>,
}

/// A body, and its text as a unit file.
pub(super) struct Body {
    pub(super) document: Document,
    pub(super) file: UnitFileName,
    pub(super) text: Bytes,
    /// True if it differs from the present resource.
    pub(super) new: bool,
}

/// A resource of a snapshot.
pub(super) struct Fresh {
    pub(super) resource: Arc<Resource>,
    pub(super) file: UnitFileName,
    pub(super) text: Bytes,
}

/// State that the writer shares with readers.
#[derive(Debug)]
pub(super) struct Shared<S> {
    pub(super) front: S,
    pub(super) form: Arc<dyn UnitForm>,
    /// Files in the folder that are not resources.
    pub(super) skipped: Mutex<Vec<(String, &'static str)>>,
}

impl<S> Shared<S> {
    pub(super) fn skipped(&self) -> Vec<(String, &'static str)> {
        lock(&self.skipped).clone()
    }
}

/// A file that belongs to a resource.
#[derive(Clone, Debug)]
struct Held {
    reference: ResourceRef,
    digest: Digest,
    stamp: Option<Stamp>,
}

/// The present resources, by name.
type State = BTreeMap<ResourceRef, Arc<Resource>>;

pub(super) struct Writer<S> {
    shared: Arc<Shared<S>>,
    folder: Folder,
    record: Arc<Record>,
    /// None if no manager reads the files: on a model of a disk.
    manager: Option<Manager>,
    files: BTreeMap<UnitFileName, Held>,
    state: State,
    /// Revision of the index.
    revision: Revision,
    /// Last assigned revision, visible or not.
    last: Revision,
    /// True if the manager may not have read the last change of the files.
    stale: bool,
    /// True if the record has that, for the next opening.
    owes: bool,
    /// True if other programs changed files, possibly without a reload of the manager.
    unread: bool,
    /// Time of the next reload after a failed one, and the pause after another failure.
    later: Option<(Instant, Duration)>,
    /// Error after which the content of the record is uncertain.
    broken: Option<Error>,
}

/// A change of a file by another program: the resource, and its body and text, or none if it is gone.
type Foreign = (ResourceRef, Option<(Document, Bytes)>, UnitFileName);

/// A decided write.
struct Step {
    planned: Planned,
    file: UnitFileName,
    text: Option<Bytes>,
}

/// The reason why a group was not applied; the files are as they were.
enum Trouble {
    /// The manager refuses these units.
    Refused(Vec<(String, Error)>),
    /// Another program changed a file in the meantime.
    Foreign,
    Failed(Error),
}

/// A file to be changed.
#[derive(Clone, Debug)]
struct Change {
    file: UnitFileName,
    before: Option<Bytes>,
    /// Owner and mode of the previous file, if there was one.
    access: Option<Access>,
    after: Option<Bytes>,
}

async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    // A disk has no deadline: after a timeout its state would be unknown.
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| of_disk(operation, error)),
        Err(error) => Err(Error::new(ErrorKind::Cancelled, operation, "the runtime ended").with_source(error)),
    }
}

fn of_disk(operation: &'static str, error: io::Error) -> Error {
    let kind = match ErrorKind::of_disk(&error) {
        // A missing path is not a missing unit: the folder is gone, alone or with its machine.
        ErrorKind::NotFound => ErrorKind::Unavailable,
        kind => kind,
    };
    Error::new(kind, operation, "the folder of unit files cannot be used").with_source(error)
}

impl<S: LocalStore> Writer<S> {
    /// Reads the record, takes back an unacknowledged change, and adopts changes that other programs made in the
    /// meantime.
    pub(super) async fn open(
        shared: Arc<Shared<S>>,
        folder: Folder,
        record: Record,
        manager: Option<Manager>,
    ) -> Result<Self> {
        let record = Arc::new(record);
        let image = match record.index()? {
            Some(index) => decode(&index).await?,
            None => begun_at(&record, shared.front.image().revision).await?,
        };
        let begun = record.intent(image.revision)?;
        let mut writer = Self {
            shared,
            folder,
            record,
            manager,
            files: BTreeMap::new(),
            state: State::new(),
            revision: image.revision,
            last: image.revision,
            stale: false,
            owes: false,
            unread: false,
            later: None,
            broken: None,
        };
        let prepared = writer.folder.clone();
        blocking("store.open", move || prepared.prepare()).await?;
        for resource in &image.resources {
            let file = writer.shared.form.file(&resource.reference)?;
            // A form may refuse to write a text of another program: its file has that text, or the scan adopts it
            // again.
            let written = resource.written();
            let text = writer.shared.form.text(&resource.reference, written);
            let digest = Digest::of(text.as_ref().unwrap_or(&written.bytes));
            writer.files.insert(file, Held { reference: resource.reference.clone(), digest, stamp: None });
            writer.state.insert(resource.reference.clone(), Arc::clone(resource));
        }
        if let Some(begun) = begun {
            writer.take_back_begun(begun).await?;
        }
        writer.shared.front.load(image);
        writer.look().await?;
        Ok(writer)
    }

    /// Takes back a change that a crash interrupted: it was not acknowledged to any caller.
    async fn take_back_begun(&mut self, begun: Intent) -> Result<()> {
        let (folder, record) = (self.folder.clone(), Arc::clone(&self.record));
        let taken_back = blocking("store.open", move || {
            for (name, after, before) in begun.files {
                let Some(file) = named(&name) else { continue };
                let before = before.map(|document| document.bytes);
                // A file with other content than that of the change was written by another program.
                if after != before.as_deref().map(Digest::of) && folder.is(&file, after)? {
                    folder.put(&file, after, before.as_ref(), begun.access.get(&name).copied())?;
                }
                folder.sync(std::iter::once(&file))?;
            }
            record.owe(begun.base)
        });
        taken_back.await?;
        // The manager may have read the change before it was taken back.
        (self.stale, self.owes) = (true, true);
        Ok(())
    }

    /// Processes requests until all senders are gone.
    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>, changed: Arc<Notify>, poll: Duration) {
        let mut queue = VecDeque::new();
        let mut ticks = tokio::time::interval(poll);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = 0;
        loop {
            if queue.is_empty() {
                tokio::select! {
                    biased;
                    ask = asks.recv() => match ask {
                        Some(ask) => queue.push_back(ask),
                        None => return,
                    },
                    () = changed.notified() => self.background_scan().await,
                    _ = ticks.tick() => self.background_scan().await,
                    () = due(self.reload_due()) => self.reload_aside().await,
                }
            }
            if queue.is_empty() {
                continue;
            }
            if last > 1 {
                tokio::time::sleep(LINGER).await;
            }
            while let Ok(ask) = asks.try_recv() {
                queue.push_back(ask);
            }
            let group = take_group(&mut queue);
            last = group.len();
            if group.is_empty() {
                if let Some(Ask::Restore { fresh, done }) = queue.pop_front() {
                    let _ = done.send(self.restore(fresh).await);
                }
            } else {
                self.write(group).await;
            }
        }
    }

    /// Scans in the background, without a caller.
    async fn background_scan(&mut self) {
        if self.broken.is_some() {
            return;
        }
        if let Err(error) = self.look().await {
            tracing::warn!(%error, "the folder of unit files cannot be scanned");
        }
        if self.stale {
            self.reload_aside().await;
        }
    }

    /// Reloads the manager's unit files.
    async fn reload(&mut self) -> Result<()> {
        let Some(manager) = &self.manager else { return Ok(()) };
        self.stale = true;
        let reloaded = manager.reload().await;
        self.stale = reloaded.is_err();
        self.unread &= reloaded.is_err();
        if reloaded.is_ok() && self.owes {
            let record = Arc::clone(&self.record);
            // If that fails, a later opening notifies the manager once more.
            self.owes = blocking("store.reload", move || record.done()).await.is_err();
        }
        let [first, most] = PAUSES;
        self.later = match (&reloaded, self.later) {
            (Ok(()), _) => None,
            (Err(_), None) => Some((Instant::now() + first, first * 2)),
            (Err(_), Some((_, pause))) => Some((Instant::now() + pause, (pause * 2).min(most))),
        };
        reloaded
    }

    /// Reloads in the background, without a caller; later if the last reload failed just now: it may still be under
    /// way.
    async fn reload_aside(&mut self) {
        if self.manager.is_none() {
            return;
        }
        self.stale = true;
        if self.later.is_some_and(|(at, _)| Instant::now() < at) {
            return;
        }
        if let Err(error) = self.reload().await {
            tracing::warn!(%error, "the manager was not notified that its unit files are as before; it will be");
        }
    }

    /// Time at which the manager is to be notified, even if the folder is unchanged.
    fn reload_due(&self) -> Option<Instant> {
        self.later.filter(|_| self.stale && self.broken.is_none()).map(|(at, _)| at)
    }

    fn check(&self) -> Result<()> {
        self.broken.as_ref().map_or(Ok(()), |error| Err(again(error)))
    }

    /// Returns the state and the revision after these steps.
    fn after(&mut self, steps: &[Step]) -> (State, Revision) {
        let mut state = self.state.clone();
        let mut revision = self.revision;
        for Step { planned, .. } in steps {
            match &planned.document {
                Some(document) => {
                    let fresh = Resource::new(planned.reference.clone(), document.clone(), planned.revision);
                    state.insert(planned.reference.clone(), Arc::new(fresh));
                }
                None => {
                    state.remove(&planned.reference);
                }
            }
            revision = revision.max(planned.revision);
        }
        self.last = self.last.max(revision);
        (state, revision)
    }

    /// Makes the state durable. If that fails, it is unknown which of the two states the next opening finds.
    async fn commit(&mut self, state: &State, revision: Revision) -> Result<()> {
        let index = encode(revision, state.len(), state.values().map(|one| &**one)).await?;
        let record = Arc::clone(&self.record);
        let committed = blocking(APPLY, move || record.commit(&index)).await;
        committed.map_err(|error| {
            let error = error.with_context("outcome", "unknown");
            self.broken = Some(again(&error));
            error
        })
    }

    fn forget(&self, steps: Vec<Step>) {
        for step in steps.into_iter().rev() {
            self.shared.front.forget(step.planned);
        }
    }

    fn show(&mut self, steps: Vec<Step>, state: State, revision: Revision) {
        self.state = state;
        self.revision = revision;
        for Step { planned, file, text } in &steps {
            match text {
                Some(text) => {
                    let held = Held { reference: planned.reference.clone(), digest: Digest::of(text), stamp: None };
                    self.files.insert(file.clone(), held);
                }
                None => {
                    self.files.remove(file);
                }
            }
        }
        self.shared.front.publish(steps.into_iter().map(|step| step.planned).collect());
    }
}

/// Initializes a store without a record. Its first revision is durable before any is assigned after it.
async fn begun_at(record: &Arc<Record>, revision: Revision) -> Result<StoreImage> {
    let index = encode(revision, 0, std::iter::empty()).await?;
    let record = Arc::clone(record);
    blocking("store.open", move || record.commit(&index)).await?;
    Ok(StoreImage::new(revision, Vec::new()))
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Parses a name in an intent.
fn named(name: &str) -> Option<UnitFileName> {
    match name.split_once('/') {
        None => UnitFileName::unit(name).ok(),
        Some((folder, file)) => UnitFileName::in_folder(folder.strip_suffix(".d")?, file).ok(),
    }
}
