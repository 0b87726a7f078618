//! Bounded queue between a watcher's task and the subscriber: [`EventSender`] and [`Feed`].
//!
//! The queue is bounded in events and in bytes. A link to etcd must always be read: members before 3.4.31 and 3.5.13 lose events of
//! a watch that is not. So a watcher that finds the queue full closes its link, and resumes from the subscriber's position.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use runtide_core::{
    Error, Result,
    store::{StoreEvent, StoreFeed},
};
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
};

/// Most events that wait for the subscriber, and most bytes of their documents.
const EVENTS: usize = 2048;
const BYTES: usize = 8 << 20;

type Item = (Result<StoreEvent>, usize);

#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    emptied: Notify,
}

/// The watcher's end of the queue.
#[derive(Debug)]
pub(crate) struct EventSender {
    to: mpsc::Sender<Item>,
    backlog: Arc<Backlog>,
}

/// The subscriber dropped its stream.
#[derive(Debug)]
pub(crate) struct Gone;

impl EventSender {
    /// The queue is full: the watcher has to close its link.
    pub(crate) fn is_full(&self) -> bool {
        self.to.capacity() == 0 || self.backlog.bytes.load(Ordering::Relaxed) > BYTES
    }

    /// Sends an event; waits while the queue is full.
    pub(crate) async fn send(&self, event: Result<StoreEvent>) -> Result<(), Gone> {
        while self.backlog.bytes.load(Ordering::Relaxed) > BYTES {
            self.wait().await?;
        }
        let size = match &event {
            Ok(StoreEvent::Added(resource) | StoreEvent::Modified(resource)) => resource.document.bytes.len(),
            _ => 0,
        };
        self.backlog.bytes.fetch_add(size, Ordering::Relaxed);
        self.to.send((event, size)).await.map_err(|_| Gone)
    }

    /// Waits until the subscriber has read half of the queue.
    pub(crate) async fn half_empty(&self) -> Result<(), Gone> {
        while self.to.capacity() < EVENTS / 2 || self.backlog.bytes.load(Ordering::Relaxed) > BYTES / 2 {
            self.wait().await?;
        }
        Ok(())
    }

    async fn wait(&self) -> Result<(), Gone> {
        tokio::select! {
            // `Notify` keeps a permit for a task that waits later, so no wake-up is lost.
            () = self.backlog.emptied.notified() => Ok(()),
            () = self.to.closed() => Err(Gone),
        }
    }
}

/// The subscriber's end of the queue. Dropping it ends the watcher, and with it etcd's watch.
#[derive(Debug)]
pub(crate) struct Feed {
    from: mpsc::Receiver<Item>,
    backlog: Arc<Backlog>,
    watcher: Option<AbortHandle>,
    /// An error behind events that were just returned.
    last: Option<Error>,
    _counted: SubscriberGuard,
}

pub(crate) fn feed(counted: SubscriberGuard) -> (EventSender, Feed) {
    let (to, from) = mpsc::channel(EVENTS);
    let backlog = Arc::<Backlog>::default();
    let feed = Feed { from, backlog: Arc::clone(&backlog), watcher: None, last: None, _counted: counted };
    (EventSender { to, backlog }, feed)
}

impl Feed {
    pub(crate) fn fed_by(mut self, watcher: AbortHandle) -> Self {
        self.watcher = Some(watcher);
        self
    }

    fn taken(&self, size: usize) {
        self.backlog.bytes.fetch_sub(size, Ordering::Relaxed);
        self.backlog.emptied.notify_one();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

impl Stream for Feed {
    type Item = Result<StoreEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(error) = self.last.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let next = ready!(self.from.poll_recv(cx));
        Poll::Ready(next.map(|(event, size)| {
            self.taken(size);
            event
        }))
    }
}

impl StoreFeed for Feed {
    fn poll_batch(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut Vec<StoreEvent>,
        limit: usize,
    ) -> Poll<Option<Result<usize>>> {
        if let Some(error) = self.last.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut count = 0;
        while count < limit {
            // An error is the last item; the events before it are returned first.
            match self.from.poll_recv(cx) {
                Poll::Ready(Some((Ok(event), size))) => {
                    self.taken(size);
                    out.push(event);
                    count += 1;
                }
                Poll::Ready(Some((Err(error), _))) if count == 0 => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some((Err(error), _))) => {
                    self.last = Some(error);
                    break;
                }
                Poll::Ready(None) if count == 0 => return Poll::Ready(None),
                Poll::Pending if count == 0 => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(count)))
    }
}

/// Counts a subscriber until it is dropped.
#[derive(Debug)]
pub(crate) struct SubscriberGuard(Arc<AtomicU64>);

impl SubscriberGuard {
    pub(crate) fn new(all: &Arc<AtomicU64>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for SubscriberGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
