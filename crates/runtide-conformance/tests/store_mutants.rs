//! The laws of stores bite: each mutant fails exactly the laws that are pinned for it, and each law is failed by a mutant.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "store_mutants/bugs.rs"]
mod bugs;
#[path = "store_mutants/harness.rs"]
mod harness;
#[path = "store_mutants/journal.rs"]
mod journal;
mod pinned;
#[path = "store_mutants/plain.rs"]
mod plain;
#[path = "store_mutants/table.rs"]
mod table;

use std::time::Duration;

use harness::PlainHarness;
use runtide_conformance::{
    Clock,
    run::block_on,
    store::{Effort, StoreLaw, StoreTuning, check},
};
use table::Mutant;

/// What a mutant never does is not waited for as long as elsewhere.
const TUNING: StoreTuning = StoreTuning::LOCAL.with_effort(Effort::Brief).with_timeout(Duration::from_secs(10));

/// The laws that it fails, each with what was found.
fn laws_failed_by(mutant: Mutant) -> Vec<(StoreLaw, String)> {
    let found = |law: &StoreLaw| {
        let harness = PlainHarness::new(mutant.bug(), TUNING);
        let result = block_on(Clock::Real, check(*law, &harness)).unwrap();
        result.err().map(|violation| (*law, violation.to_string()))
    };
    StoreLaw::ALL.iter().filter_map(found).collect()
}

#[test]
fn each_mutant_fails_exactly_the_laws_that_are_pinned_for_it() {
    pinned::assert_fails(Mutant::ALL, Mutant::fails, laws_failed_by);
}

#[test]
fn each_law_is_failed_by_a_mutant() {
    pinned::assert_all_bite(StoreLaw::ALL, Mutant::ALL, Mutant::fails);
}
