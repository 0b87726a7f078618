//! The capability managers.

mod delete;
mod exec;
mod forward;
mod lifecycle;
mod log;
mod stats;
mod subject;
mod wait;

pub(crate) use self::{
    exec::{Exec, RESIZE},
    forward::forward,
    lifecycle::{CONTAINER, KILL, Lifecycle, PAUSE, RENAME, SIGNAL, START},
    log::Logs,
    stats::Stats,
    subject::is_outage,
};

pub use self::forward::PortForward;
