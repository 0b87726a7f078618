//! Writes: deciding them, and publishing decided writes.

use std::{
    sync::{Arc, MutexGuard, RwLockWriteGuard},
    task::Waker,
};

use runtide_core::{
    Error, ErrorKind, Result,
    store::{
        Applied, Document, Planned, PlannedChange, Precondition, Resource, ResourceRef, Revision, StoreEvent,
        StoreImage,
    },
};

use super::{
    Inner,
    collection::{Collection, Prepared},
    history::{Dropped, Entry, History},
    index::{Index, Key},
    lock,
    tree::{Growing, ScopeNumber, Tree},
};

const APPLY: &str = "store.apply";
const RESTORE: &str = "store.restore";

/// Number of revisions to skip for a restore: more than there can be writes while it is read.
const AHEAD: u64 = 1 << 28;

/// The present state of a resource, as an input of `decide`.
struct Present<'a> {
    revision: Revision,
    document: &'a Document,
}

impl<'a> Present<'a> {
    fn of(there: Option<&'a Arc<Resource>>) -> Option<Self> {
        there.map(|there| Self { revision: there.revision, document: &there.document })
    }
}

/// The effect of a write that `decide` accepted.
struct Decision {
    change: PlannedChange,
    /// Revision of the present resource; `None` if there is none.
    revision: Option<Revision>,
}

fn decide(
    reference: &ResourceRef,
    present: Option<&Present<'_>>,
    document: Option<&Document>,
    precondition: Precondition,
) -> Result<Decision> {
    let revision = present.map(|present| present.revision);
    let holds = match precondition {
        Precondition::Absent => revision.is_none(),
        Precondition::Is(wanted) => revision == Some(wanted),
        Precondition::None => true,
        other => return Err(Error::new(ErrorKind::Unsupported, APPLY, format!("this store does not know {other:?}"))),
    };
    if !holds {
        let actual = revision.map_or_else(|| "absent".to_owned(), |revision| revision.to_string());
        return Err(Error::new(ErrorKind::Conflict, APPLY, "the resource is not as the precondition says")
            .with_context("resource", reference)
            .with_context("revision", actual));
    }
    let change = match (present, document) {
        (None, None) => PlannedChange::Nothing,
        (None, Some(_)) => PlannedChange::Create,
        (Some(_), None) => PlannedChange::Delete,
        (Some(present), Some(document)) if present.document == document => PlannedChange::Nothing,
        (Some(_), Some(_)) => PlannedChange::Replace,
    };
    Ok(Decision { change, revision })
}

fn check(reference: &ResourceRef, document: Option<&Document>) -> Result<()> {
    match document.map(|document| document.bytes.len()) {
        Some(length) if length > Document::MAX_BYTES => {
            Err(Error::new(ErrorKind::InvalidInput, APPLY, "the document is too long")
                .with_context("resource", reference)
                .with_context("bytes", length)
                .with_context("most", Document::MAX_BYTES))
        }
        _ => Ok(()),
    }
}

/// The result of a write.
struct Written {
    change: PlannedChange,
    /// Revision of the write; `None` if it changed nothing.
    revision: Option<Revision>,
    /// The resource after the write; `None` if there is none.
    resource: Option<Arc<Resource>>,
}

impl Inner {
    /// Runs `write` on the resource's collection, and removes the collection if it is empty afterwards. A missing collection is
    /// created if `make`; otherwise `write` does not run, and the result is `None`.
    fn with_collection<T>(
        &self,
        reference: &ResourceRef,
        make: bool,
        write: impl FnOnce(&mut Collection, ScopeNumber) -> T,
    ) -> Option<T> {
        loop {
            let tree = self.tree();
            if let Some(scope) = tree.get(reference.scope()) {
                let mut resources = scope.write();
                let done = write(&mut resources, scope.number);
                let empty = resources.is_empty();
                drop(resources);
                drop(tree);
                if empty {
                    self.tree_mut().tidy(reference.scope());
                }
                return Some(done);
            }
            drop(tree);
            if !make {
                return None;
            }
            self.tree_mut().make(reference.scope());
        }
    }

