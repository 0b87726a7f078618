//! The one who writes: it takes what was asked for, a group at a time, and nobody else changes the record or shows anything.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use runtide_core::{
    Digest, Document, Error, ErrorKind, LocalStore, Planned, PlannedChange, Precondition, Resource, ResourceFormat,
    ResourceRef, Result, Revision, StoreImage,
};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    folder::{Folder, Found, Put, Stamp},
    form::UnitForm,
    manager::{Manager, again},
    name::UnitFileName,
    record::{Intent, Record, decode, encode},
};

const APPLY: &str = "store.apply";
const LOOK: &str = "store.look";

/// As many writes share one reload at most.
const GROUP: usize = 256;

/// How long a group waits for writers of the last one to come back: a reload takes some fifty times as long.
const LINGER: Duration = Duration::from_millis(2);

/// How often a group begins anew because somebody else writes to the same files.
const ATTEMPTS: usize = 8;

/// Something for the keeper to do.
pub(super) enum Ask {
    Write(Write),
    Restore { fresh: Vec<Fresh>, done: oneshot::Sender<Result<Revision>> },
}

/// A write that is asked for; no document is a delete.
pub(super) struct Write {
    pub(super) reference: ResourceRef,
    /// The body, its file and its text.
    pub(super) fresh: Option<Body>,
    pub(super) precondition: Precondition,
    pub(super) done: oneshot::Sender<Result<(PlannedChange, Revision)>>,
}

/// A body, and how it is written as a unit file.
pub(super) struct Body {
    pub(super) document: Document,
    pub(super) file: UnitFileName,
    pub(super) text: Bytes,
}

/// A resource of a snapshot.
pub(super) struct Fresh {
    pub(super) resource: Arc<Resource>,
    pub(super) file: UnitFileName,
    pub(super) text: Bytes,
}

/// What the keeper and those who read share.
#[derive(Debug)]
pub(super) struct Shared<S> {
    pub(super) front: S,
    pub(super) form: Arc<dyn UnitForm>,
    /// What lies in the folder and is not taken for a resource.
    pub(super) skipped: Mutex<Vec<(String, &'static str)>>,
}

impl<S> Shared<S> {
    pub(super) fn skipped(&self) -> Vec<(String, &'static str)> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A file that is a resource's.
#[derive(Clone, Debug)]
struct Held {
    reference: ResourceRef,
    digest: Digest,
    stamp: Option<Stamp>,
}

/// What is there, by name.
type State = BTreeMap<ResourceRef, Arc<Resource>>;

pub(super) struct Keeper<S> {
    shared: Arc<Shared<S>>,
    folder: Folder,
    record: Arc<Record>,
    /// None where no manager looks at the files: in a model of a disk.
    manager: Option<Manager>,
    files: BTreeMap<UnitFileName, Held>,
    state: State,
    /// Of the index.
    revision: Revision,
    /// The last that was given away, shown or not.
    last: Revision,
    /// The manager may not have seen the last change of the files.
    stale: bool,
    /// What is in the record is in doubt.
    broken: Option<Error>,
}

/// A write that was decided.
struct Step {
    planned: Planned,
    file: UnitFileName,
    text: Option<Bytes>,
}

/// Why a group was not carried out; the files are as they were.
enum Trouble {
    /// The manager does not take these units.
    Refused(Vec<(String, Error)>),
    /// Somebody else changed a file meanwhile.
    Foreign,
    Failed(Error),
}

/// A file to be changed.
#[derive(Clone, Debug)]
struct Change {
    file: UnitFileName,
    before: Option<Bytes>,
    after: Option<Bytes>,
}

async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    // A disk has no deadline: nobody could say what it did after one.
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Unavailable,
                _ => ErrorKind::Unexpected,
            };
            Error::new(kind, operation, format!("the folder of unit files: {error}")).with_source(error)
        }),
        Err(error) => Err(Error::new(ErrorKind::Cancelled, operation, "the runtime ended").with_source(error)),
    }
}

