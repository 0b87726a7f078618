#![doc = include_str!("../README.md")]

mod cgroup;
mod client;
mod config;
mod error;
mod labels;
mod manager;
mod names;
mod normalize;
mod properties;
mod selection;
mod sockets;
mod unit_file;

pub use self::{
    config::{Config, Scope},
    selection::{Selection, UnitType},
};
