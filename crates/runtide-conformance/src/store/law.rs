//! The laws of stores by name.

use crate::LawResult;

/// The result of testing a law of stores.
pub type StoreLawResult = LawResult<StoreLaw>;

#[doc(hidden)]
#[macro_export]
macro_rules! __store_laws {
    ($then:ident $with:tt) => {
        $crate::$then! { $with
            S1 s1_read_your_write in laws::write, "read your write"
                "get after apply returns the applied document, in the requested format";
            S2 s2_identity in laws::write, "identity"
                "group, kind, namespace and name all count; no two resources collide; no name leaves the root";
            S3 s3_compare_and_set in laws::write, "compare and set"
                "of n concurrent conditional writes on one revision exactly one wins; the others get `Conflict`, with the actual revision";
            S4 s4_order in laws::order, "order"
                "a watch delivers in commit order; the last event for a resource equals the stored value";
            S5 s5_seamless in laws::order, "seamless"
                "a listing and a watch after its revision, opened while writers run: nothing lost, nothing twice; the pages of a listing show one revision";
            S6 s6_expired in laws::expired, "expired"
                "a watch from a revision that is not kept, or is none yet, is `Expired`; a running watch that lost its position gets `Reset`, then the state; never old or missing events";
            S7 s7_snapshot in laws::snapshot, "snapshot"
                "a snapshot is a point in time and describes itself; a corrupt one is refused whole and changes nothing";
            S8 s8_restore in laws::snapshot, "restore"
                "a restore is atomic and gives the state at the snapshot's revision; watchers get `Reset`; revisions rise, and positions and conditions from before are refused";
            S9 s9_durable in laws::durable, "durable"
                "after a power cut at any moment the state is that of one moment, with every write that was acknowledged or seen; revisions continue to rise";
            S10 s10_bounded in laws::expired, "bounded"
                "slow or dropped watchers cost bounded memory; dropping unsubscribes at once";
            S11 s11_unchanged in laws::write, "unchanged"
                "an apply of the stored document changes no revision and emits nothing";
            S12 s12_linearizable in laws::linear, "linearizable"
                "the results of many concurrent clients could be those of one after the other, in the order of the revisions";
        }
    };
}

__store_laws! { __law_enum [
    /// The promises of a store. Each is a test, guards against a trap, and has a mutant that breaks it.
    StoreLaw
] }
