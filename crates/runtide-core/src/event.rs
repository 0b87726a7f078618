//! Events of a watch: [`RuntimeEvent`], its [`RuntimeEventKind`] and its [`Cursor`].

use std::{borrow::Cow, fmt, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    completeness::Completeness,
    error::Failure,
    instance::{BackendId, Instance, InstanceId},
    names::names,
};

names! {
    /// The runtime's own position in its history; opaque, read by its source alone.
    ResumeToken;
    /// Numbering domain of cursors; positions of different epochs do not compare.
    Epoch;
}

/// One event of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RuntimeEvent {
    /// The backend that emitted it.
    pub backend: BackendId,
    /// Position of the event; safe to store.
    pub cursor: Cursor,
    /// Time of its receipt, by the clock of this machine.
    #[serde(with = "crate::time")]
    pub observed_at: SystemTime,
    /// The runtime's clock: information, never order.
    #[serde(default, with = "crate::time::option", skip_serializing_if = "Option::is_none")]
    pub native_at: Option<SystemTime>,
    /// The runtime's own token of this very fact; absent if the event came from a comparison or an inspection.
    // Journals of earlier versions have it as `mark`.
    #[serde(default, alias = "mark", skip_serializing_if = "Option::is_none")]
    pub token: Option<ResumeToken>,
    /// The event itself.
    pub kind: RuntimeEventKind,
}

impl RuntimeEvent {
    /// An event without the runtime's time and token.
    pub fn new(backend: BackendId, cursor: Cursor, observed_at: SystemTime, kind: RuntimeEventKind) -> Self {
        Self { backend, cursor, observed_at, native_at: None, token: None, kind }
    }

    /// The instance of the event.
    pub fn instance(&self) -> Option<&Arc<Instance>> {
        self.kind.instance()
    }

    /// The identity of a fact that the runtime reported with its own token: equal across reconnects and restarts of
    /// either side. An event from a comparison has none.
    ///
    /// BLAKE3 over (backend, kind, id, token), each preceded by its length.
    pub fn key(&self) -> Option<[u8; 32]> {
        let token = self.token.as_ref()?;
        let id: &InstanceId = &self.instance()?.id;
        let mut hasher = blake3::Hasher::new();
        for part in [self.backend.as_str(), self.kind.name(), id.as_str(), token.as_str()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Some(*hasher.finalize().as_bytes())
    }
}

/// Kind of an event. Outside a resync and while connected, each is a fact that the runtime reported, in order per instance;
/// inside a resync there is only `Present`, and a difference from before is a net effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RuntimeEventKind {
    /// A run began. Fields that the report did not carry (ports, addresses) follow as `Updated`.
    Started(Arc<Instance>),
    /// A visible field changed, or an instance that never ran was seen for the first time.
    Updated {
        /// The instance as it is now.
        instance: Arc<Instance>,
        /// The fields that differ from the instance as delivered before.
        changed: FieldSet,
    },
    /// A run ended, and the instance is still known to the runtime; carries the exit if it was seen.
    Stopped(Arc<Instance>),
    /// The instance was removed; as last known. Only an observed removal or a complete listing is proof of it.
    Removed(Arc<Instance>),
    /// The consumer's rows may be stale from here; once per outage.
    BackendDisconnected {
        /// `None`: the runtime closed the stream cleanly.
        cause: Option<Failure>,
    },
    /// The outage is over.
    BackendReconnected {
        /// `Resumed`: the missed edges follow, then `CaughtUp`. `Lost`: a resync follows.
        continuity: Continuity,
    },
    /// Everything that was missed in the outage has been delivered: ends what a `BackendReconnected` that says `Resumed` began.
    /// A replay that loses something, or that cannot be applied to any rows, ends in a resync instead.
    CaughtUp,
    /// Begins a resync, which replaces all rows: an instance that it has not shown by `ResyncEnd` is gone.
    ResyncBegin {
        /// Reason of the resync.
        gap: Gap,
    },
    /// Inside a resync: a present instance.
    Present(Arc<Instance>),
    /// Ends the resync: from here every edge is delivered. It carries the completeness of the listing behind it.
    ///
    /// After a partial listing, the rows are those that it showed and those that were known before and could not be read. Once a
    /// listing is complete, another resync says so, also where nothing else differs ([`Gap::PartialListing`]).
    ResyncEnd(Completeness),
    /// Everything up to this cursor has been delivered: safe to persist on a quiet stream.
    Bookmark,
}

