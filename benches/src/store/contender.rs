//! A store that is compared, in the terms in which it is driven.

use std::{cell::RefCell, fmt, sync::Arc};

use super::{
    objects::{NAMESPACES, Object, Objects},
    turns,
    work::{Holder, Peer, Turn, Work, of_million},
};

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

/// A contender at each work. The store that is filled for one is kept for the next.
pub struct Peered<C>(RefCell<Option<Arc<C>>>);

impl<C: Contender> Peered<C> {
    /// A million of 512 bytes, or what will do for a trial.
    fn million() -> Objects {
        Objects { count: of_million(1_000_000), size: 512 }
    }

    fn filled(&self) -> Arc<C> {
        Arc::clone(self.0.borrow_mut().get_or_insert_with(|| Arc::new(turns::filled(Self::million()))))
    }
}

impl<C> Default for Peered<C> {
    fn default() -> Self {
        Self(RefCell::new(None))
    }
}

impl<C> fmt::Debug for Peered<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peered").finish()
    }
}

impl<C: Contender> Peer for Peered<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn note(&self) -> &'static str {
        C::NOTE
    }

    fn turn(&self, work: Work) -> Option<Turn> {
        let part = of_million(C::PART);
        let small = Objects { count: of_million(100_000), ..Self::million() };
        Some(match work {
            Work::Fill => turns::fill::<C>(Self::million()),
            Work::Replace => turns::replace(self.filled(), Self::million(), part),
            Work::Get => turns::get(self.filled(), Self::million(), part),
            Work::List => turns::list(self.filled(), Self::million()),
            Work::ListAfterAdding => turns::list_after_adding(self.filled(), Self::million()),
            Work::TwoThreads => turns::two_threads(self.filled(), Self::million(), part),
            Work::Snapshot if C::SNAPSHOTS => turns::snapshot::<C>(small),
            Work::Restore if C::SNAPSHOTS => turns::restore::<C>(small),
            Work::Snapshot | Work::Restore => return None,
        })
    }

    fn clear(&self) {
        self.0.take();
    }

    fn fill(&self, count: usize, size: usize) -> Box<dyn Holder> {
        turns::holder::<C>(Objects { count, size })
    }
}
