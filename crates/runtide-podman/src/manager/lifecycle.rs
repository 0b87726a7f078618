//! [`Lifecycle`]: start, kill, pause, unpause and rename; the other verbs have files of their own.

use async_trait::async_trait;
use runtide_core::{
    ErrorKind, ExitStatus, InstanceId, Result, UnixSignal,
    manager::{Effect, LifecycleManager, RemoveOptions, StopOptions},
};
use runtide_engine::Request;

use super::{
    container::{Call, NO_NAME, State, is_name, is_taken},
    kill::kill,
    remove, stop, wait,
};
use crate::client::{Client, is_answer, is_status};

/// The [`LifecycleManager`] of one service.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    client: Client,
}

impl Lifecycle {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl LifecycleManager for Lifecycle {
    async fn start(&self, id: &InstanceId) -> Result<Effect> {
        let call = Call::on(&self.client, "podman.start", id)?;
        call.bounded(start(call)).await
    }

    async fn stop(&self, id: &InstanceId, options: StopOptions) -> Result<Effect> {
        stop::stop(Call::on(&self.client, "podman.stop", id)?, &options).await
    }

    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Result<()> {
        let call = Call::on(&self.client, "podman.kill", id)?;
        call.bounded(kill(call, signal)).await
    }

    async fn restart(&self, id: &InstanceId, options: StopOptions) -> Result<()> {
        stop::restart(Call::on(&self.client, "podman.restart", id)?, &options).await
    }

    async fn pause(&self, id: &InstanceId) -> Result<Effect> {
        let call = Call::on(&self.client, "podman.pause", id)?;
        let paused = |state: &State| state.is_paused().then_some(Effect::Unchanged);
        call.bounded(async {
            let container = call.inspect().await?;
            if let Some(effect) = paused(&container.state) {
                return Ok(effect);
            }
            let call = call.of(&container);
            match call.send(Request::post(call.path("pause"))).await {
                Ok(_) => Ok(Effect::Changed),
                Err(refusal) => call.settle(refusal, paused, |state| !state.is_alive()).await,
            }
        })
        .await
    }

    async fn unpause(&self, id: &InstanceId) -> Result<Effect> {
        let call = Call::on(&self.client, "podman.unpause", id)?;
        let runs = |state: &State| (state.is_alive() && !state.is_paused()).then_some(Effect::Unchanged);
        call.bounded(async {
            let container = call.inspect().await?;
            if let Some(effect) = runs(&container.state) {
                return Ok(effect);
            }
            let call = call.of(&container);
            match call.send(Request::post(call.path("unpause"))).await {
                Ok(_) => Ok(Effect::Changed),
                Err(refusal) => call.settle(refusal, runs, |state| !state.is_alive()).await,
            }
        })
        .await
    }

    async fn wait(&self, id: &InstanceId) -> Result<Option<ExitStatus>> {
        wait::wait(Call::on(&self.client, "podman.wait", id)?).await
    }

    async fn rename(&self, id: &InstanceId, name: &str) -> Result<Effect> {
        let call = Call::on(&self.client, "podman.rename", id)?;
        call.bounded(rename(call, name)).await
    }

    async fn remove(&self, id: &InstanceId, options: RemoveOptions) -> Result<Effect> {
        let call = Call::on(&self.client, "podman.remove", id)?;
        call.bounded(remove::remove(call, &options)).await
    }
}

pub(super) async fn start(call: Call<'_>) -> Result<Effect> {
    let container = call.inspect().await?;
    let state = &container.state;
    if state.is_paused() {
        return Err(call.error(ErrorKind::Conflict, "it is paused: unpause it").with_context("state", &state.status));
    }
    if state.is_alive() && state.status != "stopping" {
        return Ok(Effect::Unchanged);
    }
    let call = call.of(&container);
    match call.send(Request::post(call.path("start"))).await {
        Ok(_) => Ok(Effect::Changed),
        // Another client started it.
        Err(refusal) if is_status(&refusal, "304") => Ok(Effect::Unchanged),
        // The container was created so that it cannot start (its program does not exist, for one). That is the container's
        // state; this call's input was valid.
        Err(refusal) if matches!(refusal.kind(), ErrorKind::Unexpected | ErrorKind::InvalidInput) => {
            Err(container.named(call.error(ErrorKind::Conflict, refusal.message())))
        }
        Err(refusal) => Err(container.named(refusal)),
    }
}

async fn rename(call: Call<'_>, name: &str) -> Result<Effect> {
    if !is_name(name) {
        let shown: String = name.escape_debug().take(80).collect();
        return Err(call.error(ErrorKind::InvalidInput, format!("'{shown}' {NO_NAME}")));
    }
    let container = call.inspect().await?;
    if container.name == name {
        return Ok(Effect::Unchanged);
    }
    let call = call.of(&container);
    match call.send(Request::post(call.path("rename")).with_query("name", name)).await {
        Ok(_) => Ok(Effect::Changed),
        // Podman 4 has no status of its own for a name that is taken.
        Err(refusal) if is_answer(&refusal) => {
            if let Ok(true) = is_taken(call.client, call.operation, name).await {
                let error = call.error(ErrorKind::AlreadyExists, "another container has this name");
                return Err(error.with_context("name", name));
            }
            Err(refusal)
        }
        Err(refusal) => Err(refusal),
    }
}
