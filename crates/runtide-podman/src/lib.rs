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
mod origin;
mod pods;
mod polled;
mod probe;
mod progress;
mod recent;
mod secrets;
mod signals;
mod source;
mod subscription;

pub use runtide_engine::{Endpoint, Ssh, Tls};

pub use self::{
    backend::PodmanBackend,
    config::Config,
    detect::{Candidate, Detection, Outcome, detect},
    normalize::quadlet_unit,
    origin::Origin,
    pods::{Pod, PodState, Pods},
    secrets::{Secret, Secrets},
};
