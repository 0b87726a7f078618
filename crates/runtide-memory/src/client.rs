//! The wire: the only path from a backend to its runtime. The deadline, the end of the backend and the faults act here.

use std::{fmt, sync::Arc, time::Duration};

use runtide_core::{
    Capabilities, Detail, Error, ErrorKind, Instance, InstanceId, Result,
    backend::{CallSite, Session},
    event::ResumeToken,
    watch::Opened,
};
use tokio_util::task::TaskTracker;

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
    /// Closed or open, and the capabilities that the runtime reported last.
    pub(crate) session: Arc<Session<Capabilities>>,
    /// The backend's tasks, all of which end when it is closed.
    pub(crate) tasks: TaskTracker,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("backend", &self.config.id).finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new(config: Config, runtime: MemoryRuntime) -> Self {
        Self { runtime, config: Arc::new(config), session: Arc::default(), tasks: TaskTracker::new() }
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.session.last_server().as_deref().cloned().unwrap_or_default()
    }

    pub(crate) fn site(&self, call: Call) -> CallSite<'_> {
        CallSite::new(call.operation(), &self.config.id)
    }

    fn located(&self, error: Error) -> Error {
        error.with_context("backend", &self.config.id)
    }

    /// Opens a connection, which stays open until it is dropped.
    async fn open(&self, call: Call) -> Result<Connection> {
        let connection = Connection::open(&self.runtime.inner, call).await;
        if !matches!(&connection, Err(error) if error.kind() == ErrorKind::Unavailable) {
            self.session.answered(self.runtime.with(|state| state.capabilities()));
        }
        connection
    }

    /// One call: `work` runs in the runtime, once it was reached.
    pub(crate) async fn call<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.call_within(call, self.config.deadline, work).await
    }

    /// One call that the runtime answers at once.
    pub(crate) async fn ask<T>(&self, call: Call, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        self.call(call, async { self.runtime.with(work) }).await
    }

    /// One call with this deadline.
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

    /// One call without a deadline for its work: only reaching the runtime has one.
    pub(crate) async fn open_ended<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        let connection = self.connect(call).await?;
        tokio::select! {
            biased;
            () = self.session.closed() => Err(self.site(call).closed()),
            error = connection.broken() => Err(self.located(error)),
            done = work => done.map_err(|error| self.located(error)),
        }
    }

    /// A connection that outlives its call, for a stream.
    pub(crate) async fn connect(&self, call: Call) -> Result<Connection> {
        self.limited(call, self.config.deadline, self.open(call)).await
    }

    /// Every await on the runtime has a deadline, and ends when the backend is closed.
    async fn limited<T>(&self, call: Call, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        let site = self.site(call);
        let work = async { work.await.map_err(|error| self.located(error)) };
        tokio::select! {
            biased;
            () = self.session.closed() => Err(site.closed()),
            done = site.within(limit, work) => done,
        }
    }

    pub(crate) async fn list(&self) -> Result<RawListing> {
        self.ask(Call::List, |state| Ok(state.listing())).await
    }

    /// One item for each id; `None`: the instance does not exist.
    pub(crate) async fn inspect(&self, ids: &[InstanceId]) -> Result<Vec<Option<Item>>> {
        self.ask(Call::Inspect, |state| Ok(ids.iter().map(|id| state.item(id)).collect())).await
    }

    /// Opens an event stream, which is subscribed when this returns.
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
