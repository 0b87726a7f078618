//! The laws of the log bite: each mutant fails exactly the laws that are pinned for it, and each law is failed by a mutant.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "wal_mutants/disk.rs"]
mod disk;
#[path = "wal_mutants/log.rs"]
mod log;
#[path = "wal_mutants/plain.rs"]
mod plain;
#[path = "wal_mutants/table.rs"]
mod table;

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use runtide_conformance::wal::{Effort, WalLaw};
use table::Mutant;

/// The laws that it fails, each with what was found.
fn laws_failed_by(mutant: Mutant) -> Vec<(WalLaw, String)> {
    let log = mutant.log();
    let found = |law: &WalLaw| law.check(&*log, Effort::Brief).err().map(|violation| (*law, violation.to_string()));
    WalLaw::ALL.iter().filter_map(found).collect()
}

#[test]
fn each_mutant_fails_exactly_the_laws_that_are_pinned_for_it() {
    let only = std::env::var("RUNTIDE_MUTANT").ok();
    let wanted = |mutant: &&Mutant| only.as_ref().is_none_or(|only| format!("{mutant:?}") == *only);
    let mutants: Vec<Mutant> = Mutant::ALL.iter().filter(wanted).copied().collect();
    assert!(!mutants.is_empty(), "RUNTIDE_MUTANT names no mutant");
    let next = AtomicUsize::new(0);
    let surprises = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(&mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failed = laws_failed_by(mutant);
                    let laws: Vec<WalLaw> = failed.iter().map(|(law, _)| *law).collect();
                    let ids: Vec<&str> = laws.iter().map(|law| law.id()).collect();
                    let found: Vec<&str> = failed.iter().map(|(_, found)| found.as_str()).collect();
                    let line = format!("{mutant:?} [{}]\n  {}", ids.join(" "), found.join("\n  "));
                    if laws != mutant.fails() {
                        surprises.lock().unwrap().push(line);
                    } else if only.is_some() {
                        println!("{line}");
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
    let failed: BTreeSet<WalLaw> = Mutant::ALL.iter().flat_map(|mutant| mutant.fails()).copied().collect();
    let unbroken: Vec<&WalLaw> = WalLaw::ALL.iter().filter(|law| !failed.contains(law)).collect();
    assert!(unbroken.is_empty(), "no mutant fails {unbroken:?}");
}
