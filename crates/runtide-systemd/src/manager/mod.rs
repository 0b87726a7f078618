//! The managers: the verbs on units, as opposed to their observation.

mod changes;
#[cfg(test)]
mod fixture;
mod fragment;
mod holder;
mod job;
mod lifecycle;
mod log;
mod native;
mod property;
mod provision;
mod remove;
mod run;
mod spec;
mod start;
mod stats;
mod stop;
#[cfg(test)]
mod tests;
mod unit;
mod wait;

pub(crate) use self::{
    lifecycle::{Lifecycle, RENAME},
    log::Logs,
    provision::Provision,
    stats::Stats,
};
