//! [`Sidecars`]: a backend that adds composed sidecars to another, and passes all else through.

use std::sync::Arc;

use async_trait::async_trait;

use super::{handover, stop};
use crate::OperationLog;
use runtide_core::{
    BackendId, Capabilities, EventStream, Instance, InstanceId, ListOptions, Listing, Result, RuntimeBackend,
    RuntimeBackendExt, RuntimeInfo, RuntimeKind, WatchOptions,
    capabilities::Support,
    manager::{
        Effect, ExecManager, ImageManager, LifecycleManager, LogManager, NetworkManager, ProvisionManager, Sidecar,
        SidecarManager, SidecarSpec, SnapshotManager, StatsManager, VolumeManager,
    },
};

/// A backend that adds composed sidecars to another, and passes all else through.
///
/// # Behavior
/// * A start ensures the network, then the image, creates, starts, and waits until the instance is ready. The network and the
///   instance carry the owner's and the operation's labels. What was there before is used and left alone.
/// * It is all or nothing. When a step fails, or the deadline passes, everything that was made is undone before the error is
///   returned. When the future is dropped, a task of its own finishes the step that is under way and undoes. When the process
///   dies, [`OperationLog::recover`] undoes, with this backend or the one below.
/// * The deadline of the spec bounds the time until it is ready. Undoing comes on top of it, and takes no longer than the
///   backend's own deadline for each of at most five calls for each step.
/// * An instance without a name gets one that begins with `runtide-`. The log has names and the image, and nothing else of
///   the spec: no environment, no command.
/// * An image that was pulled for a start that failed is removed again, unless an instance uses it.
/// * [`Readiness`](runtide_core::manager::Readiness) is looked at from where this process is: a TCP port and an HTTP path are reached at the
///   instance's own addresses, or, where none of those can be reached at all, where the host publishes the port. An instance
///   that ends before it is ready is an error at once.
///
/// ```no_run
/// # async fn example(backend: std::sync::Arc<dyn runtide_core::RuntimeBackend>) -> runtide_core::Result<()> {
/// use runtide_core::{RuntimeBackend, manager::{InstanceSpec, NetworkSpec, Readiness, SidecarSpec}};
/// use runtide_journal::Sidecars;
/// use runtide_journal::{JournalOptions, OperationLog};
/// use std::{num::NonZeroU16, path::Path, time::Duration};
///
/// let log = OperationLog::open(Path::new("/var/lib/shop/operations"), "shop".into(), JournalOptions::default())?;
/// log.recover(std::slice::from_ref(&backend)).await?;
/// let backend = Sidecars::over(backend, log)?;
/// let ready = NonZeroU16::new(5432).map_or(Readiness::Running, Readiness::Tcp);
/// let spec = SidecarSpec::new(InstanceSpec::of_image("postgres:17"), ready, Duration::from_secs(60))
///     .with_network(NetworkSpec::named("shop"));
/// if let Some(sidecars) = backend.sidecars() {
///     let database = sidecars.start_sidecar(&spec).await?;
///     sidecars.stop(&database).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Sidecars {
    pub(super) backend: Arc<dyn RuntimeBackend>,
    pub(super) log: OperationLog,
}

impl Sidecars {
    /// Composes sidecars over a backend.
    ///
    /// # Errors
    /// `Unsupported` if a manager that every sidecar needs is missing below (lifecycle, provision, networks, images); the
    /// context names it. Logs and exec are needed only where the readiness asks for them.
    pub fn over(backend: Arc<dyn RuntimeBackend>, log: OperationLog) -> Result<Self> {
        let needs = [
            (backend.lifecycle().is_some(), "lifecycle_start"),
            (backend.provision().is_some(), "provision_create"),
            (backend.networks().is_some(), "networks_manage"),
            (backend.images().is_some(), "images_manage"),
        ];
        match needs.iter().find(|(is_there, _)| !is_there) {
            Some((_, missing)) => Err(backend.unsupported(missing)),
            None => Ok(Self { backend, log }),
        }
    }

    /// The backend below.
    pub fn inner(&self) -> &Arc<dyn RuntimeBackend> {
        &self.backend
    }

    /// The log of what is in flight.
    pub fn log(&self) -> &OperationLog {
        &self.log
    }

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
        Self::with_sidecars(self.backend.capabilities())
    }

    async fn connect(&self) -> Result<RuntimeInfo> {
        let mut info = self.backend.connect().await?;
        info.capabilities = Self::with_sidecars(info.capabilities);
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
