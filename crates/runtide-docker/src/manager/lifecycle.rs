//! [`Lifecycle`]: start, pause and unpause; the other verbs have files of their own.

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, Result, UnixSignal,
    manager::{Effect, LifecycleManager, RemoveOptions, StopOptions},
};

use super::{
    container::{Call, State, is_status},
    kill, remove, rename, stop, wait,
};
use crate::client::Client;

/// The [`LifecycleManager`] of one daemon.
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
        let call = Call::on(&self.client, "docker.start", id)?;
        call.bounded(start(call)).await
    }

    async fn stop(&self, id: &InstanceId, options: StopOptions) -> Result<Effect> {
        stop::stop(Call::on(&self.client, "docker.stop", id)?, &options).await
    }

    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Result<()> {
        let call = Call::on(&self.client, "docker.kill", id)?;
        call.bounded(kill::kill(call, signal)).await
    }

    async fn restart(&self, id: &InstanceId, options: StopOptions) -> Result<()> {
        stop::restart(Call::on(&self.client, "docker.restart", id)?, &options).await
    }

    async fn pause(&self, id: &InstanceId) -> Result<Effect> {
        let call = Call::on(&self.client, "docker.pause", id)?;
        call.bounded(async {
            let container = call.inspect().await?;
            let call = call.of(&container);
            match call.docker().await?.pause_container(call.id).await {
                Ok(()) => Ok(Effect::Changed),
                Err(refusal) => {
                    let paused = |state: &State| state.paused.then_some(Effect::Unchanged);
                    call.settle(refusal, paused, |state| !state.is_alive()).await
                }
            }
        })
        .await
    }

    async fn unpause(&self, id: &InstanceId) -> Result<Effect> {
        let call = Call::on(&self.client, "docker.unpause", id)?;
        call.bounded(async {
            let container = call.inspect().await?;
            let call = call.of(&container);
            match call.docker().await?.unpause_container(call.id).await {
                Ok(()) => Ok(Effect::Changed),
                Err(refusal) => {
                    let runs = |state: &State| (state.is_alive() && !state.paused).then_some(Effect::Unchanged);
                    call.settle(refusal, runs, |state| !state.is_alive()).await
                }
            }
        })
        .await
    }

    async fn wait(&self, id: &InstanceId) -> Result<Option<ExitStatus>> {
        wait::wait(Call::on(&self.client, "docker.wait", id)?).await
    }

    async fn rename(&self, id: &InstanceId, name: &str) -> Result<Effect> {
        let call = Call::on(&self.client, "docker.rename", id)?;
        call.bounded(rename::rename(call, name)).await
    }

    async fn remove(&self, id: &InstanceId, options: RemoveOptions) -> Result<Effect> {
        let call = Call::on(&self.client, "docker.remove", id)?;
        call.bounded(remove::remove(call, &options)).await
    }
}

pub(super) async fn start(call: Call<'_>) -> Result<Effect> {
    let container = call.inspect().await?;
    let state = &container.state;
    if state.paused {
        return Err(call.error(ErrorKind::Conflict, "it is paused: unpause it").with_context("state", &state.status));
    }
    if state.running {
        return Ok(Effect::Unchanged);
    }
    let call = call.of(&container);
    match call.docker().await?.start_container(call.id, None).await {
        Ok(()) => Ok(Effect::Changed),
        // The container was created so that it cannot start (its program does not exist, for one). That is the container's
        // state; this call's input was valid.
        Err(refusal) if is_status(&refusal, 400) => {
            let error: Error = call.refused(refusal);
            match error.kind() {
                ErrorKind::InvalidInput => Err(call.error(ErrorKind::Conflict, error.message())),
                _ => Err(error),
            }
        }
        Err(refusal) => Err(call.refused(refusal)),
    }
}
