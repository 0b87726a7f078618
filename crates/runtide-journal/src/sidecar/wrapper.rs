//! [`Sidecars`] as a backend: it adds the composed sidecars to the backend underneath, and passes every other call through.

use std::sync::Arc;

use async_trait::async_trait;

use super::{handover, sidecars::Sidecars, stop};
use runtide_core::{
    BackendId, Capabilities, EventStream, Instance, InstanceId, ListOptions, Listing, Result, RuntimeBackend,
    RuntimeInfo, RuntimeKind, WatchOptions,
    capabilities::Support,
    manager::{
        Effect, ExecManager, ImageManager, LifecycleManager, LogManager, NetworkManager, ProvisionManager, Sidecar,
        SidecarManager, SidecarSpec, SnapshotManager, StatsManager, VolumeManager,
    },
};

/// The capabilities underneath, with the support of sidecars derived from them.
fn with_sidecars(mut capabilities: Capabilities) -> Capabilities {
    let needs = [
        ("create instances", &capabilities.provision_create),
        ("start instances", &capabilities.lifecycle_start),
        ("remove instances", &capabilities.lifecycle_remove),
        ("manage networks", &capabilities.networks_manage),
        ("manage images", &capabilities.images_manage),
        ("pull images", &capabilities.images_pull),
    ];
    let refused = needs.iter().find_map(|(what, support)| match support {
        Support::No { reason } => Some(Support::no(format!("a sidecar needs a backend that can {what}: {reason}"))),
        _ => None,
    });
    let known = needs.iter().all(|(_, support)| support.is_yes());
    capabilities.sidecars_start = refused.unwrap_or(if known { Support::Yes } else { Support::Unknown });
    capabilities
}

#[async_trait]
impl SidecarManager for Sidecars {
    async fn start_sidecar(&self, spec: &SidecarSpec) -> Result<Sidecar> {
        handover::start(self, spec).await
    }

    async fn inspect(&self, sidecar: &Sidecar) -> Result<Arc<Instance>> {
        self.backend.inspect(&sidecar.id).await
    }

    async fn stop(&self, sidecar: &Sidecar) -> Result<Effect> {
        stop::stop(self, sidecar).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl RuntimeBackend for Sidecars {
    fn id(&self) -> &BackendId {
        self.backend.id()
    }

    fn kind(&self) -> RuntimeKind {
        self.backend.kind()
    }

    fn capabilities(&self) -> Capabilities {
        with_sidecars(self.backend.capabilities())
    }

    async fn connect(&self) -> Result<RuntimeInfo> {
        let mut info = self.backend.connect().await?;
        info.capabilities = with_sidecars(info.capabilities);
        Ok(info)
    }

    async fn list_instances(&self, options: ListOptions) -> Result<Listing> {
        self.backend.list_instances(options).await
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        self.backend.inspect(id).await
    }

    async fn watch(&self, options: WatchOptions) -> Result<EventStream> {
        self.backend.watch(options).await
    }

    async fn close(&self) -> Result<()> {
        self.backend.close().await
    }

    fn lifecycle(&self) -> Option<&dyn LifecycleManager> {
        self.backend.lifecycle()
    }

    fn provision(&self) -> Option<&dyn ProvisionManager> {
        self.backend.provision()
    }

    fn logs(&self) -> Option<&dyn LogManager> {
        self.backend.logs()
    }

    fn exec(&self) -> Option<&dyn ExecManager> {
        self.backend.exec()
    }

    fn images(&self) -> Option<&dyn ImageManager> {
        self.backend.images()
    }

    fn networks(&self) -> Option<&dyn NetworkManager> {
        self.backend.networks()
    }

    fn volumes(&self) -> Option<&dyn VolumeManager> {
        self.backend.volumes()
    }

    fn sidecars(&self) -> Option<&dyn SidecarManager> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn SnapshotManager> {
        self.backend.snapshots()
    }

    fn stats(&self) -> Option<&dyn StatsManager> {
        self.backend.stats()
    }
}
