//! [`Journaled`]: a watch whose events are in the log before it yields them.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::writer::{Inner, Recorded, closed};
use runtide_core::{BackendId, Error, ErrorKind, EventStream, InstanceFilter, Result, RuntimeBackend, RuntimeEvent};

/// Most events in one commit.
const BATCH: usize = 256;

/// The journal's only watch of one backend, until it is dropped.
pub(super) struct Watching {
    journal: Arc<Inner>,
    backend: BackendId,
    number: u64,
}

impl Watching {
    /// Claims the backend; `Conflict` while another watch of this journal has it.
    pub(super) fn new(journal: Arc<Inner>, backend: BackendId) -> Result<Self> {
        let number = journal.claim(&backend)?;
        Ok(Self { journal, backend, number })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut state = self.journal.state();
        if state.watching.get(&self.backend) == Some(&self.number) {
            state.watching.remove(&self.backend);
            // A resync that this watch began will have no end.
            state.fold.abandon(&self.backend);
        }
    }
}

pub(super) struct Journaled {
    inner: EventStream,
    /// Kept alive: a backend that is dropped ends its streams.
    _backend: Arc<dyn RuntimeBackend>,
    watching: Watching,
    /// Ready once the journal is closed.
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    handle: Handle,
    filter: Option<InstanceFilter>,
    ready: VecDeque<Arc<RuntimeEvent>>,
    writing: Option<JoinHandle<Result<Vec<Recorded>>>>,
    /// The backend's stream ended.
    over: bool,
    /// The error with which it ended, yielded after the last event.
    last: Option<Error>,
    done: bool,
}

impl Journaled {
    pub(super) fn new(
        inner: EventStream,
        backend: Arc<dyn RuntimeBackend>,
        watching: Watching,
        handle: Handle,
        filter: InstanceFilter,
    ) -> Self {
        Self {
            inner,
            _backend: backend,
            closed: Box::pin(watching.journal.closed.clone().cancelled_owned()),
            watching,
            handle,
            filter: Some(filter).filter(|filter| !filter.is_empty()),
            ready: VecDeque::new(),
            writing: None,
            over: false,
            last: None,
            done: false,
        }
    }

    /// The events that the backend's stream has ready, at most [`BATCH`].
    fn collect(&mut self, cx: &mut Context<'_>) -> Vec<Arc<RuntimeEvent>> {
        let mut batch = Vec::new();
        while batch.len() < BATCH && !self.over {
            match Pin::new(&mut self.inner).poll_next(cx) {
                Poll::Ready(Some(Ok(event))) => batch.push(event),
                Poll::Ready(Some(Err(error))) => (self.over, self.last) = (true, Some(error)),
                Poll::Ready(None) => self.over = true,
                Poll::Pending => break,
            }
        }
        batch
    }

    fn wants(&self, recorded: &Recorded) -> bool {
        let (Some(filter), Some(instance)) = (&self.filter, recorded.event.instance()) else { return true };
        // An instance that stops matching the filter is yielded once more.
        filter.matches(instance) || recorded.before.as_ref().is_some_and(|before| filter.matches(before))
    }
}

impl Stream for Journaled {
    type Item = Result<Arc<RuntimeEvent>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if this.done {
                return Poll::Ready(None);
            }
            if let Some(writing) = &mut this.writing {
                let written = ready!(Pin::new(writing).poll(cx)).unwrap_or_else(|_| {
                    Err(Error::new(ErrorKind::Cancelled, "journal.watch", "the tokio runtime is shutting down"))
                });
                this.writing = None;
                match written {
                    Ok(recorded) => {
                        let wanted = recorded.into_iter().filter(|recorded| this.wants(recorded));
                        let wanted: Vec<_> = wanted.map(|recorded| recorded.event).collect();
                        this.ready.extend(wanted);
                    }
                    Err(error) => {
                        this.done = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                continue;
            }
            if this.closed.as_mut().poll(cx).is_ready() {
                this.done = true;
                return Poll::Ready(Some(Err(closed("journal.watch"))));
            }
            let batch = this.collect(cx);
            if !batch.is_empty() {
                let (journal, backend) = (Arc::clone(&this.watching.journal), this.watching.backend.clone());
                let number = this.watching.number;
                this.writing = Some(this.handle.spawn_blocking(move || journal.record(&backend, number, batch)));
                continue;
            }
            if !this.over {
                return Poll::Pending;
            }
            this.done = true;
            return Poll::Ready(this.last.take().map(Err));
        }
    }
}
