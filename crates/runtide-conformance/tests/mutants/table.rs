//! Backends that are broken on purpose, one trap each.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use runtide_core::{Cursor, InstanceId, event::Epoch};

macro_rules! mutants {
    ($($(#[$doc:meta])* $mutant:ident [$($law:ident)*];)*) => {
        /// In which way a backend is broken, and exactly which laws it fails.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutant { $( $(#[$doc])* $mutant, )* }

        impl Mutant {
            /// Every one, the sound one first.
            pub(crate) const ALL: &'static [Self] = &[$( Self::$mutant, )*];

            /// The laws that it must fail, and no other.
            pub(crate) fn fails(self) -> &'static [runtide_conformance::Law] {
                match self { $( Self::$mutant => &[$( runtide_conformance::Law::$law, )*], )* }
            }
        }
    };
}

mutants! {
    /// Nothing is wrong with it, but that its stream goes through the same hands as the others'.
    Sound [];
    /// It lists, then subscribes: what happens in between is lost.
    ListsFirst [R1 R3 R4 R6 R9 R12 R19 R21 R22];
    /// It tells what is there before it says that a view of everything begins.
    EventsBeforeTheBracket [R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 R11 R12 R13 R14 R15 R17 R19 R20 R21 R22 M5];
    /// It leaves numbers out.
    SkipsNumbers [R1 R2 R3 R4 R5 R6 R7 R9 R10 R11 R13 R14 R15 R19 R20 R21];
    /// Over a gap it merges what is there into what it knew, and what went stays.
    ForgetsDeletesOverAGap [R8 R9];
    /// It never tells of removals.
    ForgetsRemovals [R3 R4 R6 R7 R9 R14 R19 R21];
    /// A bracket is too much trouble: it says that it resumed.
    PretendsToHaveResumed [R1 R8 R9 R12 R17];
    /// After a reconnect it tells the last event again, as the runtime does.
    ReplaysDuplicates [R1 R2 R5 R7 R9 R10 R13];
    /// Two readers, one of them slower.
    SwapsNeighbours [R3 R4 R6 R7 R9 R14 R19 R21];
    /// Where the queue is full, it drops the event.
    DropsWhenFull [R7 R12];
    /// The queue has no end.
    QueueWithoutEnd [R12];
    /// It waits for quiet, and tells how things are then.
    DebouncesEvents [R4 R5 R7 R12 R21];
    /// It looks at each instance that an event names, and who is gone by then never was.
    DropsWhatNobodyLookedAt [R4 R7 R21];
    /// A signal was sent, so it must have stopped.
    SignalIsAStop [R20 R21];
    /// The exit code is read from the removal, where it is 0.
    ExitFromRemove [R21];
    /// Only states matter.
    IgnoresSmallChanges [R2 R6 R22];
    /// A stored cursor is thrown away without a word.
    IgnoresTheCursor [R7 R8];
    /// It stores where its consumer was, and not where the runtime's history was.
    ForgetsTheToken [R7];
    /// A link that is silent is a link that is quiet.
    NeverTimesOut [R10];
    /// While the link is down, it dials.
    HotLoop [R11];
    /// Whatever arrives on a new link resets the backoff.
    BackoffResetByMarker [R11];
    /// After ten minutes it has tried enough.
    GivesUp [R11];
    /// It tells of an outage for each attempt.
    OneEventPerAttempt [R1 R2 R5 R7 R8 R9 R10 R11 R13 R14 R15 R17];
    /// One item that cannot be decoded is an answer that cannot be decoded.
    BadItemBlinds [R13];
    /// What is not in the listing is not there.
    PartialListIsTheTruth [R13 R14];
    /// A stream is forgotten where it should be closed.
    LeaksConnections [R7 R8 R15];
    /// It can do anything.
    LyingCapabilities [R16];
    /// A watch opens only while the runtime is there.
    WatchNeedsTheRuntime [R1 R15 R17];
    /// Who did not call `connect` gets nothing.
    ListNeedsConnect [R6 R13 R15 R17];
    /// Every error is the same.
    EveryErrorIsUnexpected [R15 R17 R18 M1 M3 M6 M7 M8];
    /// Its errors quote the request that failed, password and all, as a URL does in many a client.
    LeaksTheCredential [R18];
    /// So does what its watch says of an outage, and of nothing else.
    LeaksTheCredentialInEvents [R18];
    /// Who has the same name is the same.
    NameIsIdentity [R19 M7];
    /// The first incarnation seen is the only one.
    FirstLifeForEver [R1 R2 R4 R5 R6 R7 R10 R11 R19];
    /// What it does not know it cannot bear.
    UnknownEventIsAnError [R20];
    /// Pausing succeeds, and does nothing.
    OkWithoutEffect [M1 M2 M6];
    /// What holds already is an error.
    NotIdempotent [M2 M5 M8];
    /// It always says that it did something.
    AlwaysChanged [M2 M8];
    /// How it ended is not known, so it ended well.
    InventsTheExit [R18 M3 M8];
    /// All output is one.
    MergesOutputs [M4];
    /// A byte goes missing at a seam.
    LosesBytes [M4];
    /// A call that is dropped leaves the door locked.
    PoisonedByCancel [M5 M6];
    /// It waits as long as it takes.
    NoDeadline [M6];
    /// Names are pasted into paths and shells.
    PastesNames [M8];
    /// A network keeps no labels: nobody can tell who made it.
    NetworksWithoutLabels [M7];
    /// It composes sidecars itself, and what was made before a step failed stays.
    SidecarsWithoutUndo [M7];
}

impl Mutant {
    /// Whether what its watch tells is not what the sound one tells.
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
                | Self::PoisonedByCancel
                | Self::NoDeadline
                | Self::PastesNames
                | Self::NetworksWithoutLabels
                | Self::SidecarsWithoutUndo
        )
    }
}

/// What the streams of one backend share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// For who takes a name for an identity: which id each name had first.
    pub(crate) first: Mutex<BTreeMap<String, InstanceId>>,
    /// Where the inner stream was at each place of an outer one.
    pub(crate) places: Mutex<HashMap<(Epoch, u64), Cursor>>,
}
