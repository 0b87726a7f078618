//! A backend that is broken in one way, around the sound one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::StreamExt;
use runtide_core::{
    BackendId, Capabilities, Cursor, Error, ErrorKind, EventStream, Instance, InstanceId, ListOptions, Listing, Result,
    RuntimeBackend, RuntimeEvent, RuntimeEventKind, RuntimeInfo, RuntimeKind, WatchOptions,
    capabilities::Support,
    manager::{
        ExecManager, ImageManager, LifecycleManager, LogManager, NetworkManager, ProvisionManager, SidecarManager,
        SnapshotManager, StatsManager, VolumeManager,
    },
};
use runtide_memory::{Config, MemoryBackend, MemoryRuntime};
use tokio::sync::mpsc;

use super::{
    composed::Composed,
    managers::{Verbs, blurred, leak},
    source::Lying,
    stream::Spoilt,
    table::{Mutant, Shared},
};

/// The backend under test, broken.
pub(crate) struct Broken {
    how: Mutant,
    inner: Arc<MemoryBackend>,
    verbs: Verbs,
    composed: Composed,
    shared: Arc<Shared>,
    connected: AtomicBool,
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Broken({:?})", self.how)
    }
}

impl Shared {
    /// The instance under the id that its name had first.
    pub(crate) fn canonical(&self, row: &Arc<Instance>) -> Arc<Instance> {
        let mut first = self.first.lock().unwrap();
        let id = first.entry(row.name.clone()).or_insert_with(|| row.id.clone());
        let mut row = Instance::clone(row);
        row.id = id.clone();
        Arc::new(row)
    }
}

impl Broken {
    pub(crate) fn new(how: Mutant, config: Config, runtime: MemoryRuntime) -> Self {
        let config = match how {
            Mutant::NeverTimesOut => config.with_max_silence(None),
            Mutant::NoDeadline => config.with_deadline(Duration::from_secs(86_400)),
            Mutant::BackoffResetByMarker => {
                let driver = config.driver.clone().with_healthy_after(Duration::ZERO);
                config.with_driver(driver)
            }
            _ => config,
        };
        let model = runtime.clone();
        let wrapped = MemoryBackend::with_source(config, runtime, move |source| Lying::new(how, source, model.clone()));
        let inner = Arc::new(wrapped.unwrap());
        let verbs = Verbs::new(how, Arc::clone(&inner));
        let composed = Composed::new(how, Arc::clone(&inner));
        Self { how, inner, verbs, composed, shared: Arc::default(), connected: AtomicBool::new(false) }
    }

    fn error(&self, error: Error) -> Error {
        blurred(self.how, error)
    }
}

/// Adds the failed request to the cause of a disconnect.
fn talkative(event: &RuntimeEvent) -> Arc<RuntimeEvent> {
    let mut event = event.clone();
    if let RuntimeEventKind::BackendDisconnected { cause: Some(cause) } = &mut event.kind {
        cause.message = leak();
    }
    Arc::new(event)
}

