//! The two-phase writes of a local store, so that a journal can stand between deciding a write and publishing it.

use std::sync::Arc;

use super::{ApplyOutcome, Document, Precondition, Resource, ResourceRef, Revision, StoreBackend};
use crate::error::Result;

/// A store that lets a journal stand between deciding a write and publishing it.
///
/// # Behavior
/// * `prepare` decides against the prepared writes as well as the published ones, and publishes nothing.
/// * Prepared writes are published in the order of their revisions, or all of them are forgotten, the last first.
/// * None of the calls waits for anything but a lock.
pub trait LocalStore: StoreBackend {
    /// Decides a write, and reserves its revision; `None` instead of a document is a delete.
    ///
    /// # Errors
    /// `Conflict` if the precondition does not hold; `InvalidInput` as [`StoreBackend::apply`].
    fn prepare(
        &self,
        reference: &ResourceRef,
        document: Option<Document>,
        precondition: Precondition,
    ) -> Result<Planned>;

    /// Publishes prepared writes, or those that a journal replays: in the order given, which is that of the revisions.
    fn publish(&self, planned: Vec<Planned>);

    /// Takes a prepared write back.
    fn forget(&self, planned: Planned);

    /// Number of published resources.
    fn count(&self) -> u64;

    /// The published resources at one moment, in the order of the references.
    fn image(&self) -> StoreImage;

    /// Replaces the published resources and drops the prepared writes. Watchers get a `Reset`, and the revision is the image's.
    /// From now on the store belongs to the journal: `apply`, `delete` and `restore` by any other caller are `Conflict`.
    fn load(&self, image: StoreImage);
}

/// A decided write, its revision reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Planned {
    /// Reference of the resource that is written.
    pub reference: ResourceRef,
    /// The new body; `None` for a delete.
    pub document: Option<Document>,
    /// The effect of the write once it is published.
    pub change: PlannedChange,
    /// Revision of the write; of the present resource, if nothing changes.
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
    /// A decided write, for those who implement a store.
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
    /// The contents of a store, for those who implement one.
    pub fn new(revision: Revision, resources: Vec<Arc<Resource>>) -> Self {
        Self { revision, resources }
    }
}
