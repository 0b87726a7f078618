//! How to make a store.

use std::num::NonZeroUsize;

use runtide_core::store::Revision;

/// How to make a [`MemoryStore`](super::MemoryStore).
///
/// ```
/// use runtide_memory::StoreOptions;
/// use std::num::NonZeroUsize;
///
/// let options = StoreOptions::default().with_history(NonZeroUsize::new(100_000).unwrap());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoreOptions {
    /// The store's name, for people; `memory` if `None`.
    pub name: Option<String>,
    /// How many writes are kept, for `Since::After`, for the pages of a listing, and for watchers that are slow; 10,000 if
    /// `None`. Each keeps the body that it replaced.
    pub history: Option<NonZeroUsize>,
    /// The revision at which an empty store begins. Unless told, it is the time in microseconds, so that a place in an
    /// earlier life of the store is `Expired` and not taken for one in this.
    pub first: Option<Revision>,
}

impl StoreOptions {
    /// The store's name, for people.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many writes are kept.
    #[must_use]
    pub fn with_history(mut self, history: NonZeroUsize) -> Self {
        self.history = Some(history);
        self
    }

    /// The revision at which it begins.
    #[must_use]
    pub fn with_first(mut self, first: Revision) -> Self {
        self.first = Some(first);
        self
    }
}
