//! One watcher: a place in the history.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use runtide_core::{
    Error, ErrorKind, Gap, Result, SlowConsumer,
    store::{Resource, ResourceFormat, Revision, Selector, Since, StoreEvent, StoreFeed, StoreWatchOptions},
};

use super::{
    Inner,
    history::{Entry, Parked},
    lock,
    tree::ScopeNumber,
    view::View,
};

/// One watcher: a place in the history, or in a view of the whole store.
#[derive(Debug)]
pub(super) struct Subscription {
    inner: Arc<Inner>,
    selector: Selector,
    /// Whether the selector takes everything.
    whole: bool,
    /// The only scope that it takes.
    scope: Option<ScopeNumber>,
    format: Option<ResourceFormat>,
    slow_consumer: SlowConsumer,
    /// The number of the entry to be read next.
    next: u64,
    /// What was written when the watch was opened is in the first view that is shown.
    least: Revision,
    /// A place to be told, before anything else.
    greeting: Option<StoreEvent>,
    showing: Option<Showing>,
    /// The view to be shown was asked for with this gap.
    reset: Option<Gap>,
    parked: Option<Parked>,
    /// Read, and not yet given.
    ready: VecDeque<StoreEvent>,
    over: bool,
}

#[derive(Debug)]
struct Showing {
    view: Arc<View>,
    /// Rows that were shown.
    at: usize,
}

/// As many entries are looked at under the lock, and as many rows taken from a view at once.
const STRIDE: usize = 128;

/// As many events are taken at once, whatever is asked for.
const MOST: usize = 1_024;

/// Strides without an event, after which a watcher lets others have their turn.
const TIMEOUT: usize = 16;

/// As many events are read ahead for one that is asked for.
const AHEAD: usize = 32;

impl Subscription {
    pub(super) fn new(inner: &Arc<Inner>, selector: &Selector, options: &StoreWatchOptions) -> Result<Self> {
        let mut history = lock(&inner.history);
        let next = history.place(options.since)?;
        let revision = history.revision();
        let scope = ScopeNumber::only(selector);
        history.enter(scope);
        history.converting += u64::from(options.format.is_some());
        drop(history);
        Ok(Self {
            inner: Arc::clone(inner),
            whole: *selector == Selector::all(),
            scope,
            selector: selector.clone(),
            format: options.format,
            slow_consumer: options.slow_consumer,
            next,
            least: revision,
            greeting: (options.since == Since::Now).then_some(StoreEvent::Bookmark { revision }),
            showing: None,
            reset: (options.since == Since::Start).then_some(Gap::Initial),
            parked: None,
            ready: VecDeque::new(),
            over: false,
        })
    }

    /// Reads what is at hand, about as many events as told. `Ok(false)`: there is nothing, and who waits will be woken.
    fn read(&mut self, cx: &mut Context<'_>, out: &mut impl Extend<StoreEvent>, most: usize) -> Result<usize> {
        if let Some(greeting) = self.greeting.take() {
            out.extend([greeting]);
            return Ok(1);
        }
        for _ in 0..TIMEOUT {
            if let Some(gap) = self.reset.take() {
                out.extend([self.begin(gap)?]);
                return Ok(1);
            }
            let count = match self.showing.take() {
                Some(showing) => self.show(showing, out, most)?,
                None => match self.follow(cx, out, most)? {
                    Some(count) => count,
                    None => return Ok(0),
                },
            };
            if count > 0 {
                return Ok(count);
            }
        }
        // Nothing of all that was for this watcher, and there is more: others have their turn first.
        cx.waker().wake_by_ref();
        Ok(0)
    }

    /// Takes a view, and says so.
    fn begin(&mut self, gap: Gap) -> Result<StoreEvent> {
        let view = self.inner.view(&self.selector, self.least)?;
        let gap = match gap {
            Gap::Lagged { .. } => Gap::Lagged { dropped: view.next.saturating_sub(self.next) },
            other => other,
        };
        let revision = view.revision;
        self.next = view.next;
        self.showing = Some(Showing { view, at: 0 });
        Ok(StoreEvent::Reset { gap, revision })
    }

    fn show(&mut self, mut showing: Showing, out: &mut impl Extend<StoreEvent>, most: usize) -> Result<usize> {
        let mut rows = Vec::with_capacity(most.min(STRIDE));
        if showing.view.rows(showing.at, most.min(STRIDE), &mut rows).is_none() {
            // The view was taken back, since the store has gone on far beyond it.
            self.reset = Some(Gap::Lagged { dropped: 0 });
            return if self.slow_consumer == SlowConsumer::Close { Err(too_slow(0)) } else { Ok(0) };
        }
        if rows.is_empty() {
            out.extend([StoreEvent::Bookmark { revision: showing.view.revision }]);
            return Ok(1);
        }
        showing.at += rows.len();
        self.showing = Some(showing);
        let mut count = 0;
        out.extend(rows.iter().filter(|row| self.whole || self.selector.matches(row)).map(|row| {
            count += 1;
            StoreEvent::Added(row.shown(self.format))
        }));
        Ok(count)
    }