impl RuntimeEventKind {
    /// The kind as it is written in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::Updated { .. } => "updated",
            Self::Stopped(_) => "stopped",
            Self::Removed(_) => "removed",
            Self::BackendDisconnected { .. } => "backend_disconnected",
            Self::BackendReconnected { .. } => "backend_reconnected",
            Self::CaughtUp => "caught_up",
            Self::ResyncBegin { .. } => "resync_begin",
            Self::Present(_) => "present",
            Self::ResyncEnd(_) => "resync_end",
            Self::Bookmark => "bookmark",
        }
    }

    /// The instance of the event.
    pub fn instance(&self) -> Option<&Arc<Instance>> {
        match self {
            Self::Started(instance)
            | Self::Updated { instance, .. }
            | Self::Stopped(instance)
            | Self::Removed(instance)
            | Self::Present(instance) => Some(instance),
            Self::BackendDisconnected { .. }
            | Self::BackendReconnected { .. }
            | Self::CaughtUp
            | Self::ResyncBegin { .. }
            | Self::ResyncEnd(_)
            | Self::Bookmark => None,
        }
    }
}

/// Names of [`Instance`]'s fields, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldSet(Vec<Cow<'static, str>>);

impl FieldSet {
    /// The fields in which the two differ; `generation` is not one.
    pub fn between(before: &Instance, after: &Instance) -> Self {
        let differing = before.compared(after).filter(|(_, differs)| *differs);
        Self(differing.map(|(name, _)| Cow::Borrowed(name)).collect())
    }

    /// The known fields, for an instance seen for the first time.
    pub(crate) fn known(instance: &Instance) -> Self {
        Self(instance.known().map(Cow::Borrowed).collect())
    }

    /// `true` if no field differs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `true` if this field differs.
    pub fn contains(&self, field: &str) -> bool {
        self.iter().any(|name| name == field)
    }

    /// Names of the fields that differ.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}

impl fmt::Display for FieldSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, name) in self.iter().enumerate() {
            write!(f, "{}{name}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Continuity of the runtime's history across an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Continuity {
    /// Every edge of the outage follows; `CaughtUp` ends them.
    Resumed,
    /// A resync follows.
    Lost,
}

/// Reason for which edges may be missing. `Display` says it in a few words, as `the link was down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Gap {
    /// The watch begins.
    Initial,
    /// The link was down, or reported less than it should.
    Disconnected,
    /// The runtime's history does not reach back far enough.
    HistoryExpired,
    /// The runtime itself was restarted, and its history with it.
    RuntimeRestarted,
    /// A message could not be read.
    Undecodable,
    /// The cursor to resume from is not one of this watch.
    ForeignCursor,
    /// A store was restored from a snapshot.
    Restored,
    /// A listing was partial, or the last one was and this one is complete: an instance may be seen for the first time.
    PartialListing,
    /// The subscriber was too slow for the ring.
    Lagged {
        /// Number of events that the subscriber did not get.
        dropped: u64,
    },
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initial => "the watch begins",
            Self::Disconnected => "the link was down",
            Self::HistoryExpired => "the history was too short",
            Self::RuntimeRestarted => "the runtime was restarted",
            Self::Undecodable => "a message could not be read",
            Self::ForeignCursor => "the position is of another watch",
            Self::Restored => "a snapshot was restored",
            Self::PartialListing => "a listing was partial",
            Self::Lagged { dropped } => return write!(f, "{dropped} events came faster than they were read"),
        })
    }
}

/// A resume point, safe to store.
///
/// Within an epoch `seq` rises by one per event of an unfiltered stream. A resync has its own epoch up to
/// `ResyncEnd`, which is numbered in the ring's again; a cursor from inside a resync resumes as a new resync.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cursor {
    /// The numbering domain; positions of different epochs do not compare.
    pub epoch: Epoch,
    /// The position in the epoch.
    pub seq: u64,
    /// The runtime's own token to resume after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<ResumeToken>,
}

impl Cursor {
    /// A position in an epoch.
    pub fn new(epoch: Epoch, seq: u64, native: Option<ResumeToken>) -> Self {
        Self { epoch, seq, native }
    }
}
