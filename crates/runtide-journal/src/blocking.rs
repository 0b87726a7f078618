//! Blocking work on the log from async code: on a blocking thread, so that a dropped future interrupts no work.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::{runtime::Handle, task::JoinHandle};

use runtide_core::{Error, ErrorKind, Result};

/// The present task's tokio runtime.
pub(crate) fn handle(operation: &'static str) -> Result<Handle> {
    Handle::try_current().map_err(|error| {
        Error::new(ErrorKind::Unexpected, operation, "a journal is used inside a tokio runtime").with_source(error)
    })
}

/// Runs the work to its end on a blocking thread, even if the returned future is dropped.
pub(crate) async fn run_blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = handle(operation)?.spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Error::new(ErrorKind::Cancelled, operation, "the tokio runtime is shutting down")))
}

/// Records in one step of a [`BlockingStream`].
pub(crate) const STRETCH: usize = 4_096;

/// A reader that reads one stretch of records per step.
pub(crate) trait BlockingStep: Send + Unpin + 'static {
    type Item: Send + Unpin;

    /// Reads the next stretch; `true` if there may be more.
    fn stretch(&mut self, out: &mut VecDeque<Self::Item>) -> Result<bool>;
}

/// Yields the items of a [`BlockingStep`], each step on a blocking thread. It never reads ahead of its subscriber.
pub(crate) struct BlockingStream<R: BlockingStep> {
    operation: &'static str,
    handle: Handle,
    reading: Option<R>,
    under_way: Option<JoinHandle<Read<R>>>,
    ready: VecDeque<R::Item>,
    failed: Option<Error>,
}

/// Result of one step, with the reader handed back.
struct Read<R: BlockingStep> {
    reading: R,
    out: VecDeque<R::Item>,
    more: Result<bool>,
}

impl<R: BlockingStep> BlockingStream<R> {
    pub(crate) fn new(reading: R, operation: &'static str, handle: Handle) -> Self {
        Self { operation, handle, reading: Some(reading), under_way: None, ready: VecDeque::new(), failed: None }
    }
}

impl<R: BlockingStep> Stream for BlockingStream<R> {
    type Item = Result<R::Item>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(item)));
            }
            if let Some(error) = self.failed.take() {
                (self.reading, self.under_way) = (None, None);
                return Poll::Ready(Some(Err(error)));
            }
            if let Some(under_way) = &mut self.under_way {
                let done = ready!(Pin::new(under_way).poll(cx));
                self.under_way = None;
                if let Ok(Read { reading, out, more }) = done {
                    self.ready = out;
                    self.reading = Some(reading).filter(|_| matches!(more, Ok(true)));
                    self.failed = more.err();
                } else {
                    let over = "the tokio runtime is shutting down";
                    self.failed = Some(Error::new(ErrorKind::Cancelled, self.operation, over));
                }
                continue;
            }
            let Some(mut reading) = self.reading.take() else { return Poll::Ready(None) };
            self.under_way = Some(self.handle.spawn_blocking(move || {
                let mut out = VecDeque::new();
                let more = reading.stretch(&mut out);
                Read { reading, out, more }
            }));
        }
    }
}
