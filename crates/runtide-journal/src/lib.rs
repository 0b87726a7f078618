#![doc = include_str!("../README.md")]

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
mod writer;

pub use self::{
    operation::{
        OPERATION_LABEL, OWNER_LABEL, Operation, OperationLog, OperationRecord, OwnerId, Stage, Undo, UndoAction,
    },
    options::JournalOptions,
    runtime::RuntimeJournal,
    sidecar::Sidecars,
    store::JournaledStore,
};
