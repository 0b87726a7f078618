//! A store that is simple enough to be obviously right: everything under one lock, with a list of its changes. And with one bug.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use futures_util::Stream;
use runtide_core::{
    Error, ErrorKind, Gap, Result, SlowConsumer,
    store::{
        Applied, ApplyOutcome, Document, Page, PageOptions, PageToken, Precondition, Resource, ResourceFormat,
        ResourceRef, Revision, Selector, Since, StoreBackend, StoreEvent, StoreSnapshotReader, StoreSnapshotSeal,
        StoreSnapshotWriter, StoreStats, StoreStream, StoreWatchOptions,
    },
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    bugs::Bug,
    journal::{Journal, Resources},
};

/// Number of listings whose pages are kept.
const LISTINGS: usize = 256;

/// A change, or a restore, which has no reference.
#[derive(Clone)]
struct Happened {
    revision: u64,
    reference: Option<ResourceRef>,
    before: Option<Arc<Resource>>,
    after: Option<Arc<Resource>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    resources: Resources,
    history: VecDeque<Happened>,
    /// Number of changes dropped from the front of the history.
    dropped: usize,
    /// The revision before the oldest change that is kept.
    oldest: u64,
    restored: u64,
    listings: VecDeque<(u64, Arc<Resources>)>,
    watchers: BTreeMap<u64, Option<Waker>>,
    next_watcher: u64,
    /// The events that each watcher did not fetch yet, if each has its own queue.
    queues: BTreeMap<u64, VecDeque<Happened>>,
    /// Number of writes under way; `stale` has the state before they began.
    busy: usize,
    stale: Option<Resources>,
    journal: Option<Journal>,
}

impl State {
    fn end(&self) -> usize {
        self.dropped + self.history.len()
    }

    /// Index in the history of the first change after a revision.
    fn after(&self, revision: u64) -> usize {
        self.dropped + self.history.iter().take_while(|one| one.revision <= revision).count()
    }

    fn wake(&mut self) {
        self.watchers.values_mut().filter_map(Option::take).for_each(Waker::wake);
    }
}

/// The store.
#[derive(Clone)]
pub(crate) struct Plain {
    state: Arc<Mutex<State>>,
    /// Number of changes that it keeps.
    history: usize,
    bug: Option<Bug>,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain").field("bug", &self.bug).finish_non_exhaustive()
    }
}

impl Plain {
    pub(crate) fn new(history: usize, bug: Option<Bug>) -> Self {
        Self { state: Arc::default(), history, bug }
    }

