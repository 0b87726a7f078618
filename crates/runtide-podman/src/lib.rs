#![doc = include_str!("../README.md")]

mod backend;
mod client;
mod config;
mod connections;
mod ends;
mod environment;
mod infra;
mod inspector;
mod manager;
mod normalize;
mod pods;
mod polled;
mod secrets;
mod source;
mod subscription;

pub use runtide_engine::{Endpoint, Ssh, Tls};

pub use self::{
    backend::PodmanBackend,
    config::Config,
    normalize::quadlet_unit,
    pods::{Pod, PodState, Pods},
    secrets::{Secret, Secrets},
};
