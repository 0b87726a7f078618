//! The laws of stores, on the plainest of stores: it is what mutants are made of.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking, and the mutants use the rest"
)]

#[path = "store_mutants/bugs.rs"]
mod bugs;
#[path = "store_mutants/harness.rs"]
mod harness;
#[path = "store_mutants/journal.rs"]
mod journal;
#[path = "store_mutants/plain.rs"]
mod plain;

use harness::PlainHarness;
use runtide_conformance::{Absent, store::StoreTuning};

fn start() -> impl Future<Output = Result<PlainHarness, Absent>> {
    std::future::ready(Ok(PlainHarness::new(None, StoreTuning::LOCAL)))
}

runtide_conformance::store_suite!(start);
