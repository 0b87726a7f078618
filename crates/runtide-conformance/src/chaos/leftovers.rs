//! Objects that a run leaves behind.

use std::{collections::BTreeSet, path::Path};

use runtide_core::RuntimeBackend;
use runtide_journal::OperationLog;
use tokio::time::Instant;

use super::worker::{BESIDE, Scene};
use crate::{Done, Harness, Obstacle};

/// Names of the objects that the runtime has, each with its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Objects(BTreeSet<(&'static str, String)>);

impl Objects {
    /// Instances are inspected from outside; networks, volumes and images are listed by the backend, since a harness lists none.
    pub(super) async fn now(h: &dyn Harness, backend: &dyn RuntimeBackend) -> Done<Self> {
        let mut all = BTreeSet::new();
        all.extend(h.truth().await?.into_iter().map(|instance| ("instance", instance.name)));
        if let Some(networks) = backend.networks() {
            let networks = networks.list().await.map_err(Obstacle::failed)?;
            all.extend(networks.into_iter().map(|network| ("network", network.name)));
        }
        if let Some(volumes) = backend.volumes() {
            let volumes = volumes.list().await.map_err(Obstacle::failed)?;
            all.extend(volumes.into_iter().map(|volume| ("volume", volume.id.to_string())));
        }
        // An image that a call needs for a while has no name.
        if let Some(images) = backend.images() {
            let images = images.list().await.map_err(Obstacle::failed)?;
            all.extend(images.into_iter().map(|image| ("image", image.id.to_string())));
        }
        Ok(Self(all))
    }

    fn beyond(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).map(|(kind, name)| format!("{kind} '{name}'")).collect()
    }
}

/// Removes the run's objects: those of the backend by their owner's label, the harness's own by their name. Returns what is left
/// that was not there `before`.
///
/// A request whose answer was lost may still be carried out, so it lists again until two listings in a row have nothing.
pub(super) async fn reap(scene: &Scene, before: &Objects) -> Vec<String> {
    let timing = scene.harness.timing();
    let deadline = Instant::now() + timing.timeout;
    let mut empty = 0;
    loop {
        own(scene).await;
        let no_log = Path::new("runtide-chaos-no-such-folder");
        let reaped = OperationLog::reap_orphans(&*scene.backend, &scene.owner.as_str().into(), no_log).await;
        match &reaped {
            Ok(orphans) if orphans.is_empty() => {}
            Ok(orphans) => scene.calls.note(format_args!("reaped {} orphans", orphans.len())),
            Err(error) => scene.calls.note(format_args!("reaping: {error:#}")),
        }
        let left = match Objects::now(&*scene.harness, &*scene.backend).await {
            Ok(now) => now.beyond(before),
            Err(obstacle) => vec![format!("what could not be listed ({obstacle})")],
        };
        empty = if left.is_empty() && reaped.is_ok_and(|orphans| orphans.is_empty()) { empty + 1 } else { 0 };
        if empty == 2 || Instant::now() >= deadline {
            return left;
        }
        tokio::time::sleep(timing.quiet).await;
    }
}

/// Removes what the harness created, but for the residents.
async fn own(scene: &Scene) {
    let Ok(there) = scene.harness.truth().await else { return };
    let own = |name: &str| name.contains(scene.tag.as_str()) && name.ends_with(BESIDE);
    for instance in there.iter().filter(|one| own(&one.name) && !scene.residents.contains(&one.id)) {
        // One that cannot be removed now is found by the next round.
        let _ = scene.harness.remove(&instance.id).await;
    }
}
