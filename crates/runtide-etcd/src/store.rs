//! The store: [`EtcdStore`].

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use runtide_core::{
    Result,
    store::{
        Applied, Document, Page, PageOptions, Precondition, Resource, ResourceFormat, ResourceRef, Revision, Selector,
        StoreBackend, StoreSnapshotSeal, StoreStats, StoreStream, StoreWatchOptions,
    },
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{config::Config, shared::Shared};

/// Resources in etcd. A clone is the same client.
#[derive(Clone)]
pub struct EtcdStore(Arc<Shared>);

impl EtcdStore {
    /// Makes a client. It connects with the first call, and reconnects whenever it has to.
    ///
    /// # Errors
    /// `InvalidInput` with the reason, if the configuration can never work. Members that cannot be reached are no such reason.
    #[expect(clippy::needless_pass_by_value, reason = "as every backend: a configuration is used once")]
    pub fn new(config: Config) -> Result<Self> {
        Ok(Self(Arc::new(Shared::new(&config)?)))
    }

    /// Drops the history before this revision, of the whole cluster and all prefixes, as `etcdctl compact` does; the resources
    /// stay. A watch from an earlier position is `Expired`, and one that is running and behind gets a `Reset`. Members do it
    /// themselves with `--auto-compaction-retention`; a cluster whose quota is used up needs it before it is defragmented.
    ///
    /// Returns once the member that answered has removed it, so that a defragmentation frees its space; the other members may still be
    /// at it. Compacting again, or to an earlier revision, does nothing, and waits as long.
    ///
    /// # Errors
    /// `Timeout` with `outcome=unknown` if it takes longer than `request_timeout`: it goes on in the cluster, and compacting again waits
    /// for it. `Expired` if the cluster has not reached the revision; `PermissionDenied` if authentication is enabled and the user lacks the
    /// role `root`; `Corrupt` if the cluster's data are.
    ///
    /// # Cancel safety
    /// Can be dropped: it is then done or not.
    pub async fn compact(&self, revision: Revision) -> Result<()> {
        self.0.compact(revision).await
    }

    /// Writes etcd's own snapshot, and returns the number of its bytes. It is the database of the whole cluster, of all prefixes and
    /// users, as `etcdctl snapshot save` writes it; `etcdctl snapshot restore` (or `etcdutl`) makes a new cluster of it.
    ///
    /// # Errors
    /// `PermissionDenied` if authentication is enabled and the user lacks the role `root`; `Unavailable` if the stream breaks: the written
    /// bytes are of no use then.
    ///
    /// # Cancel safety
    /// Can be dropped. The written bytes are of no use then.
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

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EtcdStore").field(&self.name()).finish()
    }
}
