//! After a crash: what was in flight is undone.

use std::sync::Arc;

use super::{
    handle::Held,
    log::OperationLog,
    open_operations::Entry,
    record::{OperationRecord, Stage},
};
use runtide_core::{Error, ErrorKind, Failure, Result, RuntimeBackend};

impl OperationLog {
    /// Undoes what a dead process left: every operation that is neither finished nor in the hands of this process. Call it
    /// after opening, with every backend that operations of this owner act on.
    ///
    /// # Behavior
    /// * Each step that was announced is undone, from the last to the first, and the log says so; then the operation is
    ///   [`RolledBack`](Stage::RolledBack).
    /// * It may itself die and run again, any number of times: to undo twice is harmless.
    /// * A step that cannot be undone now ends that operation's turn, not the others'. Its record says what is pending and
    ///   why; a later call tries again.
    /// * Each call of a backend has the backend's deadline, and 180 s if it has none.
    /// * What a request that was still under way in the runtime made *after* the look, the look cannot see. It carries the
    ///   labels: [`reap_orphans`](Self::reap_orphans) finds it.
    ///
    /// It gives the operations as they are now, oldest first; an empty list means that nothing was in flight.
    ///
    /// # Errors
    /// As an append to the log.
    ///
    /// # Cancel safety
    /// Dropped, it has undone some of it.
    pub async fn recover(&self, backends: &[Arc<dyn RuntimeBackend>]) -> Result<Vec<OperationRecord>> {
        let died = Error::new(ErrorKind::Cancelled, "operations.recover", "its process ended before it did");
        let mut records = Vec::new();
        for held in Held::take_all(self) {
            records.push(self.undo(&held, Failure::from(&died), backends).await?);
        }
        Ok(records)
    }

    /// Undoes one operation. Where the log takes no more, what can be undone is undone even so.
    pub(super) async fn undo(
        &self,
        held: &Held,
        cause: Failure,
        backends: &[Arc<dyn RuntimeBackend>],
    ) -> Result<OperationRecord> {
        let id = held.id();
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
            if let Err(error) = undo.carry_out(backends).await {
                tracing::warn!(operation = %id, name = %undo.name, %error, "a step cannot be undone now");
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
