//! From the task that follows etcd to whoever reads the stream: [`Feed`] and its [`Outlet`].
//!
//! What waits between them is bounded, by number and by bytes. etcd must never be kept waiting: members before 3.4.31 and 3.5.13
//! lose events of a watch that is not read. So a follower that finds no room hangs up, and comes back to where the reader is.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
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

use crate::read::Counted;

/// Events that wait for the reader, at most, and their bytes.
const EVENTS: usize = 2048;
const BYTES: usize = 8 << 20;

type Item = (Result<StoreEvent>, usize);

#[derive(Debug, Default)]
struct Room {
    bytes: AtomicUsize,
    emptied: Notify,
}

/// Where the follower puts what it has.
#[derive(Debug)]
pub(crate) struct Outlet {
    to: mpsc::Sender<Item>,
    room: Arc<Room>,
}

/// The reader is gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Outlet {
    /// Whether there is no room: then it is time to hang up.
    pub(crate) fn is_full(&self) -> bool {
        self.to.capacity() == 0 || self.room.bytes.load(Ordering::Relaxed) > BYTES
    }

    /// Puts it there, and waits for room if there is none.
    pub(crate) async fn put(&self, event: Result<StoreEvent>) -> Result<(), Gone> {
        while self.room.bytes.load(Ordering::Relaxed) > BYTES {
            self.wait().await?;
        }
        let size = match &event {
            Ok(StoreEvent::Added(resource) | StoreEvent::Modified(resource)) => resource.document.bytes.len(),
            _ => 0,
        };
        self.room.bytes.fetch_add(size, Ordering::Relaxed);
        self.to.send((event, size)).await.map_err(|_| Gone)
    }

    /// Waits until the reader has read half of what waits.
    pub(crate) async fn half_empty(&self) -> Result<(), Gone> {
        while self.to.capacity() < EVENTS / 2 || self.room.bytes.load(Ordering::Relaxed) > BYTES / 2 {
            self.wait().await?;
        }
        Ok(())
    }

    async fn wait(&self) -> Result<(), Gone> {
        tokio::select! {
            // A permit is kept for one who comes late, so no wake-up is lost.
            () = self.room.emptied.notified() => Ok(()),
            () = self.to.closed() => Err(Gone),
        }
    }
}

/// What is behind the stream. Dropping it ends the follower, and with it etcd's watch.
#[derive(Debug)]
pub(crate) struct Feed {
    from: mpsc::Receiver<Item>,
    room: Arc<Room>,
    follower: Option<AbortHandle>,
    /// An error that was found behind events.
    last: Option<Error>,
    _counted: Counted,
}

pub(crate) fn feed(counted: Counted) -> (Outlet, Feed) {
    let (to, from) = mpsc::channel(EVENTS);
    let room = Arc::<Room>::default();
    let feed = Feed { from, room: Arc::clone(&room), follower: None, last: None, _counted: counted };
    (Outlet { to, room }, feed)
}

impl Feed {
    pub(crate) fn fed_by(mut self, follower: AbortHandle) -> Self {
        self.follower = Some(follower);
        self
    }

    fn taken(&self, size: usize) {
        self.room.bytes.fetch_sub(size, Ordering::Relaxed);
        self.room.emptied.notify_one();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
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
            // An error is the last item: what is behind it is nothing, and what is before it goes first.
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
