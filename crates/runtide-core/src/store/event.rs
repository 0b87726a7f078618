//! The events of a store's watch, and its options.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use serde::{Deserialize, Serialize};

use super::{Resource, ResourceFormat, ResourceRef, Revision};
use crate::{
    error::{Error, Result},
    event::Gap,
    names::setters,
    options::SlowConsumer,
};

/// One change of a store; a watch delivers them in commit order. A clone costs nothing: bodies are shared.
///
/// To a watcher with a selector, a resource that begins to match is `Added`, and one that ceases to match is `Deleted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
#[non_exhaustive]
pub enum StoreEvent {
    /// The resource was created. Between `Reset` and `Bookmark`: the resource is part of the present state.
    Added(Arc<Resource>),
    /// The resource was replaced.
    Modified(Arc<Resource>),
    /// The resource was deleted.
    Deleted {
        /// Reference of the deleted resource.
        reference: ResourceRef,
        /// Revision of the delete.
        revision: Revision,
    },
    /// Forget everything: the state at `revision` follows as `Added`, closed by its `Bookmark`.
    Reset {
        /// Reason: the watch begins (`Initial`), the store was restored, this watcher was too slow (`Lagged`, with the number of
        /// changes that it does not get one by one), or the link to the store was down for longer than its history.
        gap: Gap,
        /// Revision of the state that follows.
        revision: Revision,
    },
    /// Everything up to this revision has been delivered: a watch can go on from it, `Since::After`.
    Bookmark {
        /// The position: the revision up to which everything was delivered.
        revision: Revision,
    },
}

impl StoreEvent {
    /// The event's revision: of the write, of the state that follows, or of the bookmark.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Added(resource) | Self::Modified(resource) => resource.revision,
            Self::Deleted { revision, .. } | Self::Reset { revision, .. } | Self::Bookmark { revision } => *revision,
        }
    }

    /// The resource that changed; `None` for `Reset` and `Bookmark`.
    pub fn reference(&self) -> Option<&ResourceRef> {
        match self {
            Self::Added(resource) | Self::Modified(resource) => Some(&resource.reference),
            Self::Deleted { reference, .. } => Some(reference),
            Self::Reset { .. } | Self::Bookmark { .. } => None,
        }
    }
}

/// Start position of a watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Since {
    /// With the next change. The first event is a `Bookmark` of the position.
    #[default]
    Now,
    /// With the present state, as after a `Reset`, and then every change.
    Start,
    /// With the first change after this revision, as if the watch had been open all the time.
    After(Revision),
}

/// Options of a store's watch.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoreWatchOptions {
    /// Start position of the watch.
    pub since: Since,
    /// The bodies in this format; as they were written if `None`, or if this format cannot carry them.
    pub format: Option<ResourceFormat>,
    /// Treatment of a watcher that is too slow for the store's history.
    pub slow_consumer: SlowConsumer,
}

setters!(StoreWatchOptions {
    /// Start position of the watch.
    with_since: since: Since;
    /// The bodies in this format.
    with_format: format: Option<ResourceFormat>;
    /// Treatment of a watcher that is too slow.
    with_slow_consumer: slow_consumer: SlowConsumer;
});

/// The store's side of a [`StoreStream`].
pub trait StoreFeed: Stream<Item = Result<StoreEvent>> + Send {
    /// Appends the events at hand, at most `limit`, and returns their number; pending if there is none.
    ///
    /// An error behind events is returned by the next call.
    fn poll_batch(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut Vec<StoreEvent>,
        limit: usize,
    ) -> Poll<Option<Result<usize>>>;
}

/// The changes of a store, as they happen. Owned; dropping the stream unsubscribes at once.
///
/// `Err` is the last item: `Expired` (too slow, and [`SlowConsumer::Close`] was asked for), or the store was closed.
pub struct StoreStream(Inner);

enum Inner {
    Feed(Pin<Box<dyn StoreFeed>>),
    Other { stream: Pin<Box<dyn Stream<Item = Result<StoreEvent>> + Send>>, last: Option<Error> },
}

impl StoreStream {
    /// Wraps any stream of events.
    pub fn new(inner: impl Stream<Item = Result<StoreEvent>> + Send + 'static) -> Self {
        Self(Inner::Other { stream: Box::pin(inner), last: None })
    }

    /// Wraps a stream that can return many events at a time.
    pub fn from_feed(feed: impl StoreFeed + 'static) -> Self {
        Self(Inner::Feed(Box::pin(feed)))
    }

    /// The next event; `None` after the end.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<StoreEvent>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Waits for the next event, then appends it and the others at hand, at most `limit` events. `None` after the end.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next_batch(&mut self, out: &mut Vec<StoreEvent>, limit: usize) -> Option<Result<usize>> {
        std::future::poll_fn(|cx| match &mut self.0 {
            Inner::Feed(feed) => feed.as_mut().poll_batch(cx, out, limit.max(1)),
            Inner::Other { stream, last } => {
                if let Some(error) = last.take() {
                    return Poll::Ready(Some(Err(error)));
                }
                let mut count = 0;
                while count < limit.max(1) {
                    match stream.as_mut().poll_next(cx) {
                        Poll::Ready(Some(Ok(event))) => {
                            out.push(event);
                            count += 1;
                        }
                        Poll::Ready(Some(Err(error))) if count > 0 => {
                            *last = Some(error);
                            break;
                        }
                        Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                        Poll::Ready(None) if count == 0 => return Poll::Ready(None),
                        Poll::Pending if count == 0 => return Poll::Pending,
                        Poll::Ready(None) | Poll::Pending => break,
                    }
                }
                Poll::Ready(Some(Ok(count)))
            }
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<StoreEvent>>> {
        match &mut self.0 {
            Inner::Feed(feed) => feed.as_mut().poll_next(cx),
            Inner::Other { stream, last } => match last.take() {
                Some(error) => Poll::Ready(Some(Err(error))),
                None => stream.as_mut().poll_next(cx),
            },
        }
    }
}

impl Stream for StoreStream {
    type Item = Result<StoreEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl fmt::Debug for StoreStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreStream").finish_non_exhaustive()
    }
}
