//! A backend used by a process that dies.

use std::sync::Arc;

use async_trait::async_trait;
use runtide_core::{
    BackendId, Capabilities, Error, ErrorKind, EventStream, ExitStatus, ImageRef, Instance, InstanceId, ListOptions,
    Listing, Result, RuntimeBackend, RuntimeInfo, RuntimeKind, UnixSignal, WatchOptions,
    manager::{
        BuildContext, BuildOptions, ByteReader, ConnectOptions, Effect, ExecManager, ImageInfo, ImageManager,
        ImageStream, InstanceSpec, LifecycleManager, LogManager, NetworkId, NetworkInfo, NetworkManager, NetworkSpec,
        ProvisionManager, PruneOptions, Pruned, PullOptions, RemoveOptions, SidecarManager, SnapshotManager,
        StatsManager, StopOptions, VolumeId, VolumeInfo, VolumeManager, VolumeSpec,
    },
};

use super::Lifespan;

/// A backend used by a process that dies before or after one of its verbs.
#[derive(Clone, Debug)]
pub struct MortalBackend {
    lifespan: Lifespan,
    inner: Arc<dyn RuntimeBackend>,
}

impl MortalBackend {
    /// The backend `inner`, used by the process with this lifespan.
    pub fn new(lifespan: &Lifespan, inner: Arc<dyn RuntimeBackend>) -> Self {
        Self { lifespan: lifespan.clone(), inner }
    }

    /// Runs a verb, with a point before it and one after it.
    async fn verb<T>(&self, verb: impl Future<Output = Result<T>>) -> Result<T> {
        if !self.lifespan.pass() {
            return Err(dead());
        }
        let done = verb.await;
        if self.lifespan.pass() { done } else { Err(dead()) }
    }

    /// Runs a query. It has no effect, so it fails only if the process is dead.
    async fn query<T>(&self, query: impl Future<Output = Result<T>>) -> Result<T> {
        if self.lifespan.is_over() { Err(dead()) } else { query.await }
    }

    fn lost(&self) -> Error {
        Error::new(ErrorKind::Unsupported, "mortal.call", "there is no such manager below")
            .with_context("backend", self.inner.id())
    }
}

fn dead() -> Error {
    Error::new(ErrorKind::Cancelled, "mortal.call", "the process is dead")
}

#[async_trait]
impl RuntimeBackend for MortalBackend {
    fn id(&self) -> &BackendId {
        self.inner.id()
    }

