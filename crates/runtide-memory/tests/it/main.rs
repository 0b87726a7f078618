//! The runtime and the store in memory, tested from outside, in one program: linking is most of the cost of a test program.
//!
//! The laws of runtimes are in a separate program, `tests/conformance.rs`: on a real runtime they count the resources that
//! their process has open, so that a backend which is made from this one needs it so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, and it prints its trace"
)]

mod close;
mod faults;
mod journal;
mod life;
mod objects;
mod operations;
mod output;
mod script;
mod sidecars;
mod simulation;
mod store;
mod store_conformance;
mod store_journal;
mod store_journaled;
#[cfg(unix)]
mod store_kill;
mod store_laws;
mod transitions;
mod watch;
