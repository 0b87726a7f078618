//! [`Claim`]: which operations a task of this process carries out.

use super::log::OperationLog;
use runtide_core::{backend::lock, manager::OperationId};

/// Exclusive claim of one operation within this process: `recover` skips an operation that a task still carries out.
#[derive(Debug)]
pub(super) struct Claim {
    log: OperationLog,
    id: OperationId,
}

impl Claim {
    /// Claims this operation, which no other task knows yet.
    pub(super) fn take(log: &OperationLog, id: &OperationId) -> Self {
        lock(&log.inner.open_operations).claimed.insert(id.clone());
        Self { log: log.clone(), id: id.clone() }
    }

    /// Claims every unfinished operation that no task has claimed.
    pub(super) fn take_all(log: &OperationLog) -> Vec<Self> {
        let mut open_operations = lock(&log.inner.open_operations);
        let ids = open_operations.open().map(|record| record.id.clone());
        let free: Vec<OperationId> = ids.filter(|id| !open_operations.claimed.contains(id)).collect();
        open_operations.claimed.extend(free.iter().cloned());
        drop(open_operations);
        free.into_iter().map(|id| Self { log: log.clone(), id }).collect()
    }

    pub(super) fn id(&self) -> &OperationId {
        &self.id
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.log.inner.open_operations).claimed.remove(&self.id);
    }
}
