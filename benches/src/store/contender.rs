//! A store that is compared, in the terms in which it is driven.

use super::objects::{NAMESPACES, Object};

/// A store that is compared. What it takes is made before the clock runs.
pub trait Contender: Send + Sync + Sized + 'static {
    /// As the table has it.
    const NAME: &'static str;

    /// What must be known to read its figures; empty if nothing.
    const NOTE: &'static str = "";

    /// Whether it can write and read snapshots.
    const SNAPSHOTS: bool = true;

    /// How many of a million are enough for a turn.
    const PART: usize = 100_000;

    /// How many listings are.
    const LISTS: usize = NAMESPACES;

    /// What names a resource to it.
    type Key: Send + Sync + 'static;

    /// What names a namespace to it, for a listing.
    type Namespace: Send + Sync + 'static;

    /// A body as it takes it.
    type Body: Send + 'static;

    /// A resource as it gives it.
    type Found: AsRef<[u8]> + Send;

    /// An empty store.
    fn new() -> Self;

    /// Its name for a resource.
    fn key(namespace: &str, name: &str) -> Self::Key;

    /// Its name for a namespace.
    fn namespace(namespace: &str) -> Self::Namespace;

    /// Its form of a body.
    fn body(object: Object) -> Self::Body;

    /// Creates or replaces.
    fn apply(&self, key: &Self::Key, body: Self::Body) -> impl Future<Output = ()> + Send;

    /// What is there.
    fn get(&self, key: &Self::Key) -> impl Future<Output = Option<Self::Found>> + Send;

    /// All of a namespace.
    fn list(&self, namespace: &Self::Namespace) -> impl Future<Output = Vec<Self::Found>> + Send;

    /// How many there are.
    fn count(&self) -> impl Future<Output = usize> + Send;

    /// Writes all of it to an empty buffer.
    fn snapshot(&self, _out: &mut Vec<u8>) -> impl Future<Output = ()> + Send {
        async { unreachable!("it says that it cannot") }
    }

    /// Reads it back into an empty store.
    fn restore(&self, _from: &[u8]) -> impl Future<Output = ()> + Send {
        async { unreachable!("it says that it cannot") }
    }
}
