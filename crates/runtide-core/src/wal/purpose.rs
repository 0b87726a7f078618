//! The use that a log is for: [`WalPurpose`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::record::RecordKind;

/// The use that a log is for. It is written into the log when the log is created, and only that use may append to it: a record of another
/// use would lock out the journal whose log it is. Reading, verifying and salvage are open to all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WalPurpose {
    /// The application's own records.
    #[default]
    Application,
    /// A journal of events.
    Events,
    /// A log of operations.
    Operations,
    /// A store.
    Store,
}

impl WalPurpose {
    /// The kind of all records of such a log; `None` for the application's, which chooses its kinds.
    pub fn kind(self) -> Option<RecordKind> {
        match self {
            Self::Application => None,
            Self::Events => Some(RecordKind(0x8001)),
            Self::Operations => Some(RecordKind(0x8002)),
            Self::Store => Some(RecordKind(0x8003)),
        }
    }

    /// The number in a segment's header. It is never 0, which older logs have.
    pub(super) fn code(self) -> u16 {
        self.kind().map_or(1, |kind| kind.0)
    }

    pub(super) fn of_code(code: u16) -> Option<Self> {
        [Self::Application, Self::Events, Self::Operations, Self::Store].into_iter().find(|one| one.code() == code)
    }

    /// The purpose of a log that has a record of this kind; `None` for [`RecordKind::LOST`], which every log may have.
    pub(super) fn of_kind(kind: RecordKind) -> Option<Self> {
        (kind != RecordKind::LOST).then(|| Self::of_code(kind.0).unwrap_or_default())
    }
}

impl fmt::Display for WalPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Application => "an application",
            Self::Events => "a journal of events",
            Self::Operations => "a log of operations",
            Self::Store => "a store",
        })
    }
}
