//! The one order of a store: what was written last, and who waits for what comes.

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

/// The one order of a store: its last writes, and who waits for the next one.
///
/// Entries are numbered without gaps, and a watcher is such a number: however many watch, there is one history.
#[derive(Debug)]
pub(super) struct History {
    entries: VecDeque<Entry>,
    /// The number of the front entry.
    first: u64,
    capacity: usize,
    /// What fell out of it, until there are enough to be dropped together.
    fallen: Vec<Entry>,
    /// Of the last write that is shown.
    revision: Revision,
    /// The last one that is given away.
    reserved: Revision,
    /// Writes that are decided and not yet shown.
    pub(super) prepared: usize,
    /// A journal decides and shows: nobody else may write.
    pub(super) journaled: bool,
    /// From here on every write is in `entries`.
    oldest: Revision,
    /// The number of the first entry after the last time that everything was replaced.
    replaced: u64,
    /// Resources that are there.
    pub(super) count: u64,
    subscribers: u64,
    /// Those among them who watch in another format.
    pub(super) converting: u64,
    /// Those who watch more than one scope.
    waiting: Crowd,
    /// Scopes that are watched by those who watch no other.
    topics: HashMap<ScopeNumber, Topic>,
    /// Those of topics, who are to be woken.
    called: Vec<Option<Waker>>,
    /// Who looks at the whole store just now: as long as one does, nothing is dropped.
    looking: usize,
    /// What watchers that lost their place are being shown, oldest first.
    pub(super) views: VecDeque<Weak<View>>,
}

/// One write.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) scope: ScopeNumber,
    pub(super) event: StoreEvent,
    /// What was there before.
    pub(super) before: Option<Arc<Resource>>,
    /// What was written in other formats, made once for all who watch in them; none if nobody did at the time.
    shown: Option<Arc<Shown>>,
}

/// One resource in each of the formats.
#[derive(Debug, Default)]
struct Shown([OnceLock<Arc<Resource>>; 5]);

impl Entry {
    pub(super) fn new(scope: ScopeNumber, event: StoreEvent, before: Option<Arc<Resource>>) -> Self {
        Self { scope, event, before, shown: None }
    }

    /// What was written, in a format.
    pub(super) fn shown(&self, resource: &Arc<Resource>, format: Option<ResourceFormat>) -> Arc<Resource> {
        let place = format.and_then(|format| self.shown.as_ref()?.0.get(format as usize));
        match place {
            Some(place) => Arc::clone(place.get_or_init(|| resource.shown(format))),
            None => resource.shown(format),
        }
    }
}

/// As many are dropped together.
const FALLEN: usize = 32;

/// What is to be dropped outside of the lock.
#[derive(Debug, Default)]
pub(super) struct Dropped(Vec<Entry>);

impl Drop for Dropped {
    /// Nobody has touched most of it for ten thousand writes. To free it one by one is to wait for memory four times for each;
    /// here all of it is asked for first, by reads that wait for no other.
    fn drop(&mut self) {
        ask_for_bytes(self.0.iter().filter_map(|entry| entry.before.as_ref()));
        ask(self.0.iter().filter_map(|entry| match &entry.event {
            StoreEvent::Added(now) | StoreEvent::Modified(now) => Some(now),
            _ => None,
        }));
    }
}

/// Those who wait for one thing.
#[derive(Debug, Default)]
struct Crowd {
    waiting: Vec<Option<Waker>>,
    /// Places in it that somebody left.
    left: Vec<usize>,
    /// How often those who waited were woken.
    woken: u64,
}

impl Crowd {
    fn call(&mut self, called: &mut Vec<Option<Waker>>) {
        if !self.waiting.is_empty() {
            self.woken += 1;
            self.left.clear();
            called.append(&mut self.waiting);
        }
    }
}

/// A scope that is watched by those who watch no other: what happens elsewhere does not wake them, nor do they fall behind by it.
#[derive(Debug)]
struct Topic {
    watchers: usize,
    crowd: Crowd,
    /// The number behind its last entry. What was before there was a topic counts as its own, as in `lost`.
    end: u64,
    /// The number behind its last entry that is not kept any more.
    lost: u64,
    since: u64,
}

