//! [`Sidecars`]: a backend and the operation log over which sidecars are composed.

use std::sync::Arc;

use crate::OperationLog;
use runtide_core::{Result, RuntimeBackend, RuntimeBackendExt};

/// A backend that adds composed sidecars to another one, and passes every other call through.
///
/// # Behavior
/// * A start ensures the network, then the image, creates, starts, and waits until the instance is ready. The network and the
///   instance carry the owner's and the operation's labels. An existing network or image is used and left alone.
/// * It is all or nothing. When a step fails, or the deadline passes, every object that was made is removed before the error
///   is returned. When the future is dropped, a separate task finishes the present step and undoes. When the process dies,
///   [`OperationLog::recover`] undoes, with this backend or the one underneath.
/// * The deadline of the spec bounds the time until the instance is ready. Undoing takes additional time: at most the
///   backend's own deadline for each of at most five calls per step.
/// * An instance without a name gets one that begins with `runtide-`. The log has the names and the image, but not the
///   environment, the command or any other part of the spec.
/// * An image that was pulled for a start that failed is removed again, unless an instance uses it.
/// * [`Readiness`](runtide_core::manager::Readiness) is probed from this process: a TCP port and an HTTP path are reached at the
///   instance's own addresses, or, if none of those can be reached, at the host's published port. An instance that ends before
///   it is ready is an error at once.
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
    /// `Unsupported` if the backend has no manager that every sidecar needs (lifecycle, provision, networks, images); the
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

    /// The backend underneath.
    pub fn inner(&self) -> &Arc<dyn RuntimeBackend> {
        &self.backend
    }

    /// The log of the operations in flight.
    pub fn log(&self) -> &OperationLog {
        &self.log
    }
}
