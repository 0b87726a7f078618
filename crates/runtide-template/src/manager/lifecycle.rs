//! Start, stop, kill, pause, wait, rename, remove.

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, Result, UnixSignal,
    manager::{Effect, LifecycleManager, RemoveOptions, StopOptions},
};

use crate::client::{Client, fork};

impl Client {
    /// The error of a verb, or of an option of one, that the runtime does not have.
    pub(crate) fn unsupported(&self, operation: &'static str, feature: &str, reason: &str) -> Error {
        self.site(operation)
            .error(ErrorKind::Unsupported, format!("{feature} is not supported: {reason}"))
            .with_context("feature", feature)
            .with_context("reason", reason)
    }

    /// FORK: `Changed` or `Unchanged`, as the answer says: a verb towards a state that holds already changes nothing.
    async fn effect(&self, operation: &'static str, id: &InstanceId) -> Result<Effect> {
        let answer = self.verb(operation, id).await?;
        Err(fork(operation, &format!("read the effect from {:?}", String::from_utf8_lossy(&answer.concat()))))
    }
}

#[async_trait]
impl LifecycleManager for Client {
    async fn start(&self, id: &InstanceId) -> Result<Effect> {
        self.effect("template.start", id).await
    }

    async fn stop(&self, id: &InstanceId, options: StopOptions) -> Result<Effect> {
        if options.signal.is_some() {
            return Err(self.unsupported("template.stop", "lifecycle_stop_signal", "FORK: its own signal, or none"));
        }
        self.effect("template.stop", id).await
    }

    async fn kill(&self, id: &InstanceId, _: UnixSignal) -> Result<()> {
        self.effect("template.kill", id).await.map(drop)
    }

    async fn restart(&self, id: &InstanceId, _: StopOptions) -> Result<()> {
        self.effect("template.restart", id).await.map(drop)
    }

    async fn pause(&self, _: &InstanceId) -> Result<Effect> {
        Err(self.unsupported("template.pause", "lifecycle_pause", "FORK: the runtime cannot freeze"))
    }

    async fn unpause(&self, _: &InstanceId) -> Result<Effect> {
        Err(self.unsupported("template.unpause", "lifecycle_pause", "FORK: the runtime cannot freeze"))
    }

    async fn wait(&self, id: &InstanceId) -> Result<Option<ExitStatus>> {
        // FORK: no deadline on the wait itself, only on reaching the runtime.
        self.verb("template.wait", id).await?;
        Err(fork("template.wait", "read the exit"))
    }

    async fn rename(&self, _: &InstanceId, _: &str) -> Result<Effect> {
        Err(self.unsupported("template.rename", "lifecycle_rename", "FORK: the runtime keeps the name for good"))
    }

    async fn remove(&self, id: &InstanceId, _: RemoveOptions) -> Result<Effect> {
        self.effect("template.remove", id).await
    }
}
