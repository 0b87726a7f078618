//! [`Run`]: one run of a container, as a session attached to its main process has it.

use std::time::Duration;

use async_trait::async_trait;
use runtide_core::{ErrorKind, ExitStatus, Result, manager::TtySize};
use runtide_engine::exec::{self, Owner, Seen, Subject};
use tokio::{
    sync::{Mutex, OnceCell},
    time::Instant,
};

use crate::{
    client::{Client, Docker},
    manager::{
        container::{Call, Container},
        wait,
    },
};

/// Longest time for which the inspections of a run that was started may fail.
const ABSENCE: Duration = Duration::from_secs(30);

/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(200);

/// One run of a container.
pub(super) struct Run {
    owner: Owner<Docker>,
    client: Client,
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

impl Run {
    pub(super) fn new(
        call: Call<'_>,
        owner: Owner<Docker>,
        container: &Container,
        begun: Begun,
        opened: Option<wait::Opened>,
    ) -> Self {
        let which = match begun {
            Begun::Before(incarnation) => OnceCell::new_with(Some(incarnation.map_or(Which::Over(None), Which::Run))),
            Begun::Started => OnceCell::new(),
        };
        Self { owner, client: call.client.clone(), which, opened: Mutex::new(opened), tty: container.config.tty }
    }

    fn call(&self) -> Call<'_> {
        // The id was checked before this value was made.
        Call { client: &self.client, operation: self.owner.operation, id: &self.owner.container }
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
                    tracing::debug!(%error, instance = self.owner.container, "inspecting it again");
                    tokio::time::sleep(PAUSE).await;
                }
                found => return found,
            }
        }
    }
}

#[async_trait]
impl Subject for Run {
    type Dialect = Docker;

    fn owner(&self) -> &Owner<Docker> {
        &self.owner
    }

    async fn observe(&self) -> Result<Seen> {
        let incarnation = match self.which().await? {
            Which::Run(incarnation) => Some(incarnation.as_str()),
            Which::Over(exit) => return Ok(Seen::Over(*exit)),
        };
        let now = self.call().inspect_if_present().await?;
        let runs = now.is_some_and(|now| now.state.is_alive() && now.state.incarnation() == incarnation);
        Ok(if runs { Seen::Alive } else { Seen::Over(None) })
    }
}

#[async_trait]
impl exec::Run for Run {
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

    async fn resize(&self, size: TtySize) -> Result<()> {
        let call = Call { operation: "docker.resize", ..self.call() };
        if !self.tty {
            return Err(call.error(ErrorKind::Conflict, "the process has no terminal"));
        }
        call.bounded(resize_main(call, size)).await
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
    let call = call.of(&container);
    let Err(error) = call.send(exec::resize(&format!("/containers/{}", call.id), size)).await else { return Ok(()) };
    if call.inspect().await?.state.is_alive() {
        return Err(error);
    }
    Err(call.error(ErrorKind::Conflict, "it ended just now"))
}