impl<S: LocalStore> Keeper<S> {
    /// Reads the record, takes back what was begun and not acknowledged, and looks at what others changed meanwhile.
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
        let mut keeper = Self {
            shared,
            folder,
            record,
            manager,
            files: BTreeMap::new(),
            state: State::new(),
            revision: image.revision,
            last: image.revision,
            stale: false,
            broken: None,
        };
        let prepared = keeper.folder.clone();
        blocking("store.open", move || prepared.prepare()).await?;
        for resource in &image.resources {
            let file = keeper.shared.form.file(&resource.reference)?;
            let digest = Digest::of(&keeper.shared.form.text(&resource.reference, resource.written())?);
            keeper.files.insert(file, Held { reference: resource.reference.clone(), digest, stamp: None });
            keeper.state.insert(resource.reference.clone(), Arc::clone(resource));
        }
        if let Some(begun) = begun {
            keeper.take_back_begun(begun).await?;
        }
        keeper.shared.front.load(image);
        keeper.look().await?;
        Ok(keeper)
    }

    /// What was begun before a crash was acknowledged to nobody.
    async fn take_back_begun(&mut self, begun: Intent) -> Result<()> {
        let (folder, record) = (self.folder.clone(), Arc::clone(&self.record));
        let found = blocking("store.open", move || {
            let mut taken_back = false;
            for (name, after, before) in begun.files {
                let Some(file) = named(&name) else { continue };
                let now = match folder.read(&file)? {
                    Some(Ok(text)) => Some(Digest::of(&text)),
                    Some(Err(_)) => continue,
                    None => None,
                };
                let before = before.map(|document| document.bytes);
                // Anything else than what was begun is somebody else's.
                if now == after && now != before.as_deref().map(Digest::of) {
                    folder.put(&file, now, before.as_ref())?;
                    taken_back = true;
                }
                folder.sync(std::iter::once(&file))?;
            }
            record.done()?;
            Ok(taken_back)
        });
        self.stale = found.await?;
        Ok(())
    }

    /// Does what is asked until nobody can ask any more.
    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>, told: Arc<Notify>, poll: Duration) {
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
                    () = told.notified() => self.look_aside().await,
                    _ = ticks.tick() => self.look_aside().await,
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

    /// A look that nobody waits for.
    async fn look_aside(&mut self) {
        if self.broken.is_some() {
            return;
        }
        if let Err(error) = self.look().await {
            tracing::warn!(%error, "the folder of unit files cannot be looked at");
        }
        if self.stale {
            self.reload_aside().await;
        }
    }

    async fn reload_aside(&mut self) {
        let Some(manager) = &self.manager else { return };
        match manager.reload().await {
            Ok(()) => self.stale = false,
            Err(error) => {
                self.stale = true;
                tracing::warn!(%error, "the manager was not told that its unit files are as before; it will be");
            }
        }
    }

    /// Takes in what others changed: each change has a revision of its own.
    async fn look(&mut self) -> Result<()> {
        self.check()?;
        let known = self.files.iter().map(|(file, held)| (file.clone(), held.stamp)).collect();
        let folder = self.folder.clone();
        let mut scan = blocking(LOOK, move || folder.scan(&known)).await?;
        let mut gone: BTreeSet<UnitFileName> = self.files.keys().cloned().collect();
        let mut steps = Vec::new();
        for (file, found) in std::mem::take(&mut scan.files) {
            let (text, stamp) = match found {
                Found::Same => {
                    gone.remove(&file);
                    continue;
                }
                Found::Read(text, stamp) => (text, stamp),
            };
            let digest = Digest::of(&text);
            if let Some(held) = self.files.get_mut(&file).filter(|held| held.digest == digest) {
                held.stamp = stamp;
                gone.remove(&file);
                continue;
            }
            match self.adopted(&file, &text) {
                Ok((reference, document)) => {
                    if self.files.get(&file).is_some_and(|held| held.reference == reference) {
                        gone.remove(&file);
                    }
                    steps.push((reference, Some((document, text)), file));
                }
                Err(why) => scan.skipped.push((file.to_string(), why)),
            }
        }
        *self.shared.skipped.lock().unwrap_or_else(PoisonError::into_inner) = scan.skipped;
        if gone.is_empty() && steps.is_empty() {
            return Ok(());
        }
        let gone = gone.into_iter().filter_map(|file| Some((self.files.get(&file)?.reference.clone(), None, file)));
        let all: Vec<_> = gone.collect::<Vec<_>>().into_iter().chain(steps).collect();
        self.adopt(all).await
    }

    /// What somebody else wrote.
    fn adopted(&self, file: &UnitFileName, text: &Bytes) -> std::result::Result<(ResourceRef, Document), &'static str> {
        let (reference, document) = self.shared.form.read(file, text).ok_or("it cannot be a resource")?;
        if document.bytes.len() > super::LARGEST {
            return Err("it is longer than a mebibyte");
        }
        match self.shared.form.file(&reference) {
            Ok(own) if own == *file => Ok((reference, document)),
            _ => Err("what it says that it is belongs in another file"),
        }
    }

    async fn adopt(&mut self, all: Vec<(ResourceRef, Option<(Document, Bytes)>, UnitFileName)>) -> Result<()> {
        let mut steps = Vec::new();
        for (reference, fresh, file) in all {
            let (document, text) = fresh.unzip();
            match self.shared.front.prepare(&reference, document, Precondition::None) {
                Ok(planned) if planned.change == PlannedChange::Nothing => {
                    if let (Some(held), Some(text)) = (self.files.get_mut(&file), text) {
                        held.digest = Digest::of(&text);
                    }
                }
                Ok(planned) => steps.push(Step { planned, file, text }),
                Err(error) => {
                    self.forget(steps);
                    return Err(error);
                }
            }
        }
        if steps.is_empty() {
            return Ok(());
        }
        let (state, revision) = self.after(&steps);
        let recorded = self.commit(&state, revision).await;
        if let Err(error) = recorded {
            self.forget(steps);
            return Err(error);
        }
        self.show(steps, state, revision);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        self.broken.as_ref().map_or(Ok(()), |error| Err(again(error)))
    }

    /// What will be there after these, and at which revision.
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

    /// Makes what is there durable. If that fails, nobody knows which of the two states a next opening finds.
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

    /// Decides a group of writes, carries them out together, and answers.
    async fn write(&mut self, mut group: Vec<Write>) {
        for attempt in 1.. {
            if let Err(error) = self.look().await {
                return answer_all(group, &error);
            }
            let mut steps = Vec::new();
            let mut waiting = Vec::new();
            for write in group {
                match self.decide(&write, &mut steps) {
                    Ok((PlannedChange::Nothing, revision)) => {
                        let _ = write.done.send(Ok((PlannedChange::Nothing, revision)));
                    }
                    Ok(decided) => waiting.push((write, decided)),
                    Err(error) => {
                        let _ = write.done.send(Err(error));
                    }
                }
            }
            if steps.is_empty() {
                return;
            }
            let (state, revision) = self.after(&steps);
            let trouble = match self.carry_out(&steps, &state, revision).await {
                Ok(()) => {
                    self.show(steps, state, revision);
                    for (write, decided) in waiting {
                        let _ = write.done.send(Ok(decided));
                    }
                    return;
                }
                Err(trouble) => trouble,
            };
            self.forget(steps);
            let rest = waiting.into_iter().map(|(write, _)| write);
            group = match trouble {
                Trouble::Failed(error) => return answer_all(rest.collect(), &error),
                Trouble::Foreign if attempt < ATTEMPTS => rest.collect(),
                Trouble::Foreign => {
                    let message = "somebody else writes to the same unit files, again and again";
                    return answer_all(rest.collect(), &Error::new(ErrorKind::Conflict, APPLY, message));
                }
                Trouble::Refused(refused) => self.without(rest.collect(), &refused),
            };
        }
    }

    /// Answers those that were refused; the others.
    fn without(&self, group: Vec<Write>, refused: &[(String, Error)]) -> Vec<Write> {
        let mut rest = Vec::new();
        for write in group {
            let unit = self.unit_of(&write);
            match refused.iter().find(|(name, _)| Some(name) == unit.as_ref()) {
                Some((_, error)) => {
                    let error = again(error).with_context("resource", &write.reference);
                    let _ = write.done.send(Err(error));
                }
                None => rest.push(write),
            }
        }
        rest
    }

    fn unit_of(&self, write: &Write) -> Option<String> {
        let file = write.fresh.as_ref().map(|body| body.file.clone());
        let file = file.or_else(|| self.shared.form.file(&write.reference).ok())?;
        Some(file.unit_name().to_owned())
    }

    /// Decides one write. With a unit go its drop-ins, before it.
    fn decide(&self, write: &Write, steps: &mut Vec<Step>) -> Result<(PlannedChange, Revision)> {
        let front = &self.shared.front;
        let reference = &write.reference;
        if let Some(body) = &write.fresh {
            self.free(&body.file, reference)?;
            let planned = front.prepare(reference, Some(body.document.clone()), write.precondition)?;
            let decided = (planned.change, planned.revision);
            if planned.change != PlannedChange::Nothing {
                steps.push(Step { planned, file: body.file.clone(), text: Some(body.text.clone()) });
            }
            return Ok(decided);
        }
        let held = self.files.iter().find(|(_, held)| held.reference == *reference);
        let drop_ins = held.filter(|(file, _)| file.drop_in_name().is_none()).into_iter().flat_map(|(file, _)| {
            let of_it = |other: &UnitFileName| other.drop_in_name().is_some() && other.unit_name() == file.unit_name();
            self.files.iter().filter(move |(other, _)| of_it(other))
        });
        let mut gone = Vec::new();
        // Whether it may be removed at all is decided first, and its own revision is the last.
        let allowed = front.prepare(reference, None, write.precondition)?;
        if allowed.change == PlannedChange::Nothing {
            return Ok((allowed.change, allowed.revision));
        }
        front.forget(allowed);
        for (file, held) in drop_ins.chain(held) {
            let condition = if held.reference == *reference { write.precondition } else { Precondition::None };
            match front.prepare(&held.reference, None, condition) {
                Ok(planned) => gone.push(Step { planned, file: file.clone(), text: None }),
                Err(error) => {
                    self.forget(gone);
                    return Err(error);
                }
            }
        }
        let last = gone.last().map(|step| (step.planned.change, step.planned.revision));
        steps.extend(gone);
        last.ok_or_else(|| Error::new(ErrorKind::Unexpected, APPLY, "the resource has no file"))
    }

    /// Whether a file is this resource's to write.
    fn free(&self, file: &UnitFileName, reference: &ResourceRef) -> Result<()> {
        let conflict = |why: String| {
            Err(Error::new(ErrorKind::Conflict, APPLY, why)
                .with_context("resource", reference)
                .with_context("file", file))
        };
        if self.files.get(file).is_some_and(|held| held.reference != *reference) {
            return conflict("the file is another resource's".to_owned());
        }
        let name = file.to_string();
        let folder = file.drop_in_name().map(|_| file.drop_ins());
        let skipped = self.shared.skipped();
        match skipped.iter().find(|(other, _)| *other == name || Some(other) == folder.as_ref()) {
            Some((_, why)) => conflict(format!("what lies in its place is not this store's: {why}")),
            None => Ok(()),
        }
    }

    /// Changes the files, has the manager take them, and makes that durable; or leaves all as it was.
    async fn carry_out(
        &mut self,
        steps: &[Step],
        state: &State,
        revision: Revision,
    ) -> std::result::Result<(), Trouble> {
        let changes = steps.iter().map(|step| (step.file.clone(), step.text.clone())).collect();
        let changes = self.changes(changes).await?;
        self.retire(&changes).await?;
        if let Err(trouble) = self.change(&changes).await {
            return Err(self.take_back(changes, trouble).await);
        }
        if let Err(trouble) = self.taken(&changes).await {
            return Err(self.take_back(changes, trouble).await);
        }
        self.commit(state, revision).await.map_err(Trouble::Failed)?;
        let emptied = changes.into_iter().filter(|one| one.after.is_none() && one.file.drop_in_name().is_some());
        let (folder, emptied) = (self.folder.clone(), emptied.map(|one| one.file).collect::<Vec<_>>());
        if !emptied.is_empty() {
            let tidied = blocking(APPLY, move || {
                emptied.iter().for_each(|file| folder.tidy(file));
                Ok(())
            });
            tidied.await.map_err(Trouble::Failed)?;
        }
        Ok(())
    }

    /// What is to be changed, with what is there now.
    async fn changes(&self, files: Vec<(UnitFileName, Option<Bytes>)>) -> std::result::Result<Vec<Change>, Trouble> {
        let folder = self.folder.clone();
        let read = blocking(APPLY, move || {
            let mut changes = Vec::new();
            for (file, after) in files {
                let before = folder.read(&file)?.transpose().map_err(io::Error::other)?;
                changes.push(Change { file, before, after });
            }
            Ok(changes)
        });
        let mut changes = read.await.map_err(Trouble::Failed)?;
        for change in &changes {
            let known = self.files.get(&change.file).map(|held| held.digest);
            if change.before.as_deref().map(Digest::of) != known {
                return Err(Trouble::Foreign);
            }
        }
        changes.retain(|change| change.before != change.after);
        Ok(changes)
    }

    /// Stops and disables the units that go.
    async fn retire(&self, changes: &[Change]) -> std::result::Result<(), Trouble> {
        let Some(manager) = &self.manager else { return Ok(()) };
        let gone = changes.iter().filter(|one| one.after.is_none() && one.file.drop_in_name().is_none());
        let retired = join_all(gone.map(|one| async {
            let unit = one.file.unit_name();
            manager.retire(unit, one.before.is_some()).await.map_err(|error| (unit.to_owned(), error))
        }));
        refusals(retired.await)
    }

    /// Writes the files. What it was about to do is durable before.
    async fn change(&self, changes: &[Change]) -> std::result::Result<(), Trouble> {
        if changes.is_empty() {
            return Ok(());
        }
        let (folder, record, base) = (self.folder.clone(), Arc::clone(&self.record), self.revision);
        let changes = changes.to_vec();
        let done = blocking(APPLY, move || {
            let told = |one: &Change| {
                let before = one.before.clone().map(|text| Document::new(ResourceFormat::Native, text));
                (one.file.to_string(), one.after.as_deref().map(Digest::of), before)
            };
            record.begin(&Intent { base, files: changes.iter().map(told).collect() })?;
            for one in &changes {
                if folder.put(&one.file, one.before.as_deref().map(Digest::of), one.after.as_ref())? == Put::Foreign {
                    return Ok(Put::Foreign);
                }
            }
            folder.sync(changes.iter().map(|one| &one.file))?;
            Ok(Put::Done)
        });
        match done.await {
            Ok(Put::Done) => Ok(()),
            Ok(Put::Foreign) => Err(Trouble::Foreign),
            Err(error) => Err(Trouble::Failed(error)),
        }
    }

    /// Whether the manager takes what was written.
    async fn taken(&mut self, changes: &[Change]) -> std::result::Result<(), Trouble> {
        let Some(manager) = self.manager.clone().filter(|_| !changes.is_empty() || self.stale) else { return Ok(()) };
        self.stale = true;
        manager.reload().await.map_err(Trouble::Failed)?;
        self.stale = false;
        let written = changes.iter().filter(|one| one.after.is_some());
        let units: BTreeSet<&str> = written.map(|one| one.file.unit_name()).collect();
        let checks = units.into_iter().map(|unit| {
            let manager = &manager;
            async move { manager.check(unit).await.map_err(|error| (unit.to_owned(), error)) }
        });
        refusals(join_all(checks).await)
    }

    /// Puts the files back as they were, where they are still what this store made of them.
    async fn take_back(&mut self, changes: Vec<Change>, trouble: Trouble) -> Trouble {
        let (folder, record) = (self.folder.clone(), Arc::clone(&self.record));
        let back = blocking(APPLY, move || {
            for one in &changes {
                let (before, after) = (one.before.as_ref(), one.after.as_deref().map(Digest::of));
                if folder.digest(&one.file)? == after {
                    folder.put(&one.file, after, before)?;
                }
            }
            folder.sync(changes.iter().map(|one| &one.file))?;
            record.done()?;
            changes.iter().filter(|one| one.file.drop_in_name().is_some()).for_each(|one| folder.tidy(&one.file));
            Ok(())
        });
        if let Err(error) = back.await {
            let error = error.with_context("outcome", "unknown");
            self.broken = Some(again(&error));
            return Trouble::Failed(error);
        }
        self.reload_aside().await;
        trouble
    }

    /// Replaces everything.
    async fn restore(&mut self, fresh: Vec<Fresh>) -> Result<Revision> {
        self.look().await?;
        let revision = Revision(self.last.max(self.revision).0.saturating_add(1));
        self.last = revision;
        let mut wanted: BTreeMap<UnitFileName, Option<Bytes>> =
            self.files.keys().map(|file| (file.clone(), None)).collect();
        let (mut state, mut files) = (State::new(), BTreeMap::new());
        for one in fresh {
            let reference = &one.resource.reference;
            if !self.files.contains_key(&one.file) {
                self.free(&one.file, reference)?;
            }
            let held = Held { reference: reference.clone(), digest: Digest::of(&one.text), stamp: None };
            if files.insert(one.file.clone(), held).is_some() {
                let error = Error::new(ErrorKind::InvalidInput, "store.restore", "two resources have one file");
                return Err(error.with_context("resource", reference));
            }
            let resource = Resource::new(reference.clone(), one.resource.written().clone(), revision);
            state.insert(reference.clone(), Arc::new(resource));
            wanted.insert(one.file, Some(one.text));
        }
        let changes = match self.changes(wanted.into_iter().collect()).await {
            Ok(changes) => changes,
            Err(trouble) => return Err(told(trouble)),
        };
        self.retire(&changes).await.map_err(told)?;
        let done = match self.change(&changes).await {
            Ok(()) => self.taken(&changes).await,
            Err(trouble) => Err(trouble),
        };
        if let Err(trouble) = done {
            return Err(told(self.take_back(changes, trouble).await));
        }
        self.commit(&state, revision).await?;
        let image = StoreImage::new(revision, state.values().cloned().collect());
        (self.state, self.files, self.revision) = (state, files, revision);
        self.shared.front.load(image);
        Ok(revision)
    }
}

