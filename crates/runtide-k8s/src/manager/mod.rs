//! The capability managers.

mod delete;
mod exec;
mod lifecycle;
mod log;
mod stats;
mod subject;
mod wait;

pub(crate) use self::{
    exec::{Exec, RESIZE},
    lifecycle::{CONTAINER, KILL, Lifecycle, PAUSE, RENAME, SIGNAL, START},
    log::Logs,
    stats::Stats,
};