    pub(super) fn apply(
        &self,
        reference: &ResourceRef,
        document: Document,
        precondition: Precondition,
    ) -> Result<Applied> {
        let written = self.write(reference, Some(document), precondition)?;
        let resource = written
            .resource
            .ok_or_else(|| Error::new(ErrorKind::Unexpected, APPLY, "an applied resource is missing"))?;
        Ok(Applied::of(written.change.outcome(), resource))
    }

    pub(super) fn delete(&self, reference: &ResourceRef, precondition: Precondition) -> Result<Option<Revision>> {
        self.write(reference, None, precondition).map(|written| written.revision)
    }

    /// Decides a write and publishes it.
    fn write(
        &self,
        reference: &ResourceRef,
        document: Option<Document>,
        precondition: Precondition,
    ) -> Result<Written> {
        check(reference, document.as_ref())?;
        let make = document.is_some() && !matches!(precondition, Precondition::Is(_));
        let key = self.index.key(reference.as_str());
        let mut dropped = Dropped::default();
        let mut wakers = Vec::new();
        let done = self.with_collection(reference, make, |collection, scope| {
            let decided = self.index.with(key, |there| {
                let decision = decide(reference, Present::of(there).as_ref(), document.as_ref(), precondition)?;
                let unchanged = there.filter(|_| decision.change == PlannedChange::Nothing).cloned();
                Ok::<_, Error>((decision.change, unchanged))
            });
            let (change, unchanged) = decided?;
            if change == PlannedChange::Nothing {
                return Ok(Written { change, revision: None, resource: unchanged });
            }
            // Allocated before the lock that all writers share is taken; the revision is known only under that lock.
            let mut fresh = document.map(|document| Arc::new(Resource::new(reference.clone(), document, Revision(0))));
            let mut history = lock(&self.history);
            history.check(APPLY)?;
            let revision = history.reserve();
            if let Some(fresh) = fresh.as_mut().and_then(Arc::get_mut) {
                fresh.revision = revision;
            }
            let resource = fresh.clone();
            put((collection, scope), (&self.index, key), &mut history, reference, fresh, revision, &mut dropped);
            wakers = history.wake();
            Ok(Written { change, revision: Some(revision), resource })
        });
        drop(dropped);
        wakers.into_iter().flatten().for_each(Waker::wake);
        done.unwrap_or_else(|| {
            let decision = decide(reference, None, None, precondition)?;
            Ok(Written { change: decision.change, revision: None, resource: None })
        })
    }

    pub(super) fn prepare(
        &self,
        reference: &ResourceRef,
        document: Option<Document>,
        precondition: Precondition,
    ) -> Result<Planned> {
        check(reference, document.as_ref())?;
        let make = document.is_some() && !matches!(precondition, Precondition::Is(_));
        let key = self.index.key(reference.as_str());
        let done = self.with_collection(reference, make, |collection, _| {
            let decide = |present: Option<&Arc<Resource>>| {
                decide(reference, Present::of(present).as_ref(), document.as_ref(), precondition)
            };
            let decision = match collection.prepared(key) {
                Some(Prepared { resource, .. }) => decide(resource.as_ref()),
                None => self.index.with(key, decide),
            }?;
            let change = decision.change;
            if change == PlannedChange::Nothing {
                let revision = decision.revision.unwrap_or_default();
                return Ok(Planned::new(reference.clone(), document, change, revision));
            }
            let revision = {
                let mut history = lock(&self.history);
                history.prepared += 1;
                history.reserve()
            };
            // Allocated here, in parallel by many writers, and not in `publish`, where one thread publishes the writes of all.
            let planned = Planned::new(reference.clone(), document.clone(), change, revision);
            let resource = document.map(|document| Arc::new(Resource::new(reference.clone(), document, revision)));
            collection.prepare(key, reference, Prepared { revision, resource });
            Ok(planned)
        });
        done.unwrap_or_else(|| {
            let decision = decide(reference, None, None, precondition)?;
            Ok(Planned::new(reference.clone(), None, decision.change, Revision::default()))
        })
    }

