#![doc = include_str!("../README.md")]

mod backend;
mod client;
mod config;
mod manager;
mod normalize;
mod source;
mod transport;

pub use self::{backend::TemplateBackend, config::Config};
