//! The bare map, a store written by hand: nested maps, kind → namespace → name, with a lock for each namespace. It keeps no
//! history, has no watchers, and its listings have no order.

use std::{
    collections::HashMap,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{
    contender::Contender,
    objects::{KIND, Object},
};

/// The stored part of a resource.
#[derive(Debug)]
struct Row {
    revision: u64,
    body: Bytes,
}

type Names = HashMap<String, Arc<Row>>;
type Namespaces = HashMap<String, Arc<RwLock<Names>>>;

/// The bare map: kind → namespace → name.
#[derive(Debug, Default)]
pub struct Nested {
    kinds: RwLock<HashMap<String, Namespaces>>,
    revision: AtomicU64,
}

/// Key of a resource.
#[derive(Debug)]
pub struct Path {
    kind: String,
    namespace: String,
    name: String,
}

/// A resource that was found; shares the row with the map.
#[derive(Debug)]
pub struct Found(Arc<Row>);

impl AsRef<[u8]> for Found {
    fn as_ref(&self) -> &[u8] {
        &self.0.body
    }
}

fn kind() -> String {
    let (group, kind) = KIND;
    format!("{group}/{kind}")
}

impl Nested {
    fn names(&self, kind: &str, namespace: &str) -> Option<Arc<RwLock<Names>>> {
        self.kinds.read().expect("no panic").get(kind)?.get(namespace).cloned()
    }

    fn names_or_new(&self, kind: &str, namespace: &str) -> Arc<RwLock<Names>> {
        self.names(kind, namespace).unwrap_or_else(|| {
            let mut kinds = self.kinds.write().expect("no panic");
            Arc::clone(kinds.entry(kind.to_owned()).or_default().entry(namespace.to_owned()).or_default())
        })
    }

    fn put(&self, path: &Path, body: Bytes) {
        let names = self.names_or_new(&path.kind, &path.namespace);
        let mut names = names.write().expect("no panic");
        let row = Arc::new(Row { revision: self.revision.fetch_add(1, Ordering::AcqRel) + 1, body });
        if let Some(there) = names.get_mut(path.name.as_str()) {
            *there = row;
        } else {
            names.insert(path.name.clone(), row);
        }
    }
}

impl Contender for Nested {
    const NAME: &'static str = "bare map";

    type Key = Path;
    type Namespace = (String, String);
    type Body = Bytes;
    type Found = Found;

    fn new() -> Self {
        Self::default()
    }

    fn key(namespace: &str, name: &str) -> Path {
        Path { kind: kind(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn namespace(namespace: &str) -> (String, String) {
        (kind(), namespace.to_owned())
    }

    fn body(object: Object) -> Bytes {
        object.body.into()
    }

    async fn apply(&self, path: &Path, body: Bytes) {
        self.put(path, body);
    }

    async fn get(&self, path: &Path) -> Option<Found> {
        let names = self.names(&path.kind, &path.namespace)?;
        names.read().expect("no panic").get(path.name.as_str()).cloned().map(Found)
    }

    async fn list(&self, (kind, namespace): &(String, String)) -> Vec<Found> {
        let names = self.names(kind, namespace).unwrap_or_default();
        let names = names.read().expect("no panic");
        names.values().cloned().map(Found).collect()
    }

    async fn count(&self) -> usize {
        let kinds = self.kinds.read().expect("no panic");
        kinds.values().flat_map(HashMap::values).map(|names| names.read().expect("no panic").len()).sum()
    }

    /// Writes for each resource its revision and, with their lengths, kind, namespace, name and body; then BLAKE3 of all that.
    async fn snapshot(&self, out: &mut Vec<u8>) {
        let kinds = self.kinds.read().expect("no panic");
        for (kind, namespaces) in &*kinds {
            for (namespace, names) in namespaces {
                for (name, row) in &*names.read().expect("no panic") {
                    out.extend_from_slice(&row.revision.to_le_bytes());
                    for part in [kind.as_bytes(), namespace.as_bytes(), name.as_bytes(), &row.body] {
                        out.extend_from_slice(&u32::try_from(part.len()).expect("a short part").to_le_bytes());
                        out.extend_from_slice(part);
                    }
                }
            }
        }
        let digest = blake3::hash(out);
        out.extend_from_slice(digest.as_bytes());
    }

    async fn restore(&self, from: &[u8]) {
        let (mut rest, digest) = from.split_last_chunk::<32>().expect("a seal");
        assert_eq!(blake3::hash(rest), *digest, "it is corrupt");
        let mut most = 0;
        while let Some((revision, behind)) = rest.split_first_chunk() {
            rest = behind;
            let mut part = || {
                let (length, behind) = rest.split_first_chunk().expect("a length");
                let (part, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
                rest = behind;
                part
            };
            let (kind, namespace, name, body) = (part(), part(), part(), Bytes::copy_from_slice(part()));
            let text = |part| std::str::from_utf8(part).expect("a text");
            let revision = u64::from_le_bytes(*revision);
            most = most.max(revision);
            let names = self.names_or_new(text(kind), text(namespace));
            names.write().expect("no panic").insert(text(name).to_owned(), Arc::new(Row { revision, body }));
        }
        self.revision.store(most, Ordering::Release);
    }
}
