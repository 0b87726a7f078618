//! The trait of every store: [`StoreBackend`].

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Applied, Digest, Document, Page, PageOptions, Precondition, Resource, ResourceFormat, ResourceRef, Revision,
    Selector, StoreStream, StoreWatchOptions,
};
use crate::error::{ErrorKind, Result};

/// A store of declared resources, whose writes have revisions in one total order.
///
/// # Behavior
/// * `Ok` means that the write is done, and as durable as any write of this store; watchers and readers see it no earlier.
/// * Every write that changes something has its own [`Revision`]; revisions are totally ordered. Applying the present body
///   again, byte for byte and in the same format, changes no revision, and emits no event.
/// * A failed precondition is `Conflict`, with the actual `revision` in its context (`absent` if there is none).
/// * A body is stored without a check: to check it first, call [`ResourceRef::from_document`] or [`Document::convert`].
/// * A write whose outcome cannot be known is an error whose context says `outcome=unknown`: the write may have happened, or may
///   still happen.
///
/// # Errors
/// `InvalidInput` for a document above [`Document::MAX_BYTES`], or above the store's own limit; `Unavailable` and `Timeout`
/// from a remote store; `Cancelled` if it was closed.
///
/// # Cancel safety
/// A dropped write may still happen, whole. Everything else can be dropped at any time.
#[async_trait]
pub trait StoreBackend: Debug + Send + Sync + 'static {
    /// Name of this configured store, for people and logs; free of secrets.
    fn name(&self) -> &str;

    /// Creates the resource, or replaces its body.
    async fn apply(&self, reference: &ResourceRef, document: Document, precondition: Precondition) -> Result<Applied>;

    /// The resource, or `None` if it does not exist.
    ///
    /// # Errors
    /// `Unsupported`, naming both formats, if `format` cannot carry it.
    async fn get(&self, reference: &ResourceRef, format: Option<ResourceFormat>) -> Result<Option<Arc<Resource>>>;

    /// The selected resources, in the order of their references. All pages show one revision.
    ///
    /// A body that the requested format cannot carry is returned in the format in which it was written, which `document.format`
    /// states: one such body does not fail the whole listing.
    ///
    /// # Errors
    /// `Expired` if the store no longer keeps the revision of the first page; `InvalidInput` for a page token that this store
    /// did not issue.
    async fn list(&self, selector: &Selector, options: PageOptions) -> Result<Page>;

    /// Deletes the resource. Returns the revision of the delete, or `None` if the resource was absent.
    async fn delete(&self, reference: &ResourceRef, precondition: Precondition) -> Result<Option<Revision>>;

    /// The changes from a position on, in commit order, without loss or repetition.
    ///
    /// # Recovery
    /// A watcher that lost its position (too slow, a restore, an outage longer than the store's history) gets
    /// [`StoreEvent::Reset`](super::StoreEvent::Reset) and then the present state; never old events, and never a silent gap.
    ///
    /// # Errors
    /// `Expired` at once if the store's history does not reach back to the revision in [`Since::After`](super::Since::After), or
    /// if this store never had that revision.
    async fn watch(&self, selector: &Selector, options: StoreWatchOptions) -> Result<StoreStream>;

    /// Writes a snapshot of one point in time, without stopping writers. The snapshot names its format and version, and ends with
    /// a seal.
    async fn snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<StoreSnapshotSeal>;

    /// Replaces the whole store by a snapshot, atomically, and returns the revision of the restore. Every resource gets a new
    /// revision, and every watcher a `Reset`.
    ///
    /// # Errors
    /// `Corrupt` if the snapshot is corrupt, `Unsupported` if it is of a later version; nothing was changed.
    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision>;

    /// The store's present counts.
    async fn stats(&self) -> Result<StoreStats>;
}

/// Helpers on every store.
pub trait StoreBackendExt: StoreBackend {
    /// All selected resources at one revision, from as many pages as that takes, as one page without a next. A watch with
    /// `Since::After` that revision continues from there.
    ///
    /// # Errors
    /// `Expired` if in three attempts the revision of the first page expired before the last page was read; otherwise as
    /// [`list`](StoreBackend::list).
    fn list_all(
        &self,
        selector: &Selector,
        format: Option<ResourceFormat>,
    ) -> impl Future<Output = Result<Page>> + Send;
}

impl<S: StoreBackend + ?Sized> StoreBackendExt for S {
    async fn list_all(&self, selector: &Selector, format: Option<ResourceFormat>) -> Result<Page> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match every_page(self, selector, format).await {
                Err(error) if error.kind() == ErrorKind::Expired && attempts < 3 => {}
                done => return done,
            }
        }
    }
}

async fn every_page<S: StoreBackend + ?Sized>(
    store: &S,
    selector: &Selector,
    format: Option<ResourceFormat>,
) -> Result<Page> {
    let options = PageOptions::default().with_format(format);
    let mut all = store.list(selector, options.clone()).await?;
    while let Some(next) = all.next.take() {
        let page = store.list(selector, options.clone().with_after(next)).await?;
        all.items.extend(page.items);
        all.next = page.next;
    }
    Ok(all)
}

/// The store's present counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreStats {
    /// Number of resources in the store.
    pub resource_count: u64,
    /// Number of open watches of this process.
    pub subscriber_count: u64,
    /// Revision of the last write.
    pub revision: Revision,
    /// Oldest revision from which [`Since::After`](super::Since::After) can resume.
    pub oldest: Revision,
}

impl StoreStats {
    /// The counts of a store, for implementors of a store.
    pub fn new(resource_count: u64, subscriber_count: u64, revision: Revision, oldest: Revision) -> Self {
        Self { resource_count, subscriber_count, revision, oldest }
    }
}

/// The seal of a snapshot: its revision, its size and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreSnapshotSeal {
    /// Revision of the store at the snapshot's point in time.
    pub revision: Revision,
    /// Number of resources in the snapshot.
    pub count: u64,
    /// BLAKE3 of all bytes before it.
    pub digest: Digest,
}

impl StoreSnapshotSeal {
    pub(super) fn new(revision: Revision, count: u64, digest: Digest) -> Self {
        Self { revision, count, digest }
    }
}
