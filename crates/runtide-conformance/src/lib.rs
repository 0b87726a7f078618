#![doc = include_str!("../README.md")]

mod absent;
pub mod chaos;
mod check;
mod checker;
pub mod compare;
#[cfg(unix)]
pub mod daemon;
pub mod errors;
mod harness;
mod law;
mod law_set;
pub mod laws;
pub mod mortal;
mod outcome;
pub mod proxy;
pub mod report;
pub mod run;
pub mod store;
mod subscriber;
mod suite;
pub mod testbed;
pub mod wal;

pub use self::{
    checker::StreamChecker,
    harness::{
        Absent, Change, Command, Dialect, Done, Fact, Fault, Happened, Harness, Held, Life, Obstacle, Output,
        Supported, Timing, Tuning, Workload,
    },
    law::Law,
    law_set::LawSet,
    outcome::{Kept, LawResult, Looked, Subject, Verdict, Violation, line},
    run::Clock,
    subscriber::Subscriber,
};
pub(crate) use outcome::ensure;
