//! The watch: the interfaces that a backend implements ([`Source`], [`Inspector`]), the [`Driver`] that makes them reliable,
//! and the subscriber's side ([`EventStream`], [`InstanceTable`]).

mod backoff;
mod cache;
mod driver;
mod hub;
mod inspect_queue;
mod machine;
mod merge;
mod relist;
mod ring;
mod source;
mod stream;
mod subscription;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use self::stream::{first_match, pump, transitions};
pub use self::{
    driver::{Driver, DriverOptions},
    source::{Completeness, Edge, Flow, Inspection, Inspector, Listing, Opened, Signal, SignalBody, Source},
    stream::{EventStream, TransitionStream},
    table::{Evidence, Freshness, InstanceTable, Transition},
};
