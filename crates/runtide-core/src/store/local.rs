//! The two-phase writes of a local store, so that a journal can stand between deciding a write and publishing it.

use std::sync::Arc;

use super::{ApplyOutcome, Document, Precondition, Resource, ResourceRef, Revision, StoreBackend};
use crate::error::Result;

/// A store that lets a journal stand between deciding a write and publishing it.
///
/// # Behavior
/// * `prepare` decides on the state with all prepared writes applied, and publishes nothing.
/// * The caller publishes prepared writes in the order of their revisions, or forgets all of them, the last first.
/// * No call waits for anything but a lock.
pub trait LocalStore: StoreBackend {
    /// Decides the outcome of a write, and reserves its revision; a `document` of `None` is a delete.
    ///
    /// # Errors
    /// `Conflict` if the precondition does not hold; `InvalidInput` as [`StoreBackend::apply`].
    fn prepare(
        &self,
        reference: &ResourceRef,
        document: Option<Document>,
        precondition: Precondition,
    ) -> Result<Planned>;

    /// Publishes prepared writes, or writes that a journal replays; they are in the order of their revisions.
    fn publish(&self, planned: Vec<Planned>);

    /// Withdraws a prepared write.
    fn forget(&self, planned: Planned);

    /// Number of published resources.
    fn count(&self) -> u64;

    /// The published resources at one moment, in the order of the references.
    fn image(&self) -> StoreImage;

    /// Replaces the published resources and drops the prepared writes. Watchers get a `Reset`; the store's revision becomes the
    /// image's. From now on the store belongs to the journal: `apply`, `delete` and `restore` by any other caller are `Conflict`.
    fn load(&self, image: StoreImage);
}

/// A write whose outcome is decided and whose revision is reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Planned {
    /// Reference of the resource that is written.
    pub reference: ResourceRef,
    /// The new body; `None` for a delete.
    pub document: Option<Document>,
    /// The effect of the write once it is published.
    pub change: PlannedChange,
    /// Revision that was reserved for the write; the present resource's, if nothing changes.
    pub revision: Revision,
}

/// Effect of a decided write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlannedChange {
    /// The resource is created.
    Create,
    /// The resource is replaced.
    Replace,
    /// The resource is deleted.
    Delete,
    /// No change: the resource is there already, byte for byte, or is absent already. There is nothing to publish, nor to forget.
    Nothing,
}

impl PlannedChange {
    /// The outcome that an apply returns to its caller.
    pub fn outcome(self) -> ApplyOutcome {
        match self {
            Self::Create => ApplyOutcome::Created,
            Self::Replace | Self::Delete => ApplyOutcome::Changed,
            Self::Nothing => ApplyOutcome::Unchanged,
        }
    }
}

impl Planned {
    /// A decided write, for implementors of a store.
    pub fn new(reference: ResourceRef, document: Option<Document>, change: PlannedChange, revision: Revision) -> Self {
        Self { reference, document, change, revision }
    }
}

/// All that a store holds, at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoreImage {
    /// Revision of the store at that moment.
    pub revision: Revision,
    /// The resources, in the order of their references.
    pub resources: Vec<Arc<Resource>>,
}

impl StoreImage {
    /// The contents of a store, for implementors of a store.
    pub fn new(revision: Revision, resources: Vec<Arc<Resource>>) -> Self {
        Self { revision, resources }
    }
}
