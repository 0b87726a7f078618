//! The verbs of a unit's runs; start, stop, wait and remove have their own files.
//!
//! * An instance is a unit, and its id the unit's full name. An inactive unit with a unit file is loaded to be
//!   inspected.
//! * `kill` signals the main process, and if there is none (scopes, a service that is just being stopped) all.
//!   `kill_all` signals all processes of a service, also those that its main process left behind.
//! * `pause` freezes the unit's control group; a signal that kills takes effect all the same.
//! * `start` first clears the failed state and the start counters of a unit (`systemctl reset-failed`).
//! * `remove` is for transient units. That of a unit with a file is `Unsupported`: the next inspection would load it
//!   again.

use std::time::Duration;

use async_trait::async_trait;
use runtide_core::{
    ErrorKind, ExitStatus, InstanceId, Result, UnixSignal,
    manager::{Effect, LifecycleManager, RemoveOptions, StopOptions},
};

use super::{
    remove, start, stop,
    unit::{Call, Whom},
    wait,
};
use crate::{client::Client, inspector};

/// The reason why there is no rename.
pub(crate) const RENAME: &str = "a unit's name is its identity";

/// The lifecycle verbs of units.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    client: Client,
}

impl Lifecycle {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(crate) async fn kill_all(&self, id: &InstanceId, signal: UnixSignal) -> Result<()> {
        let call = Call::on(&self.client, "systemd.kill_all", id)?;
        call.within(Duration::ZERO, kill_all(call, signal)).await
    }

    pub(crate) async fn reset_failed(&self, id: &InstanceId) -> Result<Effect> {
        let call = Call::on(&self.client, "systemd.reset_failed", id)?;
        call.within(Duration::ZERO, reset_failed(call)).await
    }
}

#[async_trait]
impl LifecycleManager for Lifecycle {
    async fn start(&self, id: &InstanceId) -> Result<Effect> {
        let call = Call::on(&self.client, "systemd.start", id)?;
        call.within(Duration::ZERO, start::start(call)).await
    }

    async fn stop(&self, id: &InstanceId, options: StopOptions) -> Result<Effect> {
        let call = Call::on(&self.client, "systemd.stop", id)?;
        call.within(stop::extra(&options), stop::stop(call, &options)).await
    }

    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Result<()> {
        let call = Call::on(&self.client, "systemd.kill", id)?;
        call.within(Duration::ZERO, kill(call, signal)).await
    }

    async fn restart(&self, id: &InstanceId, options: StopOptions) -> Result<()> {
        let call = Call::on(&self.client, "systemd.restart", id)?;
        call.within(stop::extra(&options), stop::restart(call, &options)).await
    }

    async fn pause(&self, id: &InstanceId) -> Result<Effect> {
        let call = Call::on(&self.client, "systemd.pause", id)?;
        call.within(Duration::ZERO, pause(call)).await
    }

    async fn unpause(&self, id: &InstanceId) -> Result<Effect> {
        let call = Call::on(&self.client, "systemd.unpause", id)?;
        call.within(Duration::ZERO, unpause(call)).await
    }

    async fn wait(&self, id: &InstanceId) -> Result<Option<ExitStatus>> {
        let call = Call::on(&self.client, "systemd.wait", id)?;
        wait::wait(call).await.map_err(|error| call.located(error))
    }

    async fn rename(&self, id: &InstanceId, _: &str) -> Result<Effect> {
        let call = Call::on(&self.client, "systemd.rename", id)?;
        Err(call
            .error(ErrorKind::Unsupported, RENAME)
            .with_context("feature", "lifecycle_rename")
            .with_context("reason", RENAME))
    }

    async fn remove(&self, id: &InstanceId, options: RemoveOptions) -> Result<Effect> {
        let call = Call::on(&self.client, "systemd.remove", id)?;
        call.within(Duration::ZERO, remove::remove(call, &options)).await
    }
}

async fn kill(call: Call<'_>, signal: UnixSignal) -> Result<()> {
    let seen = call.look().await?;
    if !seen.runs() {
        return Err(call.conflict("it does not run", &seen));
    }
    call.signal(Whom::Main, signal.number()).await
}

async fn kill_all(call: Call<'_>, signal: UnixSignal) -> Result<()> {
    let seen = call.look().await?;
    // Asked before, since a control group that is empty, and not yet removed, counts as signalled.
    if !call.has_processes().await? {
        return Err(call.conflict("it has no process", &seen));
    }
    call.signal(Whom::All, signal.number()).await
}

async fn reset_failed(call: Call<'_>) -> Result<Effect> {
    let Some(before) = call.look_if_loaded().await? else {
        return Err(call.error(ErrorKind::NotFound, "it is not loaded, so it has no state to clear"));
    };
    // Called even if no visible state would change: systemd does not expose the count of recent starts.
    call.reset_failed(call.unit).await?;
    Ok(if before.has_failures() { Effect::Changed } else { Effect::Unchanged })
}

async fn pause(call: Call<'_>) -> Result<Effect> {
    let before = call.look().await?;
    if !before.is_up() {
        return Err(call.conflict("it does not run", &before));
    }
    // Also if it is reported as frozen: a unit that was killed while frozen is reported so in its next run.
    call.client.manager(call.operation, "FreezeUnit", &(call.unit,)).await?;
    let frozen = call.until(|seen| match seen {
        Some(seen) if seen.is_frozen() => Some(true),
        Some(seen) if seen.is_up() => None,
        _ => Some(false),
    });
    if !frozen.await? {
        return Err(call.error(ErrorKind::Conflict, "it ended during the call"));
    }
    let was = before.is_frozen() && inspector::is_frozen(call.client, before.service.control_group.as_deref());
    Ok(if was { Effect::Unchanged } else { Effect::Changed })
}

async fn unpause(call: Call<'_>) -> Result<Effect> {
    let before = call.look().await?;
    if !before.is_up() {
        return Err(call.conflict("it does not run", &before));
    }
    if !before.is_frozen() && before.about.freezer_state.as_deref() != Some("thawing") {
        return Ok(Effect::Unchanged);
    }
    call.client.manager(call.operation, "ThawUnit", &(call.unit,)).await?;
    call.until(|seen| {
        seen.is_none_or(|seen| !seen.is_up() || seen.about.freezer_state.as_deref() == Some("running")).then_some(())
    })
    .await?;
    Ok(Effect::Changed)
}
