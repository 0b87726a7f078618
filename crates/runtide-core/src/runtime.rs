//! One runtime: [`RuntimeBackend`], and the [`RuntimeInfo`] of the server that answered.

use std::{
    fmt::{self, Debug},
    future::Future,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    capabilities::Capabilities,
    error::{Error, ErrorKind, Result},
    event::RuntimeEvent,
    filter::InstanceFilter,
    instance::{BackendId, Instance, InstanceId},
    manager::{
        ExecManager, ImageManager, LifecycleManager, LogManager, NetworkManager, ProvisionManager, SidecarManager,
        SnapshotManager, StatsManager, VolumeManager,
    },
    options::{ListOptions, WatchOptions},
    watch::{self, EventStream, Listing, TransitionStream},
};

/// One runtime, shared as `Arc<dyn RuntimeBackend>`.
///
/// The interface for users of a runtime and for authors of a backend. Few methods have a default, since a default hides a
/// forgotten method; the managers have one, since most backends lack most managers.
///
/// # Behavior
/// * Constructors are synchronous, take a `Config` and fail only on a bad one. Every call connects lazily, and "not up
///   yet" is a state of the runtime, never an end.
/// * Every call ends within its deadline (`Timeout`), and may be dropped at any await without harm to the backend.
/// * An accessor (`lifecycle`, `logs`, …) shows the abilities of the crate, [`Capabilities`] those of the connected server.
/// * The trait is frozen once released: a new ability is a new manager.
#[async_trait]
pub trait RuntimeBackend: Debug + Send + Sync + 'static {
    /// The name of this configured backend: the same after a restart of the process.
    fn id(&self) -> &BackendId;

    /// Kind of the runtime, as the server itself names it once connected.
    fn kind(&self) -> RuntimeKind;

    /// Capabilities as of the last connection; `Unknown` for a verb whose support is not known before the first contact.
    fn capabilities(&self) -> Capabilities;

    /// Probes and negotiates; idempotent, optional.
    async fn connect(&self) -> Result<RuntimeInfo>;

    /// One listing of the runtime, never the cache.
    ///
    /// # Behavior
    /// * An item that cannot be decoded makes the listing partial, and is named in it; it hides no other.
    async fn list_instances(&self, options: ListOptions) -> Result<Listing>;

    /// One instance in full detail.
    ///
    /// # Errors
    /// `NotFound` only if the runtime reported it.
    async fn inspect(&self, id: &InstanceId) -> Result<Arc<Instance>>;

    /// Every event, resyncs included. Most applications want [`RuntimeBackendExt::transitions`].
    ///
    /// # Behavior
    /// * Succeeds with the runtime down: the outage is then the first item.
    /// * No instance event precedes the first `ResyncBegin`, unless `from` was resumed without loss.
    /// * From `ResyncEnd` (or a `BackendReconnected` that resumed) to the next `ResyncBegin` or `BackendDisconnected`,
    ///   every lifecycle edge that the runtime reports is delivered, in order per instance, at least once.
    /// * `ResyncEnd` says if the listing behind the rows was complete; rows that were partial are shown again once one is.
    /// * A `BackendReconnected` that resumed is followed by the missed edges, and these by `CaughtUp`, unless a resync replaces
    ///   them or the link falls again.
    /// * Dropping the stream cancels, and returns every task, socket and descriptor with the last of them.
    ///
    /// # Errors
    /// `InvalidInput` for impossible options, `Cancelled` after `close`; never for a failure of the runtime.
    async fn watch(&self, options: WatchOptions) -> Result<EventStream>;

    /// Ends every stream and every later call with `Cancelled`; tasks and descriptors are back when it returns. Dropping
    /// the backend does the same, unawaited.
    async fn close(&self) -> Result<()>;

    /// Start, stop, kill, pause, wait, remove.
    fn lifecycle(&self) -> Option<&dyn LifecycleManager> {
        None
    }

    /// Create instances.
    fn provision(&self) -> Option<&dyn ProvisionManager> {
        None
    }

    /// Read output.
    fn logs(&self) -> Option<&dyn LogManager> {
        None
    }

    /// Run processes inside, attach to them.
    fn exec(&self) -> Option<&dyn ExecManager> {
        None
    }

    /// Images.
    fn images(&self) -> Option<&dyn ImageManager> {
        None
    }

    /// Networks.
    fn networks(&self) -> Option<&dyn NetworkManager> {
        None
    }

    /// Volumes.
    fn volumes(&self) -> Option<&dyn VolumeManager> {
        None
    }

    /// Composed sidecars.
    fn sidecars(&self) -> Option<&dyn SidecarManager> {
        None
    }

    /// Snapshots of instances.
    fn snapshots(&self) -> Option<&dyn SnapshotManager> {
        None
    }

    /// Resource usage.
    fn stats(&self) -> Option<&dyn StatsManager> {
        None
    }
}

