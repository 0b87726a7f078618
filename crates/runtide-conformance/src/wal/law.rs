//! The laws of the log by name.

use crate::{Looked, Violation};

/// The result of testing a law of the log.
pub type WalLawResult = Result<Looked, Violation<WalLaw>>;

/// The extent of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effort {
    /// Every case.
    Full,
    /// About a tenth of the cases, for logs that are broken on purpose: their bugs show soon.
    Brief,
}

impl Effort {
    pub(crate) fn pick<T>(self, full: T, brief: T) -> T {
        if self == Self::Full { full } else { brief }
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __wal_laws {
    ($then:ident $with:tt) => {
        $crate::$then! { $with
            W1 w1_durable in laws::durable, "durable"
                "however a power cut loses or reorders unsynced data, every acknowledged record survives, in order";
            W2 w2_torn_tail in laws::torn, "torn tail"
                "only the unacknowledged tail may go; it is copied aside, cut and synced before the first append; an append after the repair survives a second recovery";
            W3 w3_corruption in laws::corruption, "corruption"
                "any flipped, zeroed or missing byte before the tail is an error that names segment, offset and the numbers of the missing records; never skipped; salvage returns the readable records, with a report";
            W4 w4_sequence in laws::sequence, "sequence"
                "numbers are stamped by the writer, global, without gaps, across segments, restarts and retention";
            W5 w5_one_writer in laws::writer, "one writer"
                "a second writer on the same folder is refused";
            W6 w6_failed_sync in laws::poison, "failed sync"
                "a failed write or sync poisons the writer: every later call returns the same error until the log is opened again; nothing is retried";
            W7 w7_chain in laws::chain, "chain"
                "each hash covers the one before: swapping, removing or rewriting records is found; an anchor reveals a tail that was cut or rewritten, and without one `verify` says that it cannot know";
            W8 w8_retention in laws::retention, "retention"
                "by age, size or sequence, by whole segments, never a newer record before an older one; a crash in the middle leaves the old or the new state; open readers are not broken";
            W9 w9_cost in laws::cost, "cost"
                "opening reads as much as one segment has at most, after a crash as two, regardless of the length of the log; `tail(n)` reads in proportion to n";
            W10 w10_bounded in laws::bounded, "bounded"
                "reading, tail, verify and dump hold the same memory, regardless of the length of the log";
            W11 w11_hostile in laws::hostile, "hostile"
                "an arbitrary file in the place of a segment gives a clear error: no panic, and no read asks for more room than the largest file has, or 1 MiB";
        }
    };
}

__wal_laws! { __law_enum [
    /// The promises of the log. Each is a test, guards against a trap, and has a mutant that breaks it.
    WalLaw
] }