/// What was there before a write; none if nothing was.
pub(super) type Before = (ResourceRef, Option<Arc<Resource>>);

/// Where a watcher waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parked {
    woken: u64,
    at: usize,
}

/// A look at the store as it was at one revision, while writers go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) revision: Revision,
    /// The number of the first entry after it.
    pub(super) next: u64,
    replaced: u64,
}

impl History {
    pub(super) fn new(capacity: usize, revision: Revision) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            capacity: capacity.max(1),
            fallen: Vec::new(),
            revision,
            reserved: revision,
            prepared: 0,
            journaled: false,
            oldest: revision,
            replaced: 0,
            count: 0,
            subscribers: 0,
            converting: 0,
            waiting: Crowd::default(),
            topics: HashMap::new(),
            called: Vec::new(),
            looking: 0,
            views: VecDeque::new(),
        }
    }

    /// Whether anybody may write who is not the journal.
    pub(super) fn check(&self, operation: &'static str) -> Result<()> {
        if self.journaled || self.prepared > 0 {
            let message = "this store belongs to a journal: what does not go through it would be lost";
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

    /// The number of the oldest entry that is kept.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next entry will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Whether everything was replaced after this place.
    pub(super) fn was_replaced_since(&self, place: u64) -> bool {
        place < self.replaced
    }

    /// The entries from a number on.
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = &Entry> {
        let skip = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.range(skip..)
    }

    /// A write is shown. What it pushes out is for the caller to drop, outside of the lock.
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
                topic.crowd.call(&mut self.called);
            }
        }
        self.entries.push_back(entry);
        self.trim(dropped);
    }

    fn trim(&mut self, dropped: &mut Dropped) {
        while self.looking == 0
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
            self.fallen.push(entry);
        }
        if self.fallen.len() >= FALLEN {
            dropped.0.append(&mut self.fallen);
        }
    }

    /// Everything was replaced: no place from before is good any more.
    pub(super) fn replace(&mut self, revision: Revision, count: u64, dropped: &mut Dropped) {
        // One number is left out, so that also a watcher that had read everything has lost its place.
        self.first = self.next() + 1;
        self.replaced = self.first;
        dropped.0.append(&mut self.fallen);
        dropped.0.extend(self.entries.drain(..));
        (self.revision, self.oldest, self.count, self.prepared) = (revision, revision, count, 0);
        self.reserved = self.reserved.max(revision);
        for topic in self.topics.values_mut() {
            topic.crowd.call(&mut self.called);
        }
    }

    /// A watcher comes; of one scope only, if that is told.
    pub(super) fn enter(&mut self, scope: Option<ScopeNumber>) {
        self.subscribers += 1;
        let since = self.next();
        if let Some(scope) = scope {
            let new = || Topic { watchers: 0, crowd: Crowd::default(), end: since, lost: 0, since };
            self.topics.entry(scope).or_insert_with(new).watchers += 1;
        }
    }

    /// It goes. What it leaves is for the caller to drop, outside of the lock.
    pub(super) fn leave(&mut self, scope: Option<ScopeNumber>) -> Option<impl Sized + use<>> {
        self.subscribers = self.subscribers.saturating_sub(1);
        let (scope, topic) = scope.and_then(|scope| Some((scope, self.topics.get_mut(&scope)?)))?;
        topic.watchers = topic.watchers.saturating_sub(1);
        if topic.watchers == 0 { self.topics.remove(&scope) } else { None }
    }

    /// Where a watcher reads on: the same place, or one behind what does not concern it. `None` if it lost its place.
    pub(super) fn resume(&self, place: u64, scope: Option<ScopeNumber>) -> Option<u64> {
        if self.was_replaced_since(place) {
            return None;
        }
        match scope.and_then(|scope| self.topics.get(&scope)) {
            Some(topic) if topic.end <= place => Some(self.next()),
            Some(topic) if topic.lost.max(self.first.min(topic.since)) <= place => Some(place.max(self.first)),
            Some(_) => None,
            None => (place >= self.first).then_some(place),
        }
    }

    /// The number at which a watch begins.
    ///
    /// # Errors
    /// `Expired` if the history does not reach back to it, or not yet.
    pub(super) fn place(&self, since: Since) -> Result<u64> {
        match since {
            Since::After(revision) if revision < self.oldest || revision > self.revision => Err(self.expired(revision)),
            Since::After(revision) => Ok(self.after(revision)),
            _ => Ok(self.next()),
        }
    }

    /// The number of the first entry after a revision.
    fn after(&self, revision: Revision) -> u64 {
        self.first + self.entries.partition_point(|entry| entry.event.revision() <= revision) as u64
    }

    fn expired(&self, revision: Revision) -> Error {
        let message = if revision > self.revision {
            "this store has not come to that revision: it is another store's, or of another life of this one"
        } else {
            "the history does not reach back to that revision"
        };
        Error::new(ErrorKind::Expired, "store.history", message)
            .with_context("revision", revision)
            .with_context("oldest", self.oldest)
            .with_context("newest", self.revision)
    }

    /// Begins to look at the store as it was; [`History::looked`] ends it.
    ///
    /// # Errors
    /// `Expired` if the history does not reach back to `at`, or not yet.
    pub(super) fn look(&mut self, at: Option<Revision>) -> Result<Look> {
        let revision = at.unwrap_or(self.revision);
        let next = self.place(Since::After(revision))?;
        self.looking += 1;
        Ok(Look { revision, next, replaced: self.replaced })
    }

    /// Entries from a number on that concern somebody, of so many; and the number behind those.
    pub(super) fn part(&self, from: u64, many: usize, wanted: impl Fn(&ResourceRef) -> bool) -> (Vec<Before>, u64) {
        let mut passed = 0;
        let part = self.from(from).take(many).inspect(|_| passed += 1).filter_map(|entry| {
            let reference = entry.event.reference().filter(|reference| wanted(reference))?;
            Some((reference.clone(), entry.before.clone()))
        });
        (part.collect(), from + passed)
    }

    /// Ends a look; whether everything was replaced meanwhile.
    pub(super) fn looked(&mut self, look: Look, dropped: &mut Dropped) -> bool {
        self.looking = self.looking.saturating_sub(1);
        self.trim(dropped);
        look.replaced != self.replaced
    }

    fn crowd(&mut self, scope: Option<ScopeNumber>) -> &mut Crowd {
        match scope.and_then(|scope| self.topics.get_mut(&scope)) {
            Some(topic) => &mut topic.crowd,
            None => &mut self.waiting,
        }
    }

    /// Waits for the next entry.
    pub(super) fn park(&mut self, parked: Option<Parked>, scope: Option<ScopeNumber>, waker: &Waker) -> Parked {
        let crowd = self.crowd(scope);
        if let Some(parked) = parked
            && parked.woken == crowd.woken
            && let Some(Some(known)) = crowd.waiting.get_mut(parked.at)
        {
            known.clone_from(waker);
            return parked;
        }
        let waker = Some(waker.clone());
        if let Some(at) = crowd.left.pop()
            && let Some(place) = crowd.waiting.get_mut(at)
        {
            *place = waker;
            return Parked { woken: crowd.woken, at };
        }
        crowd.waiting.push(waker);
        Parked { woken: crowd.woken, at: crowd.waiting.len() - 1 }
    }

    /// Does not wait any more. What it leaves is for the caller to drop, outside of the lock.
    pub(super) fn unpark(&mut self, parked: Parked, scope: Option<ScopeNumber>) -> Option<Waker> {
        let crowd = self.crowd(scope);
        if parked.woken != crowd.woken {
            return None;
        }
        let waker = crowd.waiting.get_mut(parked.at)?.take()?;
        crowd.left.push(parked.at);
        Some(waker)
    }

    /// Those who wait, to be woken outside of the lock.
    pub(super) fn wake(&mut self) -> Vec<Option<Waker>> {
        let mut called = std::mem::take(&mut self.called);
        self.waiting.call(&mut called);
        called
    }
}
