//! [`OpenOperations`]: the unfinished operations, folded from the log's entries. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    record::{OperationRecord, OwnerId, Stage},
    undo::Undo,
};
use runtide_core::{Error, ErrorKind, Result, manager::OperationId};

/// Payload of one record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    Submitted {
        id: OperationId,
        owner: OwnerId,
        name: String,
        request: serde_json::Value,
    },
    Stage {
        id: OperationId,
        stage: Stage,
    },
    /// Compensation of the act that follows.
    Will {
        id: OperationId,
        undo: Undo,
    },
    Undone {
        id: OperationId,
        undo: Undo,
    },
    /// Every unfinished operation; replaces all earlier records.
    Checkpoint(Vec<OperationRecord>),
}

impl Entry {
    fn id(&self) -> Option<&OperationId> {
        match self {
            Self::Submitted { id, .. } | Self::Stage { id, .. } | Self::Will { id, .. } | Self::Undone { id, .. } => {
                Some(id)
            }
            Self::Checkpoint(_) => None,
        }
    }
}

/// The unfinished operations.
#[derive(Debug, Default)]
pub(super) struct OpenOperations {
    open: BTreeMap<OperationId, OperationRecord>,
    /// Operations that a task of this process carries out.
    pub(super) claimed: BTreeSet<OperationId>,
}

impl OpenOperations {
    pub(super) fn get(&self, id: &OperationId) -> Option<&OperationRecord> {
        self.open.get(id)
    }

    /// Every unfinished operation, in the order of their begin.
    pub(super) fn open(&self) -> impl Iterator<Item = &OperationRecord> {
        self.open.values()
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Checks that the entry can follow the present state.
    pub(super) fn check(&self, entry: &Entry) -> Result<()> {
        let (Some(id), false) = (entry.id(), matches!(entry, Entry::Submitted { .. })) else { return Ok(()) };
        let conflict = |message: String| {
            Err(Error::new(ErrorKind::Conflict, "operations.enter", message).with_context("operation", id))
        };
        let Some(record) = self.open.get(id) else { return conflict("the operation is finished".to_owned()) };
        match entry {
            Entry::Stage { stage, .. } if !record.stage.allows(stage) => {
                conflict(format!("'{}' cannot follow '{}'", stage.name(), record.stage.name()))
            }
            Entry::Stage { stage: Stage::RolledBack, .. } if !record.pending.is_empty() => {
                conflict(format!("{} steps are still to be undone", record.pending.len()))
            }
            Entry::Will { .. } if record.stage != Stage::Started => {
                conflict(format!("an operation that is '{}' does not act", record.stage.name()))
            }
            Entry::Undone { undo, .. } if !record.pending.contains(undo) => {
                conflict("this step is not pending".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Applies an entry. One of an unknown operation is ignored: the log may begin in the middle of a finished operation.
    pub(super) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Submitted { id, owner, name, request } => {
                self.open.insert(id.clone(), OperationRecord::new(id, owner, name, request));
            }
            Entry::Stage { id, stage } => {
                if stage.is_final() {
                    self.open.remove(&id);
                } else if let Some(record) = self.open.get_mut(&id) {
                    record.stage = stage;
                }
            }
            Entry::Will { id, undo } => {
                if let Some(record) = self.open.get_mut(&id) {
                    record.pending.push(undo);
                }
            }
            Entry::Undone { id, undo } => {
                if let Some(record) = self.open.get_mut(&id)
                    && let Some(at) = record.pending.iter().rposition(|pending| *pending == undo)
                {
                    record.undone.push(record.pending.remove(at));
                }
            }
            Entry::Checkpoint(records) => {
                self.open = records.into_iter().map(|record| (record.id.clone(), record)).collect();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::undo::{Undo, UndoAction};
    use runtide_core::Failure;

    fn failed() -> Stage {
        Stage::Failed(Failure::new(ErrorKind::Timeout, "x", "y"))
    }

    #[test]
    fn stages_follow_each_other_only_as_documented() {
        let stages =
            [Stage::Submitted, Stage::Validated, Stage::Started, Stage::Completed, failed(), Stage::RolledBack];
        let allowed: Vec<(usize, usize)> = (0..stages.len())
            .flat_map(|from| (0..stages.len()).map(move |to| (from, to)))
            .filter(|(from, to)| stages[*from].allows(&stages[*to]))
            .collect();
        assert_eq!(allowed, [(0, 1), (0, 4), (1, 2), (1, 4), (2, 3), (2, 4), (4, 5)]);
    }

    #[test]
    fn steps_are_announced_only_while_it_acts_and_undone_only_once() {
        let (id, mut open_operations) = (OperationId::from("1"), OpenOperations::default());
        let undo = Undo::new("memory:local", UndoAction::RemoveNetwork, "n");
        let will = Entry::Will { id: id.clone(), undo: undo.clone() };
        let undone = Entry::Undone { id: id.clone(), undo };
        open_operations.apply(Entry::Submitted {
            id: id.clone(),
            owner: "me".into(),
            name: "x".into(),
            request: serde_json::Value::Null,
        });
        assert_eq!(open_operations.check(&will).unwrap_err().kind(), ErrorKind::Conflict);
        for stage in [Stage::Validated, Stage::Started] {
            let entry = Entry::Stage { id: id.clone(), stage };
            open_operations.check(&entry).unwrap();
            open_operations.apply(entry);
        }
        open_operations.check(&will).unwrap();
        open_operations.apply(will);
        open_operations.apply(Entry::Stage { id: id.clone(), stage: failed() });
        assert!(
            open_operations.check(&Entry::Stage { id: id.clone(), stage: Stage::RolledBack }).is_err(),
            "a step is pending"
        );
        open_operations.check(&undone).unwrap();
        open_operations.apply(undone.clone());
        assert_eq!(open_operations.check(&undone).unwrap_err().kind(), ErrorKind::Conflict);
        open_operations.apply(Entry::Stage { id: id.clone(), stage: Stage::RolledBack });
        assert_eq!(open_operations.len(), 0);
        assert!(open_operations.check(&Entry::Stage { id, stage: Stage::Validated }).is_err(), "it is finished");
    }
}
