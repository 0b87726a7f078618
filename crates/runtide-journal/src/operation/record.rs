//! What the log has of an operation.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::undo::Undo;
use runtide_core::{Error, ErrorKind, Failure, Result, backend::names, manager::OperationId};

names! {
    /// Who creates: the value of the [`OWNER_LABEL`](super::OWNER_LABEL). It is the same after a restart, and has one log.
    OwnerId;
}

/// How far an operation is.
///
/// ```text
/// Submitted ─► Validated ─► Started ─► Completed
///     └────────────┴───────────┴─► Failed ─► RolledBack
/// ```
///
/// `Completed` and `RolledBack` are final. `Failed` still owes its undoing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stage {
    /// Asked for.
    Submitted,
    /// The request makes sense.
    Validated,
    /// It acts.
    Started,
    /// Done: nothing is pending any more.
    Completed,
    /// It cannot go on, and why.
    Failed(Failure),
    /// Everything that it had done is undone.
    RolledBack,
}

impl Stage {
    /// Whether nothing comes after it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack)
    }

    /// Whether `next` can follow.
    pub(super) fn allows(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Submitted, Self::Validated)
            | (Self::Validated, Self::Started)
            | (Self::Started, Self::Completed)
            | (Self::Failed(_), Self::RolledBack) => true,
            (before, Self::Failed(_)) => matches!(before, Self::Submitted | Self::Validated | Self::Started),
            _ => false,
        }
    }

    /// Its name, as it is written in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Validated => "validated",
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Failed(_) => "failed",
            Self::RolledBack => "rolled_back",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => write!(f, "failed: {failure}"),
            other => f.write_str(other.name()),
        }
    }
}

/// An operation, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationRecord {
    /// Which one.
    pub id: OperationId,
    /// Whose.
    pub owner: OwnerId,
    /// What sort of operation, as `sidecar.start`.
    pub name: String,
    /// How far it is.
    pub stage: Stage,
    /// What was undone, in the order in which it was announced.
    pub undone: Vec<Undo>,
    /// What is still to be undone, in the order in which it was announced; it is undone from the end.
    pub pending: Vec<Undo>,
    /// Why what is pending could not be undone when it was last tried. Not in the log.
    pub obstacle: Option<Failure>,
    request: serde_json::Value,
}

impl OperationRecord {
    pub(super) fn new(id: OperationId, owner: OwnerId, name: String, request: serde_json::Value) -> Self {
        Self {
            id,
            owner,
            name,
            stage: Stage::Submitted,
            undone: Vec::new(),
            pending: Vec::new(),
            obstacle: None,
            request,
        }
    }

    /// What was asked for.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if it is not a `T`.
    pub fn request<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.request).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "operations.request", "the request is of another type")
                .with_context("name", &self.name)
                .with_source(error)
        })
    }
}
