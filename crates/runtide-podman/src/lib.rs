#![doc = include_str!("../README.md")]

mod backend;
mod client;
mod config;
mod connections;
mod detect;
mod ends;
mod environment;
mod infra;
mod inspector;
mod left_out;
mod manager;
mod normalize;
mod pods;
mod polled;
mod progress;
mod source;
mod subscription;

pub use runtide_engine::{Endpoint, Tls};

pub use self::{
    backend::PodmanBackend,
    config::Config,
    detect::{Candidate, Detection, Origin, Outcome, detect},
    normalize::quadlet_unit,
    pods::{Pod, PodState, Pods},
};
