//! Recovery after a crash: the operations in flight are undone.

use std::sync::Arc;

use super::{
    claim::Claim,
    log::OperationLog,
    open_operations::Entry,
    record::{OperationRecord, Stage},
};
use runtide_core::{Error, ErrorKind, Failure, Result, RuntimeBackend};

impl OperationLog {
    /// Undoes the operations of a dead process: every unfinished operation that no task of this process carries out. Call it
    /// after opening, with every backend that operations of this owner act on.
    ///
    /// # Behavior
    /// * Each announced step is undone, from the last to the first, and logged as undone; then the operation is
    ///   [`RolledBack`](Stage::RolledBack).
    /// * It may itself be killed and run again, any number of times: to undo twice is harmless.
    /// * A step that cannot be undone now ends that operation's turn, not the others'. Its record has the pending steps and the
    ///   reason; a later call tries again.
    /// * Each call of a backend has the backend's deadline, and 180 s if it has none.
    /// * An object that a request still under way in the runtime makes *after* the listing is not found. It carries the labels:
    ///   [`reap_orphans`](Self::reap_orphans) finds it.
    ///
    /// Returns the operations in their present stage, oldest first; an empty list means that none was in flight.
    ///
    /// # Errors
    /// `Cancelled` after [`close`](Self::close), and nothing more is undone; as an append to the log.
    ///
    /// # Cancel safety
    /// If the future is dropped, some steps are undone.
    pub async fn recover(&self, backends: &[Arc<dyn RuntimeBackend>]) -> Result<Vec<OperationRecord>> {
        self.check_open("operations.recover")?;
        let died = Error::new(ErrorKind::Cancelled, "operations.recover", "its process ended before it did");
        let mut records = Vec::new();
        for claim in Claim::take_all(self) {
            records.push(self.undo(&claim, Failure::from(&died), backends).await?);
        }
        Ok(records)
    }

    /// Undoes one operation. If the log fails, every step that can be undone is undone even so, but none once the log is closed.
    pub(super) async fn undo(
        &self,
        claim: &Claim,
        cause: Failure,
        backends: &[Arc<dyn RuntimeBackend>],
    ) -> Result<OperationRecord> {
        let id = claim.id();
        self.check_open("operations.roll_back")?;
        let Some(mut record) = self.record(id) else {
            return Err(Error::new(ErrorKind::Conflict, "operations.roll_back", "the operation is finished")
                .with_context("operation", id));
        };
        let mut unwritten = None;
        if !matches!(record.stage, Stage::Failed(_)) {
            record.stage = Stage::Failed(cause);
            self.note(Entry::Stage { id: id.clone(), stage: record.stage.clone() }, &mut unwritten).await;
        }
        while let Some(undo) = record.pending.last().cloned() {
            self.check_open("operations.roll_back")?;
            if let Err(error) = undo.carry_out(backends).await {
                tracing::warn!(
                    operation = %id,
                    name = %undo.name,
                    error = format_args!("{error:#}"),
                    "a step cannot be undone now"
                );
                record.obstacle = Some(Failure::from(&error));
                break;
            }
            self.note(Entry::Undone { id: id.clone(), undo: undo.clone() }, &mut unwritten).await;
            record.pending.pop();
            record.undone.push(undo);
        }
        if record.pending.is_empty() {
            record.stage = Stage::RolledBack;
            self.note(Entry::Stage { id: id.clone(), stage: Stage::RolledBack }, &mut unwritten).await;
        }
        unwritten.map_or(Ok(record), Err)
    }

    async fn note(&self, entry: Entry, unwritten: &mut Option<Error>) {
        if unwritten.is_none()
            && let Err(error) = self.write(entry).await
        {
            *unwritten = Some(error);
        }
    }
}
