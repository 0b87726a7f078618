//! Start, kill, pause, unpause; stop, restart, wait and remove have files of their own.

use async_trait::async_trait;
use bollard::query_parameters::KillContainerOptions;
use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, Result, UnixSignal,
    manager::{Effect, LifecycleManager, RemoveOptions, StopOptions},
};

use super::{
    container::{Call, is_status},
    remove, stop, wait,
};
use crate::client::Client;

/// The verbs of a container's life.
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
        call.bounded(kill(call, signal)).await
    }

    async fn restart(&self, id: &InstanceId, options: StopOptions) -> Result<()> {
        stop::restart(Call::on(&self.client, "docker.restart", id)?, &options).await
    }

    async fn pause(&self, id: &InstanceId) -> Result<Effect> {
        let call = Call::on(&self.client, "docker.pause", id)?;
        call.bounded(async {
            match call.docker().await?.pause_container(call.id).await {
                Ok(()) => Ok(Effect::Changed),
                Err(refusal) => {
                    let paused = |state: &super::container::State| state.paused.then_some(Effect::Unchanged);
                    call.settle(refusal, paused, |state| !state.is_alive()).await
                }
            }
        })
        .await
    }

    async fn unpause(&self, id: &InstanceId) -> Result<Effect> {
        let call = Call::on(&self.client, "docker.unpause", id)?;
        call.bounded(async {
            match call.docker().await?.unpause_container(call.id).await {
                Ok(()) => Ok(Effect::Changed),
                Err(refusal) => {
                    let runs = |state: &super::container::State| {
                        (state.is_alive() && !state.paused).then_some(Effect::Unchanged)
                    };
                    call.settle(refusal, runs, |state| !state.is_alive()).await
                }
            }
        })
        .await
    }

    async fn wait(&self, id: &InstanceId) -> Result<Option<ExitStatus>> {
        wait::wait(Call::on(&self.client, "docker.wait", id)?).await
    }

    async fn remove(&self, id: &InstanceId, options: RemoveOptions) -> Result<Effect> {
        let call = Call::on(&self.client, "docker.remove", id)?;
        call.bounded(remove::remove(call, &options)).await
    }
}

async fn start(call: Call<'_>) -> Result<Effect> {
    let state = call.look().await?.state;
    if state.paused {
        return Err(call.error(ErrorKind::Conflict, "it is paused: unpause it").with_context("state", &state.status));
    }
    if state.running {
        return Ok(Effect::Unchanged);
    }
    match call.docker().await?.start_container(call.id, None).await {
        Ok(()) => Ok(Effect::Changed),
        // The container was made so that it cannot start (no such program, for one). That is its state; this call's input
        // was right.
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

pub(super) async fn kill(call: Call<'_>, signal: UnixSignal) -> Result<()> {
    // A number: names differ between versions for the real-time signals.
    let options = KillContainerOptions { signal: signal.number().to_string() };
    match call.docker().await?.kill_container(call.id, Some(options)).await {
        Ok(()) => Ok(()),
        Err(refusal) => call.settle(refusal, |_| None, |state| !state.is_alive()).await.map(|_: Effect| ()),
    }
}
