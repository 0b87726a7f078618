//! Stores that are broken on purpose, one trap each.

use crate::bugs::Bug;

macro_rules! mutants {
    ($($(#[$doc:meta])* $mutant:ident [$($law:ident)*];)*) => {
        /// In which way a store is broken, and exactly which laws it fails.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutant { Sound, $( $(#[$doc])* $mutant, )* }

        impl Mutant {
            /// Every one, the sound one first.
            pub(crate) const ALL: &'static [Self] = &[Self::Sound, $( Self::$mutant, )*];

            /// The laws that it must fail, and no other.
            pub(crate) fn fails(self) -> &'static [runtide_conformance::store::StoreLaw] {
                match self {
                    Self::Sound => &[],
                    $( Self::$mutant => &[$( runtide_conformance::store::StoreLaw::$law, )*], )*
                }
            }

            pub(crate) fn bug(self) -> Option<Bug> {
                match self {
                    Self::Sound => None,
                    $( Self::$mutant => Some(Bug::$mutant), )*
                }
            }
        }
    };
}

mutants! {
    /// A corrupt snapshot is taken as far as it can be read.
    AcceptsCorruptSnapshot [S7];
    /// While writes are under way, readers see what was there before the first of them: each alone is in order.
    AcknowledgedBeforeSeen [S12];
    /// A write is acknowledged when the system has it, and synced later.
    AcknowledgedBeforeSync [S9];
    /// What belongs to no namespace is kept as what belongs to one with a name of its own, and collides with it.
    ClusterIsANamespace [S2];
    /// Only the bytes are compared, so that another format of the same bytes is no change.
    ComparesBytesAlone [S11];
    /// A reset says a number of changes that is not that of those which it stands for.
    CountsLagWrong [S6];
    /// The group is no part of the name.
    ForgetsGroup [S2];
    /// A watch from the future begins with what is kept.
    FutureReplaysHistory [S6];
    /// A restore takes resource by resource, each with a reset.
    HalfRestore [S7 S8 S9];
    /// A get gives the body as it was written, whatever was asked for.
    IgnoresFormat [S1];
    /// The last writer wins.
    IgnoresPrecondition [S3 S8 S12];
    /// Who is too slow goes on with the oldest change that is kept.
    LagIsSilent [S6];
    /// Who is dropped is still counted, and kept.
    LeaksSubscriber [S10];
    /// A watch takes what is there, and is registered later.
    ListThenRegister [S5 S6];
    /// The condition is looked at, and then the write is made.
    LostConditionalRace [S3 S12];
    /// What is not there is an error, and of a kind that says nothing.
    NotFoundIsUnsupported [S1 S2 S3 S4 S5 S7 S8 S9 S11 S12];
    /// Changes are told in the order in which writers come to tell them.
    OrderByArrival [S4 S5 S8 S12];
    /// Each page shows what is there when it is asked for.
    PagesMove [S5 S8];
    /// A write is shown before it is in the journal.
    PublishesBeforeDurable [S9];
    /// A restore is in the journal as the removal of everything, and then one write after the other.
    RestoreInPieces [S9];
    /// A restore gives resources the revisions of the snapshot.
    RestoreKeepsRevisions [S8];
    /// A restore tells nobody.
    RestoreSilent [S8];
    /// A restore goes back to the revisions of the snapshot.
    RestoreTurnsBack [S8 S9];
    /// A watch from a place that is not kept goes on with the oldest one that is.
    ShowsWhatIsLeft [S6 S8 S9];
    /// A snapshot has each resource as it is when its turn comes.
    SnapshotIsNoMoment [S7];
    /// Each watcher has a queue of its own, as long as it takes.
    UnboundedQueue [S6 S10];
    /// What is there already is written again.
    UnchangedEmits [S3 S11 S12];
    /// A watch tells of bodies as they were written, whatever was asked for.
    WatchIgnoresFormat [S4];
}