    /// A store with a journal, in the state that the journal has.
    pub(crate) fn with_journal(journal: Journal, history: usize, bug: Option<Bug>) -> Result<Self> {
        let store = Self::new(history, bug);
        {
            let mut state = store.state();
            let folded = journal.fold()?;
            state.revision = folded.revision;
            state.oldest = folded.revision;
            state.resources = folded.resources.into_iter().map(|(name, one)| (store.key(&name), one)).collect();
            state.journal = Some(journal);
        }
        Ok(store)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The key under which a resource is kept.
    fn key(&self, reference: &ResourceRef) -> ResourceRef {
        let namespace = reference.namespace();
        if self.has(Bug::ForgetsGroup) {
            return ResourceRef::new("", reference.kind(), namespace, reference.name()).unwrap();
        }
        if self.has(Bug::ClusterIsANamespace) && namespace.is_none() {
            return ResourceRef::new(reference.group(), reference.kind(), "_cluster", reference.name()).unwrap();
        }
        reference.clone()
    }

    fn show(&self, happened: Happened) {
        let mut state = self.state();
        self.remember(&mut state, happened);
    }

    fn remember(&self, state: &mut State, happened: Happened) {
        if self.has(Bug::UnboundedQueue) {
            state.queues.values_mut().for_each(|queue| queue.push_back(happened.clone()));
        }
        state.history.push_back(happened);
        while state.history.len() > self.history {
            let gone = state.history.pop_front().unwrap();
            state.dropped += 1;
            state.oldest = gone.revision;
        }
        state.wake();
    }

    /// Decides and makes one write, under one lock.
    async fn write(
        &self,
        reference: &ResourceRef,
        document: Option<Document>,
        precondition: Precondition,
    ) -> Result<(Option<ApplyOutcome>, Revision)> {
        let key = self.key(reference);
        if self.has(Bug::LostConditionalRace) {
            check(&self.state(), &key, precondition)?;
            tokio::task::yield_now().await;
        }
        if self.has(Bug::AcknowledgedBeforeSeen) {
            {
                let mut state = self.state();
                state.busy += 1;
                if state.stale.is_none() {
                    state.stale = Some(state.resources.clone());
                }
            }
            tokio::task::yield_now().await;
        }
        let done = self.decide(&key, reference, document, precondition);
        if self.has(Bug::AcknowledgedBeforeSeen) {
            let mut state = self.state();
            state.busy -= 1;
            if state.busy == 0 {
                state.stale = None;
            }
        }
        let (happened, outcome, revision) = done?;
        if self.has(Bug::PublishesBeforeDurable) {
            tokio::task::yield_now().await;
            let state = self.state();
            if let Some(journal) = &state.journal {
                journal.write(revision.0, reference, state.resources.get(&key).map(|resource| &**resource))?;
            }
        }
        if let Some(happened) = happened {
            if self.has(Bug::OrderByArrival) {
                tokio::task::yield_now().await;
            }
            self.show(happened);
        }
        Ok((outcome, revision))
    }

    fn decide(
        &self,
        key: &ResourceRef,
        reference: &ResourceRef,
        document: Option<Document>,
        precondition: Precondition,
    ) -> Result<(Option<Happened>, Option<ApplyOutcome>, Revision)> {
        let mut state = self.state();
        if !self.has(Bug::IgnoresPrecondition) && !self.has(Bug::LostConditionalRace) {
            check(&state, key, precondition)?;
        }
        let before = state.resources.get(key).cloned();
        let outcome = match (&before, &document) {
            (None, None) => return Ok((None, None, Revision(state.revision))),
            (Some(there), Some(new)) if there.document == *new && !self.has(Bug::UnchangedEmits) => {
                return Ok((None, Some(ApplyOutcome::Unchanged), there.revision));
            }
            (Some(there), Some(new)) if self.has(Bug::ComparesBytesAlone) && there.document.bytes == new.bytes => {
                return Ok((None, Some(ApplyOutcome::Unchanged), there.revision));
            }
            (None, Some(_)) => ApplyOutcome::Created,
            (Some(_), _) => ApplyOutcome::Changed,
        };
        let revision = state.revision + 1;
        let after = document.map(|document| Arc::new(Resource::new(reference.clone(), document, Revision(revision))));
        if !self.has(Bug::PublishesBeforeDurable)
            && let Some(journal) = &state.journal
        {
            journal.write(revision, reference, after.as_deref())?;
        }
        match &after {
            Some(resource) => drop(state.resources.insert(key.clone(), Arc::clone(resource))),
            None => drop(state.resources.remove(key)),
        }
        state.revision = revision;
        let happened = Happened { revision, reference: Some(reference.clone()), before, after: after.clone() };
        let later = self.has(Bug::OrderByArrival);
        if !later {
            self.remember(&mut state, happened.clone());
        }
        Ok((later.then_some(happened), Some(outcome), Revision(revision)))
    }

    /// Replaces all resources.
    fn replace(&self, resources: Vec<Arc<Resource>>) -> Result<Revision> {
        let mut state = self.state();
        let revision = if self.has(Bug::RestoreTurnsBack) {
            resources.iter().map(|resource| resource.revision.0).max().unwrap_or(1)
        } else {
            state.revision + 1
        };
        let renewed = |resource: Arc<Resource>| {
            let at = if self.has(Bug::RestoreKeepsRevisions) { resource.revision } else { Revision(revision) };
            let renewed = Resource::new(resource.reference.clone(), resource.document.clone(), at);
            (self.key(&resource.reference), Arc::new(renewed))
        };
        let resources: Resources = resources.into_iter().map(renewed).collect();
        if let Some(journal) = &state.journal {
            journal.replace(revision, &resources)?;
        }
        state.revision = revision;
        state.resources = resources;
        state.listings.clear();
        if self.has(Bug::RestoreSilent) {
            return Ok(Revision(revision));
        }
        state.restored = revision;
        state.oldest = revision;
        state.dropped += state.history.len();
        state.history.clear();
        state.queues.values_mut().for_each(VecDeque::clear);
        state.wake();
        Ok(Revision(revision))
    }
}

fn check(state: &State, key: &ResourceRef, precondition: Precondition) -> Result<()> {
    let actual = state.resources.get(key).map(|resource| resource.revision);
    let holds = match precondition {
        Precondition::Absent => actual.is_none(),
        Precondition::Is(revision) => actual == Some(revision),
        _ => true,
    };
    let said = actual.map_or_else(|| "absent".to_owned(), |revision| revision.to_string());
    let conflict = || Error::new(ErrorKind::Conflict, "plain.write", "it is another").with_context("revision", said);
    if holds { Ok(()) } else { Err(conflict()) }
}

fn expired(what: &str) -> Error {
    Error::new(ErrorKind::Expired, "plain", what)
}

#[async_trait]
impl StoreBackend for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    async fn apply(&self, reference: &ResourceRef, document: Document, precondition: Precondition) -> Result<Applied> {
        if document.bytes.len() > Document::MAX_BYTES {
            return Err(Error::new(ErrorKind::InvalidInput, "plain.apply", "it is too large"));
        }
        let written = document.bytes.clone();
        let (outcome, revision) = self.write(reference, Some(document), precondition).await?;
        Ok(Applied::new(outcome.unwrap(), revision, written))
    }

