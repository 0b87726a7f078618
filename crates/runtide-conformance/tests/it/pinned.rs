//! The test of all mutants, of backends, stores and logs: each fails exactly the laws that are pinned for it, and each law is
//! failed by one.

use std::{
    fmt::Debug,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The ways in which something is broken on purpose.
pub(crate) trait Mutant: Copy + Debug + Sync + 'static {
    /// The laws that it may break.
    type Law: Copy + Debug + PartialEq + 'static;

    /// All mutants.
    const ALL: &'static [Self];

    /// The laws that it must fail, and no others.
    fn fails(self) -> &'static [Self::Law];
}

/// An enum of mutants. A row is `Name [R1 R2];`, with the bug in the documentation before it, and exactly the laws that it fails.
/// With `=> Type`, each has an expression as well, `Name = expression, [R1 R2];`, which `make` returns.
macro_rules! mutants {
    ($law:ty; $($(#[$doc:meta])* $mutant:ident [$($fails:ident)*];)*) => {
        /// A way in which something is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutant { $( $(#[$doc])* $mutant, )* }

        impl crate::pinned::Mutant for Mutant {
            type Law = $law;

            const ALL: &'static [Self] = &[$( Self::$mutant, )*];

            fn fails(self) -> &'static [Self::Law] {
                match self { $( Self::$mutant => &[$( <$law>::$fails, )*], )* }
            }
        }
    };
    ($law:ty => $made:ty; $($(#[$doc:meta])* $mutant:ident = $make:expr, [$($fails:ident)*];)*) => {
        $crate::pinned::mutants! { $law; $($(#[$doc])* $mutant [$($fails)*];)* }

        impl Mutant {
            /// Makes the broken thing.
            pub(crate) fn make(self) -> $made {
                match self { $( Self::$mutant => $make, )* }
            }
        }
    };
}

pub(crate) use mutants;

/// Held while the mutants of one kind are tested: some have deadlines on the machine's clock, so that no more may run at once
/// than there are processors.
static ONE_KIND: Mutex<()> = Mutex::new(());

/// Tests all mutants, or the one that `RUNTIDE_MUTANT` names, as many at once as there are processors; the mutants of one kind
/// after those of another. `failed_by` returns the laws that a mutant fails, each with its violation.
#[expect(clippy::print_stdout, reason = "a run of one mutant prints the laws that it fails")]
pub(crate) fn assert_fails<M: Mutant>(failed_by: impl Fn(M) -> Vec<(M::Law, String)> + Sync) {
    let only = std::env::var("RUNTIDE_MUTANT").ok();
    let wanted = |mutant: &&M| only.as_ref().is_none_or(|only| format!("{mutant:?}") == *only);
    let mutants: Vec<M> = M::ALL.iter().filter(wanted).copied().collect();
    assert!(!mutants.is_empty(), "RUNTIDE_MUTANT names no mutant");
    let _alone = ONE_KIND.lock().unwrap_or_else(PoisonError::into_inner);
    let next = AtomicUsize::new(0);
    let surprises = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(&mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failed = failed_by(mutant);
                    let laws: Vec<M::Law> = failed.iter().map(|(law, _)| *law).collect();
                    let found: Vec<&str> = failed.iter().map(|(_, found)| found.as_str()).collect();
                    let line = format!("{mutant:?} {laws:?}\n  {}", found.join("\n  "));
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

/// A law that no mutant fails is not tested.
pub(crate) fn assert_all_bite<M: Mutant>(laws: &[M::Law]) {
    let unbroken: Vec<_> =
        laws.iter().filter(|law| !M::ALL.iter().any(|mutant| mutant.fails().contains(law))).collect();
    assert!(unbroken.is_empty(), "no mutant fails {unbroken:?}");
}
