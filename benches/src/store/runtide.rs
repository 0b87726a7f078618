//! Runtide's `MemoryStore` as a contender, driven through `StoreBackend`.

use std::sync::Arc;

use runtide_core::store::{Document, PageOptions, Precondition, Resource, ResourceRef, Selector, StoreBackend};
use runtide_memory::MemoryStore;

use super::{
    contender::Contender,
    objects::{KIND, Object},
};

/// Runtide's `MemoryStore`.
#[derive(Debug)]
pub struct Runtide(MemoryStore);

/// A resource that was found; shared with the store.
#[derive(Debug)]
pub struct Found(Arc<Resource>);

impl AsRef<[u8]> for Found {
    fn as_ref(&self) -> &[u8] {
        &self.0.document.bytes
    }
}

impl Contender for Runtide {
    const NAME: &'static str = "Runtide";

    type Key = ResourceRef;
    type Namespace = Selector;
    type Body = Document;
    type Found = Found;

    fn new() -> Self {
        Self(MemoryStore::new())
    }

    fn key(namespace: &str, name: &str) -> ResourceRef {
        let (group, kind) = KIND;
        ResourceRef::new(group, kind, namespace, name).expect("a reference")
    }

    fn namespace(namespace: &str) -> Selector {
        let (group, kind) = KIND;
        Selector::all().with_group(group).with_kind(kind).with_namespace(namespace)
    }

    fn body(object: Object) -> Document {
        Document::json(object.body)
    }

    async fn apply(&self, key: &ResourceRef, body: Document) {
        self.0.apply(key, body, Precondition::None).await.expect("an apply");
    }

    async fn get(&self, key: &ResourceRef) -> Option<Found> {
        self.0.get(key, None).await.expect("a get").map(Found)
    }

    async fn list(&self, namespace: &Selector) -> Vec<Found> {
        let page = self.0.list(namespace, PageOptions::default()).await.expect("a listing");
        // Reuses the vector's allocation: nothing is copied.
        page.items.into_iter().map(Found).collect()
    }

    async fn count(&self) -> usize {
        let stats = self.0.stats().await.expect("counts");
        usize::try_from(stats.resource_count).expect("a number")
    }

    async fn snapshot(&self, out: &mut Vec<u8>) {
        self.0.snapshot(out).await.expect("a snapshot");
    }

    async fn restore(&self, mut from: &[u8]) {
        self.0.restore(&mut from).await.expect("a restore");
    }
}
