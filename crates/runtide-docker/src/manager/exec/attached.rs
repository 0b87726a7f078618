//! [`Main`]: the main process of a container, as an attached session has it.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use runtide_core::{
    ErrorKind, ExitStatus, Result,
    manager::{ExecControl, TtySize},
};
use tokio::{
    sync::{Mutex, OnceCell},
    task::JoinHandle,
    time::Instant,
};

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

/// Longest time for which the inspections of a run that was started may fail.
const ABSENCE: Duration = Duration::from_secs(30);

/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(200);

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
    /// Unset before an inspection succeeded.
    which: OnceCell<Which>,
    /// A wait for its end that was opened before it began.
    opened: Mutex<Option<wait::Opened>>,
    tty: bool,
}

/// The begin of a run, as the session has it.
pub(super) enum Begun {
    /// Before the session, in this incarnation.
    Before(Option<String>),
    /// Just now, by this session: no inspection has seen it yet.
    Started,
}

/// The run, as far as it is known.
enum Which {
    /// Of this incarnation.
    Run(String),
    /// It was over before an inspection saw it: the container is gone, or has the next run.
    Over(Option<ExitStatus>),
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
    pub(super) fn new(call: Call<'_>, container: &Container, begun: Begun, opened: Option<wait::Opened>) -> Self {
        let subject = Arc::new(Run {
            client: call.client.clone(),
            operation: call.operation,
            container: container.id_or(call.id).to_owned(),
            which: match begun {
                Begun::Before(incarnation) => {
                    OnceCell::new_with(Some(incarnation.map_or(Which::Over(None), Which::Run)))
                }
                Begun::Started => OnceCell::new(),
            },
            opened: Mutex::new(opened),
            tty: container.config.tty,
        });
        let awaited = Arc::clone(&subject);
        let task = tokio::spawn(async move { awaited.end().await });
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

    /// The run, from the first inspection that succeeds.
    async fn which(&self) -> Result<&Which> {
        let found = self.which.get_or_try_init(|| async {
            let now = self.call().inspect_if_present().await?;
            let mut opened = self.opened.lock().await;
            // Under a restart policy the next run may be there already: then the wait has its answer, or the daemon counts a restart.
            if let Some(exit) = opened.as_mut().and_then(wait::Opened::exit_by_now) {
                return Ok(Which::Over(self.certain(Some(exit)).await?));
            }
            let run = now
                .as_ref()
                .and_then(|now| now.state.incarnation().map(|incarnation| Which::Run(incarnation.to_owned())));
            let is_first = run.is_some() && now.is_some_and(|now| now.restart_count == 0);
            let Some(opened) = opened.as_mut().filter(|_| !is_first) else {
                return Ok(run.unwrap_or(Which::Over(None)));
            };
            match tokio::time::timeout(self.client.deadline(), opened.exit()).await {
                Ok(exit) => Ok(Which::Over(self.certain(exit).await?)),
                // An engine that counts otherwise.
                Err(_) => Ok(run.unwrap_or(Which::Over(None))),
            }
        });
        found.await
    }

    /// The exit that a wait gave. The daemon reads the code as it answers, and a next run that has begun by then has set it to 0:
    /// with one, a 0 is not known to be the run's.
    async fn certain(&self, exit: Option<ExitStatus>) -> Result<Option<ExitStatus>> {
        if exit != Some(ExitStatus::code(0)) {
            return Ok(exit);
        }
        let now = self.call().inspect_if_present().await?;
        Ok(exit.filter(|_| now.is_none_or(|now| now.restart_count == 0)))
    }

    /// The same, as long as the daemon may be back. A failed inspection is no end.
    async fn found(&self) -> Result<&Which> {
        let begun = Instant::now();
        loop {
            match self.which().await {
                Err(error) if error.kind() != ErrorKind::Cancelled && begun.elapsed() < ABSENCE => {
                    tracing::debug!(%error, instance = self.container, "inspecting it again");
                    tokio::time::sleep(PAUSE).await;
                }
                found => return found,
            }
        }
    }

    /// Waits for its end. `None` also if the container is gone, and its exit with it.
    async fn end(&self) -> Result<Option<ExitStatus>> {
        let incarnation = match self.found().await? {
            Which::Run(incarnation) => incarnation,
            Which::Over(exit) => return Ok(*exit),
        };
        let opened = self.opened.lock().await.take();
        match wait::over(self.call(), incarnation, opened).await {
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
        let incarnation = match self.subject.which().await? {
            Which::Run(incarnation) => Some(incarnation.as_str()),
            Which::Over(exit) => return Ok(Seen::Over(*exit)),
        };
        let now = self.subject.call().inspect_if_present().await?;
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
            End::Failed => self.subject.end().await,
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
