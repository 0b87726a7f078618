//! [`Contender`]: the interface by which the benches drive a store.

use super::objects::{NAMESPACES, Object};

/// A store to be compared. Keys and bodies are made in its own types before the clock starts, so that conversions are not
/// measured.
pub trait Contender: Send + Sync + Sized + 'static {
    /// Name of the store in the tables.
    const NAME: &'static str;

    /// Note that is printed below the table: a difference that must be known to read the figures. Empty if there is none.
    const NOTE: &'static str = "";

    /// `true` if the store can write and restore snapshots.
    const SNAPSHOTS: bool = true;

    /// Number of calls in one turn on a store of a million resources; a slow store takes fewer.
    const PART: usize = 100_000;

    /// Number of listings in one turn.
    const LISTS: usize = NAMESPACES;

    /// The store's own key of a resource.
    type Key: Send + Sync + 'static;

    /// The store's own key of a namespace, for a listing.
    type Namespace: Send + Sync + 'static;

    /// A body in the form that `apply` takes.
    type Body: Send + 'static;

    /// A resource as the store returns it; `as_ref` is its body.
    type Found: AsRef<[u8]> + Send;

    /// Creates an empty store.
    fn new() -> Self;

    /// The key of a resource.
    fn key(namespace: &str, name: &str) -> Self::Key;

    /// The key of a namespace.
    fn namespace(namespace: &str) -> Self::Namespace;

    /// Converts a resource's body.
    fn body(object: Object) -> Self::Body;

    /// Creates the resource, or replaces its body.
    fn apply(&self, key: &Self::Key, body: Self::Body) -> impl Future<Output = ()> + Send;

    /// The resource; `None` if it is not in the store.
    fn get(&self, key: &Self::Key) -> impl Future<Output = Option<Self::Found>> + Send;

    /// All resources of a namespace.
    fn list(&self, namespace: &Self::Namespace) -> impl Future<Output = Vec<Self::Found>> + Send;

    /// Number of resources in the store.
    fn count(&self) -> impl Future<Output = usize> + Send;

    /// Writes the whole store to `out`, which is empty.
    fn snapshot(&self, _out: &mut Vec<u8>) -> impl Future<Output = ()> + Send {
        async { unreachable!("it says that it cannot") }
    }

    /// Reads a snapshot into this store, which is empty.
    fn restore(&self, _from: &[u8]) -> impl Future<Output = ()> + Send {
        async { unreachable!("it says that it cannot") }
    }
}
