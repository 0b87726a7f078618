//! Backends that are broken on purpose, one trap each.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use runtide_core::{Cursor, InstanceId, event::Epoch};

use crate::pinned::mutants;

mutants! { runtide_conformance::Law;
    /// Nothing is wrong with it, but its stream goes through the same code as the others'.
    Sound [];
    /// It lists, then subscribes: an event in between is lost.
    ListsFirst [R1 R3 R4 R5 R6 R9 R12 R13 R14 R19 R21 R22];
    /// It emits the instances before it begins a resync.
    EventsBeforeTheBracket [R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 R11 R12 R13 R14 R15 R17 R19 R20 R21 R22 R23 R24 M5];
    /// It skips numbers.
    SkipsNumbers [R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 R11 R13 R14 R15 R19 R20 R21 R24];
    /// Over a gap it merges the listing into the rows that it knew, and a removed instance stays.
    ForgetsDeletesOverAGap [R8 R9];
    /// It never reports removals.
    ForgetsRemovals [R3 R4 R6 R7 R8 R9 R13 R14 R19 R21 R24];
    /// It makes no resync after an outage, nor any other but the first, and claims that it resumed.
    PretendsToHaveResumed [R1 R7 R8 R9 R12 R13 R14 R17];
    /// After a reconnect it emits the last event again, as the runtime does.
    ReplaysDuplicates [R1 R2 R5 R7 R8 R9 R10 R13];
    /// Two tasks read, and one of them is slower.
    SwapsNeighbours [R3 R4 R6 R7 R8 R9 R13 R14 R19 R21 R24];
    /// When its queue is full, it drops the event.
    DropsWhenFull [R7 R12];
    /// The queue has no end.
    QueueWithoutEnd [R12];
    /// It waits for quiet, and emits the last event of each instance.
    DebouncesEvents [R3 R4 R5 R7 R8 R12 R13 R21 R24];
    /// It inspects each instance that an event names, and drops the event if the instance is gone by then.
    DropsWhatNobodyLookedAt [R3 R4 R7 R8 R13 R21 R24];
    /// It takes a signal that was sent for a stop.
    SignalIsAStop [R20 R21];
    /// The exit code is read from the removal, where it is 0.
    ExitFromRemove [R21];
    /// It reports changes of the state alone.
    IgnoresSmallChanges [R2 R6 R22];
    /// It ignores a stored cursor, without a gap.
    IgnoresTheCursor [R7 R8 R24];
    /// It stores the position of its consumer, and not that of the runtime's history.
    ForgetsTheToken [R7];
    /// It takes a silent link for a quiet runtime.
    NeverTimesOut [R8 R10];
    /// While the link is down, it dials without a pause.
    HotLoop [R11];
    /// Any message on a new link resets the backoff.
    BackoffResetByMarker [R11];
    /// It pauses longer and longer while nothing listens.
    BacksOffUnheard [R23];
    /// It gives up after ten minutes.
    GivesUp [R11];
    /// It reports an outage for each attempt.
    OneEventPerAttempt [R1 R2 R5 R7 R8 R9 R10 R11 R13 R14 R15 R17 R23];
    /// One item that cannot be decoded makes the whole answer fail.
    BadItemBlinds [R13];
    /// It takes an instance that is missing from a partial listing for removed.
    PartialListIsTheTruth [R13 R14];
    /// Each of its resyncs ends as if the listing had been complete.
    CallsEveryResyncComplete [R13 R14];
    /// It says that the missed edges have been delivered as soon as the link is back.
    CaughtUpAtOnce [R7];
    /// It forgets a stream that it should close.
    LeaksConnections [R7 R8 R15 R24];
    /// It claims every capability.
    LyingCapabilities [R16];
    /// A watch opens only while the runtime is there.
    WatchNeedsTheRuntime [R1 R15 R17];
    /// A list before `connect` fails.
    ListNeedsConnect [R6 R13 R15 R17];
    /// Every error has the same kind.
    EveryErrorIsUnexpected [R11 R15 R17 R18 M1 M3 M6 M7 M8];
    /// Its errors quote the request that failed, password and all, as a URL does in many a client.
    LeaksTheCredential [R18];
    /// The same, but only in its watch, in the cause of an outage.
    LeaksTheCredentialInEvents [R18];
    /// It takes the name for the identity.
    NameIsIdentity [R19 M7];
    /// It reports the first incarnation seen for all later ones.
    FirstLifeForEver [R1 R2 R4 R5 R6 R7 R10 R11 R19];
    /// An event of an unknown kind ends the stream.
    UnknownEventIsAnError [R20];
    /// Pausing succeeds, and does nothing.
    OkWithoutEffect [M1 M2 M6];
    /// A verb towards the present state is an error.
    NotIdempotent [M1 M2 M5 M8];
    /// It always reports that it changed something.
    AlwaysChanged [M1 M2 M8];
    /// It reports an unknown end as a success.
    InventsTheExit [R18 M3 M8];
    /// It merges stdout and stderr.
    MergesOutputs [M4];
    /// It loses a byte at a seam.
    LosesBytes [M4];
    /// It takes the end of a process for the end of its output, and loses what is still on the way.
    LosesTheEndOfAnExec [M4 M8];
    /// It starts the instance, then attaches.
    StartsThenAttaches [M4];
    /// It never ends the input of a process.
    InputWithoutEnd [M4];
    /// A call that is dropped leaves its lock held.
    PoisonedByCancel [M5 M6];
    /// Its calls have no deadline.
    NoDeadline [M6];
    /// Names are pasted into paths and shells.
    PastesNames [M4 M8];
    /// A network keeps no labels: its owner is unknown.
    NetworksWithoutLabels [M1 M7 M8];
    /// It answers `Resumed` to any token, and reports what the runtime still remembers.
    ResumesWithoutProof [R7 R8 R24];
    /// The same, but only after a restart of the runtime: it keeps its position, and the runtime has forgotten it.
    ResumesOverARestart [R7 R24];
    /// A stream that has been silent for long is replaced by a fresh one, and what is there is listed. It does not say that
    /// something may have been missed in between.
    ReplacesASilentStream [R8];
    /// A stream that the runtime closed is replaced in the same way.
    ReplacesAClosedStream [R8];
    /// While an item cannot be decoded, it polls.
    PollsNextToABadItem [R13];
    /// A start of an instance that runs restarts it.
    RestartsTheStarted [M2];
    /// Its tokens are numbers alone, and the runtime counts from 1 again once it has lost everything.
    CountsFromOne [R24];
    /// Of a hundred messages about one instance it loses one.
    LosesOneEventInAHundred [R12 R21];
    /// Each eighth create needs a second instance, as a helper, and forgets it. The helper has no labels.
    ForgetsAHelper [M7];
    /// Each eighth create needs an image of its own, and forgets it. Chaos finds it.
    ForgetsAnImage [];
    /// It composes sidecars itself, and leaves the objects made before a failed step.
    SidecarsWithoutUndo [M7];
}

