//! [`EtcdStore`], and the state that its parts share.

use std::{
    fmt,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use runtide_core::{
    Result,
    store::{
        Applied, Document, Page, PageOptions, Precondition, Resource, ResourceFormat, ResourceRef, Revision, Selector,
        StoreBackend, StoreSnapshotSeal, StoreStats, StoreStream, StoreWatchOptions,
    },
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{client::Client, config::Config, keys::Keys, known::Known, view::View};

/// Resources in etcd. A clone is the same client.
#[derive(Clone)]
pub struct EtcdStore(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    pub(crate) known: Known,
    pub(crate) view: Mutex<Option<View>>,
    pub(crate) subscribers: Arc<AtomicU64>,
    /// Newest revision that is known to be compacted up to.
    pub(crate) oldest: AtomicU64,
    /// Most bytes of a document.
    pub(crate) largest: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) max_silence: Duration,
    pub(crate) bookmark_interval: Duration,
}

impl EtcdStore {
    /// Makes a client. It connects with the first call, and reconnects whenever it has to.
    ///
    /// # Errors
    /// `InvalidInput` with the reason, if the configuration can never work. Members that cannot be reached are no such reason.
    #[expect(clippy::needless_pass_by_value, reason = "as every backend: a configuration is used once")]
    pub fn new(config: Config) -> Result<Self> {
        config.validate()?;
        let client = Client::new(&config, config.name()?)?;
        Ok(Self(Arc::new(Inner {
            client,
            keys: Keys::below(&config.prefix),
            known: Known::default(),
            view: Mutex::default(),
            subscribers: Arc::default(),
            oldest: AtomicU64::new(0),
            largest: config.largest_document(),
            request_timeout: config.request_timeout,
            max_silence: config.max_silence,
            bookmark_interval: config.bookmark_interval,
        })))
    }

    /// Writes etcd's own snapshot, and returns the number of its bytes. It is the database of the whole cluster, of all prefixes and
    /// users, as `etcdctl snapshot save` writes it; `etcdctl snapshot restore` (or `etcdutl`) makes a new cluster of it.
    ///
    /// # Errors
    /// `PermissionDenied` if authentication is enabled and the user lacks the role `root`; `Unavailable` if the stream breaks: what was
    /// written is of no use then.
    ///
    /// # Cancel safety
    /// Can be dropped. What was written is of no use then.
    pub async fn maintenance_snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<u64> {
        self.0.maintenance_snapshot(out).await
    }
}

#[async_trait]
impl StoreBackend for EtcdStore {
    fn name(&self) -> &str {
        self.0.client.name()
    }

    async fn apply(&self, reference: &ResourceRef, document: Document, precondition: Precondition) -> Result<Applied> {
        self.0.apply(reference, document, precondition).await
    }

    async fn get(&self, reference: &ResourceRef, format: Option<ResourceFormat>) -> Result<Option<Arc<Resource>>> {
        self.0.get(reference, format).await
    }

    async fn list(&self, selector: &Selector, options: PageOptions) -> Result<Page> {
        self.0.list(selector, options).await
    }

    async fn delete(&self, reference: &ResourceRef, precondition: Precondition) -> Result<Option<Revision>> {
        self.0.delete(reference, precondition).await
    }

    async fn watch(&self, selector: &Selector, options: StoreWatchOptions) -> Result<StoreStream> {
        crate::watch::open(&self.0, selector, options).await
    }

    async fn snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<StoreSnapshotSeal> {
        self.0.snapshot(out).await
    }

    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision> {
        self.0.restore(from).await
    }

    async fn stats(&self) -> Result<StoreStats> {
        self.0.stats().await
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("name", &self.client.name()).finish_non_exhaustive()
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EtcdStore").field(&self.name()).finish()
    }
}
