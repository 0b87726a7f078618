//! One subscriber: its position in the ring, its filter, and the resync that is being delivered to it.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use tokio::time::Sleep;

use super::{
    cache::{RowPosition, View},
    hub::{Hub, State},
    ring::{Entry, Resync},
};
use crate::{
    backend::instant_after,
    error::{Error, ErrorKind, Failure, Result},
    event::{Continuity, Cursor, Epoch, Gap, ResumeToken, RuntimeEvent, RuntimeEventKind},
    filter::InstanceFilter,
    instance::BackendId,
    options::{Detail, SlowConsumer, WatchOptions},
};

/// Entries fetched under one lock.
const FETCH: usize = 128;

/// Position at which a new subscriber starts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// At this entry.
    At(u64),
    /// With a resync, for this reason.
    Resync(Gap),
}

/// State of the link at the position at which a stream resumes, if no event of the stream will say it.
#[derive(Debug)]
pub(super) enum Beginning {
    /// The stream goes on where it was: nothing was missed.
    Live(BackendId),
    /// The stream goes on within a replay: its end is still to come.
    Replaying(BackendId),
    /// An outage began before the position and goes on.
    Down(Option<Failure>),
}

/// Meaning of an entry of the ring for the state of the link.
enum News {
    Down,
    Up,
    CaughtUp,
    Resync,
}

impl News {
    fn of(entry: &Entry) -> Option<Self> {
        match entry {
            Entry::Resync(_) => Some(Self::Resync),
            Entry::Event { event, .. } => match &event.kind {
                RuntimeEventKind::BackendDisconnected { .. } => Some(Self::Down),
                RuntimeEventKind::BackendReconnected { .. } => Some(Self::Up),
                RuntimeEventKind::CaughtUp => Some(Self::CaughtUp),
                _ => None,
            },
        }
    }
}

/// One subscriber.
#[derive(Debug)]
pub(super) struct Subscription {
    hub: Arc<Hub>,
    slot: usize,
    backend: BackendId,
    /// Number of the next entry to read.
    next: u64,
    filter: Option<InstanceFilter>,
    detail: Detail,
    slow: SlowConsumer,
    /// Reason of a resync that this subscriber needs and that has not begun.
    pending: Option<Gap>,
    /// Numbers the events of a new subscriber before its first resync.
    prelude: Option<Prelude>,
    ready: VecDeque<Arc<RuntimeEvent>>,
    showing: Option<Showing>,
    bookmark: Option<Bookmark>,
    beginning: Option<Beginning>,
    ended: bool,
}

/// A resync that is being delivered to a subscriber.
#[derive(Debug)]
struct Showing {
    resync: Resync,
    view: View,
    position: RowPosition,
    /// Number of the last event in the resync's epoch.
    seq: u64,
    /// Cursor of `ResyncEnd`, in the ring's epoch.
    end: Cursor,
}

/// The events of the link that a subscriber gets before its first resync. They have their own epoch, so that no cursor of theirs
/// can be resumed from: the subscriber has no rows yet.
#[derive(Debug)]
struct Prelude {
    epoch: Epoch,
    emitted: u64,
    down: bool,
}

impl Prelude {
    fn next(&mut self, down: bool) -> Cursor {
        self.down = down;
        self.emitted += 1;
        Cursor::new(self.epoch.clone(), self.emitted, None)
    }
}

#[derive(Debug)]
struct Bookmark {
    every: Duration,
    timer: Pin<Box<Sleep>>,
    /// `true` if the timer must be set again, because an event was delivered since it was set.
    stale: bool,
}

