//! [`OperationRecord`]: an operation, as the log has it.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::undo::Undo;
use runtide_core::{Error, ErrorKind, Failure, Result, backend::names, manager::OperationId};

names! {
    /// The application that creates objects: the value of the [`OWNER_LABEL`](super::OWNER_LABEL). It is the same after a
    /// restart, and has one log.
    OwnerId;
}

/// Stage of an operation.
///
/// ```text
/// Submitted ─► Validated ─► Started ─► Completed
///     └────────────┴───────────┴─► Failed ─► RolledBack
/// ```
///
/// `Completed` and `RolledBack` are final. A `Failed` operation is still to be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stage {
    /// The operation was requested.
    Submitted,
    /// The request was checked.
    Validated,
    /// The operation acts.
    Started,
    /// The operation succeeded: no step is pending.
    Completed,
    /// The operation cannot continue, for this reason.
    Failed(Failure),
    /// Every step is undone.
    RolledBack,
}

impl Stage {
    /// No stage follows this one.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack)
    }

    /// `next` can follow this stage.
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

    /// The stage's name in the JSON form.
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
    /// Random and time-ordered (UUID version 7).
    pub id: OperationId,
    /// Owner of the log.
    pub owner: OwnerId,
    /// Kind of operation, as `sidecar.start`.
    pub name: String,
    /// The last stage that the operation entered.
    pub stage: Stage,
    /// Steps that were undone, in the order of their announcements.
    pub undone: Vec<Undo>,
    /// Steps still to be undone, in the order of their announcements; the last one is undone first.
    // Checkpoints of earlier versions have it as `owed`.
    #[serde(alias = "owed")]
    pub pending: Vec<Undo>,
    /// The error that the last attempt to undo the pending steps met. Not in the log.
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

    /// The request, as it was submitted.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_of_an_earlier_version_is_read() {
        let old = r#"{"id":"1","owner":"me","name":"sidecar.start","stage":"started","undone":[],
            "owed":[{"backend":"docker","action":"remove_network","name":"net"}],"obstacle":null,"request":null}"#;
        let read: OperationRecord = serde_json::from_str(old).unwrap();
        assert_eq!(read.pending.len(), 1);
        let again: OperationRecord = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again.pending, read.pending);
    }
}
