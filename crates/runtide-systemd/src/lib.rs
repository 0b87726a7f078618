#![doc = include_str!("../README.md")]

mod address;
mod backend;
mod cgroup;
mod client;
mod config;
mod error;
mod files;
mod freezer;
mod inspector;
mod journal;
mod labels;
mod manager;
mod names;
mod normalize;
mod properties;
mod selection;
mod sockets;
mod source;
mod store;
mod subscription;
mod unit_cache;
mod unit_file;

pub use self::{
    backend::SystemdBackend,
    config::{Config, Scope},
    journal::{JournaldCursor, JournaldLine, JournaldOptions, JournaldStream},
    selection::{Selection, UnitType},
    store::{UnitFileName, UnitForm, UnitStore, UnitStoreConfig, Units, Verify},
};
