//! The laws of the log bite: each mutant fails exactly the laws that are pinned for it, and each law is failed by a mutant.

mod disk;
mod log;
mod plain;
mod table;

use runtide_conformance::wal::{Effort, WalLaw};
use table::Mutant;

use crate::pinned;

/// The laws that it fails, each with its violation.
fn laws_failed_by(mutant: Mutant) -> Vec<(WalLaw, String)> {
    let log = mutant.make();
    let found = |law: &WalLaw| law.check(&*log, Effort::Brief).err().map(|violation| (*law, violation.to_string()));
    WalLaw::ALL.iter().filter_map(found).collect()
}

#[test]
fn each_mutant_fails_exactly_the_laws_that_are_pinned_for_it() {
    pinned::assert_fails(laws_failed_by);
}

#[test]
fn each_law_is_failed_by_a_mutant() {
    pinned::assert_all_bite::<Mutant>(WalLaw::ALL);
}