    pub(super) fn publish(&self, planned: Vec<Planned>) {
        let mut dropped = Dropped::default();
        for one in planned {
            let Planned { reference, document, change, revision, .. } = one;
            if change == PlannedChange::Nothing {
                continue;
            }
            self.with_collection(&reference, document.is_some(), |collection, scope| {
                let key = self.index.key(reference.as_str());
                let prepared = collection.settle(key, revision);
                let was_prepared = prepared.is_some();
                // A journal that replays its log publishes writes that were never prepared: build the resource here.
                let fresh = match prepared {
                    Some(prepared) => prepared.resource,
                    None => document.map(|document| Arc::new(Resource::new(reference.clone(), document, revision))),
                };
                let mut history = lock(&self.history);
                history.prepared -= usize::from(was_prepared && history.prepared > 0);
                put((collection, scope), (&self.index, key), &mut history, &reference, fresh, revision, &mut dropped);
            });
        }
        let wakers = lock(&self.history).wake();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    pub(super) fn forget(&self, planned: &Planned) {
        self.with_collection(&planned.reference, false, |collection, _| {
            let key = self.index.key(planned.reference.as_str());
            if collection.settle(key, planned.revision).is_some() {
                let mut history = lock(&self.history);
                history.prepared = history.prepared.saturating_sub(1);
            }
        });
    }

    /// A revision to stamp on resources that will replace everything. The exact one is known only while all writers are locked
    /// out; a guess far ahead lets the stamping, which takes long, run before the lock is taken.
    pub(super) fn guess(&self) -> Revision {
        Revision(lock(&self.history).revision().0.saturating_add(AHEAD))
    }

    /// Replaces everything by resources that carry a guessed revision. If writes have passed that revision, it stamps them with
    /// another guess and tries again.
    pub(super) fn replace(&self, fresh: Growing, mut guess: Revision) -> Result<Revision> {
        let count = fresh.count();
        let (mut fresh, mut index) = fresh.done();
        loop {
            let tree = self.tree_mut();
            let mut history = lock(&self.history);
            history.check(RESTORE)?;
            if history.reserve() <= guess {
                self.swap((tree, history), (fresh, index), guess, count);
                return Ok(guess);
            }
            drop(history);
            drop(tree);
            guess = self.guess();
            let mut resources = fresh.into_rows();
            for resource in &mut resources {
                Arc::make_mut(resource).revision = guess;
            }
            (fresh, index) = Growing::of(&self.index, resources).done();
        }
    }

    /// Replaces everything by the image of a journal; from then on only the journal may write.
    pub(super) fn load(&self, image: StoreImage) {
        let (revision, count) = (image.revision, image.resources.len() as u64);
        let fresh = Growing::of(&self.index, image.resources).done();
        let tree = self.tree_mut();
        let mut history = lock(&self.history);
        history.journaled = true;
        self.swap((tree, history), fresh, revision, count);
    }

    fn swap(
        &self,
        (mut tree, mut history): (RwLockWriteGuard<'_, Tree>, MutexGuard<'_, History>),
        (fresh, mut index): (Tree, Index),
        revision: Revision,
        count: u64,
    ) {
        let mut dropped = Dropped::default();
        let old = std::mem::replace(&mut *tree, fresh);
        self.index.swap(&mut index);
        history.replace(revision, count, &mut dropped);
        let wakers = history.wake();
        drop(history);
        drop(tree);
        // The memory is freed in the order of the names, in which it was allocated, and not in that of the hashes.
        index.free();
        drop((old, dropped));
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

fn put(
    (collection, scope): (&mut Collection, ScopeNumber),
    (index, key): (&Index, Key<'_>),
    history: &mut History,
    reference: &ResourceRef,
    fresh: Option<Arc<Resource>>,
    revision: Revision,
    dropped: &mut Dropped,
) {
    let entry = if let Some(fresh) = fresh {
        let before = collection.set(index, key, Some(Arc::clone(&fresh)));
        let event = if before.is_some() { StoreEvent::Modified(fresh) } else { StoreEvent::Added(fresh) };
        Entry::new(scope, event, before)
    } else {
        let before = collection.set(index, key, None);
        Entry::new(scope, StoreEvent::Deleted { reference: reference.clone(), revision }, before)
    };
    history.push(entry, dropped);
}
