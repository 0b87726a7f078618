//! The ways in which a store can be wrong.

/// The bug of a [`Plain`](super::plain::Plain) store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    AcceptsCorruptSnapshot,
    AcknowledgedBeforeSeen,
    AcknowledgedBeforeSync,
    ClusterIsANamespace,
    ComparesBytesAlone,
    CountsLagWrong,
    ForgetsGroup,
    FutureReplaysHistory,
    HalfRestore,
    IgnoresFormat,
    IgnoresPrecondition,
    LagIsSilent,
    LeaksSubscriber,
    ListThenRegister,
    LostConditionalRace,
    NotFoundIsUnsupported,
    OrderByArrival,
    PagesMove,
    PublishesBeforeDurable,
    RestoreInPieces,
    RestoreKeepsRevisions,
    RestoreSilent,
    RestoreTurnsBack,
    ShowsWhatIsLeft,
    SnapshotIsNoMoment,
    UnboundedQueue,
    UnchangedEmits,
    WatchIgnoresFormat,
}
