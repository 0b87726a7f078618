#![doc = include_str!("../README.md")]

mod backend;
mod client;
mod config;
mod detect;
#[cfg(test)]
#[path = "../tests/it/docker_command.rs"]
mod docker_command;
mod ends;
mod environment;
mod error;
mod frame;
mod inspector;
mod manager;
mod normalize;
mod reported_state;
mod source;
mod subscription;
mod version;

pub use self::{
    backend::DockerBackend,
    config::Config,
    detect::{Candidate, Detection, Origin, Outcome, detect},
    version::ApiVersion,
};
pub use runtide_engine::{Endpoint, Ssh, Tls};
