//! Stores that are broken on purpose, one trap each.

use super::bugs::Bug;
use crate::pinned::mutants;

mutants! { runtide_conformance::store::StoreLaw => Option<Bug>;
    /// Nothing is wrong with it.
    Sound = None, [];
    /// A corrupt snapshot is taken as far as it can be read.
    AcceptsCorruptSnapshot = Some(Bug::AcceptsCorruptSnapshot), [S7];
    /// While writes are under way, readers see what was there before the first of them: each alone is in order.
    AcknowledgedBeforeSeen = Some(Bug::AcknowledgedBeforeSeen), [S12];
    /// A write is acknowledged when the system has it, and synced later.
    AcknowledgedBeforeSync = Some(Bug::AcknowledgedBeforeSync), [S9];
    /// What belongs to no namespace is kept as what belongs to one with a name of its own, and collides with it.
    ClusterIsANamespace = Some(Bug::ClusterIsANamespace), [S2];
    /// Only the bytes are compared, so that another format of the same bytes is no change.
    ComparesBytesAlone = Some(Bug::ComparesBytesAlone), [S11];
    /// A reset says a number of changes that is not that of those which it stands for.
    CountsLagWrong = Some(Bug::CountsLagWrong), [S6];
    /// The group is no part of the name.
    ForgetsGroup = Some(Bug::ForgetsGroup), [S2];
    /// A watch from the future begins with what is kept.
    FutureReplaysHistory = Some(Bug::FutureReplaysHistory), [S6];
    /// A restore takes resource by resource, each with a reset.
    HalfRestore = Some(Bug::HalfRestore), [S7 S8 S9];
    /// A get gives the body as it was written, whatever was asked for.
    IgnoresFormat = Some(Bug::IgnoresFormat), [S1];
    /// The last writer wins.
    IgnoresPrecondition = Some(Bug::IgnoresPrecondition), [S3 S8 S12];
    /// Who is too slow goes on with the oldest change that is kept.
    LagIsSilent = Some(Bug::LagIsSilent), [S6];
    /// Who is dropped is still counted, and kept.
    LeaksSubscriber = Some(Bug::LeaksSubscriber), [S10];
    /// A watch takes what is there, and is registered later.
    ListThenRegister = Some(Bug::ListThenRegister), [S5 S6];
    /// The condition is looked at, and then the write is made.
    LostConditionalRace = Some(Bug::LostConditionalRace), [S3 S12];
    /// What is not there is an error, and of a kind that says nothing.
    NotFoundIsUnsupported = Some(Bug::NotFoundIsUnsupported), [S1 S2 S3 S4 S5 S7 S8 S9 S11 S12];
    /// Changes are told in the order in which writers come to tell them.
    OrderByArrival = Some(Bug::OrderByArrival), [S4 S5 S8 S12];
    /// Each page shows what is there when it is asked for.
    PagesMove = Some(Bug::PagesMove), [S5 S8];
    /// A write is shown before it is in the journal.
    PublishesBeforeDurable = Some(Bug::PublishesBeforeDurable), [S9];
    /// A restore is in the journal as the removal of everything, and then one write after the other.
    RestoreInPieces = Some(Bug::RestoreInPieces), [S9];
    /// A restore gives resources the revisions of the snapshot.
    RestoreKeepsRevisions = Some(Bug::RestoreKeepsRevisions), [S8];
    /// A restore tells nobody.
    RestoreSilent = Some(Bug::RestoreSilent), [S8];
    /// A restore goes back to the revisions of the snapshot.
    RestoreTurnsBack = Some(Bug::RestoreTurnsBack), [S8 S9];
    /// A watch from a place that is not kept goes on with the oldest one that is.
    ShowsWhatIsLeft = Some(Bug::ShowsWhatIsLeft), [S6 S8 S9];
    /// A snapshot has each resource as it is when its turn comes.
    SnapshotIsNoMoment = Some(Bug::SnapshotIsNoMoment), [S7];
    /// Each watcher has a queue of its own, as long as it takes.
    UnboundedQueue = Some(Bug::UnboundedQueue), [S6 S10];
    /// What is there already is written again.
    UnchangedEmits = Some(Bug::UnchangedEmits), [S3 S11 S12];
    /// A watch tells of bodies as they were written, whatever was asked for.
    WatchIgnoresFormat = Some(Bug::WatchIgnoresFormat), [S4];
}
