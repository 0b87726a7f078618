//! Operations in a log, so that after a crash every unfinished one is undone.

mod claim;
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

/// The label with the [`OwnerId`] of the application that made an object.
pub const OWNER_LABEL: &str = "runtide.owner";

/// The label with the [`OperationId`](runtide_core::manager::OperationId) of the operation that made an object.
pub const OPERATION_LABEL: &str = "runtide.operation";
