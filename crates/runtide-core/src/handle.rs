//! One instance and all its verbs.

use std::{fmt, sync::Arc};

use crate::{
    error::Result,
    instance::{ExitStatus, Instance, InstanceId, UnixSignal},
    manager::{
        AttachOptions, Effect, ExecControl, ExecManager, ExecOptions, ExecSession, LifecycleManager, LogOptions,
        LogStream, RemoveOptions, StopOptions,
    },
    options::WatchOptions,
    runtime::{RuntimeBackend, RuntimeBackendExt},
    watch::{EventStream, TransitionStream},
};

/// One instance and all its verbs; cheap to clone, remembers no state.
///
/// The verbs and their contracts are the managers', with the id bound; a verb whose manager is not there is `Unsupported`.
///
/// ```no_run
/// # async fn example(backend: std::sync::Arc<dyn runtide_core::RuntimeBackend>) -> runtide_core::Result<()> {
/// use runtide_core::{InstanceFilter, InstanceHandle, ListOptions, manager::{Effect, StopOptions}};
/// use std::time::Duration;
///
/// let named = InstanceFilter::default().with_names(["web".to_owned()]);
/// let found = backend.list_instances(ListOptions::default().with_filter(named)).await?;
/// if let Some(one) = found.instances.first() {
///     let web = InstanceHandle::new(backend.clone(), one.id.clone());
///     if web.stop(StopOptions::default().with_timeout(Duration::from_secs(10))).await? == Effect::Changed {
///         println!("{} ended with {:?}", one.name, web.wait().await?);
///     }
///     web.start().await?; // the effect may be ignored: it runs now, whether or not it did before
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct InstanceHandle {
    backend: Arc<dyn RuntimeBackend>,
    id: InstanceId,
}

impl InstanceHandle {
    /// Binds an id; the runtime is not asked whether the instance exists.
    pub fn new(backend: Arc<dyn RuntimeBackend>, id: impl Into<InstanceId>) -> Self {
        Self { backend, id: id.into() }
    }

    /// The bound id.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// The backend below.
    pub fn backend(&self) -> &Arc<dyn RuntimeBackend> {
        &self.backend
    }

    fn lifecycle(&self, feature: &'static str) -> Result<&dyn LifecycleManager> {
        self.backend.lifecycle().ok_or_else(|| self.backend.unsupported(feature))
    }

    fn processes(&self, feature: &'static str) -> Result<&dyn ExecManager> {
        self.backend.exec().ok_or_else(|| self.backend.unsupported(feature))
    }

    /// See [`RuntimeBackend::inspect`].
    pub async fn inspect(&self) -> Result<Arc<Instance>> {
        self.backend.inspect(&self.id).await
    }

    /// The backend's watch with its resyncs and guarantees, for this one instance. The ids of `options.filter` are replaced.
    pub async fn watch(&self, options: WatchOptions) -> Result<EventStream> {
        let only = options.filter.clone().with_ids([self.id.clone()]);
        self.backend.watch(options.with_filter(only)).await
    }

    /// As [`InstanceHandle::watch`], folded: see [`RuntimeBackendExt::transitions`].
    pub async fn transitions(&self, options: WatchOptions) -> Result<TransitionStream> {
        let only = options.filter.clone().with_ids([self.id.clone()]);
        self.backend.transitions(options.with_filter(only)).await
    }

    /// See [`LifecycleManager::start`].
    pub async fn start(&self) -> Result<Effect> {
        self.lifecycle("lifecycle_start")?.start(&self.id).await
    }

    /// See [`LifecycleManager::stop`].
    pub async fn stop(&self, options: StopOptions) -> Result<Effect> {
        self.lifecycle("lifecycle_stop")?.stop(&self.id, options).await
    }

    /// See [`LifecycleManager::kill`].
    pub async fn kill(&self, signal: UnixSignal) -> Result<()> {
        self.lifecycle("lifecycle_kill")?.kill(&self.id, signal).await
    }

    /// See [`LifecycleManager::restart`].
    pub async fn restart(&self, options: StopOptions) -> Result<()> {
        self.lifecycle("lifecycle_restart")?.restart(&self.id, options).await
    }

    /// See [`LifecycleManager::pause`].
    pub async fn pause(&self) -> Result<Effect> {
        self.lifecycle("lifecycle_pause")?.pause(&self.id).await
    }

    /// See [`LifecycleManager::unpause`].
    pub async fn unpause(&self) -> Result<Effect> {
        self.lifecycle("lifecycle_pause")?.unpause(&self.id).await
    }

    /// See [`LifecycleManager::wait`].
    pub async fn wait(&self) -> Result<Option<ExitStatus>> {
        self.lifecycle("lifecycle_wait")?.wait(&self.id).await
    }

    /// See [`LifecycleManager::rename`].
    pub async fn rename(&self, name: &str) -> Result<Effect> {
        self.lifecycle("lifecycle_rename")?.rename(&self.id, name).await
    }

    /// See [`LifecycleManager::remove`].
    pub async fn remove(&self, options: RemoveOptions) -> Result<Effect> {
        self.lifecycle("lifecycle_remove")?.remove(&self.id, options).await
    }

    /// See [`LogManager::logs`](crate::manager::LogManager::logs).
    pub async fn logs(&self, options: LogOptions) -> Result<LogStream> {
        let logs = self.backend.logs().ok_or_else(|| self.backend.unsupported("logs_read"))?;
        logs.logs(&self.id, options).await
    }

    /// See [`ExecManager::exec`].
    pub async fn exec(&self, options: ExecOptions) -> Result<ExecSession> {
        self.processes("exec_run")?.exec(&self.id, options).await
    }

    /// See [`ExecManager::exec_detached`].
    pub async fn exec_detached(&self, options: ExecOptions) -> Result<Arc<dyn ExecControl>> {
        self.processes("exec_run")?.exec_detached(&self.id, options).await
    }

    /// See [`ExecManager::attach`].
    pub async fn attach(&self, options: AttachOptions) -> Result<ExecSession> {
        self.processes("exec_attach")?.attach(&self.id, options).await
    }

    /// See [`ExecManager::start_attached`].
    pub async fn start_attached(&self, options: AttachOptions) -> Result<ExecSession> {
        self.processes("exec_attach")?.start_attached(&self.id, options).await
    }
}

/// The backend by its name alone.
impl fmt::Debug for InstanceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceHandle").field("backend", self.backend.id()).field("id", &self.id).finish()
    }
}
