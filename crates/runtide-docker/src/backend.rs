//! [`DockerBackend`]: one daemon as a [`RuntimeBackend`].

use std::sync::Arc;

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
    client::{Client, Server},
    config::Config,
    inspector::DockerInspector,
    manager, reported_state,
    source::DockerSource,
};

/// One Docker daemon, as a [`RuntimeBackend`]: the trait has the calls, and the crate's documentation the promises.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use runtide_core::{InstanceHandle, ListOptions, Result, RuntimeBackend, manager::{InstanceSpec, StopOptions}};
/// use runtide_docker::{Config, DockerBackend, Endpoint};
///
/// # async fn example() -> Result<()> {
/// let config = Config::default().with_endpoint(Endpoint::unix("/run/docker.sock")); // or Config::from_env()?
/// let docker: Arc<dyn RuntimeBackend> = Arc::new(DockerBackend::new(config)?);
/// println!("{:?}", docker.connect().await?); // optional: every call connects
/// for container in docker.list_instances(ListOptions::default()).await?.instances {
///     println!("{} is {}", container.name, container.state);
/// }
/// if let Some(provision) = docker.provision() {
///     let id = provision.create(&InstanceSpec::of_image("busybox").with_command(["sleep", "60"])).await?;
///     let job = InstanceHandle::new(Arc::clone(&docker), id);
///     job.start().await?;
///     job.stop(StopOptions::default()).await?;
///     println!("{:?}", job.wait().await?);
/// }
/// docker.close().await
/// # }
/// ```
#[derive(Debug)]
pub struct DockerBackend {
    client: Client,
    /// Used by calls outside the watch; it shares the stream's reported state, since Docker's list lags behind the stream.
    inspector: DockerInspector,
    driver: Driver,
    lifecycle: manager::Lifecycle,
    provision: manager::Provision,
    logs: manager::Logs,
    images: manager::Images,
    exec: manager::Exec,
    stats: manager::Stats,
    networks: manager::Networks,
    volumes: manager::Volumes,
}

impl DockerBackend {
    /// A backend without a connection: the first call connects.
    ///
    /// # Errors
    /// `InvalidInput` for an invalid configuration, or TLS files that cannot be read.
    pub fn new(config: Config) -> Result<Self> {
        let driver_options = config.driver.clone();
        let client = Client::new(config)?;
        let reported_state = reported_state::Shared::new(client.id().clone());
        let inspector = DockerInspector::new(client.clone(), reported_state.clone());
        let client_of_source = client.clone();
        let source = move || DockerSource::new(client_of_source.clone(), reported_state.clone());
        Ok(Self {
            inspector,
            driver: Driver::new(client.id().clone(), driver_options, source),
            lifecycle: manager::Lifecycle::new(client.clone()),
            provision: manager::Provision::new(client.clone()),
            logs: manager::Logs::new(client.clone()),
            images: manager::Images::new(client.clone()),
            exec: manager::Exec::new(client.clone()),
            stats: manager::Stats::new(client.clone()),
            networks: manager::Networks::new(client.clone()),
            volumes: manager::Volumes::new(client.clone()),
            client,
        })
    }
}

/// Beginnings of the verbs that every server has.
const MANAGERS: [&str; 8] =
    ["lifecycle_", "provision_", "logs_", "exec_", "images_", "networks_", "volumes_", "stats_"];

fn capabilities(server: Option<&Server>) -> Capabilities {
    let Some(_) = server else { return Capabilities::default() };
    let mut can = Capabilities::none("not implemented in this version");
    can.watch = WatchSupport::Resumable;
    for (verb, support) in can.verbs_mut() {
        if verb.starts_with("snapshots_") {
            *support =
                Support::no("Docker has no snapshots, and its checkpoints need an experimental daemon with CRIU");
        }
        if MANAGERS.iter().any(|manager| verb.starts_with(manager)) {
            *support = Support::Yes;
        }
    }
    can
}

#[async_trait]
impl RuntimeBackend for DockerBackend {
    fn id(&self) -> &BackendId {
        self.client.id()
    }

    fn kind(&self) -> RuntimeKind {
        self.client.last_server().map_or(RuntimeKind::Docker, |server| server.kind.clone())
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.client.last_server().as_deref())
    }

    async fn connect(&self) -> Result<RuntimeInfo> {
        self.client.check_open("docker.connect")?;
        let server = self.client.negotiate().await?;
        let mut info = RuntimeInfo::new(
            self.id().clone(),
            server.kind.clone(),
            server.version.clone(),
            self.client.endpoint(),
            capabilities(Some(&server)),
        );
        info.api_version = Some(server.api.to_string());
        Ok(info)
    }

    async fn list_instances(&self, options: ListOptions) -> Result<Listing> {
        self.inspector.list_matching(&options.filter, options.detail).await
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        Ok(Arc::new(self.inspector.inspect_one(id, Detail::Full).await?))
    }

    async fn watch(&self, options: WatchOptions) -> Result<EventStream> {
        self.client.check_open("docker.watch")?;
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
