#![doc = include_str!("../README.md")]

//! What happened, and what was begun, on the write-ahead log: it outlives the process.
//!
//! * [`RuntimeJournal`] keeps what backends tell, and resumes where the log ends.
//! * [`OperationLog`] keeps what was begun and how to take it back, and undoes what a dead process left.
//!
//! Each has a folder of its own. Payloads are JSON, so that [`wal::dump`](runtide_core::wal::dump()) shows them as they are.

mod blocking;
mod fold;
mod format;
mod history;
mod operation;
mod options;
mod runtime;
mod sidecar;
mod store;
mod stream;

pub use self::{
    operation::{
        OPERATION_LABEL, OWNER_LABEL, Operation, OperationLog, OperationRecord, OwnerId, Stage, Undo, UndoAction,
    },
    options::JournalOptions,
    runtime::RuntimeJournal,
    sidecar::Sidecars,
    store::JournaledStore,
};
