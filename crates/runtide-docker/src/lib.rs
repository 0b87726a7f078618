#![doc = include_str!("../README.md")]

mod backend;
mod client;
mod config;
mod environment;
mod error;
mod manager;
mod tls;
mod transport;
mod version;

pub use self::{
    backend::DockerBackend,
    config::{Config, Endpoint, Tls},
    version::ApiVersion,
};