impl Mutant {
    /// `true` if its watch differs from the sound one.
    pub(crate) fn spoils_the_stream(self) -> bool {
        !matches!(
            self,
            Self::NeverTimesOut
                | Self::BackoffResetByMarker
                | Self::BadItemBlinds
                | Self::LyingCapabilities
                | Self::ListNeedsConnect
                | Self::EveryErrorIsUnexpected
                | Self::LeaksTheCredential
                | Self::OkWithoutEffect
                | Self::NotIdempotent
                | Self::AlwaysChanged
                | Self::InventsTheExit
                | Self::MergesOutputs
                | Self::LosesBytes
                | Self::LosesTheEndOfAnExec
                | Self::StartsThenAttaches
                | Self::InputWithoutEnd
                | Self::PoisonedByCancel
                | Self::NoDeadline
                | Self::PastesNames
                | Self::NetworksWithoutLabels
                | Self::RestartsTheStarted
                | Self::CountsFromOne
                | Self::ResumesWithoutProof
                | Self::ResumesOverARestart
                | Self::ReplacesASilentStream
                | Self::ReplacesAClosedStream
                | Self::PollsNextToABadItem
                | Self::LosesOneEventInAHundred
                | Self::ForgetsAHelper
                | Self::ForgetsAnImage
                | Self::SidecarsWithoutUndo
        )
    }
}

/// State shared by the streams of one backend.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The first id of each name, for `NameIsIdentity`.
    pub(crate) first: Mutex<BTreeMap<String, InstanceId>>,
    /// The inner position for each position of an outer stream.
    pub(crate) places: Mutex<HashMap<(Epoch, u64), Cursor>>,
}
