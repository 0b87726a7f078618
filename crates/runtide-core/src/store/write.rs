//! What a write asks for, and what it did.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Resource;

/// A place in the one commit order of a store; it rises also over a restore.
///
/// Numbers may be left out: only their order means something. Those of different stores do not compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What must hold at the commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// The resource is not there.
    Absent,
    /// The resource was last written at this revision.
    Is(Revision),
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ApplyOutcome {
    /// It was not there, and is now.
    Created,
    /// It was there, and is another now.
    Changed,
    /// It was there just so: no revision was taken, and nobody hears of it.
    Unchanged,
}

/// What a write did, and where.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Applied {
    /// What it did.
    pub outcome: ApplyOutcome,
    /// The resource's revision, which `Unchanged` leaves as it was.
    pub revision: Revision,
    written: Written,
}

/// What was written.
#[derive(Clone, Debug)]
enum Written {
    Bytes(Bytes),
    Resource(Arc<Resource>),
}

impl Applied {
    /// What a store answers.
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

    /// The BLAKE3 of the bytes as they were written; computed when it is asked for.
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

/// A BLAKE3 hash; text and JSON are 64 digits of hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hash = blake3::Hash::from_hex(text).map_err(serde::de::Error::custom)?;
        Ok(Self(*hash.as_bytes()))
    }
}
