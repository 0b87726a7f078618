//! Compensations: the inverse of a step, as data, so that another process can carry it out.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::OPERATION_LABEL;
use runtide_core::{
    BackendId, Error, ErrorKind, ImageRef, Instance, InstanceFilter, Labels, ListOptions, Result, RuntimeBackend,
    RuntimeBackendExt,
    manager::{Effect, NetworkId, OperationId, RemoveOptions, StopOptions},
};

/// Deadline of a call on a backend that has none.
const GUARD: Duration = Duration::from_secs(180);

/// The compensation of one step: an action on one object of one backend, as data.
///
/// It names its object by a name that was chosen before the act, since an id in a lost answer is unknown. With `made_by`, it
/// touches only an object with that operation's [`OPERATION_LABEL`]: an older object of that name is left alone. Carrying it
/// out twice is harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Undo {
    /// The backend to act on.
    pub backend: BackendId,
    /// The action on the object.
    pub action: UndoAction,
    /// The object's name.
    pub name: String,
    /// The operation whose label the object must carry; `None`: any object of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<OperationId>,
}

/// The action that takes a step back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UndoAction {
    /// Kill the instance if it runs, and remove it.
    RemoveInstance,
    /// Stop the instance.
    StopInstance,
    /// Remove the network, unless other instances have joined it since.
    RemoveNetwork,
    /// Disconnect the instance from this network.
    Disconnect(NetworkId),
    /// Remove the volume.
    RemoveVolume,
    /// Remove the image's name, unless an instance uses it. An image carries no label, so announce this only for an image that
    /// was absent before.
    RemoveImage,
    /// The caller's own step. The caller undoes it, and records that by [`OperationLog::settle`](super::OperationLog::settle).
    Custom(String),
}

impl Undo {
    /// A compensation on any object of that name.
    pub fn new(backend: impl Into<BackendId>, action: UndoAction, name: impl Into<String>) -> Self {
        Self { backend: backend.into(), action, name: name.into(), made_by: None }
    }

    /// Restricts it to an object with this operation's label.
    #[must_use]
    pub fn made_by(mut self, operation: &OperationId) -> Self {
        self.made_by = Some(operation.clone());
        self
    }

    /// An object with these labels is meant.
    fn means(&self, labels: &Labels) -> bool {
        self.made_by.as_ref().is_none_or(|id| labels.get(OPERATION_LABEL).is_some_and(|label| label == id.as_str()))
    }

    /// Takes the step back; `Unchanged` if it left no effect.
    pub(super) async fn carry_out(&self, backends: &[Arc<dyn RuntimeBackend>]) -> Result<Effect> {
        let Some(backend) = backends.iter().find(|backend| *backend.id() == self.backend) else {
            return Err(Error::new(ErrorKind::Unavailable, "operations.undo", "this backend was not given")
                .with_context("backend", &self.backend));
        };
        self.take_back(&**backend).await
    }

    /// Takes the step back on this backend, which the caller has chosen by its id.
    pub(super) async fn take_back(&self, backend: &dyn RuntimeBackend) -> Result<Effect> {
        match &self.action {
            UndoAction::RemoveInstance => self.remove_instance(backend).await,
            UndoAction::StopInstance => self.stop_instance(backend).await,
            UndoAction::RemoveNetwork => self.remove_network(backend).await,
            UndoAction::Disconnect(network) => self.disconnect(backend, network).await,
            UndoAction::RemoveVolume => self.remove_volume(backend).await,
            UndoAction::RemoveImage => self.remove_image(backend).await,
            UndoAction::Custom(_) => {
                let own = "a custom step is undone by the caller";
                Err(Error::new(ErrorKind::Unsupported, "operations.undo", own).with_context("name", &self.name))
            }
        }
    }

