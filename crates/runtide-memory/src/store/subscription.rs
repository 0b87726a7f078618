//! One watcher of the store.

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

/// One watcher: a position in the history, or in a view of the store.
#[derive(Debug)]
pub(super) struct Subscription {
    inner: Arc<Inner>,
    selector: Selector,
    /// True if the selector takes everything.
    whole: bool,
    /// The only scope that the selector takes; `None` if it takes more.
    scope: Option<ScopeNumber>,
    format: Option<ResourceFormat>,
    slow_consumer: SlowConsumer,
    /// Number of the entry to be read next.
    next: u64,
    /// Revision of the store when the watch was opened: every view that it shows is at least as new.
    least: Revision,
    /// The bookmark with which a watch of `Since::Now` begins.
    greeting: Option<StoreEvent>,
    showing: Option<Showing>,
    /// Gap of the `Reset` that comes next, with a view; `None` if no view is due.
    reset: Option<Gap>,
    parked: Option<Parked>,
    /// Events that were read ahead and not yet delivered.
    ready: VecDeque<StoreEvent>,
    over: bool,
}

/// A view that is being delivered to the watcher.
#[derive(Debug)]
struct Showing {
    view: Arc<View>,
    /// Number of rows that were read.
    at: usize,
}

/// Number of entries that are read under the lock at once, at least, and of rows that are taken from a view at once, at most.
const STRIDE: usize = 128;

/// Largest number of entries that are read under the lock at once.
const MOST: usize = 1_024;

/// Number of strides without an event after which a watcher yields to other tasks.
const MAX_STRIDES: usize = 16;

/// Number of events that one poll for an event reads ahead.
const AHEAD: usize = 32;

impl Subscription {
    pub(super) fn new(inner: &Arc<Inner>, selector: &Selector, options: &StoreWatchOptions) -> Result<Self> {
        let mut history = lock(&inner.history);
        let next = history.position(options.since)?;
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

    /// Reads the available events, about `most` of them, and returns their number. `Ok(0)`: there is none yet, and the task will
    /// be woken.
    fn read(&mut self, cx: &mut Context<'_>, out: &mut impl Extend<StoreEvent>, most: usize) -> Result<usize> {
        if let Some(greeting) = self.greeting.take() {
            out.extend([greeting]);
            return Ok(1);
        }
        for _ in 0..MAX_STRIDES {
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
        // None of those entries was for this watcher, and there are more: yield to other tasks first.
        cx.waker().wake_by_ref();
        Ok(0)
    }

    /// Takes a view to deliver, and returns the `Reset` that begins it.
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
            // The view was released, since several newer ones were taken.
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

    /// Reads the history. `None`: there is no new entry, and the task will be woken by the next one.
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
        // Matching labels and converting formats take long: they are done outside of the lock.
        let mut passed = 0;
        let names = |entry: &&Entry| {
            // Most entries are decided by the scope, without touching the written resource, which is elsewhere in memory.
            self.scope.is_none_or(|scope| entry.scope == scope)
                && entry.event.reference().is_some_and(|reference| self.selector.names(reference))
        };
        let stride = history.from(self.next).take(most.clamp(STRIDE, MOST));
        let entries: Vec<Entry> = stride.inspect(|_| passed += 1).filter(names).take(most).cloned().collect();
        drop(history);
        self.next += passed;
        out.extend(entries.iter().filter_map(|entry| self.event_for(entry)).inspect(|_| count += 1));
        Ok(Some(count))
    }

    /// The event that a write is for this watcher: a resource that comes to match the selector is `Added`, and one that no longer
    /// matches is `Deleted`. `None` if it is not concerned.
    fn event_for(&self, entry: &Entry) -> Option<StoreEvent> {
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
            // A waiting watcher keeps no buffer.
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
