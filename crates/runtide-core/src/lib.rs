#![doc = include_str!("../README.md")]

mod capabilities;
mod error;
mod event;
mod handle;
mod instance;
pub mod journal;
mod labels;
mod manager;
mod names;
mod runtime;
mod sidecar;
mod store;
mod time;
pub mod wal;
pub mod watch;

pub use self::{
    capabilities::{Capabilities, Support, WatchSupport},
    error::{Error, ErrorKind, Failure, Result, Retry},
    event::{Continuity, Cursor, Epoch, FieldSet, Gap, ResumeToken, RuntimeEvent, RuntimeEventKind},
    handle::InstanceHandle,
    instance::{
        Address, BackendId, ExitCause, ExitStatus, Group, GroupKind, Health, ImageRef, Incarnation, Instance,
        InstanceId, InstanceKind, InstanceState, Port, Protocol, UnixSignal,
    },
    labels::{LabelMatch, Labels},
    manager::*,
    runtime::{
        Detail, InstanceFilter, ListOptions, RuntimeBackend, RuntimeBackendExt, RuntimeInfo, RuntimeKind, SlowConsumer,
        WatchOptions,
    },
    sidecar::Sidecars,
    store::*,
    watch::{
        Completeness, Driver, DriverOptions, Edge, EventStream, Evidence, Flow, Freshness, Inspection, Inspector,
        InstanceTable, Opened, Signal, SignalBody, Snapshot, Source, Transition, TransitionStream,
    },
};