impl Subscription {
    pub(super) fn new(hub: &Arc<Hub>, state: &mut State, options: WatchOptions, start: Start) -> Self {
        let (next, pending) = match start {
            Start::At(next) => (next, None),
            Start::Resync(gap) => (state.ring.next(), Some(gap)),
        };
        let slot = state.subscribe(next, options.detail);
        let resumes = options.from.is_some() && matches!(start, Start::At(_)) && !state.machine.is_resuming();
        let every = options.bookmark_every.filter(|every| !every.is_zero());
        let mut new = Self {
            hub: Arc::clone(hub),
            slot,
            backend: state.machine.backend().clone(),
            next,
            filter: Some(options.filter).filter(|filter| !filter.is_empty()),
            detail: options.detail,
            slow: options.slow_consumer,
            pending,
            prelude: pending.map(|_| Prelude { epoch: state.machine.resync_epoch(), emitted: 0, down: false }),
            ready: VecDeque::new(),
            showing: None,
            bookmark: every.map(|every| Bookmark { every, timer: Box::pin(tokio::time::sleep(every)), stale: false }),
            beginning: None,
            ended: false,
        };
        new.beginning = resumes.then(|| new.beginning_at(state)).flatten();
        new.set_pending(state, pending);
        if let Some(cause) = state.machine.outage() {
            new.emit_outage(cause.clone(), SystemTime::now());
        }
        new
    }

    /// Leaves of the filter what an instance never ceases to match.
    pub(super) fn widen(&mut self) {
        let filter = self.filter.take().map(|filter| InstanceFilter::default().with_ids(filter.ids));
        self.filter = filter.filter(|filter| !filter.is_empty());
    }

    pub(super) fn take_beginning(&mut self) -> Option<Beginning> {
        self.beginning.take()
    }

