//! [`Operation`]: one operation in flight, as the task that carries it out holds it.

use std::sync::Arc;

use serde::Serialize;

use super::{
    claim::Claim,
    log::OperationLog,
    open_operations::Entry,
    record::{OperationRecord, Stage},
    undo::Undo,
};
use runtide_core::{Error, ErrorKind, Failure, Result, RuntimeBackend, manager::OperationId, wal::Seq};

/// One operation in flight.
///
/// Each call is durable when it returns. [`will`](Self::will) comes before the act that it can undo. A value that is dropped
/// unfinished leaves its operation to [`OperationLog::recover`].
#[derive(Debug)]
pub struct Operation {
    log: OperationLog,
    id: OperationId,
    claim: Claim,
}

impl OperationLog {
    /// Begins an operation: durable when it returns. The `request` is for people and for recovery; it is stored as it is,
    /// so keep secrets out of it.
    ///
    /// # Errors
    /// `InvalidInput` if the request cannot be written as JSON; as an append to the log.
    ///
    /// # Cancel safety
    /// If the future is dropped, the operation may be in the log: `recover` finishes it as one that did nothing.
    pub async fn submit(&self, name: &str, request: &(impl Serialize + Sync + ?Sized)) -> Result<Operation> {
        let request = serde_json::to_value(request).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "operations.submit", "the request cannot be written as JSON")
                .with_source(error)
        })?;
        let id = OperationId::from(uuid::Uuid::now_v7().to_string());
        let claim = Claim::take(self, &id);
        let (owner, name) = (self.owner().clone(), name.to_owned());
        self.write(Entry::Submitted { id: id.clone(), owner, name, request }).await?;
        Ok(Operation::new(self.clone(), id, claim))
    }
}

impl Operation {
    pub(super) fn new(log: OperationLog, id: OperationId, claim: Claim) -> Self {
        Self { log, id, claim }
    }

    /// Random and time-ordered (UUID version 7).
    pub fn id(&self) -> &OperationId {
        &self.id
    }

    /// The log that holds it.
    pub fn log(&self) -> &OperationLog {
        &self.log
    }

    /// Its present stage; `None` once it is finished.
    pub fn stage(&self) -> Option<Stage> {
        self.log.stage(&self.id)
    }

    /// Enters the next stage: durable when it returns.
    ///
    /// # Errors
    /// `Conflict` for a stage that cannot follow the present one, and for [`RolledBack`](Stage::RolledBack) while something
    /// is pending; as an append to the log.
    ///
    /// # Cancel safety
    /// If the future is dropped, the stage may have been entered.
    pub async fn enter(&mut self, stage: Stage) -> Result<()> {
        self.log.write(Entry::Stage { id: self.id.clone(), stage }).await.map(drop)
    }

    /// Announces an act by its compensation: durable when it returns, and only then the caller may act. With
    /// [`Undo::made_by`], an object without this operation's label is not touched.
    ///
    /// # Errors
    /// `Conflict` unless the stage is [`Started`](Stage::Started); as an append to the log.
    ///
    /// # Cancel safety
    /// If the future is dropped, the act may be announced, which is harmless: undoing an act that never happened changes nothing.
    pub async fn will(&mut self, undo: Undo) -> Result<Seq> {
        self.log.write(Entry::Will { id: self.id.clone(), undo }).await
    }

    /// Undoes the announced acts, the last one first, and finishes as [`RolledBack`](Stage::RolledBack).
    ///
    /// An operation that has not failed yet fails first, as cancelled. A step that cannot be undone ends the call: the record
    /// then has the pending steps and the reason, the stage is still `Failed`, and [`OperationLog::recover`] tries again.
    ///
    /// # Errors
    /// As an append to the log; every step that can be undone is undone even so.
    ///
    /// # Cancel safety
    /// If the future is dropped, some steps are undone; `recover` undoes the rest.
    pub async fn roll_back(self, backends: &[Arc<dyn RuntimeBackend>]) -> Result<OperationRecord> {
        let cause = Error::new(ErrorKind::Cancelled, "operations.roll_back", "it was rolled back");
        self.fail(&cause, backends).await
    }

    /// Fails the operation for this cause, and undoes it.
    pub(crate) async fn fail(self, cause: &Error, backends: &[Arc<dyn RuntimeBackend>]) -> Result<OperationRecord> {
        let Self { log, id: _, claim } = self;
        log.undo(&claim, Failure::from(cause), backends).await
    }
}
