//! [`MemoryBackend`]: the backend, as a user of Runtide holds it.

use std::sync::Arc;

use async_trait::async_trait;
use runtide_core::{
    BackendId, Capabilities, Detail, Error, EventStream, Instance, InstanceId, ListOptions, Listing, Result,
    RuntimeBackend, RuntimeInfo, RuntimeKind, WatchOptions,
    manager::{
        ExecManager, ImageManager, LifecycleManager, LogManager, NetworkManager, ProvisionManager, SnapshotManager,
        StatsManager, VolumeManager,
    },
    watch::{Driver, Inspector, Source},
};

use crate::{
    client::Client,
    config::Config,
    fault::Call,
    runtime::{MemoryRuntime, RuntimeOptions, missing},
    source::MemorySource,
};

/// A [`RuntimeBackend`] on a [`MemoryRuntime`]. Every manager that it has is the client itself.
#[derive(Debug)]
pub struct MemoryBackend {
    client: Client,
    driver: Driver,
}

impl MemoryBackend {
    /// A backend on this runtime; nothing is connected yet.
    ///
    /// # Errors
    /// `InvalidInput` for a configuration that cannot work.
    pub fn new(config: Config, runtime: MemoryRuntime) -> Result<Self> {
        Self::with_source(config, runtime, |source| source)
    }

    /// A backend whose reports pass through `wrap`, which is called for each run of the watch: for tests of what a source must
    /// not do, and of what a watch does with it.
    ///
    /// # Errors
    /// `InvalidInput` for a configuration that cannot work.
    pub fn with_source<S: Source>(
        config: Config,
        runtime: MemoryRuntime,
        wrap: impl Fn(MemorySource) -> S + Send + Sync + 'static,
    ) -> Result<Self> {
        config.check()?;
        Ok(Self::on(config, runtime, wrap))
    }

    /// A backend on its own runtime, in this process: [`runtime`](Self::runtime) is its script. The runtime may run for long, so
    /// it keeps no [`history`](MemoryRuntime::history) beyond the facts from which streams resume.
    pub fn embedded() -> Self {
        Self::on(
            Config::default(),
            MemoryRuntime::with_options(RuntimeOptions::default().with_facts(0_usize)),
            |source| source,
        )
    }

    fn on<S: Source>(
        config: Config,
        runtime: MemoryRuntime,
        wrap: impl Fn(MemorySource) -> S + Send + Sync + 'static,
    ) -> Self {
        let client = Client::new(config, runtime);
        let source = client.clone();
        let options = client.config.driver.clone();
        let driver = Driver::new(client.config.id.clone(), options, move || wrap(MemorySource::new(source.clone())));
        Self { client, driver }
    }

    /// The runtime below.
    pub fn runtime(&self) -> &MemoryRuntime {
        &self.client.runtime
    }
}

impl Drop for MemoryBackend {
    fn drop(&mut self) {
        self.client.session.close();
    }
}

#[async_trait]
impl RuntimeBackend for MemoryBackend {
    fn id(&self) -> &BackendId {
        &self.client.config.id
    }

    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Memory
    }

    fn capabilities(&self) -> Capabilities {
        self.client.capabilities()
    }

    async fn connect(&self) -> Result<RuntimeInfo> {
        self.client.call(Call::Connect, async { Ok(()) }).await?;
        let version = env!("CARGO_PKG_VERSION");
        Ok(RuntimeInfo::new(self.id().clone(), self.kind(), version, "memory:", self.capabilities()))
    }

    async fn list_instances(&self, options: ListOptions) -> Result<Listing> {
        let mut snapshot = Inspector::list(&self.client, options.detail).await?;
        snapshot.instances.retain(|instance| options.filter.matches(instance));
        Ok(snapshot)
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        let item = self.client.inspect(std::slice::from_ref(id)).await?.pop().flatten();
        let item = item.ok_or_else(|| missing(id, Call::Inspect).with_context("backend", self.id()))?;
        let located = |error: Error| error.with_context("instance", id).with_context("backend", self.id());
        self.client.instance(&item, Detail::Full).map_err(|failure| located(failure.into()))
    }

    async fn watch(&self, options: WatchOptions) -> Result<EventStream> {
        self.driver.watch(options)
    }

    async fn close(&self) -> Result<()> {
        self.client.session.close();
        self.driver.close().await;
        self.client.tasks.close();
        self.client.tasks.wait().await;
        Ok(())
    }

    fn lifecycle(&self) -> Option<&dyn LifecycleManager> {
        Some(&self.client)
    }

    fn provision(&self) -> Option<&dyn ProvisionManager> {
        Some(&self.client)
    }

    fn logs(&self) -> Option<&dyn LogManager> {
        Some(&self.client)
    }

    fn exec(&self) -> Option<&dyn ExecManager> {
        Some(&self.client)
    }

    fn images(&self) -> Option<&dyn ImageManager> {
        Some(&self.client)
    }

    fn networks(&self) -> Option<&dyn NetworkManager> {
        Some(&self.client)
    }

    fn volumes(&self) -> Option<&dyn VolumeManager> {
        Some(&self.client)
    }

    fn snapshots(&self) -> Option<&dyn SnapshotManager> {
        Some(&self.client)
    }

    fn stats(&self) -> Option<&dyn StatsManager> {
        Some(&self.client)
    }
}