    /// The state of the link at `next`, unless an entry of the ring is going to say it.
    fn beginning_at(&self, state: &State) -> Option<Beginning> {
        if self.next < state.ring.first() {
            return None; // it has lagged, and gets a resync
        }
        let (live, replaying) =
            (|| Some(Beginning::Live(self.backend.clone())), || Some(Beginning::Replaying(self.backend.clone())));
        match (state.ring.from(self.next).find_map(News::of), state.machine.outage()) {
            (Some(News::CaughtUp), _) => replaying(),
            // The link was up here, and what the ring has from before says if the replay was through. If it has nothing, the
            // outage says all.
            (Some(News::Down), _) => match state.ring.until(self.next).rev().find_map(News::of)? {
                News::Resync | News::CaughtUp => live(),
                News::Up => replaying(),
                News::Down => None,
            },
            (None, Some(cause)) => Some(Beginning::Down(cause.clone())),
            (None, None) if state.machine.is_live(Detail::Summary) => live(),
            (None, None) if state.machine.is_replaying() => replaying(),
            // A resync or the end of an outage is going to say it.
            (Some(News::Resync | News::Up) | None, _) => None,
        }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arc<RuntimeEvent>>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                if let Some(bookmark) = &mut self.bookmark {
                    bookmark.stale = true;
                }
                return Poll::Ready(Some(Ok(event)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            if self.showing.is_some() {
                self.show();
                continue;
            }
            match self.fetch(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Pending => match self.poll_bookmark(cx) {
                    Some(event) => return Poll::Ready(Some(Ok(event))),
                    None => return Poll::Pending,
                },
            }
        }
    }

    /// Reads from the ring. `Ready(Ok)`: there may be something to deliver now.
    fn fetch(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let hub = Arc::clone(&self.hub);
        let mut state = hub.lock();
        let state = &mut *state;
        if state.closed {
            return Poll::Ready(Err(Error::new(ErrorKind::Cancelled, "watch", "the backend was closed")
                .with_context("backend", &self.backend)));
        }
        if self.next < state.ring.first() {
            return Poll::Ready(self.lagged(state));
        }
        if let Some(gap) = self.pending {
            // First the events of the link that are in the ring, then a resync of the present rows.
            while self.ready.is_empty() && self.showing.is_none() && self.fetch_while_pending(state) {}
            if !self.ready.is_empty() || self.showing.is_some() {
                return Poll::Ready(Ok(()));
            }
            if !state.machine.is_live(self.detail) {
                return self.wait(state, cx);
            }
            self.take_view(state, gap);
            return Poll::Ready(Ok(())); // the ring was read to its end, so the present rows belong to this position
        }
        let from = self.next;
        if let Some(Entry::Resync(resync)) = state.ring.get(from) {
            let resync = Resync::clone(resync);
            self.enter(state, resync);
            return Poll::Ready(Ok(()));
        }
        for entry in state.ring.from(from).take(FETCH) {
            let Entry::Event { event, before } = entry else { break };
            self.next += 1;
            let wanted = self.filter.as_ref().is_none_or(|filter| match event.instance() {
                Some(instance) => {
                    filter.matches(instance) || before.as_ref().is_some_and(|before| filter.matches(before))
                }
                None => true,
            });
            if wanted {
                self.ready.push_back(Arc::clone(event));
            }
        }
        if self.next == from {
            return self.wait(state, cx);
        }
        state.advance(self.slot, self.next);
        Poll::Ready(Ok(()))
    }

    /// Reads one entry while a resync is pending. A resync in the ring that is detailed enough serves as the pending one; of the
    /// events, only those of the link are emitted. False: the ring has no further entry.
    fn fetch_while_pending(&mut self, state: &mut State) -> bool {
        let Some(entry) = state.ring.get(self.next) else { return false };
        match entry {
            Entry::Resync(resync) if resync.full || self.detail == Detail::Summary => {
                let resync = Resync::clone(resync);
                self.enter(state, resync);
                return true;
            }
            Entry::Event { event, .. } => match &event.kind {
                RuntimeEventKind::BackendDisconnected { cause } => self.emit_outage(cause.clone(), event.observed_at),
                RuntimeEventKind::BackendReconnected { .. } => self.emit_outage_end(event.observed_at),
                _ => {}
            },
            Entry::Resync(_) => {}
        }
        self.next += 1;
        state.advance(self.slot, self.next);
        true
    }

    fn wait(&self, state: &mut State, cx: &Context<'_>) -> Poll<Result<()>> {
        state.wait(self.slot, cx.waker());
        Poll::Pending
    }

    fn set_pending(&mut self, state: &mut State, gap: Option<Gap>) {
        self.pending = gap;
        state.set_pending(self.slot, gap.is_some());
    }

    /// The subscriber has lagged: the ring has dropped the entry at its position.
    fn lagged(&mut self, state: &mut State) -> Result<()> {
        let dropped = state.ring.next() - self.next;
        tracing::warn!(backend = %self.backend, dropped, "a subscriber is too slow for the ring");
        if self.slow == SlowConsumer::Close {
            return Err(Error::new(
                ErrorKind::Expired,
                "watch",
                format!("too slow: {dropped} events were not delivered"),
            )
            .with_context("backend", &self.backend));
        }
        if state.machine.outage().is_some() && state.machine.has_baseline() {
            // The last entry is the outage, and the rows are from before it: a resync of these rows, then the outage itself.
            self.next = state.ring.next() - 1;
            self.take_view(state, Gap::Lagged { dropped: dropped - 1 });
            return Ok(());
        }
        self.next = state.ring.next();
        state.advance(self.slot, self.next);
        if self.pending.is_none() {
            self.set_pending(state, Some(Gap::Lagged { dropped }));
        }
        Ok(())
    }

    /// Emits an outage to a subscriber that waits for its first resync; once, until its end is emitted.
    fn emit_outage(&mut self, cause: Option<Failure>, at: SystemTime) {
        if let Some(cursor) = self.prelude.as_mut().filter(|prelude| !prelude.down).map(|prelude| prelude.next(true)) {
            self.ready.push_back(self.event(cursor, at, RuntimeEventKind::BackendDisconnected { cause }));
        }
    }

    fn emit_outage_end(&mut self, at: SystemTime) {
        if let Some(cursor) = self.prelude.as_mut().filter(|prelude| prelude.down).map(|prelude| prelude.next(false)) {
            // `Lost`, even if the link resumed: this subscriber has no rows, and its resync follows.
            let kind = RuntimeEventKind::BackendReconnected { continuity: Continuity::Lost };
            self.ready.push_back(self.event(cursor, at, kind));
        }
    }

    /// Begins a resync of the present rows for this subscriber alone. After it, the ring is read from `self.next`.
    fn take_view(&mut self, state: &mut State, gap: Gap) {
        let resync = Resync {
            gap,
            epoch: state.machine.resync_epoch(),
            native: state.machine.token().cloned(),
            observed_at: SystemTime::now(),
            view: Some(state.machine.view()),
            full: state.machine.is_full(),
            completeness: state.machine.completeness().clone(),
        };
        self.next -= 1; // `ResyncEnd` takes the number of the entry before `next`; `enter` moves past it again
        self.enter(state, resync);
    }

    /// Begins to deliver a resync whose `ResyncEnd` gets the number `self.next`.
    fn enter(&mut self, state: &mut State, mut resync: Resync) {
        let Some(view) = resync.view.take() else {
            // A later resync replaced this one, whose rows are gone: the subscriber needs one of its own, as if it had lagged.
            let dropped = state.ring.next() - self.next;
            self.next = state.ring.next();
            state.advance(self.slot, self.next);
            return self.set_pending(state, Some(Gap::Lagged { dropped }));
        };
        let end = Cursor::new(state.machine.epoch().clone(), self.next, resync.native.clone());
        self.next += 1;
        state.advance(self.slot, self.next);
        self.set_pending(state, None);
        self.prelude = None;
        let begin = Cursor::new(resync.epoch.clone(), 1, None);
        self.ready.push_back(self.event(begin, resync.observed_at, RuntimeEventKind::ResyncBegin { gap: resync.gap }));
        self.showing = Some(Showing { resync, view, position: RowPosition::default(), seq: 1, end });
    }

    /// Emits the next rows of the resync that is being delivered; after the last row, its end.
    fn show(&mut self) {
        let Some(mut showing) = self.showing.take() else { return };
        while self.ready.len() < FETCH {
            let Some((row, next)) = showing.view.row_at(showing.position) else {
                let kind = RuntimeEventKind::ResyncEnd(showing.resync.completeness);
                self.ready.push_back(self.event(showing.end, showing.resync.observed_at, kind));
                return;
            };
            showing.position = next;
            if self.filter.as_ref().is_none_or(|filter| filter.matches(row)) {
                showing.seq += 1;
                let cursor = Cursor::new(showing.resync.epoch.clone(), showing.seq, None);
                let kind = RuntimeEventKind::Present(Arc::clone(row));
                self.ready.push_back(self.event(cursor, showing.resync.observed_at, kind));
            }
        }
        self.showing = Some(showing);
    }

    fn event(&self, cursor: Cursor, at: SystemTime, kind: RuntimeEventKind) -> Arc<RuntimeEvent> {
        Arc::new(RuntimeEvent::new(self.backend.clone(), cursor, at, kind))
    }

    fn poll_bookmark(&mut self, cx: &mut Context<'_>) -> Option<Arc<RuntimeEvent>> {
        loop {
            let bookmark = self.bookmark.as_mut()?;
            if std::mem::take(&mut bookmark.stale) {
                let due = instant_after(bookmark.every);
                bookmark.timer.as_mut().reset(due);
            }
            if bookmark.timer.as_mut().poll(cx).is_pending() {
                return None;
            }
            bookmark.stale = true;
            let state = self.hub.lock();
            if self.pending.is_none() && self.next > 1 && state.machine.outage().is_none() {
                let cursor = cursor_at(&state, self.next - 1);
                drop(state);
                return Some(self.event(cursor, SystemTime::now(), RuntimeEventKind::Bookmark));
            }
        }
    }
}

/// Cursor of entry `seq`, with the resume token of the rows.
fn cursor_at(state: &State, seq: u64) -> Cursor {
    let (epoch, native): (&Epoch, Option<&ResumeToken>) = (state.machine.epoch(), state.machine.token());
    Cursor::new(epoch.clone(), seq, native.cloned())
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.unsubscribe(self.slot);
        let over = state.over;
        drop(state);
        if over {
            self.hub.stop.cancel();
        } else if self.detail == Detail::Full {
            self.hub.detail_changed.notify_one();
        }
    }
}