/// A store that has no record yet. Where it begins is durable before anything goes out from there.
async fn begun_at(record: &Arc<Record>, revision: Revision) -> Result<StoreImage> {
    let index = encode(revision, 0, std::iter::empty()).await?;
    let record = Arc::clone(record);
    blocking("store.open", move || record.commit(&index)).await?;
    Ok(StoreImage::new(revision, Vec::new()))
}

/// As many writes as can be carried out together: one to each unit and what belongs to it. None if something else comes first.
fn take_group(queue: &mut VecDeque<Ask>) -> Vec<Write> {
    let (mut group, mut touched) = (Vec::new(), BTreeSet::new());
    while group.len() < GROUP {
        match queue.pop_front() {
            Some(Ask::Write(write)) => {
                // A delete may take drop-ins with it, of which it does not say the names.
                let unit = touch(&write);
                if !touched.insert(unit) {
                    queue.push_front(Ask::Write(write));
                    break;
                }
                group.push(write);
            }
            Some(other) => {
                queue.push_front(other);
                break;
            }
            None => break,
        }
    }
    group
}

/// What two writes in one group must not have in common.
fn touch(write: &Write) -> String {
    let reference = &write.reference;
    match reference.kind().strip_suffix(".d") {
        Some(kind) => ["", kind, "", reference.namespace().unwrap_or_default()].join("/"),
        None => reference.to_string(),
    }
}

