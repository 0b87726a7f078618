//! Pure translation: libpod's JSON in, Runtide's values out. No function waits, and none fails for one field: a field that cannot be
//! read is unknown, and named in the log.
//!
//! A field that both the list and an inspection have gets one value from either, so that none flips between a summary and a full
//! instance.

mod container;
mod event;
mod inspect;
mod list;

use runtide_core::InstanceState;
pub(crate) use runtide_engine::time;

pub use self::container::quadlet_unit;
pub(crate) use self::{
    container::{pod, summary, unit_of},
    event::{Action, Event, Kind, described},
    inspect::{Inspected, exit, inspected},
    list::{Listed, items, listed},
};

/// The state for every word of Podman's. Before the first run `created` is a container that never ran; after it, one that was made
/// ready for a start that failed.
///
/// `removing` is reported only of a container that no longer runs.
pub(crate) fn state(text: &str, ran: bool) -> InstanceState {
    match text {
        "created" | "initialized" | "configured" if ran => InstanceState::Stopped,
        "created" | "initialized" | "configured" => InstanceState::Created,
        "running" => InstanceState::Running,
        "paused" => InstanceState::Paused,
        "stopping" => InstanceState::Stopping,
        "removing" | "exited" | "stopped" => InstanceState::Stopped,
        _ => InstanceState::Unknown,
    }
}

/// Words for a run that is over, whose exit code counts. `created` has none, though a code of 0 is there.
pub(crate) fn has_ended(text: &str) -> bool {
    matches!(text, "exited" | "stopped" | "removing")
}

#[cfg(test)]
mod tests;
