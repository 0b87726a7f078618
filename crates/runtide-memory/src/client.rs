//! The wire: the only way from a backend to its runtime, and the place where the deadline, the end of the backend and the
//! faults act.
//!
//! FORK: put your client of the daemon here: sockets, requests, decoding item by item. No type of a client library leaves
//! this file.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use runtide_core::{
    Capabilities, Detail, Error, ErrorKind, Instance, InstanceId, Result, event::ResumeToken, watch::Opened,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    fault::Call,
    normalize,
    runtime::{Connection, Item, MemoryRuntime, RawListing, State},
};

/// A cheap handle on one backend's connection.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) runtime: MemoryRuntime,
    pub(crate) config: Arc<Config>,
    /// The backend was closed.
    pub(crate) closed: CancellationToken,
    /// Tasks of the backend's own, all of which end when it is closed.
    pub(crate) tasks: TaskTracker,
    /// As the runtime said last.
    seen: Arc<Mutex<Option<Arc<Capabilities>>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("backend", &self.config.id).finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new(config: Config, runtime: MemoryRuntime) -> Self {
        let (closed, tasks) = (CancellationToken::new(), TaskTracker::new());
        Self { runtime, config: Arc::new(config), closed, tasks, seen: Arc::default() }
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_deref().cloned().unwrap_or_default()
    }

    /// Opens a connection, for as long as the caller likes.
    async fn open(&self, call: Call) -> Result<Connection> {
        let connection = Connection::open(&self.runtime.inner, call).await;
        if !matches!(&connection, Err(error) if error.kind() == ErrorKind::Unavailable) {
            let said = self.runtime.with(|state| state.capabilities());
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        }
        connection
    }

    /// One call: `work` is what the runtime does, once it was reached.
    pub(crate) async fn call<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.call_within(call, self.config.deadline, work).await
    }

    /// One call that the runtime answers at once.
    pub(crate) async fn ask<T>(&self, call: Call, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        self.call(call, async { self.runtime.with(work) }).await
    }

    /// One call that may take so long.
    pub(crate) async fn call_within<T>(
        &self,
        call: Call,
        limit: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let connected = async {
            let connection = self.open(call).await?;
            let done = tokio::select! {
                biased;
                error = connection.broken() => Err(error),
                done = work => done,
            }?;
            connection.answered().await?;
            Ok(done)
        };
        self.limited(call, limit, connected).await
    }

    /// One call that takes as long as it takes: only reaching the runtime has a deadline.
    pub(crate) async fn open_ended<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        let connection = self.connect(call).await?;
        let done = tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(cancelled(call)),
            error = connection.broken() => Err(error),
            done = work => done,
        };
        done.map_err(|error| error.with_context("backend", &self.config.id))
    }

    /// A connection that outlives its call, for a stream.
    pub(crate) async fn connect(&self, call: Call) -> Result<Connection> {
        self.limited(call, self.config.deadline, self.open(call)).await
    }

    /// Every await on the runtime has a deadline, and ends when the backend is closed.
    async fn limited<T>(&self, call: Call, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        let done = tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(cancelled(call)),
            done = tokio::time::timeout(limit, work) => done.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Timeout, call.operation(), format!("no answer within {limit:?}")))
            }),
        };
        done.map_err(|error| error.with_context("backend", &self.config.id))
    }

    pub(crate) async fn list(&self) -> Result<RawListing> {
        self.ask(Call::List, |state| Ok(state.listing())).await
    }

    /// One item for each id; `None`: it is not there.
    pub(crate) async fn inspect(&self, ids: &[InstanceId]) -> Result<Vec<Option<Item>>> {
        self.ask(Call::Inspect, |state| Ok(ids.iter().map(|id| state.item(id)).collect())).await
    }

    /// Subscribed when it returns.
    pub(crate) async fn events(&self, resume: Option<&ResumeToken>) -> Result<(Connection, Opened)> {
        let connection = self.connect(Call::Events).await?;
        let opened = connection.subscribe(resume, self.config.heartbeat);
        Ok((connection, opened))
    }

    pub(crate) fn instance(&self, item: &Item, detail: Detail) -> Result<Arc<Instance>, runtide_core::Failure> {
        match item {
            Item::Record(record) => Ok(Arc::new(normalize::instance(&self.config, record, detail))),
            Item::Garbled(id) => Err(normalize::garbled(id)),
        }
    }
}

pub(crate) fn cancelled(call: Call) -> Error {
    Error::new(ErrorKind::Cancelled, call.operation(), "the backend was closed")
}
