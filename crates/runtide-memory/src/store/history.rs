//! The history of a store: its last writes in the order of their revisions, and the watchers that wait for the next write.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock, Weak},
    task::Waker,
};

use runtide_core::{
    Error, ErrorKind, Result,
    store::{Resource, ResourceFormat, ResourceRef, Revision, Since, StoreEvent},
};

use super::{
    ahead::{ask, ask_for_bytes},
    tree::ScopeNumber,
    view::View,
};

/// The last writes of a store in the order of their revisions, and the watchers that wait for the next write.
///
/// Entries are numbered without gaps, and the position of a watcher is such a number: all watchers share one history.
#[derive(Debug)]
pub(super) struct History {
    entries: VecDeque<Entry>,
    /// Number of the front entry.
    first: u64,
    capacity: usize,
    /// Entries that were evicted, until there are enough to be dropped together.
    evicted: Vec<Entry>,
    /// Revision of the last published write.
    revision: Revision,
    /// The last revision that was assigned to a write.
    reserved: Revision,
    /// Number of writes that are decided and not yet published.
    pub(super) prepared: usize,
    /// True once the store belongs to a journal: no other caller may write.
    pub(super) journaled: bool,
    /// Every write after this revision is in `entries`.
    oldest: Revision,
    /// Number of the first entry after the last replacement of everything (a restore or a load).
    replaced: u64,
    /// Number of published resources.
    pub(super) count: u64,
    subscribers: u64,
    /// Number of subscribers that asked for a format.
    pub(super) converting: u64,
    /// Waiting watchers whose selector takes more than one scope.
    waiting: Waiters,
    /// Scopes that have watchers of that scope alone.
    topics: HashMap<ScopeNumber, Topic>,
    /// Wakers of topics, for the next call of `wake`.
    to_wake: Vec<Option<Waker>>,
    /// Number of reads under way (listings and new views): nothing is evicted while there is one.
    reads: usize,
    /// Views that are being shown to watchers that lost their position, oldest first.
    pub(super) views: VecDeque<Weak<View>>,
}

/// One write.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) scope: ScopeNumber,
    pub(super) event: StoreEvent,
    /// The resource before the write; `None` if there was none.
    pub(super) before: Option<Arc<Resource>>,
    /// The written resource in other formats, converted once for all watchers of a format; `None` if there were no such watchers
    /// when it was written.
    shown: Option<Arc<Shown>>,
}

/// One resource in each format, converted on first use.
#[derive(Debug, Default)]
struct Shown([OnceLock<Arc<Resource>>; 5]);

impl Entry {
    pub(super) fn new(scope: ScopeNumber, event: StoreEvent, before: Option<Arc<Resource>>) -> Self {
        Self { scope, event, before, shown: None }
    }

    /// The written resource in a format.
    pub(super) fn shown(&self, resource: &Arc<Resource>, format: Option<ResourceFormat>) -> Arc<Resource> {
        let cell = format.and_then(|format| self.shown.as_ref()?.0.get(format as usize));
        match cell {
            Some(cell) => Arc::clone(cell.get_or_init(|| resource.shown(format))),
            None => resource.shown(format),
        }
    }
}

/// Number of evicted entries that are dropped together.
const EVICTED: usize = 32;

/// Entries to be dropped outside of the lock.
#[derive(Debug, Default)]
pub(super) struct Dropped(Vec<Entry>);

impl Drop for Dropped {
    /// Most of these entries have not been read for ten thousand writes. Freeing them one by one would cost four dependent cache
    /// misses for each; a prefetch of all of them first lets the CPU overlap the misses.
    fn drop(&mut self) {
        ask_for_bytes(self.0.iter().filter_map(|entry| entry.before.as_ref()));
        ask(self.0.iter().filter_map(|entry| match &entry.event {
            StoreEvent::Added(now) | StoreEvent::Modified(now) => Some(now),
            _ => None,
        }));
    }
}

/// The watchers that wait for the next write of one topic, or of any.
#[derive(Debug, Default)]
struct Waiters {
    waiting: Vec<Option<Waker>>,
    /// Free indices in `waiting`.
    free: Vec<usize>,
    /// Number of times that all of them were woken; a `Parked` of an earlier count is out of date.
    woken: u64,
}

impl Waiters {
    fn take_all(&mut self, to_wake: &mut Vec<Option<Waker>>) {
        if !self.waiting.is_empty() {
            self.woken += 1;
            self.free.clear();
            to_wake.append(&mut self.waiting);
        }
    }
}

/// A scope and the watchers of that scope alone: writes to other scopes neither wake them nor make them lag.
#[derive(Debug)]
struct Topic {
    watchers: usize,
    waiters: Waiters,
    /// Number after its last entry. Entries from before the topic existed count as its own, here and in `lost`.
    end: u64,
    /// Number after its last entry that was evicted.
    lost: u64,
    /// Number of the next entry when the topic was created.
    since: u64,
}

