//! A stop is an operation too: after a crash in the middle, recovery finishes it.

use serde_json::json;

use super::sidecars::Sidecars;
use crate::{Stage, Undo, UndoAction};
use runtide_core::{
    Error, ErrorKind, Result, RuntimeBackendExt,
    manager::{Effect, Sidecar, StopOptions},
};

pub(super) async fn stop(sidecars: &Sidecars, sidecar: &Sidecar) -> Result<Effect> {
    let (sidecars, sidecar) = (sidecars.clone(), sidecar.clone());
    // It runs to its end even if the caller drops the future, since half a stop is neither state.
    let done = crate::blocking::handle("sidecar.stop")?.spawn(async move { run(&sidecars, &sidecar).await }).await;
    done.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Cancelled, "sidecar.stop", "the tokio runtime is shutting down: recover finishes it"))
    })
}

async fn run(sidecars: &Sidecars, sidecar: &Sidecar) -> Result<Effect> {
    let backend = &sidecars.backend;
    let mut pending = Vec::new();
    let undo = |action, name: &str| Undo::new(backend.id().clone(), action, name).made_by(&sidecar.operation);
    if let Some(id) = &sidecar.network {
        let networks = backend.networks().ok_or_else(|| backend.unsupported("networks_manage"))?;
        let network = networks.list().await?.into_iter().find(|network| network.id == *id);
        let ours = network.filter(|network| is_of(&network.labels, sidecar));
        pending.extend(ours.map(|network| undo(UndoAction::RemoveNetwork, &network.name)));
    }
    match backend.inspect(&sidecar.id).await {
        Ok(instance) => pending.push(undo(UndoAction::RemoveInstance, &instance.name)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if pending.is_empty() {
        return Ok(Effect::Unchanged);
    }
    let mut operation = sidecars.log.submit("sidecar.stop", &json!({ "sidecar": sidecar })).await?;
    operation.enter(Stage::Validated).await?;
    operation.enter(Stage::Started).await?;
    for undo in pending {
        operation.will(undo).await?;
    }
    let lifecycle = backend.lifecycle().ok_or_else(|| backend.unsupported("lifecycle_stop"))?;
    // The instance gets a regular stop before its removal. One that does not stop is killed by the removal.
    match lifecycle.stop(&sidecar.id, StopOptions::default()).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            tracing::debug!(
                instance = %sidecar.id,
                error = format_args!("{error:#}"),
                "the instance does not stop: killing it"
            );
        }
    }
    let record = operation.roll_back(std::slice::from_ref(backend)).await?;
    match record.obstacle {
        None => Ok(Effect::Changed),
        Some(obstacle) => Err(Error::new(obstacle.kind, "sidecar.stop", "not everything could be removed")
            .with_context("backend", backend.id())
            .with_context("operation", &record.id)
            .with_context("obstacle", obstacle)),
    }
}

fn is_of(labels: &runtide_core::Labels, sidecar: &Sidecar) -> bool {
    labels.get(crate::OPERATION_LABEL).is_some_and(|label| label == sidecar.operation.as_str())
}
