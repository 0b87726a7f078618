//! The capability managers.

mod delete;
mod lifecycle;
mod log;
mod subject;
mod wait;

pub(crate) use self::{
    lifecycle::{CONTAINER, KILL, Lifecycle, PAUSE, RENAME, SIGNAL, START},
    log::Logs,
};
