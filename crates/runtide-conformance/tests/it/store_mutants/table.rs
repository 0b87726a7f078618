//! Stores that are broken on purpose, one trap each.

use super::bugs::Bug;
use crate::pinned::mutants;

mutants! { runtide_conformance::store::StoreLaw => Option<Bug>;
    /// Nothing is wrong with it.
    Sound = None, [];
    /// A corrupt snapshot is taken as far as it can be read.
    AcceptsCorruptSnapshot = Some(Bug::AcceptsCorruptSnapshot), [S7];
    /// While writes are under way, readers see the state from before the first of them: each alone is in order.
    AcknowledgedBeforeSeen = Some(Bug::AcknowledgedBeforeSeen), [S12];
    /// A write is acknowledged when the operating system has it, and synced later.
    AcknowledgedBeforeSync = Some(Bug::AcknowledgedBeforeSync), [S9];
    /// A resource without a namespace is kept under a made-up namespace, and collides with one that has it.
    ClusterIsANamespace = Some(Bug::ClusterIsANamespace), [S2];
    /// Only the bytes are compared, so that another format of the same bytes is no change.
    ComparesBytesAlone = Some(Bug::ComparesBytesAlone), [S11];
    /// A reset has the wrong number of changes.
    CountsLagWrong = Some(Bug::CountsLagWrong), [S6];
    /// The group is not part of the key.
    ForgetsGroup = Some(Bug::ForgetsGroup), [S2];
    /// A watch from a future revision begins with the oldest change that is kept.
    FutureReplaysHistory = Some(Bug::FutureReplaysHistory), [S6];
    /// A restore replaces resource by resource, each with a reset.
    HalfRestore = Some(Bug::HalfRestore), [S7 S8 S9];
    /// A get returns the body as it was written, in any format.
    IgnoresFormat = Some(Bug::IgnoresFormat), [S1];
    /// The precondition is ignored, so that the last writer wins.
    IgnoresPrecondition = Some(Bug::IgnoresPrecondition), [S3 S8 S12];
    /// A watcher that is too slow continues with the oldest change that is kept.
    LagIsSilent = Some(Bug::LagIsSilent), [S6];
    /// A watcher that is dropped is still counted, and kept.
    LeaksSubscriber = Some(Bug::LeaksSubscriber), [S10];
    /// A watch takes the state, and is registered later.
    ListThenRegister = Some(Bug::ListThenRegister), [S5 S6];
    /// The condition is checked, and then the write is made.
    LostConditionalRace = Some(Bug::LostConditionalRace), [S3 S12];
    /// A missing resource is an error, of a kind that means nothing.
    NotFoundIsUnsupported = Some(Bug::NotFoundIsUnsupported), [S1 S2 S3 S4 S5 S7 S8 S9 S11 S12];
    /// Changes are delivered in the order in which writers come to publish them.
    OrderByArrival = Some(Bug::OrderByArrival), [S4 S5 S8 S12];
    /// Each page shows the state at the time of its request.
    PagesMove = Some(Bug::PagesMove), [S5 S8];
    /// A write is shown before it is in the journal.
    PublishesBeforeDurable = Some(Bug::PublishesBeforeDurable), [S9];
    /// A restore is in the journal as the removal of everything, and then one write after the other.
    RestoreInPieces = Some(Bug::RestoreInPieces), [S9];
    /// A restore gives resources the revisions of the snapshot.
    RestoreKeepsRevisions = Some(Bug::RestoreKeepsRevisions), [S8];
    /// A restore emits nothing.
    RestoreSilent = Some(Bug::RestoreSilent), [S8];
    /// A restore goes back to the revisions of the snapshot.
    RestoreTurnsBack = Some(Bug::RestoreTurnsBack), [S8 S9];
    /// A watch from a position that is not kept continues from the oldest one that is.
    ShowsWhatIsLeft = Some(Bug::ShowsWhatIsLeft), [S6 S8 S9];
    /// A snapshot has each resource in its state when its turn comes.
    SnapshotIsNoMoment = Some(Bug::SnapshotIsNoMoment), [S7];
    /// Each watcher has its own queue, without a bound.
    UnboundedQueue = Some(Bug::UnboundedQueue), [S6 S10];
    /// A document that is already stored is written again.
    UnchangedEmits = Some(Bug::UnchangedEmits), [S3 S11 S12];
    /// A watch delivers bodies as they were written, in any format.
    WatchIgnoresFormat = Some(Bug::WatchIgnoresFormat), [S4];
}
