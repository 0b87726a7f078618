//! [`Main`]: the main process of a container, as an attached session has it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use runtide_core::{
    ErrorKind, ExitStatus, Result,
    manager::{ExecControl, TtySize},
};
use tokio::{sync::Mutex, task::JoinHandle};

use super::{
    output::{Seen, Subject},
    request::resize,
};
use crate::{
    client::Client,
    manager::{
        container::{Call, Container},
        wait,
    },
};

/// The main process in one run. Its end is awaited from the begin of the session, for a container that removes itself takes its exit
/// with it.
pub(super) struct Main {
    subject: Arc<Run>,
    end: Mutex<End>,
    task: tokio::task::AbortHandle,
}

/// One run of a container.
struct Run {
    client: Client,
    operation: &'static str,
    container: String,
    /// `None`: the run was started, and the container was gone before it could be inspected.
    incarnation: Option<String>,
    tty: bool,
}

enum End {
    Awaited(JoinHandle<Result<Option<ExitStatus>>>),
    Known(Option<ExitStatus>),
    /// The task failed; a wait begins again.
    Failed,
}

impl fmt::Debug for Main {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Main").field("container", &self.subject.container).finish_non_exhaustive()
    }
}

impl Main {
    pub(super) fn new(
        call: Call<'_>,
        container: &Container,
        incarnation: Option<String>,
        opened: Option<wait::Opened>,
    ) -> Self {
        let subject = Arc::new(Run {
            client: call.client.clone(),
            operation: call.operation,
            container: container.id_or(call.id).to_owned(),
            incarnation,
            tty: container.config.tty,
        });
        let awaited = Arc::clone(&subject);
        let task = tokio::spawn(async move { awaited.end(opened).await });
        Self { subject, task: task.abort_handle(), end: Mutex::new(End::Awaited(task)) }
    }
}

impl Drop for Main {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Run {
    fn call(&self) -> Call<'_> {
        // The id was checked before this value was made.
        Call { client: &self.client, operation: self.operation, id: &self.container }
    }

    /// Waits for its end. `None` also if the container is gone, and its exit with it.
    async fn end(&self, opened: Option<wait::Opened>) -> Result<Option<ExitStatus>> {
        let ended = match (&self.incarnation, opened) {
            (Some(incarnation), opened) => wait::over(self.call(), incarnation, opened).await,
            (None, Some(opened)) => Ok(wait::answered(opened).await),
            (None, None) => Ok(None),
        };
        match ended {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            ended => ended,
        }
    }
}

#[async_trait]
impl Subject for Main {
    fn call(&self) -> Call<'_> {
        self.subject.call()
    }

    async fn observe(&self) -> Result<Seen> {
        let now = self.subject.call().inspect_if_present().await?;
        let incarnation = self.subject.incarnation.as_deref();
        let runs = now.is_some_and(|now| now.state.is_alive() && now.state.incarnation() == incarnation);
        Ok(if runs { Seen::Alive } else { Seen::Over(None) })
    }
}

#[async_trait]
impl ExecControl for Main {
    async fn resize(&self, size: TtySize) -> Result<()> {
        let call = Call { operation: "docker.resize", ..self.subject.call() };
        if !self.subject.tty {
            return Err(call.error(ErrorKind::Conflict, "the process has no terminal"));
        }
        call.bounded(resize_main(call, size)).await
    }

    async fn wait(&self) -> Result<Option<ExitStatus>> {
        let mut end = self.end.lock().await;
        let ended = match &mut *end {
            End::Known(exit) => return Ok(*exit),
            End::Failed => self.subject.end(None).await,
            End::Awaited(task) => tokio::select! {
                ended = task => ended.unwrap_or_else(|_| {
                    let message = "the runtime of the session's tasks has ended";
                    Err(self.subject.call().error(ErrorKind::Cancelled, message))
                }),
                () = self.subject.client.closed() => {
                    return Err(self.subject.client.site(self.subject.operation).closed());
                }
            },
        };
        *end = match &ended {
            Ok(exit) => End::Known(*exit),
            Err(_) => End::Failed,
        };
        ended
    }
}

/// Resizes the terminal of the main process. The daemon's own refusals differ from version to version.
pub(super) async fn resize_main(call: Call<'_>, size: TtySize) -> Result<()> {
    let container = call.inspect().await?;
    if !container.state.is_alive() {
        return Err(call.error(ErrorKind::Conflict, "it does not run").with_context("state", &container.state.status));
    }
    if !container.config.tty {
        return Err(call.error(ErrorKind::Conflict, "it has no terminal"));
    }
    let Err(error) = call.send(resize(&format!("/containers/{}", call.id), size)).await else { return Ok(()) };
    if call.inspect().await?.state.is_alive() {
        return Err(error);
    }
    Err(call.error(ErrorKind::Conflict, "it ended just now"))
}
