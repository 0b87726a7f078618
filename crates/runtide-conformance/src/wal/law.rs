//! The laws of the log by name, and how one is tested.

use std::fmt;

use super::{LogHarness, laws};
use crate::{Violation, law::named_laws};

/// What testing a law of the log gives.
pub type WalLawResult = Result<Looked, Violation<WalLaw>>;

/// What was looked at without finding the law broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// How many.
    pub count: u64,
    /// Of what.
    pub what: &'static str,
}

impl Looked {
    pub(crate) fn at(count: u64, what: &'static str) -> Self {
        Self { count, what }
    }
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.what)
    }
}

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effort {
    /// All of it.
    Full,
    /// About a tenth of it, for logs that are broken on purpose: what is wrong with them shows soon.
    Brief,
}

impl Effort {
    pub(crate) fn pick<T>(self, full: T, brief: T) -> T {
        if self == Self::Full { full } else { brief }
    }
}

macro_rules! laws {
    ($($law:ident $name:literal $check:path, $text:literal;)*) => {
        named_laws! {
            /// What the log promises. Each is a test, guards against a trap, and has a mutant that breaks it.
            WalLaw { $($law $name $text;)* }
        }

        impl WalLaw {
            /// Tests it on logs of this kind, each on a fresh disk. The same call looks at the same things, but for what
            /// the log's own threads do in between; what it was is in the violation.
            pub fn check(self, log: &dyn LogHarness, effort: Effort) -> WalLawResult {
                match self { $( Self::$law => $check(log, effort), )* }
            }
        }
    };
}

laws! {
    W1 "durable" laws::durable::w1_durable, "whatever a power cut loses or reorders of what was not synced, every acknowledged record survives, in order";
    W2 "torn tail" laws::torn::w2_torn_tail, "only the unacknowledged tail may go; it is copied aside, cut and synced before the first append; an append after the repair survives a second recovery";
    W3 "corruption" laws::corruption::w3_corruption, "any flipped, zeroed or missing byte before the tail is an error that names segment, offset and the sequence of what is missing; never skipped; salvage returns what can be read, with a report";
    W4 "sequence" laws::sequence::w4_sequence, "numbers are stamped by the writer, global, without gaps, across segments, restarts and retention";
    W5 "one writer" laws::writer::w5_one_writer, "a second writer on the same folder is refused";
    W6 "failed sync" laws::poison::w6_failed_sync, "a failed write or sync poisons the writer: every later call returns the same error until the log is opened anew; nothing is tried again";
    W7 "chain" laws::chain::w7_chain, "each hash covers the one before: swapping, removing or rewriting records is found; an anchor reveals a tail that was cut or rewritten, and without one `verify` says so";
    W8 "retention" laws::retention::w8_retention, "by age, size or sequence, by whole segments, never what is newer; a crash in the middle leaves the old or the new state; open readers are not broken";
    W9 "cost" laws::cost::w9_cost, "opening reads as much as one segment has at most, after a crash as two, whatever the length of the log; `tail(n)` reads in proportion to n";
    W10 "bounded" laws::bounded::w10_bounded, "reading, tail, verify and dump hold the same memory, whatever the length of the log";
    W11 "hostile" laws::hostile::w11_hostile, "an arbitrary file in the place of a segment gives a clear error: no panic, and no read asks for more room than the largest file has, or 1 MiB";
}