    /// Reads the history. `None`: there is nothing new.
    fn follow(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut impl Extend<StoreEvent>,
        most: usize,
    ) -> Result<Option<usize>> {
        let mut history = lock(&self.inner.history);
        let Some(next) = history.resume(self.next, self.scope) else {
            let replaced = history.was_replaced_since(self.next);
            let dropped = history.next().saturating_sub(self.next);
            drop(history);
            if self.slow_consumer == SlowConsumer::Close && !replaced {
                return Err(too_slow(dropped));
            }
            self.reset = Some(if replaced { Gap::Restored } else { Gap::Lagged { dropped } });
            return Ok(Some(0));
        };
        self.next = next;
        if self.next == history.next() {
            self.parked = Some(history.park(self.parked, self.scope, cx.waker()));
            return Ok(None);
        }
        self.parked = None;
        let mut count = 0;
        if self.whole && self.format.is_none() {
            out.extend(history.from(self.next).take(most.min(MOST)).map(|entry| {
                count += 1;
                entry.event.clone()
            }));
            self.next += count as u64;
            return Ok(Some(count));
        }
        // Labels and other formats take long: not under the lock.
        let mut passed = 0;
        let names = |entry: &&Entry| {
            // Most are told apart without a look at what was written, which lies elsewhere in memory.
            self.scope.is_none_or(|scope| entry.scope == scope)
                && entry.event.reference().is_some_and(|reference| self.selector.names(reference))
        };
        let stride = history.from(self.next).take(most.clamp(STRIDE, MOST));
        let entries: Vec<Entry> = stride.inspect(|_| passed += 1).filter(names).take(most).cloned().collect();
        drop(history);
        self.next += passed;
        out.extend(entries.iter().filter_map(|entry| self.seen(entry)).inspect(|_| count += 1));
        Ok(Some(count))
    }

    /// What a write is to this watcher.
    fn seen(&self, entry: &Entry) -> Option<StoreEvent> {
        let selected = |resource: &Arc<Resource>| self.selector.labels.is_empty() || self.selector.matches(resource);
        let was = entry.before.as_ref().is_some_and(selected);
        match &entry.event {
            StoreEvent::Added(now) | StoreEvent::Modified(now) => match (was, selected(now)) {
                (false, false) => None,
                (false, true) => Some(StoreEvent::Added(entry.shown(now, self.format))),
                (true, true) => Some(StoreEvent::Modified(entry.shown(now, self.format))),
                (true, false) => Some(StoreEvent::Deleted { reference: now.reference.clone(), revision: now.revision }),
            },
            StoreEvent::Deleted { .. } => was.then(|| entry.event.clone()),
            _ => None,
        }
    }

    fn next_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<StoreEvent>>> {
        if let Some(event) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(event)));
        }
        if self.over {
            return Poll::Ready(None);
        }
        let mut ready = std::mem::take(&mut self.ready);
        let read = self.read(cx, &mut ready, AHEAD);
        match read {
            // A watcher that waits holds nothing.
            Ok(0) => Poll::Pending,
            Ok(_) => {
                self.ready = ready;
                Poll::Ready(self.ready.pop_front().map(Ok))
            }
            Err(error) => {
                self.over = true;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

fn too_slow(dropped: u64) -> Error {
    let message = "the watcher was too slow for the store's history";
    Error::new(ErrorKind::Expired, "store.watch", message).with_context("dropped", dropped)
}

impl Stream for Subscription {
    type Item = Result<StoreEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.next_event(cx)
    }
}

impl StoreFeed for Subscription {
    fn poll_batch(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut Vec<StoreEvent>,
        limit: usize,
    ) -> Poll<Option<Result<usize>>> {
        if !self.ready.is_empty() {
            let count = self.ready.len().min(limit);
            out.extend(self.ready.drain(..count));
            return Poll::Ready(Some(Ok(count)));
        }
        if self.over {
            return Poll::Ready(None);
        }
        match self.read(cx, out, limit) {
            Ok(0) => Poll::Pending,
            Ok(count) => Poll::Ready(Some(Ok(count))),
            Err(error) => {
                self.over = true;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut history = lock(&self.inner.history);
        history.converting = history.converting.saturating_sub(u64::from(self.format.is_some()));
        let waker = self.parked.and_then(|parked| history.unpark(parked, self.scope));
        let topic = history.leave(self.scope);
        drop(history);
        drop((waker, topic));
    }
}
