//! [`PodmanBackend`]: one service as a [`RuntimeBackend`].

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use runtide_core::{
    BackendId, Capabilities, Detail, EventStream, Instance, InstanceId, ListOptions, Listing, Result, RuntimeBackend,
    RuntimeInfo, RuntimeKind, WatchOptions,
    capabilities::{Support, WatchSupport},
    manager::{
        ExecManager, ImageManager, LifecycleManager, LogManager, NetworkManager, ProvisionManager, StatsManager,
        VolumeManager,
    },
    watch::Driver,
};

use crate::{
    client::{Client, EventLogger},
    config::Config,
    infra,
    inspector::PodmanInspector,
    manager,
    pods::Pods,
    secrets::Secrets,
    source::PodmanSource,
};

/// Time for which a first watch asks what the service's events are logged with. Without the answer the watch begins all the same.
const LOGGER: Duration = Duration::from_secs(2);

/// One Podman service, as a [`RuntimeBackend`]: the trait has the calls, and the crate's documentation the promises.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use runtide_core::{InstanceHandle, ListOptions, Result, RuntimeBackend, manager::{InstanceSpec, StopOptions}};
/// use runtide_podman::{Config, PodmanBackend};
///
/// # async fn example() -> Result<()> {
/// let podman: Arc<dyn RuntimeBackend> = Arc::new(PodmanBackend::new(Config::from_env()?)?);
/// for container in podman.list_instances(ListOptions::default()).await?.instances {
///     println!("{} is {}", container.name, container.state);
/// }
/// if let Some(provision) = podman.provision() {
///     let id = provision.create(&InstanceSpec::of_image("docker.io/library/busybox").with_command(["sleep", "60"])).await?;
///     let job = InstanceHandle::new(Arc::clone(&podman), id);
///     job.start().await?;
///     job.stop(StopOptions::default()).await?;
///     println!("{:?}", job.wait().await?);
/// }
/// podman.close().await
/// # }
/// ```
#[derive(Debug)]
pub struct PodmanBackend {
    client: Client,
    inspector: PodmanInspector,
    driver: Driver,
    lifecycle: manager::Lifecycle,
    provision: manager::Provision,
    logs: manager::Logs,
    exec: manager::Exec,
    stats: manager::Stats,
    images: manager::Images,
    networks: manager::Networks,
    volumes: manager::Volumes,
    pods: Pods,
    secrets: Secrets,
}

impl PodmanBackend {
    /// A backend without a connection: the first call connects.
    ///
    /// # Errors
    /// `InvalidInput` for an invalid configuration, or TLS files that cannot be read.
    pub fn new(config: Config) -> Result<Self> {
        let driver_options = config.driver.clone();
        let client = Client::new(config)?;
        let known = infra::Shared::default();
        let inspector = PodmanInspector::new(client.clone(), known.clone());
        let client_of_source = client.clone();
        let source = move || PodmanSource::new(client_of_source.clone(), known.clone());
        Ok(Self {
            inspector,
            driver: Driver::new(client.id().clone(), driver_options, source),
            lifecycle: manager::Lifecycle::new(client.clone()),
            provision: manager::Provision::new(client.clone()),
            logs: manager::Logs::new(client.clone()),
            exec: manager::Exec::new(client.clone()),
            stats: manager::Stats::new(client.clone()),
            images: manager::Images::new(client.clone()),
            networks: manager::Networks::new(client.clone()),
            volumes: manager::Volumes::new(client.clone()),
            pods: Pods::new(client.clone()),
            secrets: Secrets::new(client.clone()),
            client,
        })
    }

    /// The pods of this service.
    pub fn pods(&self) -> &Pods {
        &self.pods
    }

    /// The secrets of this service: what they are, and never their values.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }
}

/// Beginnings of the verbs that every service has.
const MANAGERS: [&str; 8] =
    ["lifecycle_", "provision_", "logs_", "exec_", "stats_", "images_", "networks_", "volumes_"];

fn capabilities(logger: Option<&EventLogger>) -> Capabilities {
    let Some(logger) = logger else { return Capabilities::default() };
    let mut can = Capabilities::none("not implemented in this version");
    can.watch = match logger {
        EventLogger::None => WatchSupport::Polled,
        EventLogger::Kept(_) => WatchSupport::Resumable,
    };
    for (verb, support) in can.verbs_mut() {
        if MANAGERS.iter().any(|manager| verb.starts_with(manager)) {
            *support = Support::Yes;
        }
    }
    can
}

#[async_trait]
impl RuntimeBackend for PodmanBackend {
    fn id(&self) -> &BackendId {
        self.client.id()
    }

    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Podman
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.client.known_logger().as_ref())
    }

    async fn connect(&self) -> Result<RuntimeInfo> {
        self.client.check_open("podman.connect")?;
        let server = self.client.negotiate().await?;
        let logger = self.client.logger().await?;
        let mut info = RuntimeInfo::new(
            self.id().clone(),
            RuntimeKind::Podman,
            server.version.clone(),
            self.client.endpoint(),
            capabilities(Some(&logger)),
        );
        info.api_version = Some(server.version.clone());
        Ok(info)
    }

    async fn list_instances(&self, options: ListOptions) -> Result<Listing> {
        self.inspector.list_matching(&options.filter, options.detail).await
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        Ok(Arc::new(self.inspector.inspect_one(id, Detail::Full).await?))
    }

    async fn watch(&self, options: WatchOptions) -> Result<EventStream> {
        self.client.check_open("podman.watch")?;
        if self.client.known_logger().is_none() {
            // A service that is polled needs another kind of watch than one that reports; one that is away may be either.
            let _ = tokio::time::timeout(LOGGER, self.client.logger()).await;
        }
        self.driver.watch(options)
    }

    async fn close(&self) -> Result<()> {
        self.client.close();
        self.driver.close().await;
        Ok(())
    }

    fn lifecycle(&self) -> Option<&dyn LifecycleManager> {
        Some(&self.lifecycle)
    }

    fn provision(&self) -> Option<&dyn ProvisionManager> {
        Some(&self.provision)
    }

    fn logs(&self) -> Option<&dyn LogManager> {
        Some(&self.logs)
    }
    fn images(&self) -> Option<&dyn ImageManager> {
        Some(&self.images)
    }

    fn exec(&self) -> Option<&dyn ExecManager> {
        Some(&self.exec)
    }

    fn stats(&self) -> Option<&dyn StatsManager> {
        Some(&self.stats)
    }

    fn networks(&self) -> Option<&dyn NetworkManager> {
        Some(&self.networks)
    }

    fn volumes(&self) -> Option<&dyn VolumeManager> {
        Some(&self.volumes)
    }
}
