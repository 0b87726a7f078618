//! [`Run`]: one run of a container, as a session attached to its main process has it.
//!
//! A container may remove itself, or have its next run, before an inspection shows the run that the session started. The log of
//! events has its end: it is the first one behind the last one before the start.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use runtide_core::{ErrorKind, ExitStatus, Result, manager::TtySize};
use runtide_engine::exec::{self, Owner, Seen, Subject};
use tokio::{sync::OnceCell, time::Instant};

use super::record;
use crate::{
    client::{Client, EventLogger, Podman},
    ends::{self, Ends},
    manager::{
        container::{Call, Container},
        wait,
    },
};

/// Longest time for which the inspections of a run that was started may fail.
const ABSENCE: Duration = Duration::from_secs(30);

/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(200);

/// Time in which the end of a run is in the log that is over by an inspection.
const REPORTED_WITHIN: Duration = Duration::from_secs(5);

/// One run of a container.
pub(super) struct Run {
    owner: Owner<Podman>,
    client: Client,
    /// Unset before an inspection succeeded.
    which: OnceCell<Which>,
    /// Time behind which the end of the run is the first one in the log; `None`: the log does not tell.
    before: Option<SystemTime>,
    /// The run before it.
    previous: Option<String>,
    tty: bool,
}

/// The run, as far as it is known.
pub(super) enum Which {
    /// The one that this inspection shows.
    Run(Box<Container>),
    /// It was over before an inspection showed it.
    Over(Option<ExitStatus>),
}

/// Time, by the service's clock, of the last end of this container's that was logged, before a run is started; its creation if it
/// never ran. `None`: nothing is logged, or the journal has not the end of the last run yet, which would be taken for that of the next.
pub(super) async fn last_end(call: Call<'_>, container: &Container) -> Result<Option<SystemTime>> {
    let logger = call.client.logger().await.map_err(|error| call.located(error))?;
    if logger == EventLogger::None {
        return Ok(None);
    }
    let created = container.created();
    let Some(began) = container.began() else { return Ok(created) };
    let ends = ends::logged(call.client, call.operation, &container.id, began).await;
    let ends = ends.map_err(|error| call.located(error))?;
    if let Some(end) = ends.last() {
        return Ok(Some(end.at));
    }
    if !logger.is_journal() {
        return Ok(Some(began));
    }
    let journaled = async {
        let mut ends = Ends::open(call.client, call.operation, &container.id, began).await?;
        ends.next().await
    };
    match tokio::time::timeout(wait::JOURNALED_WITHIN, journaled).await {
        Ok(end) => Ok(end.map_err(|error| call.located(error))?.map(|end| end.at)),
        Err(_) => Ok(None),
    }
}

impl Run {
    /// A run that began before the session.
    pub(super) fn before(owner: Owner<Podman>, call: Call<'_>, which: Which) -> Self {
        let tty = matches!(&which, Which::Run(container) if container.config.tty);
        let which = OnceCell::new_with(Some(which));
        Self { owner, client: call.client.clone(), which, before: None, previous: None, tty }
    }

    /// The run that the session started just now.
    pub(super) fn started(
        owner: Owner<Podman>,
        call: Call<'_>,
        container: &Container,
        before: Option<SystemTime>,
    ) -> Self {
        let previous = container.state.incarnation().map(str::to_owned);
        let client = call.client.clone();
        Self { owner, client, which: OnceCell::new(), before, previous, tty: container.config.tty }
    }

    fn call(&self) -> Call<'_> {
        // The id was checked before this value was made.
        Call { client: &self.client, operation: self.owner.operation, id: &self.owner.container }
    }

    /// The run, from the first inspection that succeeds.
    async fn which(&self) -> Result<&Which> {
        let found = self.which.get_or_try_init(|| async {
            let now = self.call().inspect_if_present().await?;
            let seen = now
                .filter(|now| now.state.incarnation().is_some() && now.state.incarnation() != self.previous.as_deref());
            let deadline = Instant::now() + REPORTED_WITHIN;
            loop {
                // Read behind the inspection: without an end until then, the run that it shows is the first one.
                let end = match self.before {
                    Some(before) => self.first_end_behind(before).await?,
                    None => None,
                };
                match (end, &seen) {
                    (Some(exit), Some(seen)) if is_only(seen) => {
                        return Ok(Which::Over(seen.state.exit().or(exit)));
                    }
                    (Some(exit), _) => return Ok(Which::Over(exit)),
                    (None, Some(seen)) if seen.state.is_alive() || self.before.is_none() => {
                        return Ok(Which::Run(Box::new(seen.clone())));
                    }
                    (None, seen) if self.before.is_none() || Instant::now() >= deadline => {
                        let only = seen.as_ref().filter(|seen| is_only(seen));
                        return Ok(Which::Over(only.and_then(|seen| seen.state.exit())));
                    }
                    (None, _) => tokio::time::sleep(PAUSE).await,
                }
            }
        });
        found.await
    }

    /// Exit of the first run that ended behind this time; `None`: none did.
    async fn first_end_behind(&self, before: SystemTime) -> Result<Option<Option<ExitStatus>>> {
        let call = self.call();
        let logged = ends::logged(call.client, call.operation, call.id, before).await;
        let logged = logged.map_err(|error| call.located(error))?;
        Ok(logged.iter().find(|end| end.at > before).map(|end| end.exit))
    }

    /// The same, as long as the service may be back. A failed inspection is no end.
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

/// No policy of the container's may have begun another run.
fn is_only(container: &Container) -> bool {
    !container.host_config.restart_policy.restarts()
}

#[async_trait]
impl Subject for Run {
    type Dialect = Podman;

    fn owner(&self) -> &Owner<Podman> {
        &self.owner
    }

    async fn observe(&self) -> Result<Seen> {
        let run = match self.which().await? {
            Which::Run(container) => container.state.incarnation(),
            Which::Over(exit) => return Ok(Seen::Over(*exit)),
        };
        let now = self.call().inspect_if_present().await?;
        let runs = now.is_some_and(|now| now.state.is_alive() && now.state.incarnation() == run);
        Ok(if runs { Seen::Alive } else { Seen::Over(None) })
    }

    fn is_daemons(&self, stderr: &[u8]) -> bool {
        record::is_services(stderr)
    }
}

#[async_trait]
impl exec::Run for Run {
    async fn end(&self) -> Result<Option<ExitStatus>> {
        let run = match self.found().await? {
            Which::Run(run) => run,
            Which::Over(exit) => return Ok(*exit),
        };
        match wait::end_of_run(self.call(), run).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            ended => ended,
        }
    }

    async fn resize(&self, size: TtySize) -> Result<()> {
        let call = Call { operation: "podman.resize", ..self.call() };
        if !self.tty {
            return Err(call.error(ErrorKind::Conflict, "the process has no terminal"));
        }
        call.bounded(resize_main(call, size)).await
    }
}

/// Resizes the terminal of the main process. A container that does not run is not refused by the service in every state.
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
