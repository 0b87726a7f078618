//! Operations in the log, so that a crash leaves nothing behind.

mod handle;
mod log;
mod open_operations;
mod orphans;
mod record;
mod recover;
mod undo;

pub use self::{
    handle::Operation,
    log::OperationLog,
    record::{OperationRecord, OwnerId, Stage},
    undo::{Undo, UndoAction},
};

/// The label that names who made an object: an [`OwnerId`].
pub const OWNER_LABEL: &str = "runtide.owner";

/// The label that names the operation that made an object: an [`OperationId`](runtide_core::manager::OperationId).
pub const OPERATION_LABEL: &str = "runtide.operation";