    async fn get(&self, reference: &ResourceRef, format: Option<ResourceFormat>) -> Result<Option<Arc<Resource>>> {
        let found = {
            let state = self.state();
            let resources = state.stale.as_ref().unwrap_or(&state.resources);
            resources.get(&self.key(reference)).cloned()
        };
        if found.is_none() && self.has(Bug::NotFoundIsUnsupported) {
            return Err(Error::new(ErrorKind::Unsupported, "plain.get", "not found"));
        }
        match format.filter(|_| !self.has(Bug::IgnoresFormat)) {
            Some(format) => found.map(|found| found.convert(format)).transpose(),
            None => Ok(found),
        }
    }

    async fn list(&self, selector: &Selector, options: PageOptions) -> Result<Page> {
        let mut state = self.state();
        let (revision, resources, after) = match &options.after {
            None => (state.revision, Arc::new(state.resources.clone()), None),
            Some(token) => {
                let parts = token.as_str().split_once(' ').and_then(|(revision, last)| {
                    Some((revision.parse::<u64>().ok()?, last.parse::<ResourceRef>().ok()?))
                });
                let Some((revision, last)) = parts else {
                    return Err(Error::new(ErrorKind::InvalidInput, "plain.list", "it is none of this store's tokens"));
                };
                let kept = state.listings.iter().find(|(kept, _)| *kept == revision);
                let resources = match kept {
                    _ if self.has(Bug::PagesMove) => Arc::new(state.resources.clone()),
                    Some((_, resources)) => Arc::clone(resources),
                    None => return Err(expired("the listing is not kept")),
                };
                (revision, resources, Some(last))
            }
        };
        let limit = options.limit.map_or(usize::MAX, |limit| limit.get() as usize);
        let selected = resources.values().filter(|resource| {
            after.as_ref().is_none_or(|after| resource.reference > *after) && selector.matches(resource)
        });
        let mut items: Vec<Arc<Resource>> = selected.take(limit.saturating_add(1)).cloned().collect();
        let more = items.len() > limit;
        items.truncate(limit);
        if self.has(Bug::ForgetsGroup) || self.has(Bug::ClusterIsANamespace) {
            items.sort_by(|a, b| a.reference.cmp(&b.reference));
        }
        let next = items.last().filter(|_| more).map(|last| PageToken::from(format!("{revision} {}", last.reference)));
        if next.is_some() && options.after.is_none() {
            state.listings.push_back((revision, Arc::clone(&resources)));
            if state.listings.len() > LISTINGS {
                state.listings.pop_front();
            }
        }
        let items = items.iter().map(|item| item.shown(options.format)).collect();
        Ok(Page::new(items, Revision(revision), next))
    }