/// Ends a task when it is dropped.
struct Stop(tokio::task::JoinHandle<()>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Events through another queue, filled by a task.
fn queued(mut inner: EventStream, bounded: bool) -> EventStream {
    let (full, mut rest) = mpsc::channel(64);
    let (all, mut any) = mpsc::unbounded_channel();
    let pump = tokio::spawn(async move {
        while let Some(item) = inner.next().await {
            if bounded {
                // There is no room: drop it, and continue.
                let _ = full.try_send(item);
            } else if all.send(item).is_err() {
                break;
            }
        }
    });
    let mut stop = Some(Stop(pump));
    EventStream::new(futures_util::stream::poll_fn(move |cx| {
        let next = if bounded { rest.poll_recv(cx) } else { any.poll_recv(cx) };
        if let std::task::Poll::Ready(None) = next {
            drop(stop.take());
        }
        next
    }))
}

#[async_trait]
impl RuntimeBackend for Broken {
    fn id(&self) -> &BackendId {
        self.inner.id()
    }

    fn kind(&self) -> RuntimeKind {
        self.inner.kind()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        if self.how == Mutant::LyingCapabilities {
            for (_, support) in capabilities.verbs_mut() {
                *support = Support::Yes;
            }
        }
        capabilities
    }

    async fn connect(&self) -> Result<RuntimeInfo> {
        let mut info = self.inner.connect().await.map_err(|error| self.error(error))?;
        self.connected.store(true, Ordering::Release);
        info.capabilities = self.capabilities();
        Ok(info)
    }

    async fn list_instances(&self, options: ListOptions) -> Result<Listing> {
        if self.how == Mutant::ListNeedsConnect && !self.connected.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Conflict, "mutant.list", "connect first"));
        }
        let mut listed = self.inner.list_instances(options).await.map_err(|error| self.error(error))?;
        match self.how {
            Mutant::BadItemBlinds if !listed.is_complete() => {
                return Err(Error::new(ErrorKind::Protocol, "mutant.list", "the answer cannot be decoded"));
            }
            Mutant::PartialListIsTheTruth => listed = Listing::complete(listed.instances),
            Mutant::NameIsIdentity => {
                listed.instances = listed.instances.iter().map(|row| self.shared.canonical(row)).collect();
            }
            _ => {}
        }
        Ok(listed)
    }

    async fn inspect(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        let row = self.inner.inspect(id).await.map_err(|error| self.error(error))?;
        Ok(if self.how == Mutant::NameIsIdentity { self.shared.canonical(&row) } else { row })
    }

    async fn watch(&self, mut options: WatchOptions) -> Result<EventStream> {
        match self.how {
            // A sound stream needs no numbers of its own.
            how if !how.spoils_the_stream() => return self.inner.watch(options).await,
            Mutant::WatchNeedsTheRuntime => drop(self.inner.connect().await?),
            Mutant::LeaksConnections => std::mem::forget(self.inner.watch(WatchOptions::default()).await?),
            Mutant::IgnoresTheCursor => {
                // From now on, without a word about the gap.
                options.from = None;
            }
            Mutant::ForgetsTheToken => options.from = options.from.map(|from| Cursor::new(from.epoch, from.seq, None)),
            Mutant::LeaksTheCredentialInEvents => {
                let inner = self.inner.watch(options).await?;
                return Ok(EventStream::new(inner.map(|item| item.map(|event| talkative(&event)))));
            }
            Mutant::QueueWithoutEnd => return Ok(queued(self.inner.watch(options).await?, false)),
            Mutant::DropsWhenFull => {
                let inner = queued(self.inner.watch(options).await?, true);
                return Ok(Spoilt::new(self.how, inner, &self.inner, &self.shared).into_stream());
            }
            Mutant::ListsFirst if options.from.is_none() => {
                let all = ListOptions::default().with_filter(options.filter.clone());
                if let Ok(listed) = self.inner.list_instances(all).await {
                    let inner = self.inner.watch(options).await?;
                    let spoilt = Spoilt::new(self.how, inner, &self.inner, &self.shared);
                    return Ok(spoilt.listed_first(&listed).into_stream());
                }
            }
            _ => {}
        }
        let from = options.from.clone();
        if let Some(from) = &mut options.from {
            // In the same process it knows the inner position.
            if let Some(place) = self.shared.places.lock().unwrap().get(&(from.epoch.clone(), from.seq)) {
                *from = place.clone();
            }
        }
        let inner = self.inner.watch(options).await?;
        if matches!(self.how, Mutant::WatchNeedsTheRuntime | Mutant::LeaksConnections | Mutant::ForgetsTheToken) {
            return Ok(inner);
        }
        Ok(Spoilt::new(self.how, inner, &self.inner, &self.shared).after(from).into_stream())
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn lifecycle(&self) -> Option<&dyn LifecycleManager> {
        Some(&self.verbs)
    }

    fn provision(&self) -> Option<&dyn ProvisionManager> {
        Some(&self.verbs)
    }

    fn logs(&self) -> Option<&dyn LogManager> {
        Some(&self.verbs)
    }

    fn exec(&self) -> Option<&dyn ExecManager> {
        Some(&self.verbs)
    }

    fn images(&self) -> Option<&dyn ImageManager> {
        self.inner.images()
    }

    fn networks(&self) -> Option<&dyn NetworkManager> {
        Some(&self.composed)
    }

    fn volumes(&self) -> Option<&dyn VolumeManager> {
        self.inner.volumes()
    }

    fn sidecars(&self) -> Option<&dyn SidecarManager> {
        (self.how == Mutant::SidecarsWithoutUndo).then_some(&self.composed as &dyn SidecarManager)
    }

    fn snapshots(&self) -> Option<&dyn SnapshotManager> {
        self.inner.snapshots()
    }

    fn stats(&self) -> Option<&dyn StatsManager> {
        self.inner.stats()
    }
}
