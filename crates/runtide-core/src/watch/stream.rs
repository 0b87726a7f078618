//! The subscriber's side: [`EventStream`], and what reads it to an end.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    subscription::{Beginning, Subscription},
    table::InstanceTable,
};
use crate::{
    completeness::Completeness,
    error::{Error, ErrorKind, Result},
    event::{RuntimeEvent, RuntimeEventKind},
    instance::{Instance, InstanceId},
};

/// Events as they come. Owned; dropping it cancels.
///
/// Outages are events. An `Err` is the last item: `Expired` (too slow, and [`SlowConsumer::Close`](crate::options::SlowConsumer) was
/// asked for) or `Cancelled` (the backend was closed).
pub struct EventStream {
    inner: Inner,
    beginning: Option<Beginning>,
    /// An error that waits until the events before it are handed out.
    last: Option<Error>,
}

enum Inner {
    Ring(Box<Subscription>),
    Other(Pin<Box<dyn Stream<Item = Result<Arc<RuntimeEvent>>> + Send>>),
}

impl EventStream {
    /// Wraps any stream of events: for backends with their own loop. A layer over another watch is [`EventStream::layered`].
    pub fn new(inner: impl Stream<Item = Result<Arc<RuntimeEvent>>> + Send + 'static) -> Self {
        Self { inner: Inner::Other(Box::pin(inner)), beginning: None, last: None }
    }

    /// Wraps this stream in a layer that passes its events on. The stream of the layer begins where this one does: `transitions()`
    /// over it has the same first item.
    #[must_use]
    pub fn layered<S>(mut self, layer: impl FnOnce(Self) -> S) -> Self
    where
        S: Stream<Item = Result<Arc<RuntimeEvent>>> + Send + 'static,
    {
        let beginning = self.beginning.take();
        Self { beginning, ..Self::new(layer(self)) }
    }

    pub(super) fn from_ring(mut subscription: Subscription) -> Self {
        let beginning = subscription.take_beginning();
        Self { inner: Inner::Ring(Box::new(subscription)), beginning, last: None }
    }

    /// Delivers all that may match the filter of the stream's options, for a fold that applies the filter itself.
    pub(super) fn widen(&mut self) {
        if let Inner::Ring(subscription) = &mut self.inner {
            subscription.widen();
        }
    }

    /// The state of the link at the first event, if no event will say it.
    pub(super) fn beginning(&self) -> Option<&Beginning> {
        self.beginning.as_ref()
    }

    /// The next event; `None` after the end.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Arc<RuntimeEvent>>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Waits for the next event, then appends it and the others at hand, at most `limit` events. `None` after the end.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next_batch(&mut self, out: &mut Vec<Arc<RuntimeEvent>>, limit: usize) -> Option<Result<usize>> {
        poll_fn(|cx| {
            let mut count = 0;
            while count < limit.max(1) {
                match self.poll(cx) {
                    Poll::Ready(Some(Ok(event))) => {
                        out.push(event);
                        count += 1;
                    }
                    Poll::Ready(Some(Err(error))) if count == 0 => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(Some(Err(error))) => {
                        self.last = Some(error);
                        break;
                    }
                    Poll::Ready(None) if count == 0 => return Poll::Ready(None),
                    Poll::Pending if count == 0 => return Poll::Pending,
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
            Poll::Ready(Some(Ok(count)))
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arc<RuntimeEvent>>>> {
        if let Some(error) = self.last.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match &mut self.inner {
            Inner::Ring(subscription) => subscription.poll_next(cx),
            Inner::Other(stream) => stream.as_mut().poll_next(cx),
        }
    }
}

impl Stream for EventStream {
    type Item = Result<Arc<RuntimeEvent>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

/// Sends every event, until `cancel` or until the receiver is gone.
pub(crate) async fn pump(
    mut stream: EventStream,
    tx: mpsc::Sender<Arc<RuntimeEvent>>,
    cancel: CancellationToken,
) -> Result<()> {
    loop {
        let event = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            () = tx.closed() => return Ok(()),
            event = stream.next() => event,
        };
        let Some(event) = event.transpose()? else { return Ok(()) };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            sent = tx.send(event) => if sent.is_err() { return Ok(()) },
        }
    }
}

/// The first state of `id` that satisfies `until`. `why` becomes what keeps it from being seen, in words: the outage that goes
/// on, or a listing that did not show everything.
pub(crate) async fn first_match(
    mut stream: EventStream,
    id: &InstanceId,
    until: impl Fn(&Instance) -> bool + Send,
    why: &mut Option<String>,
) -> Result<Arc<Instance>> {
    let mut table = InstanceTable::default();
    loop {
        let Some(event) = stream.next().await.transpose()? else {
            return Err(Error::new(ErrorKind::Cancelled, "runtime.wait_for", "the watch ended"));
        };
        table.apply(&event);
        match &event.kind {
            RuntimeEventKind::BackendDisconnected { cause } => {
                let clean = || "it closed the stream".to_owned();
                let cause = cause.as_ref().map_or_else(clean, |cause| cause.message.clone());
                *why = Some(format!("the runtime is not reachable: {cause}"));
            }
            RuntimeEventKind::BackendReconnected { .. } | RuntimeEventKind::ResyncEnd(Completeness::Complete) => {
                *why = None;
            }
            RuntimeEventKind::ResyncEnd(known) if table.get(&event.backend, id).is_none() => {
                let first =
                    known.failures().first().map(|failure| format!(": {}", failure.message)).unwrap_or_default();
                *why = Some(format!("the listing was partial, and does not show the instance{first}"));
            }
            _ => {}
        }
        let now = match &event.kind {
            RuntimeEventKind::ResyncEnd(_) => table.get(&event.backend, id),
            kind => {
                kind.instance().filter(|instance| instance.id == *id && !matches!(kind, RuntimeEventKind::Present(_)))
            }
        };
        let gone = match &event.kind {
            // An instance that a partial listing does not show may be there.
            RuntimeEventKind::ResyncEnd(completeness) => now.is_none() && completeness.is_complete(),
            RuntimeEventKind::Removed(instance) => instance.id == *id,
            _ => false,
        };
        if gone {
            return Err(Error::new(ErrorKind::NotFound, "runtime.wait_for", "the instance is not there"));
        }
        if let Some(now) = now.filter(|now| until(now)) {
            return Ok(Arc::clone(now));
        }
    }
}