    async fn delete(&self, reference: &ResourceRef, precondition: Precondition) -> Result<Option<Revision>> {
        if self.has(Bug::NotFoundIsUnsupported) && !self.state().resources.contains_key(reference) {
            return Err(Error::new(ErrorKind::Unsupported, "plain.delete", "not found"));
        }
        let (outcome, revision) = self.write(reference, None, precondition).await?;
        Ok(outcome.map(|_| revision))
    }

    async fn watch(&self, selector: &Selector, options: StoreWatchOptions) -> Result<StoreStream> {
        let (place, begins) = {
            let state = self.state();
            match options.since {
                Since::After(Revision(after)) => {
                    let future = after > state.revision && !self.has(Bug::FutureReplaysHistory);
                    if future || after < state.oldest && !self.has(Bug::ShowsWhatIsLeft) {
                        return Err(expired("the history does not reach there"));
                    }
                    let after = if after > state.revision { state.oldest } else { after };
                    (after, Begins::At)
                }
                Since::Start => (state.revision, Begins::Reset(state.resources.clone())),
                _ => (state.revision, Begins::Bookmark),
            }
        };
        if self.has(Bug::ListThenRegister) {
            tokio::task::yield_now().await;
        }
        let mut state = self.state();
        let mut pending = VecDeque::new();
        match begins {
            Begins::Bookmark => pending.push_back(StoreEvent::Bookmark { revision: Revision(place) }),
            Begins::Reset(resources) => block(&resources, Gap::Initial, place, selector, &options, &mut pending),
            Begins::At => {}
        }
        let at = if self.has(Bug::ListThenRegister) { state.end() } else { state.after(place) };
        let id = state.next_watcher;
        state.next_watcher += 1;
        state.watchers.insert(id, None);
        if self.has(Bug::UnboundedQueue) {
            let queue = state.history.iter().skip(at - state.dropped).cloned().collect();
            state.queues.insert(id, queue);
        }
        drop(state);
        Ok(StoreStream::new(Watch {
            store: self.clone(),
            selector: selector.clone(),
            options,
            id,
            at,
            place,
            pending,
            over: false,
        }))
    }

    async fn snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<StoreSnapshotSeal> {
        let (revision, mut resources) = {
            let state = self.state();
            (state.revision, state.resources.clone())
        };
        if self.has(Bug::SnapshotIsNoMoment) {
            // Each resource in its state when its turn comes.
            for (key, resource) in &mut resources {
                tokio::task::yield_now().await;
                if let Some(now) = self.state().resources.get(key) {
                    *resource = Arc::clone(now);
                }
            }
        }
        let mut writer = StoreSnapshotWriter::begin(out, Revision(revision), resources.len() as u64);
        let mut resources: Vec<_> = resources.into_values().collect();
        resources.sort_by(|a, b| a.reference.cmp(&b.reference));
        for resource in resources {
            writer.put(&resource).await?;
        }
        writer.seal().await
    }

    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision> {
        let mut reader = StoreSnapshotReader::begin(from).await?;
        let mut resources = Vec::new();
        loop {
            match reader.next().await {
                Ok(Some(resource)) => resources.push(resource),
                Ok(None) => break,
                Err(_) if self.has(Bug::AcceptsCorruptSnapshot) => break,
                Err(error) => return Err(error),
            }
            if self.has(Bug::HalfRestore) {
                let known =
                    |one: &Arc<Resource>| !resources.iter().any(|read: &Arc<Resource>| read.reference == one.reference);
                let rest: Vec<_> = self.state().resources.values().filter(|one| known(one)).cloned().collect();
                self.replace(resources.iter().cloned().chain(rest).collect())?;
                tokio::task::yield_now().await;
            }
        }
        self.replace(resources)
    }

