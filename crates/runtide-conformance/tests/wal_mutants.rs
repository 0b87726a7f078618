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
mod pinned;
#[path = "wal_mutants/plain.rs"]
mod plain;
#[path = "wal_mutants/table.rs"]
mod table;

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
    pinned::assert_fails(Mutant::ALL, Mutant::fails, laws_failed_by);
}

#[test]
fn each_law_is_failed_by_a_mutant() {
    pinned::assert_all_bite(WalLaw::ALL, Mutant::ALL, Mutant::fails);
}
