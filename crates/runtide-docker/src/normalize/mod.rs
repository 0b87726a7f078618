//! Pure translation: Docker's JSON in, Runtide's values out. No function waits, and none fails for one field: a field that
//! cannot be read is unknown, and named in the log.
//!
//! A field that both the list and an inspection have gets one value from either, so that none flips between a summary and a
//! full instance: the creation time is cut to the list's seconds, and an image that the list shows as an id is unknown.

mod container;
mod event;
mod inspect;
mod list;
mod status;

use runtide_core::InstanceState;
pub(crate) use runtide_engine::time;

pub(crate) use self::{
    container::summary,
    event::{Action, Attributes, Event, described},
    inspect::{Inspected, Rewritten, inspected, is_doubtful},
    list::{items, listed},
};

/// The state for every word of Docker's, and of a Podman's behind the same socket.
///
/// `removing` is reported only of a container that no longer runs; `dead` is Docker's word for one that it failed to remove.
pub(crate) fn state(text: &str) -> InstanceState {
    match text {
        "created" | "initialized" | "configured" => InstanceState::Created,
        "running" => InstanceState::Running,
        "paused" => InstanceState::Paused,
        "restarting" => InstanceState::Restarting,
        "stopping" => InstanceState::Stopping,
        "removing" | "exited" | "stopped" => InstanceState::Stopped,
        "dead" => InstanceState::Failed,
        _ => InstanceState::Unknown,
    }
}

#[cfg(test)]
mod tests;
