//! The managers: what can be done to containers, as against what is seen of them.
//!
//! The verbs go over bollard. It answers 204 and 304 alike, and the daemon's texts differ from version to version, so what
//! a verb did is told from what the container was before and is after, never from a message.

mod answer;
mod container;
mod frames;
mod lifecycle;
mod log;
mod mark;
mod native;
mod provision;
mod reading;
mod remove;
mod spec;
mod stamps;
mod stop;
mod wait;

pub(crate) use self::{lifecycle::Lifecycle, log::Logs, provision::Provision};