/// A reference and its resource before a write; `None` if there was none.
pub(super) type Before = (ResourceRef, Option<Arc<Resource>>);

/// The position of a waiting watcher among the waiters, to replace or remove its waker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parked {
    woken: u64,
    at: usize,
}

/// A read of the store at one revision, while writers go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadPoint {
    pub(super) revision: Revision,
    /// Number of the first entry after that revision.
    pub(super) next: u64,
    replaced: u64,
}

impl History {
    pub(super) fn new(capacity: usize, revision: Revision) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            capacity: capacity.max(1),
            evicted: Vec::new(),
            revision,
            reserved: revision,
            prepared: 0,
            journaled: false,
            oldest: revision,
            replaced: 0,
            count: 0,
            subscribers: 0,
            converting: 0,
            waiting: Waiters::default(),
            topics: HashMap::new(),
            to_wake: Vec::new(),
            reads: 0,
            views: VecDeque::new(),
        }
    }

    /// Checks that a caller other than the journal may write.
    ///
    /// # Errors
    /// `Conflict` if the store belongs to a journal, or has writes that are decided and not yet published.
    pub(super) fn check(&self, operation: &'static str) -> Result<()> {
        if self.journaled || self.prepared > 0 {
            let message = "this store belongs to a journal: a write that bypasses the journal would be lost";
            return Err(Error::new(ErrorKind::Conflict, operation, message));
        }
        Ok(())
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn subscribers(&self) -> u64 {
        self.subscribers
    }

    pub(super) fn oldest(&self) -> Revision {
        self.oldest
    }

    pub(super) fn reserve(&mut self) -> Revision {
        self.reserved = Revision(self.reserved.0.saturating_add(1));
        self.reserved
    }

    /// Number of the oldest entry that is kept.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Number of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Returns true if everything was replaced after this position.
    pub(super) fn was_replaced_since(&self, position: u64) -> bool {
        position < self.replaced
    }

    /// The entries from this number on.
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = &Entry> {
        let skip = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.range(skip..)
    }

    /// Publishes a write. Evicted entries go to `dropped`, which the caller drops outside of the lock.
    pub(super) fn push(&mut self, mut entry: Entry, dropped: &mut Dropped) {
        entry.shown = (self.converting > 0).then(Arc::default);
        self.revision = entry.event.revision();
        self.reserved = self.reserved.max(self.revision);
        match (&entry.event, &entry.before) {
            (StoreEvent::Deleted { .. }, _) => self.count = self.count.saturating_sub(1),
            (_, None) => self.count += 1,
            _ => {}
        }
        if !self.topics.is_empty() {
            let end = self.next() + 1;
            if let Some(topic) = self.topics.get_mut(&entry.scope) {
                topic.end = end;
                topic.waiters.take_all(&mut self.to_wake);
            }
        }
        self.entries.push_back(entry);
        self.trim(dropped);
    }

    fn trim(&mut self, dropped: &mut Dropped) {
        while self.reads == 0
            && self.entries.len() > self.capacity
            && let Some(entry) = self.entries.pop_front()
        {
            self.oldest = entry.event.revision();
            self.first += 1;
            if !self.topics.is_empty()
                && let Some(topic) = self.topics.get_mut(&entry.scope)
            {
                topic.lost = self.first;
            }
            self.evicted.push(entry);
        }
        if self.evicted.len() >= EVICTED {
            dropped.0.append(&mut self.evicted);
        }
    }

    /// Records that everything was replaced: no earlier position is valid any more.
    pub(super) fn replace(&mut self, revision: Revision, count: u64, dropped: &mut Dropped) {
        // One number is skipped, so that a watcher that had read everything loses its position too.
        self.first = self.next() + 1;
        self.replaced = self.first;
        dropped.0.append(&mut self.evicted);
        dropped.0.extend(self.entries.drain(..));
        (self.revision, self.oldest, self.count, self.prepared) = (revision, revision, count, 0);
        self.reserved = self.reserved.max(revision);
        for topic in self.topics.values_mut() {
            topic.waiters.take_all(&mut self.to_wake);
        }
    }

    /// Registers a watcher; `scope` is its only scope, or `None` if it watches more.
    pub(super) fn enter(&mut self, scope: Option<ScopeNumber>) {
        self.subscribers += 1;
        let since = self.next();
        if let Some(scope) = scope {
            let new = || Topic { watchers: 0, waiters: Waiters::default(), end: since, lost: 0, since };
            self.topics.entry(scope).or_insert_with(new).watchers += 1;
        }
    }

    /// Removes a watcher. The caller drops the returned value outside of the lock.
    pub(super) fn leave(&mut self, scope: Option<ScopeNumber>) -> Option<impl Sized + use<>> {
        self.subscribers = self.subscribers.saturating_sub(1);
        let (scope, topic) = scope.and_then(|scope| Some((scope, self.topics.get_mut(&scope)?)))?;
        topic.watchers = topic.watchers.saturating_sub(1);
        if topic.watchers == 0 { self.topics.remove(&scope) } else { None }
    }

    /// The position at which a watcher reads on: the same, or a later one that skips entries of other scopes. `None` if the
    /// watcher lost its position.
    pub(super) fn resume(&self, position: u64, scope: Option<ScopeNumber>) -> Option<u64> {
        if self.was_replaced_since(position) {
            return None;
        }
        match scope.and_then(|scope| self.topics.get(&scope)) {
            Some(topic) if topic.end <= position => Some(self.next()),
            Some(topic) if topic.lost.max(self.first.min(topic.since)) <= position => Some(position.max(self.first)),
            Some(_) => None,
            None => (position >= self.first).then_some(position),
        }
    }

    /// Number of the first entry of a watch.
    ///
    /// # Errors
    /// `Expired` if the history does not reach back to that revision, or the store has not come to it.
    pub(super) fn position(&self, since: Since) -> Result<u64> {
        match since {
            Since::After(revision) if revision < self.oldest || revision > self.revision => Err(self.expired(revision)),
            Since::After(revision) => Ok(self.after(revision)),
            _ => Ok(self.next()),
        }
    }

    /// Number of the first entry after a revision.
    fn after(&self, revision: Revision) -> u64 {
        self.first + self.entries.partition_point(|entry| entry.event.revision() <= revision) as u64
    }

    fn expired(&self, revision: Revision) -> Error {
        let message = if revision > self.revision {
            "this store has not come to that revision: it is from another store, or from an earlier run of this one"
        } else {
            "the history does not reach back to that revision"
        };
        Error::new(ErrorKind::Expired, "store.history", message)
            .with_context("revision", revision)
            .with_context("oldest", self.oldest)
            .with_context("newest", self.revision)
    }

    /// Begins a read at a revision (the newest, if `None`): nothing is evicted until [`History::end_read`].
    ///
    /// # Errors
    /// `Expired` if the history does not reach back to `at`, or the store has not come to it.
    pub(super) fn begin_read(&mut self, at: Option<Revision>) -> Result<ReadPoint> {
        let revision = at.unwrap_or(self.revision);
        let next = self.position(Since::After(revision))?;
        self.reads += 1;
        Ok(ReadPoint { revision, next, replaced: self.replaced })
    }

    /// The wanted ones among `many` entries from a number on, and the number after those `many`.
    pub(super) fn part(&self, from: u64, many: usize, wanted: impl Fn(&ResourceRef) -> bool) -> (Vec<Before>, u64) {
        let mut passed = 0;
        let part = self.from(from).take(many).inspect(|_| passed += 1).filter_map(|entry| {
            let reference = entry.event.reference().filter(|reference| wanted(reference))?;
            Some((reference.clone(), entry.before.clone()))
        });
        (part.collect(), from + passed)
    }

    /// Ends a read; returns true if everything was replaced since it began.
    pub(super) fn end_read(&mut self, point: ReadPoint, dropped: &mut Dropped) -> bool {
        self.reads = self.reads.saturating_sub(1);
        self.trim(dropped);
        point.replaced != self.replaced
    }

    fn waiters(&mut self, scope: Option<ScopeNumber>) -> &mut Waiters {
        match scope.and_then(|scope| self.topics.get_mut(&scope)) {
            Some(topic) => &mut topic.waiters,
            None => &mut self.waiting,
        }
    }

    /// Has the watcher woken by the next entry of its scope, or by any if it watches more than one.
    pub(super) fn park(&mut self, parked: Option<Parked>, scope: Option<ScopeNumber>, waker: &Waker) -> Parked {
        let waiters = self.waiters(scope);
        if let Some(parked) = parked
            && parked.woken == waiters.woken
            && let Some(Some(known)) = waiters.waiting.get_mut(parked.at)
        {
            known.clone_from(waker);
            return parked;
        }
        let waker = Some(waker.clone());
        if let Some(at) = waiters.free.pop()
            && let Some(free) = waiters.waiting.get_mut(at)
        {
            *free = waker;
            return Parked { woken: waiters.woken, at };
        }
        waiters.waiting.push(waker);
        Parked { woken: waiters.woken, at: waiters.waiting.len() - 1 }
    }

    /// Removes a waiting watcher. The caller drops the returned waker outside of the lock.
    pub(super) fn unpark(&mut self, parked: Parked, scope: Option<ScopeNumber>) -> Option<Waker> {
        let waiters = self.waiters(scope);
        if parked.woken != waiters.woken {
            return None;
        }
        let waker = waiters.waiting.get_mut(parked.at)?.take()?;
        waiters.free.push(parked.at);
        Some(waker)
    }

    /// Takes the wakers of the waiting watchers. The caller calls them outside of the lock.
    pub(super) fn wake(&mut self) -> Vec<Option<Waker>> {
        let mut to_wake = std::mem::take(&mut self.to_wake);
        self.waiting.take_all(&mut to_wake);
        to_wake
    }
}
