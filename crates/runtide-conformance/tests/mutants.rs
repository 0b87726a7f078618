//! The laws bite: each mutant fails exactly the laws that are pinned for it, and each law is failed by a mutant.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "mutants/backend.rs"]
mod backend;
#[path = "mutants/composed.rs"]
mod composed;
#[path = "../../runtide-memory/tests/conformance/harness.rs"]
#[allow(dead_code, reason = "the memory runtime's own suite uses the rest")]
mod harness;
#[path = "mutants/managers.rs"]
mod managers;
#[path = "mutants/stream.rs"]
mod stream;
#[path = "mutants/table.rs"]
mod table;

use std::{collections::BTreeSet, sync::Arc};

use backend::Broken;
use harness::{EDGES, MemoryHarness};
use runtide_conformance::{
    Absent, Clock, Law,
    report::Outcome,
    run::{block_on, check, run},
};
use table::Mutant;

/// Runs one law on one mutant; what it found, if it found anything.
fn try_law(mutant: Mutant, law: Law) -> Option<String> {
    let tested = block_on(Clock::Virtual, async move {
        let harness =
            MemoryHarness::with(EDGES, Arc::new(move |config, runtime| Arc::new(Broken::new(mutant, config, runtime))));
        // The laws do not ask how much it is, and there are many mutants.
        let harness = harness.printing(1_000_000);
        check(law, &harness, Clock::Virtual).await
    });
    tested.unwrap().err().map(|violation| violation.to_string())
}

fn laws_failed_by(mutant: Mutant) -> Vec<(Law, String)> {
    Law::ALL.iter().filter_map(|&law| try_law(mutant, law).map(|found| (law, found))).collect()
}

#[test]
fn each_mutant_fails_exactly_the_laws_that_are_pinned_for_it() {
    let only = std::env::var("RUNTIDE_MUTANT").ok();
    let wanted = |mutant: &&Mutant| only.as_ref().is_none_or(|only| format!("{mutant:?}") == *only);
    let mutants: Vec<Mutant> = Mutant::ALL.iter().filter(wanted).copied().collect();
    assert!(!mutants.is_empty(), "RUNTIDE_MUTANT names no mutant");
    let next = std::sync::atomic::AtomicUsize::new(0);
    let surprises = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(&mutant) = mutants.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let failed = laws_failed_by(mutant);
                    let laws: Vec<Law> = failed.iter().map(|(law, _)| *law).collect();
                    if laws != mutant.fails() || only.is_some() {
                        let ids: Vec<&str> = laws.iter().map(|law| law.id()).collect();
                        let found: Vec<&str> = failed.iter().map(|(_, found)| found.as_str()).collect();
                        let line = format!("{mutant:?} [{}]\n  {}", ids.join(" "), found.join("\n  "));
                        if laws == mutant.fails() {
                            println!("{line}");
                        } else {
                            surprises.lock().unwrap().push(line);
                        }
                    }
                }
            });
        }
    });
    let surprises = surprises.into_inner().unwrap();
    assert!(
        surprises.is_empty(),
        "{} mutants fail other laws than those pinned:\n{}",
        surprises.len(),
        surprises.join("\n")
    );
}

#[test]
fn each_law_is_failed_by_a_mutant() {
    let failed: BTreeSet<Law> = Mutant::ALL.iter().flat_map(|mutant| mutant.fails()).copied().collect();
    let unbroken: Vec<&Law> = Law::ALL.iter().filter(|law| !failed.contains(law)).collect();
    assert!(unbroken.is_empty(), "no mutant fails {unbroken:?}");
}

#[test]
fn only_a_runtime_that_nobody_promised_is_a_skip() {
    let ends = |absent: Absent| {
        let start = || std::future::ready(Err::<MemoryHarness, _>(absent));
        block_on(Clock::Virtual, run(Law::R1, start, Clock::Virtual)).unwrap().line.outcome
    };
    assert_eq!(ends(Absent::unset("nowhere", "no address is set")), Outcome::Skipped);
    assert_eq!(ends(Absent::broken("nowhere", "the address does not answer")), Outcome::Failed);
}
