//! The managers: the verbs on containers and images. Observation is the [`source`](crate::source)'s and the inspector's.
//!
//! The verbs on containers go over bollard. It answers 204 and 304 alike, and the daemon's texts differ from version to version, so the
//! effect of a verb is derived from the container's state before and after, never from a message.

mod container;
mod exec;
mod image;
mod kill;
mod lifecycle;
mod log;
mod native;
mod network;
mod objects;
mod provision;
mod remove;
mod rename;
mod spec;
mod stats;
mod stop;
mod volume;
mod wait;

use runtide_engine::{item, items};

pub(crate) use self::{
    exec::Exec, image::Images, lifecycle::Lifecycle, log::Logs, network::Networks, provision::Provision, stats::Stats,
    volume::Volumes,
};
