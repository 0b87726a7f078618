//! The watch: the interfaces that a backend implements ([`Source`], [`Inspector`]), the [`Driver`] that makes them reliable,
//! and the subscriber's side ([`EventStream`], [`TransitionStream`], [`InstanceTable`]).

mod backoff;
mod cache;
mod change;
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
mod transitions;

pub(crate) use self::stream::{first_match, pump};
pub use self::{
    change::Change,
    driver::{Driver, DriverOptions},
    source::{Edge, Flow, Inspection, Inspector, Listing, Opened, Signal, SignalBody, Source},
    stream::EventStream,
    table::{Evidence, Freshness, InstanceTable, Transition},
    transitions::TransitionStream,
};
