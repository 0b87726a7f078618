//! The managers: the verbs on containers, by libpod's own requests. Observation is the [`source`](crate::source)'s and the
//! inspector's.
//!
//! Podman answers many refusals with 500, and its texts differ from version to version, so the effect of a verb is derived from the
//! container's state before and after, never from a message.

mod container;
mod exec;
mod image;
mod kill;
mod lifecycle;
mod log;
mod network;
mod objects;
mod provision;
mod remove;
mod spec;
mod stats;
mod stop;
mod volume;
mod wait;

pub(crate) use self::{
    container::is_name, exec::Exec, image::Images, lifecycle::Lifecycle, log::Logs, network::Networks,
    provision::Provision, stats::Stats, volume::Volumes,
};
