//! [`Main`]: the main process of a container, as an attached session has it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use runtide_core::{
    ErrorKind, ExitStatus, Result,
    manager::{ExecControl, TtySize},
};
use tokio::{sync::Mutex, task::JoinHandle};

use super::{
    Owner,
    output::{Seen, Subject},
};

/// One run of a container.
#[async_trait]
pub trait Run: Subject {
    /// Waits for its end. `None` also if the container is gone, and its exit with it.
    async fn end(&self) -> Result<Option<ExitStatus>>;

    /// Resizes its terminal.
    async fn resize(&self, size: TtySize) -> Result<()>;
}

/// The main process in one run. Its end is awaited from the begin of the session, for a container that removes itself takes its exit
/// with it.
pub struct Main<R> {
    run: Arc<R>,
    end: Mutex<End>,
    task: tokio::task::AbortHandle,
}

enum End {
    Awaited(JoinHandle<Result<Option<ExitStatus>>>),
    Known(Option<ExitStatus>),
    /// The task failed; a wait begins again.
    Failed,
}

impl<R: Run> fmt::Debug for Main<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Main").field("container", &self.run.owner().container).finish_non_exhaustive()
    }
}

impl<R: Run> Main<R> {
    /// The main process in this run. A task waits for the end, until this value is dropped.
    pub fn new(run: R) -> Self {
        let run = Arc::new(run);
        let awaited = Arc::clone(&run);
        let task = tokio::spawn(async move { awaited.end().await });
        Self { run, task: task.abort_handle(), end: Mutex::new(End::Awaited(task)) }
    }
}

impl<R> Drop for Main<R> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl<R: Run> Subject for Main<R> {
    type Dialect = R::Dialect;

    fn owner(&self) -> &Owner<R::Dialect> {
        self.run.owner()
    }

    async fn observe(&self) -> Result<Seen> {
        self.run.observe().await
    }

    fn is_daemons(&self, stderr: &[u8]) -> bool {
        self.run.is_daemons(stderr)
    }
}

#[async_trait]
impl<R: Run> ExecControl for Main<R> {
    async fn resize(&self, size: TtySize) -> Result<()> {
        self.run.resize(size).await
    }

    async fn wait(&self) -> Result<Option<ExitStatus>> {
        let owner = self.run.owner();
        let mut end = self.end.lock().await;
        let ended = match &mut *end {
            End::Known(exit) => return Ok(*exit),
            End::Failed => self.run.end().await,
            End::Awaited(task) => tokio::select! {
                ended = task => ended.unwrap_or_else(|_| {
                    Err(owner.error(ErrorKind::Cancelled, "the runtime of the session's tasks has ended"))
                }),
                error = owner.closed() => return Err(error),
            },
        };
        *end = match &ended {
            Ok(exit) => End::Known(*exit),
            Err(_) => End::Failed,
        };
        ended
    }
}
