//! The laws of stores by name, and how one is tested.

use super::{StoreHarness, laws};
use crate::{Violation, law::named_laws, wal::Looked};

/// What testing a law of stores gives.
pub type StoreLawResult = Result<StoreVerdict, Violation<StoreLaw>>;

/// The law was not broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreVerdict {
    /// It held, as far as the harness could drive the store there.
    Kept(Kept),
    /// The harness cannot produce what the law is about. A failure unless the harness lists it among its skips.
    NotApplicable(String),
}

/// What was looked at without finding a law broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// How much of what.
    pub looked: Looked,
    /// Parts that this store does not have, each with its reason.
    pub without: Vec<String>,
}

impl Kept {
    pub(crate) fn at(count: u64, what: &'static str, without: Vec<String>) -> StoreVerdict {
        StoreVerdict::Kept(Self { looked: Looked::at(count, what), without })
    }
}

macro_rules! laws {
    ($($law:ident $name:literal $check:path, $text:literal;)*) => {
        named_laws! {
            /// What a store promises. Each is a test, guards against a trap, and has a mutant that breaks it.
            StoreLaw { $($law $name $text;)* }
        }

        impl StoreLaw {
            /// Tests it on a fresh harness. It wants tokio's time, and tasks that run beside it.
            pub async fn check(self, h: &dyn StoreHarness) -> StoreLawResult {
                match self { $( Self::$law => Box::pin($check(h)).await, )* }
            }
        }
    };
}

laws! {
    S1 "read your write" laws::write::s1_read_your_write, "get after apply gives what was applied, in the format asked";
    S2 "identity" laws::write::s2_identity, "group, kind, namespace and name all count; no two resources collide; no name leaves the root";
    S3 "compare and set" laws::write::s3_compare_and_set, "of n concurrent conditional writes on one revision exactly one wins; the others get `Conflict`, with the actual revision";
    S4 "order" laws::order::s4_order, "a watch delivers in commit order; the last event for a resource equals the stored value";
    S5 "seamless" laws::order::s5_seamless, "a listing and a watch after its revision, opened while writers run: nothing lost, nothing twice; the pages of a listing show one revision";
    S6 "expired" laws::expired::s6_expired, "a watch from a revision that is not kept, or is none yet, is `Expired`; a running watch that lost its place gets `Reset`, then what is there; never old or missing events";
    S7 "snapshot" laws::snapshot::s7_snapshot, "a snapshot is a point in time and describes itself; a corrupt one is refused whole and changes nothing";
    S8 "restore" laws::snapshot::s8_restore, "a restore is atomic and gives the state at the snapshot's revision; watchers get `Reset`; revisions rise, and places and conditions from before are gone";
    S9 "durable" laws::durable::s9_durable, "after a power cut at any moment what is there is what was there at one moment, with all that was acknowledged and all that anybody saw; revisions go on to rise";
    S10 "bounded" laws::expired::s10_bounded, "slow or dropped watchers cost bounded memory; dropping unsubscribes at once";
    S11 "unchanged" laws::write::s11_unchanged, "applying what is already there changes no revision and emits nothing";
    S12 "linearizable" laws::linear::s12_linearizable, "what many clients did at once could have been done by one after the other, in the order of the revisions";
}