    fn kind(&self) -> RuntimeKind {
        self.inner.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn connect(&self) -> Result<RuntimeInfo> {
        self.query(self.inner.connect()).await
    }

    async fn list_instances(&self, options: ListOptions) -> Result<Listing> {
        self.query(self.inner.list_instances(options)).await
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        self.query(self.inner.inspect(id)).await
    }

    async fn watch(&self, options: WatchOptions) -> Result<EventStream> {
        self.query(self.inner.watch(options)).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn lifecycle(&self) -> Option<&dyn LifecycleManager> {
        self.inner.lifecycle().map(|_| self as &dyn LifecycleManager)
    }

    fn provision(&self) -> Option<&dyn ProvisionManager> {
        self.inner.provision().map(|_| self as &dyn ProvisionManager)
    }

    fn logs(&self) -> Option<&dyn LogManager> {
        self.inner.logs()
    }

    fn exec(&self) -> Option<&dyn ExecManager> {
        self.inner.exec()
    }

    fn images(&self) -> Option<&dyn ImageManager> {
        self.inner.images().map(|_| self as &dyn ImageManager)
    }

    fn networks(&self) -> Option<&dyn NetworkManager> {
        self.inner.networks().map(|_| self as &dyn NetworkManager)
    }

    fn volumes(&self) -> Option<&dyn VolumeManager> {
        self.inner.volumes().map(|_| self as &dyn VolumeManager)
    }

    fn sidecars(&self) -> Option<&dyn SidecarManager> {
        self.inner.sidecars()
    }

    fn snapshots(&self) -> Option<&dyn SnapshotManager> {
        self.inner.snapshots()
    }

    fn stats(&self) -> Option<&dyn StatsManager> {
        self.inner.stats()
    }
}

/// The manager of the inner backend, which is there because this one was handed out.
macro_rules! below {
    ($self:ident, $manager:ident) => {
        $self.inner.$manager().ok_or_else(|| $self.lost())?
    };
}

#[async_trait]
impl LifecycleManager for MortalBackend {
    async fn start(&self, id: &InstanceId) -> Result<Effect> {
        self.verb(below!(self, lifecycle).start(id)).await
    }

    async fn stop(&self, id: &InstanceId, options: StopOptions) -> Result<Effect> {
        self.verb(below!(self, lifecycle).stop(id, options)).await
    }

    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Result<()> {
        self.verb(below!(self, lifecycle).kill(id, signal)).await
    }

    async fn restart(&self, id: &InstanceId, options: StopOptions) -> Result<()> {
        self.verb(below!(self, lifecycle).restart(id, options)).await
    }

    async fn pause(&self, id: &InstanceId) -> Result<Effect> {
        self.verb(below!(self, lifecycle).pause(id)).await
    }

    async fn unpause(&self, id: &InstanceId) -> Result<Effect> {
        self.verb(below!(self, lifecycle).unpause(id)).await
    }

    async fn wait(&self, id: &InstanceId) -> Result<Option<ExitStatus>> {
        self.query(below!(self, lifecycle).wait(id)).await
    }

    async fn rename(&self, id: &InstanceId, name: &str) -> Result<Effect> {
        self.verb(below!(self, lifecycle).rename(id, name)).await
    }

    async fn remove(&self, id: &InstanceId, options: RemoveOptions) -> Result<Effect> {
        self.verb(below!(self, lifecycle).remove(id, options)).await
    }
}

#[async_trait]
impl ProvisionManager for MortalBackend {
    async fn create(&self, spec: &InstanceSpec) -> Result<InstanceId> {
        self.verb(below!(self, provision).create(spec)).await
    }
}

#[async_trait]
impl NetworkManager for MortalBackend {
    async fn create(&self, spec: &NetworkSpec) -> Result<NetworkId> {
        self.verb(below!(self, networks).create(spec)).await
    }

    async fn remove(&self, network: &NetworkId) -> Result<Effect> {
        self.verb(below!(self, networks).remove(network)).await
    }

    async fn list(&self) -> Result<Vec<NetworkInfo>> {
        self.query(below!(self, networks).list()).await
    }

    async fn inspect(&self, network: &NetworkId) -> Result<NetworkInfo> {
        self.query(below!(self, networks).inspect(network)).await
    }

    async fn connect(&self, network: &NetworkId, instance: &InstanceId, options: ConnectOptions) -> Result<Effect> {
        self.verb(below!(self, networks).connect(network, instance, options)).await
    }

    async fn disconnect(&self, network: &NetworkId, instance: &InstanceId) -> Result<Effect> {
        self.verb(below!(self, networks).disconnect(network, instance)).await
    }
}

#[async_trait]
impl VolumeManager for MortalBackend {
    async fn create(&self, spec: &VolumeSpec) -> Result<VolumeId> {
        self.verb(below!(self, volumes).create(spec)).await
    }

    async fn remove(&self, volume: &VolumeId) -> Result<Effect> {
        self.verb(below!(self, volumes).remove(volume)).await
    }

    async fn list(&self) -> Result<Vec<VolumeInfo>> {
        self.query(below!(self, volumes).list()).await
    }

    async fn inspect(&self, volume: &VolumeId) -> Result<VolumeInfo> {
        self.query(below!(self, volumes).inspect(volume)).await
    }

    async fn export(&self, volume: &VolumeId) -> Result<ByteReader> {
        self.query(below!(self, volumes).export(volume)).await
    }

    async fn import(&self, volume: &VolumeId, archive: ByteReader) -> Result<()> {
        self.verb(below!(self, volumes).import(volume, archive)).await
    }
}

#[async_trait]
impl ImageManager for MortalBackend {
    async fn list(&self) -> Result<Vec<ImageInfo>> {
        self.query(below!(self, images).list()).await
    }

    async fn exists(&self, image: &ImageRef) -> Result<bool> {
        self.query(below!(self, images).exists(image)).await
    }

    async fn inspect(&self, image: &ImageRef) -> Result<ImageInfo> {
        self.query(below!(self, images).inspect(image)).await
    }

    async fn pull(&self, image: &ImageRef, options: PullOptions) -> Result<ImageStream> {
        self.verb(below!(self, images).pull(image, options)).await
    }

    async fn import(&self, archive: ByteReader) -> Result<ImageStream> {
        self.verb(below!(self, images).import(archive)).await
    }

    async fn save(&self, all: &[ImageRef]) -> Result<ByteReader> {
        self.query(below!(self, images).save(all)).await
    }

    async fn build(&self, context: BuildContext, options: BuildOptions) -> Result<ImageStream> {
        self.verb(below!(self, images).build(context, options)).await
    }

    async fn tag(&self, image: &ImageRef, tag: &ImageRef) -> Result<()> {
        self.verb(below!(self, images).tag(image, tag)).await
    }

    async fn remove(&self, image: &ImageRef) -> Result<Effect> {
        self.verb(below!(self, images).remove(image)).await
    }

    async fn prune(&self, options: PruneOptions) -> Result<Pruned> {
        self.verb(below!(self, images).prune(options)).await
    }
}
