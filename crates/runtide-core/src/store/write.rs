//! Preconditions of a write, and its outcome.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Digest, Resource, Revision};

/// A condition that must hold at the commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Precondition {
    /// No condition.
    #[default]
    None,
    /// The resource is absent.
    Absent,
    /// The resource was last written at this revision.
    Is(Revision),
}

/// Effect of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ApplyOutcome {
    /// The resource was absent, and was created.
    Created,
    /// The resource was replaced.
    Changed,
    /// The resource was there, byte for byte: no revision was taken, and no event is emitted.
    Unchanged,
}

/// Result of an apply: its effect and its revision.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Applied {
    /// Effect of the write.
    pub outcome: ApplyOutcome,
    /// The resource's revision, which `Unchanged` leaves as it was.
    pub revision: Revision,
    written: Written,
}

/// The written bytes.
#[derive(Clone, Debug)]
enum Written {
    Bytes(Bytes),
    Resource(Arc<Resource>),
}

impl Applied {
    /// The result of an apply, for those who implement a store.
    pub fn new(outcome: ApplyOutcome, revision: Revision, written: Bytes) -> Self {
        Self { outcome, revision, written: Written::Bytes(written) }
    }

    /// The same, for a store that has the resource at hand: a first clone of its bytes would allocate.
    pub fn of(outcome: ApplyOutcome, resource: Arc<Resource>) -> Self {
        Self { outcome, revision: resource.revision, written: Written::Resource(resource) }
    }

    fn written(&self) -> &Bytes {
        match &self.written {
            Written::Bytes(bytes) => bytes,
            Written::Resource(resource) => &resource.written().bytes,
        }
    }

    /// BLAKE3 of the bytes as they were written; computed by this call.
    pub fn digest(&self) -> Digest {
        Digest::of(self.written())
    }
}

impl PartialEq for Applied {
    fn eq(&self, other: &Self) -> bool {
        (self.outcome, self.revision, self.written()) == (other.outcome, other.revision, other.written())
    }
}

impl Eq for Applied {}
