//! [`Operation`]: one operation in flight, in the hands of who carries it out.

use std::sync::Arc;

use super::{
    log::OperationLog,
    open_operations::Entry,
    record::{OperationRecord, Stage},
    undo::Undo,
};
use runtide_core::{Error, ErrorKind, Failure, Result, RuntimeBackend, backend::lock, manager::OperationId, wal::Seq};

/// One operation in flight.
///
/// Each call is durable when it returns. [`will`](Self::will) comes before the act that it can undo. Dropped unfinished, it
/// is for [`OperationLog::recover`].
#[derive(Debug)]
pub struct Operation {
    log: OperationLog,
    id: OperationId,
    held: Held,
}

/// Keeps `recover` away from what somebody in this process has in his hands.
#[derive(Debug)]
pub(super) struct Held {
    log: OperationLog,
    id: OperationId,
}

impl Held {
    /// Takes it, whoever has it.
    pub(super) fn take(log: &OperationLog, id: &OperationId) -> Self {
        lock(&log.inner.open_operations).held.insert(id.clone());
        Self { log: log.clone(), id: id.clone() }
    }

    /// Takes what is not finished and nobody has.
    pub(super) fn take_all(log: &OperationLog) -> Vec<Self> {
        let mut open_operations = lock(&log.inner.open_operations);
        let free =
            open_operations.open().map(|record| record.id.clone()).filter(|id| !open_operations.held.contains(id));
        let free: Vec<OperationId> = free.collect();
        open_operations.held.extend(free.iter().cloned());
        drop(open_operations);
        free.into_iter().map(|id| Self { log: log.clone(), id }).collect()
    }

    pub(super) fn id(&self) -> &OperationId {
        &self.id
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.log.inner.open_operations).held.remove(&self.id);
    }
}

impl Operation {
    pub(super) fn new(log: OperationLog, id: OperationId, held: Held) -> Self {
        Self { log, id, held }
    }

    /// Random and time-ordered (UUID version 7).
    pub fn id(&self) -> &OperationId {
        &self.id
    }

    /// Whose log it is in.
    pub fn log(&self) -> &OperationLog {
        &self.log
    }

    /// How far it is; `None` once it is finished.
    pub fn stage(&self) -> Option<Stage> {
        self.log.stage(&self.id)
    }

    /// Goes on to the next stage: durable when it returns.
    ///
    /// # Errors
    /// `Conflict` for a stage that cannot follow the present one, and for [`RolledBack`](Stage::RolledBack) while something
    /// is pending; as an append to the log.
    ///
    /// # Cancel safety
    /// Dropped, it may have gone on.
    pub async fn enter(&mut self, stage: Stage) -> Result<()> {
        self.log.write(Entry::Stage { id: self.id.clone(), stage }).await.map(drop)
    }

    /// Announces an act by what takes it back: durable when it returns, and only then one may act. What carries no label of
    /// this operation is not touched if [`Undo::made_by`] says so.
    ///
    /// # Errors
    /// `Conflict` unless the stage is [`Started`](Stage::Started); as an append to the log.
    ///
    /// # Cancel safety
    /// Dropped, it may be announced, which is harmless: to undo what was not done is no change.
    pub async fn will(&mut self, undo: Undo) -> Result<Seq> {
        self.log.write(Entry::Will { id: self.id.clone(), undo }).await
    }

    /// Undoes what was announced, from the end, and finishes as [`RolledBack`](Stage::RolledBack).
    ///
    /// An operation that has not failed yet fails first, as cancelled. A step that cannot be undone ends it: the record then
    /// says what is pending and why, the stage is still `Failed`, and [`OperationLog::recover`] tries again.
    ///
    /// # Errors
    /// As an append to the log; what can be undone is undone even so.
    ///
    /// # Cancel safety
    /// Dropped, it has undone some of it; `recover` goes on.
    pub async fn roll_back(self, backends: &[Arc<dyn RuntimeBackend>]) -> Result<OperationRecord> {
        let cause = Error::new(ErrorKind::Cancelled, "operations.roll_back", "it was rolled back");
        self.fail(&cause, backends).await
    }

    /// Fails for this cause, and undoes.
    pub(crate) async fn fail(self, cause: &Error, backends: &[Arc<dyn RuntimeBackend>]) -> Result<OperationRecord> {
        let Self { log, id: _, held } = self;
        log.undo(&held, Failure::from(cause), backends).await
    }
}
