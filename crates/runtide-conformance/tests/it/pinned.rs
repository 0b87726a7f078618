//! What is asked of all mutants, of backends and of logs: each fails exactly the laws that are pinned for it, and each law is
//! failed by one.

use std::{
    fmt::Debug,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Held while the mutants of one kind are tested: some have deadlines on the machine's clock, so that no more may run at once than
/// there are processors.
static ONE_KIND: Mutex<()> = Mutex::new(());

/// Tests all mutants, or the one that `RUNTIDE_MUTANT` names, as many at once as there are processors; the mutants of one kind
/// after those of another. `failed_by` gives the laws that a mutant fails, each with what was found.
#[expect(clippy::print_stdout, reason = "who asks for one mutant wants to see what it fails")]
pub(crate) fn assert_fails<M, L>(
    all: &[M],
    pinned: impl Fn(M) -> &'static [L] + Sync,
    failed_by: impl Fn(M) -> Vec<(L, String)> + Sync,
) where
    M: Copy + Debug + Sync,
    L: Copy + Debug + PartialEq + 'static,
{
    let only = std::env::var("RUNTIDE_MUTANT").ok();
    let wanted = |mutant: &&M| only.as_ref().is_none_or(|only| format!("{mutant:?}") == *only);
    let mutants: Vec<M> = all.iter().filter(wanted).copied().collect();
    assert!(!mutants.is_empty(), "RUNTIDE_MUTANT names no mutant");
    let _alone = ONE_KIND.lock().unwrap_or_else(PoisonError::into_inner);
    let next = AtomicUsize::new(0);
    let surprises = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(&mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failed = failed_by(mutant);
                    let laws: Vec<L> = failed.iter().map(|(law, _)| *law).collect();
                    let found: Vec<&str> = failed.iter().map(|(_, found)| found.as_str()).collect();
                    let line = format!("{mutant:?} {laws:?}\n  {}", found.join("\n  "));
                    if laws != pinned(mutant) {
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

/// A law that no mutant fails is not tested.
pub(crate) fn assert_all_bite<M: Copy, L: Debug + PartialEq + 'static>(
    laws: &[L],
    all: &[M],
    pinned: impl Fn(M) -> &'static [L],
) {
    let unbroken: Vec<&L> = laws.iter().filter(|law| !all.iter().any(|mutant| pinned(*mutant).contains(law))).collect();
    assert!(unbroken.is_empty(), "no mutant fails {unbroken:?}");
}
