#![doc = include_str!("../README.md")]

mod backend;
mod client;
mod config;
mod fault;
mod manager;
mod normalize;
mod oracle;
mod runtime;
mod source;
mod store;

pub use self::{
    backend::MemoryBackend,
    config::{Config, Dialect},
    fault::{Call, Dial, Faults, Garble},
    runtime::{AfterRun, Blueprint, Emission, Fact, FactKind, MemoryRuntime, Reboot, RuntimeOptions, ScriptedRuntime},
    source::MemorySource,
    store::{MemoryStore, StoreOptions},
};