fn refusals(all: Vec<std::result::Result<(), (String, Error)>>) -> std::result::Result<(), Trouble> {
    let (mut refused, mut failed) = (Vec::new(), None);
    for (unit, error) in all.into_iter().filter_map(std::result::Result::err) {
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled) {
            failed.get_or_insert(error);
        } else {
            refused.push((unit, error));
        }
    }
    match failed {
        Some(error) => Err(Trouble::Failed(error)),
        None if refused.is_empty() => Ok(()),
        None => Err(Trouble::Refused(refused)),
    }
}

/// What whoever asked for all or nothing is told.
fn told(trouble: Trouble) -> Error {
    match trouble {
        Trouble::Failed(error) => error,
        Trouble::Foreign => Error::new(ErrorKind::Conflict, "store.restore", "somebody else writes to the unit files"),
        Trouble::Refused(refused) => refused.into_iter().next().map_or_else(
            || Error::new(ErrorKind::Unexpected, "store.restore", "nothing was refused"),
            |(_, error)| error,
        ),
    }
}

fn answer_all(group: Vec<Write>, error: &Error) {
    for write in group {
        let _ = write.done.send(Err(again(error)));
    }
}

/// A name in an intent.
fn named(name: &str) -> Option<UnitFileName> {
    match name.split_once('/') {
        None => UnitFileName::unit(name).ok(),
        Some((folder, file)) => UnitFileName::in_folder(folder.strip_suffix(".d")?, file).ok(),
    }
}
