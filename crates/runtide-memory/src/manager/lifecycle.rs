//! Start, stop, kill, pause, wait, rename, remove.

use async_trait::async_trait;
use runtide_core::{
    ExitStatus, InstanceId, Result, UnixSignal,
    manager::{Effect, LifecycleManager, RemoveOptions, StopOptions},
};

use crate::{client::Client, fault::Call};

#[async_trait]
impl LifecycleManager for Client {
    async fn start(&self, id: &InstanceId) -> Result<Effect> {
        self.ask(Call::Start, |state| state.start(id, Call::Start)).await
    }

    async fn stop(&self, id: &InstanceId, options: StopOptions) -> Result<Effect> {
        self.halt(id, &options, Call::Stop).await
    }

    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Result<()> {
        self.ask(Call::Kill, |state| state.signal(id, signal, Call::Kill)).await
    }

    async fn restart(&self, id: &InstanceId, options: StopOptions) -> Result<()> {
        self.halt(id, &options, Call::Restart).await?;
        self.ask(Call::Restart, |state| state.start(id, Call::Restart)).await.map(drop)
    }

    async fn pause(&self, id: &InstanceId) -> Result<Effect> {
        self.ask(Call::Pause, |state| state.pause(id)).await
    }

    async fn unpause(&self, id: &InstanceId) -> Result<Effect> {
        self.ask(Call::Unpause, |state| state.unpause(id)).await
    }

    async fn wait(&self, id: &InstanceId) -> Result<Option<ExitStatus>> {
        // No deadline on the wait itself, only on reaching the runtime.
        self.open_ended(Call::Wait, async { self.runtime.waiting(id, None)?.exit().await }).await
    }

    async fn rename(&self, id: &InstanceId, name: &str) -> Result<Effect> {
        self.ask(Call::Rename, |state| state.rename(id, name.to_owned())).await
    }

    async fn remove(&self, id: &InstanceId, options: RemoveOptions) -> Result<Effect> {
        // `options.anonymous_volumes`: no volume here is made for one instance alone.
        self.ask(Call::Remove, |state| state.remove(id, options.kill)).await
    }
}

impl Client {
    /// Asks it to end, waits, and kills it.
    async fn halt(&self, id: &InstanceId, options: &StopOptions, call: Call) -> Result<Effect> {
        let (signal, timeout) = (options.signal, options.timeout);
        let grace = timeout.or_else(|| self.runtime.with(|state| state.stop_timeout(id))).unwrap_or_default();
        self.call_within(
            call,
            self.config.deadline.saturating_add(grace),
            self.runtime.stop_within(id, signal, timeout, call),
        )
        .await
    }
}
