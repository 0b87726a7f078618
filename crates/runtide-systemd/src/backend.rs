//! [`SystemdBackend`]: one manager as a [`RuntimeBackend`].

use std::sync::Arc;

use async_trait::async_trait;
use runtide_core::{
    BackendId, Capabilities, Detail, Driver, EventStream, Instance, InstanceId, LifecycleManager, ListOptions,
    LogManager, ProvisionManager, Result, RuntimeBackend, RuntimeInfo, RuntimeKind, Snapshot, StatsManager, Support,
    WatchOptions, WatchSupport,
};

use crate::{
    client::{Client, Server},
    config::Config,
    looker::UnitLooker,
    manager,
    source::UnitSource,
};

/// One systemd. See the crate's documentation.
#[derive(Debug)]
pub struct SystemdBackend {
    client: Client,
    looker: UnitLooker,
    driver: Driver,
    lifecycle: manager::Lifecycle,
    provision: manager::Provision,
    logs: manager::Logs,
    stats: manager::Stats,
}

impl SystemdBackend {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported` for an impossible configuration.
    pub fn new(config: Config) -> Result<Self> {
        let driver_options = config.driver.clone();
        let client = Client::new(config)?;
        let looker = UnitLooker::new(client.clone(), None);
        let of_source = client.clone();
        let source = move || UnitSource::new(of_source.clone());
        Ok(Self {
            looker,
            driver: Driver::new(client.id().clone(), driver_options, source),
            lifecycle: manager::Lifecycle::new(client.clone()),
            provision: manager::Provision::new(client.clone()),
            logs: manager::Logs::new(client.clone()),
            stats: manager::Stats::new(client.clone()),
            client,
        })
    }
}

fn capabilities(config: &Config, server: Option<&Server>) -> Capabilities {
    let Some(_) = server else { return Capabilities::default() };
    let mut can = Capabilities::none("systemd has no such thing");
    can.watch = WatchSupport::Pushed;
    for (verb, support) in can.verbs_mut() {
        if ["lifecycle_", "provision_", "logs_", "stats_"].iter().any(|manager| verb.starts_with(manager)) {
            *support = Support::Yes;
        }
        if verb.starts_with("logs_") && config.root.is_none() {
            *support = Support::no("the journal of this machine cannot be seen from here");
        }
    }
    can
}

#[async_trait]
impl RuntimeBackend for SystemdBackend {
    fn id(&self) -> &BackendId {
        self.client.id()
    }

    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Systemd
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.client.config(), self.client.last_server().as_deref())
    }

    async fn connect(&self) -> Result<RuntimeInfo> {
        let server = self.client.identify("systemd.connect").await?;
        let can = capabilities(self.client.config(), Some(&server));
        Ok(RuntimeInfo::new(self.id().clone(), self.kind(), server.version.clone(), self.client.endpoint(), can))
    }

    async fn list_instances(&self, options: ListOptions) -> Result<Snapshot> {
        self.looker.look(&options.filter, options.detail).await
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        Ok(Arc::new(self.looker.inspect_one(id, Detail::Full).await?))
    }

    async fn watch(&self, options: WatchOptions) -> Result<EventStream> {
        self.client.check_open("systemd.watch")?;
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

    fn stats(&self) -> Option<&dyn StatsManager> {
        Some(&self.stats)
    }
}