    async fn stats(&self) -> Result<StoreStats> {
        let state = self.state();
        let (resources, watchers) = (state.resources.len() as u64, state.watchers.len() as u64);
        Ok(StoreStats::new(resources, watchers, Revision(state.revision), Revision(state.oldest)))
    }
}

enum Begins {
    At,
    Bookmark,
    Reset(Resources),
}

/// A reset, the state, and its bookmark.
fn block(
    resources: &Resources,
    gap: Gap,
    revision: u64,
    selector: &Selector,
    options: &StoreWatchOptions,
    into: &mut VecDeque<StoreEvent>,
) {
    let revision = Revision(revision);
    into.push_back(StoreEvent::Reset { gap, revision });
    let selected = resources.values().filter(|resource| selector.matches(resource));
    into.extend(selected.map(|resource| StoreEvent::Added(resource.shown(options.format))));
    into.push_back(StoreEvent::Bookmark { revision });
}

struct Watch {
    store: Plain,
    selector: Selector,
    options: StoreWatchOptions,
    id: u64,
    /// Index of the next change in the history.
    at: usize,
    /// Revision of the last delivered event.
    place: u64,
    pending: VecDeque<StoreEvent>,
    over: bool,
}

impl Watch {
    fn event(&self, happened: &Happened) -> Option<StoreEvent> {
        let matches = |resource: &&Arc<Resource>| self.selector.matches(resource);
        let format = self.options.format.filter(|_| !self.store.has(Bug::WatchIgnoresFormat));
        let after = happened.after.as_ref().filter(matches).map(|after| after.shown(format));
        match (happened.before.as_ref().filter(matches), after) {
            (None, None) => None,
            (None, Some(after)) => Some(StoreEvent::Added(after)),
            (Some(_), Some(after)) => Some(StoreEvent::Modified(after)),
            (Some(_), None) => Some(StoreEvent::Deleted {
                reference: happened.reference.clone()?,
                revision: Revision(happened.revision),
            }),
        }
    }
}

impl Stream for Watch {
    type Item = Result<StoreEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.pending.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if this.over {
                return Poll::Ready(None);
            }
            let store = this.store.clone();
            let mut state = store.state();
            if this.store.has(Bug::UnboundedQueue)
                && this.place >= state.restored
                && let Some(queue) = state.queues.get_mut(&this.id)
            {
                if let Some(happened) = queue.pop_front() {
                    this.place = happened.revision;
                    this.pending.extend(this.event(&happened));
                    continue;
                }
                this.at = state.end();
            }
            let lagged = this.at < state.dropped;
            if lagged && this.options.slow_consumer == SlowConsumer::Close && this.place >= state.restored {
                this.over = true;
                return Poll::Ready(Some(Err(expired("too slow"))));
            }
            if this.place < state.restored || lagged && !this.store.has(Bug::LagIsSilent) {
                let mut dropped = state.revision - this.place;
                dropped += u64::from(this.store.has(Bug::CountsLagWrong));
                let gap = if this.place < state.restored { Gap::Restored } else { Gap::Lagged { dropped } };
                (this.at, this.place) = (state.end(), state.revision);
                state.queues.get_mut(&this.id).into_iter().for_each(VecDeque::clear);
                block(&state.resources, gap, state.revision, &this.selector, &this.options, &mut this.pending);
                continue;
            }
            this.at = this.at.max(state.dropped);
            let next = state.history.get(this.at - state.dropped);
            if let Some(happened) = next {
                this.place = happened.revision;
                this.at += 1;
                this.pending.extend(this.event(happened));
            } else {
                state.watchers.insert(this.id, Some(cx.waker().clone()));
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.store.has(Bug::LeaksSubscriber) {
            let mut state = self.store.state();
            state.watchers.remove(&self.id);
            state.queues.remove(&self.id);
        }
    }
}
