//! The watch: what a backend writes ([`Source`], [`Looker`]), the [`Driver`] that makes it reliable, and what a subscriber
//! holds ([`EventStream`], [`InstanceTable`]).

mod driver;
mod source;
mod stream;
mod table;

pub use self::{
    driver::{Driver, DriverOptions},
    source::{
        Completeness, Edge, Flow, Inspection, Looker, Opened, Signal, SignalBody, Snapshot, Source,
    },
    stream::{EventStream, TransitionStream},
    table::{Evidence, Freshness, InstanceTable, Transition},
};
pub(crate) use self::stream::{first_match, pump, transitions};
