//! The laws bite: each mutant fails exactly the laws that are pinned for it, and each law is failed by a mutant.

mod backend;
mod chaos;
mod composed;
#[path = "../../../runtide-memory/tests/conformance/harness.rs"]
#[allow(dead_code, reason = "the memory runtime's own suite uses the rest")]
mod harness;
mod managers;
mod source;
mod stream;
mod table;

use std::sync::Arc;

use backend::Broken;
use harness::{EDGES, MemoryHarness};
use runtide_conformance::{
    Absent, Clock, Law,
    report::Outcome,
    run::{block_on, check, run},
};
use table::Mutant;

use crate::pinned;

/// Runs one law on one mutant. Returns the violation, if there was one.
fn try_law(mutant: Mutant, law: Law) -> Option<String> {
    let tested = block_on(Clock::Virtual, async move {
        let harness =
            MemoryHarness::with(EDGES, Arc::new(move |config, runtime| Arc::new(Broken::new(mutant, config, runtime))));
        // The laws do not ask for an amount of output, and there are many mutants.
        let harness = harness.printing(1_000_000);
        check(law, Clock::Virtual, &harness).await
    });
    tested.unwrap().err().map(|violation| violation.to_string())
}

fn laws_failed_by(mutant: Mutant) -> Vec<(Law, String)> {
    Law::ALL.iter().filter_map(|&law| try_law(mutant, law).map(|found| (law, found))).collect()
}

#[test]
fn each_mutant_fails_exactly_the_laws_that_are_pinned_for_it() {
    pinned::assert_fails(laws_failed_by);
}

#[test]
fn each_law_is_failed_by_a_mutant() {
    pinned::assert_all_bite::<Mutant>(Law::ALL);
}

#[test]
fn only_a_runtime_that_was_not_promised_is_a_skip() {
    let ends = |absent: Absent| {
        let start = || std::future::ready(Err::<MemoryHarness, _>(absent));
        block_on(Clock::Virtual, run(Law::R1, Clock::Virtual, start, |harness| harness)).unwrap().line.outcome
    };
    assert_eq!(ends(Absent::unset("nowhere", "no address is set")), Outcome::Skipped);
    assert_eq!(ends(Absent::broken("nowhere", "the address does not answer")), Outcome::Failed);
}