    /// The instances of that name that are meant. An empty result is trusted only if the listing was complete.
    async fn instances(&self, backend: &dyn RuntimeBackend) -> Result<Vec<Arc<Instance>>> {
        let named = InstanceFilter::default().with_names([self.name.clone()]);
        let listed = guarded(backend.list_instances(ListOptions::default().with_filter(named))).await?;
        let complete = listed.is_complete();
        let mut meant = Vec::new();
        for instance in listed.instances {
            let whole = if instance.labels.is_none() && self.made_by.is_some() {
                match guarded(backend.inspect(&instance.id)).await {
                    Ok(whole) => whole,
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
            } else {
                instance
            };
            if self.made_by.is_none() || whole.labels.as_ref().is_some_and(|labels| self.means(labels)) {
                meant.push(whole);
            }
        }
        if meant.is_empty() && !complete {
            let partial = "the runtime's listing was partial, so it cannot show that the instance is gone";
            return Err(Error::new(ErrorKind::Unavailable, "operations.undo", partial)
                .with_context("backend", &self.backend)
                .with_context("name", &self.name));
        }
        Ok(meant)
    }

    async fn remove_instance(&self, backend: &dyn RuntimeBackend) -> Result<Effect> {
        let lifecycle = backend.lifecycle().ok_or_else(|| backend.unsupported("lifecycle_remove"))?;
        let mut effect = Effect::Unchanged;
        for instance in self.instances(backend).await? {
            let options = RemoveOptions::default().with_kill().with_anonymous_volumes();
            effect = more(effect, guarded(lifecycle.remove(&instance.id, options)).await?);
        }
        Ok(effect)
    }

    async fn stop_instance(&self, backend: &dyn RuntimeBackend) -> Result<Effect> {
        let lifecycle = backend.lifecycle().ok_or_else(|| backend.unsupported("lifecycle_stop"))?;
        let mut effect = Effect::Unchanged;
        for instance in self.instances(backend).await? {
            effect = more(effect, gone_is_done(guarded(lifecycle.stop(&instance.id, StopOptions::default())).await)?);
        }
        Ok(effect)
    }

    async fn remove_network(&self, backend: &dyn RuntimeBackend) -> Result<Effect> {
        let networks = backend.networks().ok_or_else(|| backend.unsupported("networks_manage"))?;
        let mut effect = Effect::Unchanged;
        for network in guarded(networks.list()).await? {
            if network.name != self.name || !self.means(&network.labels) {
                continue;
            }
            match guarded(networks.remove(&network.id)).await {
                Ok(removed) => effect = more(effect, removed),
                Err(error) if error.kind() == ErrorKind::Conflict => match guarded(networks.inspect(&network.id)).await
                {
                    // Other instances have joined it: it stays.
                    Ok(now) if !now.members.is_empty() => {}
                    Err(gone) if gone.kind() == ErrorKind::NotFound => {}
                    Ok(_) | Err(_) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(effect)
    }

    async fn disconnect(&self, backend: &dyn RuntimeBackend, network: &NetworkId) -> Result<Effect> {
        let networks = backend.networks().ok_or_else(|| backend.unsupported("networks_connect"))?;
        let mut effect = Effect::Unchanged;
        for instance in self.instances(backend).await? {
            effect = more(effect, gone_is_done(guarded(networks.disconnect(network, &instance.id)).await)?);
        }
        Ok(effect)
    }

    async fn remove_volume(&self, backend: &dyn RuntimeBackend) -> Result<Effect> {
        let volumes = backend.volumes().ok_or_else(|| backend.unsupported("volumes_manage"))?;
        let mut effect = Effect::Unchanged;
        for volume in guarded(volumes.list()).await? {
            if volume.id.as_str() == self.name && self.means(&volume.labels) {
                effect = more(effect, guarded(volumes.remove(&volume.id)).await?);
            }
        }
        Ok(effect)
    }

    async fn remove_image(&self, backend: &dyn RuntimeBackend) -> Result<Effect> {
        let images = backend.images().ok_or_else(|| backend.unsupported("images_manage"))?;
        match gone_is_done(guarded(images.remove(&ImageRef::from(self.name.as_str()))).await) {
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(Effect::Unchanged), // an instance uses it
            removed => removed,
        }
    }
}

/// `Changed` if either call changed something.
fn more(before: Effect, now: Effect) -> Effect {
    if before == Effect::Changed { before } else { now }
}

fn gone_is_done(result: Result<Effect>) -> Result<Effect> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Effect::Unchanged),
        other => other,
    }
}

/// One call within [`GUARD`].
pub(super) async fn guarded<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(GUARD, call).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, "operations.undo", format!("no answer within {GUARD:?}")))
    })
}
