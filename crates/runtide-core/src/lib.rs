#![doc = include_str!("../README.md")]

pub mod backend;
pub mod capabilities;
mod completeness;
mod error;
pub mod event;
mod filter;
mod handle;
mod instance;
mod labels;
pub mod manager;
mod names;
mod options;
mod runtime;
pub mod store;
mod time;
pub mod wal;
pub mod watch;

// Inlined, so that the front page has them with their descriptions.
#[doc(inline)]
pub use self::{
    capabilities::Capabilities,
    completeness::Completeness,
    event::{Cursor, Gap, RuntimeEvent, RuntimeEventKind},
    watch::{Change, EventStream, Evidence, Freshness, InstanceTable, Listing, Transition, TransitionStream},
};
pub use self::{
    error::{Error, ErrorKind, Failure, Result, Retry},
    filter::InstanceFilter,
    handle::InstanceHandle,
    instance::{
        Address, BackendId, ExitCause, ExitStatus, FieldDifference, Group, GroupKind, Health, ImageRef, Incarnation,
        Instance, InstanceId, InstanceKind, InstanceState, Port, Protocol, UnixSignal,
    },
    labels::{LabelMatch, Labels},
    options::{Detail, ListOptions, SlowConsumer, WatchOptions},
    runtime::{RuntimeBackend, RuntimeBackendExt, RuntimeInfo, RuntimeKind},
};
