//! The laws of stores bite: each mutant fails exactly the laws that are pinned for it, and each law is failed by a mutant.

mod bugs;
mod harness;
mod journal;
mod plain;
mod table;

use std::time::Duration;

use harness::PlainHarness;
use runtide_conformance::{
    Clock,
    run::{block_on, check},
    store::{Effort, StoreLaw, StoreTuning},
};
use table::Mutant;

use crate::pinned;

/// A mutant may never deliver an event, so the timeout is shorter than elsewhere.
const TUNING: StoreTuning = StoreTuning::LOCAL.with_effort(Effort::Brief).with_timeout(Duration::from_secs(10));

/// The laws that it fails, each with its violation.
fn laws_failed_by(mutant: Mutant) -> Vec<(StoreLaw, String)> {
    let found = |law: &StoreLaw| {
        let harness = PlainHarness::new(mutant.make(), TUNING);
        let result = block_on(Clock::Real, check(*law, Clock::Real, &harness)).unwrap();
        result.err().map(|violation| (*law, violation.to_string()))
    };
    // One that no processor serves for that long misses the timeout of any law, but not each time.
    let fails = |law: &StoreLaw| {
        let is_pinned = pinned::Mutant::fails(mutant).contains(law);
        let again = if is_pinned { 0 } else { 2 };
        let failed = found(law)?;
        (0..again).try_fold(failed, |_, _| found(law))
    };
    StoreLaw::ALL.iter().filter_map(fails).collect()
}

#[test]
fn each_mutant_fails_exactly_the_laws_that_are_pinned_for_it() {
    pinned::assert_fails(laws_failed_by);
}

#[test]
fn each_law_is_failed_by_a_mutant() {
    pinned::assert_all_bite::<Mutant>(StoreLaw::ALL);
}
