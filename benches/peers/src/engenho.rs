//! engenho-revoada's store in memory.

use engenho_revoada::{
    face::{ResourceFormat, ResourceRef},
    face_store::InMemoryStore,
};
use runtide_benches::store::{Contender, KIND, Object};

/// engenho-revoada's store in memory.
#[derive(Debug)]
pub struct Engenho(InMemoryStore);

impl Contender for Engenho {
    const NAME: &'static str = "engenho 0.1.4";
    const NOTE: &'static str = "One lock for everything, which a listing walks; it reads the body to know what it names, and gives \
                                copies. It has no revisions. Its snapshots are not sealed.";
    const PART: usize = 10_000;
    const LISTS: usize = 2;

    type Key = ResourceRef;
    type Namespace = String;
    type Body = Vec<u8>;
    type Found = Vec<u8>;

    fn new() -> Self {
        Self(InMemoryStore::new("bench"))
    }

    fn key(namespace: &str, name: &str) -> ResourceRef {
        ResourceRef { kind: KIND.1.to_owned(), name: name.to_owned(), namespace: Some(namespace.to_owned()) }
    }

    fn namespace(namespace: &str) -> String {
        namespace.to_owned()
    }

    fn body(object: Object) -> Vec<u8> {
        object.body
    }

    async fn apply(&self, _: &ResourceRef, body: Vec<u8>) {
        self.0.apply(ResourceFormat::Json, &body).expect("an apply");
    }

    async fn get(&self, key: &ResourceRef) -> Option<Vec<u8>> {
        self.0.get(key, ResourceFormat::Json).ok()
    }

    async fn list(&self, namespace: &String) -> Vec<Vec<u8>> {
        self.0.list(KIND.1, Some(namespace), ResourceFormat::Json).expect("a listing")
    }

    async fn count(&self) -> usize {
        self.0.len()
    }

    async fn snapshot(&self, out: &mut Vec<u8>) {
        *out = self.0.snapshot().expect("a snapshot");
    }

    async fn restore(&self, from: &[u8]) {
        self.0.restore(from).expect("a restore");
    }
}
