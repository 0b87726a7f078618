//! The managers: what can be asked of the instances of a manager, and done to them.

#[cfg(test)]
mod bed;
mod life;
mod log;
mod stats;

pub(crate) use self::{log::Logs, stats::Stats};
