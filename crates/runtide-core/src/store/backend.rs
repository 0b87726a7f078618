//! What every store can do: [`StoreBackend`].

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Applied, Digest, Document, Page, PageOptions, Precondition, Resource, ResourceFormat, ResourceRef, Revision,
    Selector, StoreStream, StoreWatchOptions,
};
use crate::error::{ErrorKind, Result};

/// Declared resources under one order of revisions.
///
/// # Behavior
/// * `Ok` means that it is done, as durably as this store makes anything; nothing is published before.
/// * Every write that changes something has a [`Revision`] of its own, and all of them one order. Applying what is there
///   already, byte for byte and in the same format, changes no revision, and no watcher hears of it.
/// * A failed precondition is `Conflict`, with the actual `revision` in its context (`absent` if there is none).
/// * A body is taken as it is: whoever wants it checked calls [`ResourceRef::from_document`] or [`Document::convert`] first.
/// * A write of which nobody knows whether it happened is an error whose context says `outcome=unknown`: it may be there, or may
///   still come.
///
/// # Errors
/// `InvalidInput` for a document above [`Document::MAX_BYTES`], or above what the store takes; `Unavailable` and `Timeout`
/// where a store is elsewhere; `Cancelled` if it was closed.
///
/// # Cancel safety
/// A dropped write may still happen, whole. Everything else can be dropped at any time.
#[async_trait]
pub trait StoreBackend: Debug + Send + Sync + 'static {
    /// One configured store, for people and logs; free of secrets.
    fn name(&self) -> &str;

    /// Creates or replaces.
    async fn apply(&self, reference: &ResourceRef, document: Document, precondition: Precondition) -> Result<Applied>;

    /// The resource, or `None` if it is not there.
    ///
    /// # Errors
    /// `Unsupported`, naming both formats, if `format` cannot carry it.
    async fn get(&self, reference: &ResourceRef, format: Option<ResourceFormat>) -> Result<Option<Arc<Resource>>>;

    /// The selected resources, in the order of their references. All pages show one revision.
    ///
    /// What the format asked for cannot carry comes as it was written, and its `document.format` says so: one odd body does
    /// not hide the others.
    ///
    /// # Errors
    /// `Expired` if the revision of the first page is not kept any more; `InvalidInput` for a token that is not this store's.
    async fn list(&self, selector: &Selector, options: PageOptions) -> Result<Page>;

    /// Removes it; the revision of that, or `None` if it was not there.
    async fn delete(&self, reference: &ResourceRef, precondition: Precondition) -> Result<Option<Revision>>;

    /// What happens from a place on, in commit order, nothing lost and nothing twice.
    ///
    /// # Recovery
    /// A watcher that lost its place (too slow, a restore, an outage longer than the store's history) gets
    /// [`StoreEvent::Reset`](super::StoreEvent::Reset) and then what is there; never old events, and never a silent gap.
    ///
    /// # Errors
    /// `Expired` at once if the store's history does not reach back to [`Since::After`](super::Since::After), or if that
    /// revision is none of this store's.
    async fn watch(&self, selector: &Selector, options: StoreWatchOptions) -> Result<StoreStream>;

    /// Writes a point in time, without stopping writers. It describes itself, and is sealed.
    async fn snapshot(&self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<StoreSnapshotSeal>;

    /// Replaces everything, at once or not at all; the revision of that. Every resource gets a new revision, and every
    /// watcher a `Reset`.
    ///
    /// # Errors
    /// `Corrupt` if the snapshot is corrupt, `Unsupported` if it is of a later version; nothing was changed.
    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision>;

    /// Counts, as they are now.
    async fn stats(&self) -> Result<StoreStats>;
}

/// What every store can do because of what it is.
pub trait StoreBackendExt: StoreBackend {
    /// All selected resources at one revision, however many pages that takes: one page without a next. A watch goes on from
    /// there, `Since::After`.
    ///
    /// # Errors
    /// `Expired` if three times in a row the store went on faster than its pages could be read; as
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

/// Counts, as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreStats {
    /// Resources that are there.
    pub resource_count: u64,
    /// Watches that are open here.
    pub subscriber_count: u64,
    /// The last write.
    pub revision: Revision,
    /// How far back [`Since::After`](super::Since::After) reaches.
    pub oldest: Revision,
}

impl StoreStats {
    /// What a store answers.
    pub fn new(resource_count: u64, subscriber_count: u64, revision: Revision, oldest: Revision) -> Self {
        Self { resource_count, subscriber_count, revision, oldest }
    }
}

/// What seals a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreSnapshotSeal {
    /// The point in time.
    pub revision: Revision,
    /// How many resources.
    pub count: u64,
    /// BLAKE3 of all bytes before it.
    pub digest: Digest,
}

impl StoreSnapshotSeal {
    pub(super) fn new(revision: Revision, count: u64, digest: Digest) -> Self {
        Self { revision, count, digest }
    }
}
