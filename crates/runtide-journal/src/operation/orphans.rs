//! Cleaning up by labels alone, when the log is lost.

use std::path::Path;

use super::{
    OPERATION_LABEL, OWNER_LABEL, OperationLog,
    record::OwnerId,
    undo::{Undo, UndoAction, guarded},
};
use crate::blocking::run_blocking;
use runtide_core::{
    Error, ErrorKind, InstanceFilter, LabelMatch, Labels, ListOptions, Result, RuntimeBackend,
    manager::{ImageInfo, OperationId},
    wal::{
        fs::{Disk, File, OsDisk},
        lock_path,
    },
};

const REAP: &str = "operations.reap";

impl OperationLog {
    /// Removes every object with an owner's label: for an owner that is dead and whose log is lost.
    ///
    /// `lease` is the folder of the owner's log, whether it still exists or not. While a process has that log open, the owner
    /// lives and no object is touched; during the call, the owner cannot open it again.
    ///
    /// # Behavior
    /// * Instances are removed first, running or not, then networks, then volumes. Of the images only those go that have no name and an
    ///   operation's label beside the owner's: what an operation left half made. One with a name may have its labels from the image that
    ///   it was built from.
    /// * Objects of a *completed* operation are removed too: their labels are the same. With the log,
    ///   [`recover`](Self::recover) knows the difference.
    /// * An object that cannot be removed is skipped, and the first error is returned at the end; a second call is harmless.
    /// * A network that others have joined is left to them.
    /// * It returns the objects that it found. Each call of the backend has the backend's deadline, and 180 s if it has none.
    ///
    /// # Errors
    /// `Conflict` if the owner lives; `Unavailable` if the runtime's listing was partial; an error of the backend.
    ///
    /// # Cancel safety
    /// If the future is dropped, some objects are removed.
    pub async fn reap_orphans(backend: &dyn RuntimeBackend, owner: &OwnerId, lease: &Path) -> Result<Vec<Undo>> {
        let (dir, id) = (lease.to_owned(), owner.clone());
        let _lease = run_blocking(REAP, move || take_lease(&dir, &id)).await?;
        let (orphans, mut failed) = orphans(backend, owner).await?;
        for orphan in &orphans {
            if let Err(error) = orphan.take_back(backend).await {
                tracing::warn!(
                    backend = %backend.id(),
                    name = %orphan.name,
                    error = format_args!("{error:#}"),
                    "an orphan cannot be removed"
                );
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(orphans), Err)
    }
}

/// Locks the owner's log. `None`: the log does not exist.
fn take_lease(dir: &Path, owner: &OwnerId) -> Result<Option<Box<dyn File>>> {
    match OsDisk::default().lock(&lock_path(dir)) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(Error::new(ErrorKind::Conflict, REAP, "the owner lives: its log is open")
                .with_context("owner", owner)
                .with_context("path", dir.display()))
        }
        Err(error) => Err(Error::new(ErrorKind::Unavailable, REAP, "the lease cannot be checked")
            .with_context("path", dir.display())
            .with_source(error)),
    }
}

/// The objects with the owner's label, and an error if the listing was partial.
async fn orphans(backend: &dyn RuntimeBackend, owner: &OwnerId) -> Result<(Vec<Undo>, Option<Error>)> {
    let mut found = Vec::new();
    let orphan = |action, name: &str, labels: &Labels| {
        let made_by = labels.get(OPERATION_LABEL).map(OperationId::from);
        Undo { backend: backend.id().clone(), action, name: name.to_owned(), made_by }
    };
    let is_owned = |labels: &Labels| labels.get(OWNER_LABEL).is_some_and(|label| label == owner.as_str());
    let filter = InstanceFilter::default().with_labels([LabelMatch::is(OWNER_LABEL, owner.as_str())]);
    let listed = guarded(backend.list_instances(ListOptions::default().with_filter(filter))).await?;
    let partial = (!listed.is_complete()).then(|| {
        let partial = "the runtime's listing was partial: call it again";
        Error::new(ErrorKind::Unavailable, REAP, partial).with_context("backend", backend.id())
    });
    for instance in &listed.instances {
        if let Some(labels) = instance.labels.as_ref().filter(|labels| is_owned(labels)) {
            found.push(orphan(UndoAction::RemoveInstance, &instance.name, labels));
        }
    }
    if let Some(networks) = backend.networks() {
        for network in guarded(networks.list()).await?.iter().filter(|network| is_owned(&network.labels)) {
            found.push(orphan(UndoAction::RemoveNetwork, &network.name, &network.labels));
        }
    }
    if let Some(volumes) = backend.volumes() {
        for volume in guarded(volumes.list()).await?.iter().filter(|volume| is_owned(&volume.labels)) {
            found.push(orphan(UndoAction::RemoveVolume, volume.id.as_str(), &volume.labels));
        }
    }
    if let Some(images) = backend.images().filter(|_| backend.capabilities().images_manage.is_yes()) {
        let is_half_made = |image: &&ImageInfo| {
            let has_no_name = image.tags.is_empty() && image.digests.is_empty();
            has_no_name && is_owned(&image.labels) && image.labels.contains_key(OPERATION_LABEL)
        };
        for image in guarded(images.list()).await?.iter().filter(is_half_made) {
            found.push(orphan(UndoAction::RemoveImage, image.id.as_str(), &image.labels));
        }
    }
    Ok((found, partial))
}