/// Conveniences for every backend; none can be overridden.
pub trait RuntimeBackendExt: RuntimeBackend {
    /// Sends every event into the caller's channel, until `cancel`, or until the receiver is gone: both are `Ok`.
    ///
    /// A full channel stalls this watch alone. Once its position has left the ring, it gets a resync as any slow consumer
    /// does.
    fn watch_into(
        &self,
        options: WatchOptions,
        tx: mpsc::Sender<Arc<RuntimeEvent>>,
        cancel: CancellationToken,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Steps of single instances, with resyncs folded into net effects that are marked as such, and the state of the link:
    /// everything is there, the runtime cannot be reached, it is back.
    ///
    /// ```no_run
    /// # async fn example(backend: std::sync::Arc<dyn runtide_core::RuntimeBackend>) -> runtide_core::Result<()> {
    /// use runtide_core::{RuntimeBackendExt, WatchOptions};
    ///
    /// let mut changes = backend.transitions(WatchOptions::default()).await?;
    /// while let Some(change) = changes.next().await {
    ///     let change = change?;
    ///     println!("{change}");
    ///     if let Some(now) = change.step().and_then(|step| step.after.as_ref()) {
    ///         println!("  with the ports {:?}", now.ports);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`RuntimeBackend::watch`]: a runtime that is down is [`Change::Offline`](crate::watch::Change), the first item.
    fn transitions(&self, options: WatchOptions) -> impl Future<Output = Result<TransitionStream>> + Send;

    /// The first state of `id` that satisfies `until`, the present one included.
    ///
    /// # Errors
    /// `Timeout` after `deadline`, with the cause if the runtime cannot be reached, or if its listing was partial and does not
    /// show the instance; `NotFound` if the instance does not exist, or once it is removed.
    fn wait_for(
        &self,
        id: &InstanceId,
        until: impl Fn(&Instance) -> bool + Send,
        deadline: Duration,
    ) -> impl Future<Output = Result<Arc<Instance>>> + Send;

    /// The `Unsupported` error of a missing feature, with feature, backend and reason.
    fn unsupported(&self, feature: &'static str) -> Error;
}

impl<B: RuntimeBackend + ?Sized> RuntimeBackendExt for B {
    async fn watch_into(
        &self,
        options: WatchOptions,
        tx: mpsc::Sender<Arc<RuntimeEvent>>,
        cancel: CancellationToken,
    ) -> Result<()> {
        let stream = self.watch(options).await?;
        watch::pump(stream, tx, cancel).await
    }

    async fn transitions(&self, options: WatchOptions) -> Result<TransitionStream> {
        Ok(TransitionStream::new(self.watch(options.clone()).await?, &options))
    }

    async fn wait_for(
        &self,
        id: &InstanceId,
        until: impl Fn(&Instance) -> bool + Send,
        deadline: Duration,
    ) -> Result<Arc<Instance>> {
        let only = InstanceFilter { ids: vec![id.clone()], ..InstanceFilter::default() };
        let mut why = None;
        let waited = async {
            let stream = self.watch(WatchOptions::default().with_filter(only)).await?;
            watch::first_match(stream, id, until, &mut why).await
        };
        let located = |error: Error| error.with_context("backend", self.id()).with_context("instance", id);
        let waited = tokio::time::timeout(deadline, waited).await;
        waited.map_or_else(
            |_| {
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                let message = format!("the state did not come within {deadline:?}{why}");
                Err(located(Error::new(ErrorKind::Timeout, "runtime.wait_for", message)))
            },
            |result| result.map_err(located),
        )
    }

    fn unsupported(&self, feature: &'static str) -> Error {
        let capabilities = self.capabilities();
        let reason = capabilities.verbs().find(|(verb, _)| *verb == feature).map_or_else(
            || "this backend has no such manager".to_owned(),
            |(_, support)| match support {
                crate::capabilities::Support::No { reason } => reason.clone().into_owned(),
                _ => "this backend has no such manager".to_owned(),
            },
        );
        Error::new(ErrorKind::Unsupported, "runtime.capability", format!("{feature} is not supported: {reason}"))
            .with_context("feature", feature)
            .with_context("backend", self.id())
            .with_context("reason", reason)
    }
}

/// Kind of a runtime.
///
/// `FromStr` is loose (`k8s`, `lxd`, `pve`, …) and never guesses `Custom`; its `InvalidInput` lists the accepted names.
///
/// ```
/// use runtide_core::RuntimeKind;
///
/// assert_eq!("k8s".parse::<RuntimeKind>()?, RuntimeKind::Kubernetes);
/// assert!("dokcer".parse::<RuntimeKind>().unwrap_err().to_string().contains("docker"));
/// # Ok::<(), runtide_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RuntimeKind {
    /// In memory.
    Memory,
    /// Docker Engine.
    Docker,
    /// Podman.
    Podman,
    /// systemd.
    Systemd,
    /// Incus, or LXD.
    Incus,
    /// Proxmox VE.
    Proxmox,
    /// Kubernetes.
    Kubernetes,
    /// A kind that Runtide does not know.
    Custom(Arc<str>),
}

/// Each kind's own name first, then its accepted aliases.
const KINDS: [(RuntimeKind, &[&str]); 7] = [
    (RuntimeKind::Memory, &["memory", "mem", "in-memory"]),
    (RuntimeKind::Docker, &["docker", "moby"]),
    (RuntimeKind::Podman, &["podman", "libpod"]),
    (RuntimeKind::Systemd, &["systemd"]),
    (RuntimeKind::Incus, &["incus", "lxd", "lxc"]),
    (RuntimeKind::Proxmox, &["proxmox", "pve", "proxmox-ve"]),
    (RuntimeKind::Kubernetes, &["kubernetes", "k8s", "kube"]),
];

impl RuntimeKind {
    /// Name of the kind.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Custom(name) => name,
            known => KINDS.iter().find(|(kind, _)| kind == known).and_then(|(_, names)| names.first()).unwrap_or(&""),
        }
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RuntimeKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wanted = text.trim().to_ascii_lowercase().replace('_', "-");
        KINDS.iter().find(|(_, names)| names.contains(&wanted.as_str())).map(|(kind, _)| kind.clone()).ok_or_else(
            || {
                let accepted: Vec<&str> = KINDS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
                Error::new(
                    ErrorKind::InvalidInput,
                    "runtime_kind.parse",
                    format!("'{text}' is not a runtime: expected one of {}", accepted.join(", ")),
                )
            },
        )
    }
}

/// The server that answered, and its endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RuntimeInfo {
    /// The configured backend.
    pub backend: BackendId,
    /// Kind of the runtime, as the server itself names it.
    pub kind: RuntimeKind,
    /// The server's version.
    pub version: String,
    /// The version of its API that is in use.
    #[serde(default)]
    pub api_version: Option<String>,
    /// Endpoint of the server, without credentials.
    pub endpoint: String,
    /// The machine that answered, if it is known.
    #[serde(default)]
    pub node: Option<String>,
    /// Capabilities of the server.
    pub capabilities: Capabilities,
}

impl RuntimeInfo {
    /// The fields that every runtime has.
    pub fn new(
        backend: BackendId,
        kind: RuntimeKind,
        version: impl Into<String>,
        endpoint: impl Into<String>,
        capabilities: Capabilities,
    ) -> Self {
        Self {
            backend,
            kind,
            version: version.into(),
            api_version: None,
            endpoint: endpoint.into(),
            node: None,
            capabilities,
        }
    }
}
