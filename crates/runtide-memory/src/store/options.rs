//! The options of a memory store.

use std::num::NonZeroUsize;

use runtide_core::store::Revision;

/// Options of a [`MemoryStore`](super::MemoryStore).
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
    /// Name of the store in logs and messages; `memory` if `None`.
    pub name: Option<String>,
    /// Number of writes that the history keeps: for `Since::After`, for the later pages of a listing, and for slow watchers;
    /// 10,000 if `None`. Each also keeps the body that it replaced in memory.
    pub history: Option<NonZeroUsize>,
    /// Revision of the empty store. If `None`, it is the Unix time in microseconds, so that a revision from before a restart of
    /// the process is `Expired` and not mistaken for one of this store.
    pub first: Option<Revision>,
}

impl StoreOptions {
    /// Sets the store's name in logs and messages.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the number of writes that the history keeps.
    #[must_use]
    pub fn with_history(mut self, history: NonZeroUsize) -> Self {
        self.history = Some(history);
        self
    }

    /// Sets the revision of the empty store.
    #[must_use]
    pub fn with_first(mut self, first: Revision) -> Self {
        self.first = Some(first);
        self
    }
}
