//! The verbs of a pod's life. A pod runs from its creation on, once: what ends it deletes it.
//!
//! * `stop` deletes the pod with a grace period, and `remove` deletes it at once; each waits for the effect. A pod with a controller is
//!   replaced by another.
//! * A pod that has ended is stopped already, and stays until it is removed.
//! * With containers as instances there is only `wait`: a container is not deleted alone.

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, Result, UnixSignal,
    manager::{Effect, LifecycleManager, RemoveOptions, StopOptions},
};

use super::{delete, subject::Subject, wait};
use crate::{client::Client, config::Granularity};

/// The reasons why there are no such verbs.
pub(crate) const START: &str = "a pod starts when it is created, and one that ended is not started again";
pub(crate) const SIGNAL: &str = "Kubernetes chooses the signal: that of the image, else SIGTERM";
pub(crate) const KILL: &str = "Kubernetes sends no signals but those of a deletion";
pub(crate) const PAUSE: &str = "Kubernetes freezes no pods";
pub(crate) const RENAME: &str = "a pod's name is fixed when it is created";
pub(crate) const CONTAINER: &str = "a container is not deleted alone: its pod is";

/// The lifecycle verbs of pods.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle {
    client: Client,
}

impl Lifecycle {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn refuse(&self, operation: &'static str, feature: &'static str, reason: &'static str, id: &InstanceId) -> Error {
        let error = self.client.site(operation).error(ErrorKind::Unsupported, reason);
        error
            .with_context("feature", feature)
            .with_context("reason", reason)
            .with_context("instance", crate::inspector::shortened(id))
    }

    /// `Unsupported` where containers are the instances.
    fn needs_pods(&self, operation: &'static str, feature: &'static str, id: &InstanceId) -> Result<()> {
        match self.client.config().granularity {
            Granularity::Pod => Ok(()),
            Granularity::Container => Err(self.refuse(operation, feature, CONTAINER, id)),
        }
    }
}

#[async_trait]
impl LifecycleManager for Lifecycle {
    async fn start(&self, id: &InstanceId) -> Result<Effect> {
        Err(self.refuse("k8s.start", "lifecycle_start", START, id))
    }

    async fn stop(&self, id: &InstanceId, options: StopOptions) -> Result<Effect> {
        const STOP: &str = "k8s.stop";
        self.needs_pods(STOP, "lifecycle_stop", id)?;
        if options.signal.is_some() {
            return Err(self.refuse(STOP, "lifecycle_stop_signal", SIGNAL, id));
        }
        delete::stop(&Subject::find(&self.client, STOP, id).await?, &options).await
    }

    async fn kill(&self, id: &InstanceId, _: UnixSignal) -> Result<()> {
        Err(self.refuse("k8s.kill", "lifecycle_kill", KILL, id))
    }

    async fn restart(&self, id: &InstanceId, _: StopOptions) -> Result<()> {
        Err(self.refuse("k8s.restart", "lifecycle_restart", START, id))
    }

    async fn pause(&self, id: &InstanceId) -> Result<Effect> {
        Err(self.refuse("k8s.pause", "lifecycle_pause", PAUSE, id))
    }

    async fn unpause(&self, id: &InstanceId) -> Result<Effect> {
        Err(self.refuse("k8s.unpause", "lifecycle_pause", PAUSE, id))
    }

    async fn wait(&self, id: &InstanceId) -> Result<Option<ExitStatus>> {
        wait::wait(&Subject::find(&self.client, "k8s.wait", id).await?).await
    }

    async fn rename(&self, id: &InstanceId, _: &str) -> Result<Effect> {
        Err(self.refuse("k8s.rename", "lifecycle_rename", RENAME, id))
    }

    async fn remove(&self, id: &InstanceId, options: RemoveOptions) -> Result<Effect> {
        const REMOVE: &str = "k8s.remove";
        self.needs_pods(REMOVE, "lifecycle_remove", id)?;
        match Subject::find(&self.client, REMOVE, id).await {
            Ok(subject) => delete::remove(&subject, &options).await,
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Effect::Unchanged),
            Err(error) => Err(error),
        }
    }
}
