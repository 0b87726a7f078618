//! The interface between a store and its laws: [`StoreHarness`].

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use runtide_core::store::{Document, Revision, StoreBackend};

use super::StoreLaw;
use crate::{
    Done, Obstacle, Supported,
    wal::{Effort, Meter, ModelDisk},
};

/// Gives the laws a store, and drives it into the states that they need.
///
/// Each law gets a fresh harness, and with it a store that is empty: of a remote store, its own part. The laws write and read
/// through the interface; a harness does what the interface cannot: it makes positions expire, kills the process behind a
/// store, cuts its links.
///
/// A step that a store does not support is [`Obstacle::Unsupported`], with the reason. A law then continues without that part,
/// which the report says, or, if nothing is left of it, is skipped, which [`StoreHarness::skips`] must have announced.
///
/// No law assumes how quick a store is: it waits for what must come, up to [`StoreTuning::timeout`], and for nothing by the
/// clock alone.
#[async_trait]
pub trait StoreHarness: Send + Sync {
    /// The store's name in the report, as `etcd`.
    fn name(&self) -> &'static str;

    /// `true` if a real server is behind it.
    fn is_real(&self) -> bool {
        false
    }

    /// The server's version, if there is a server.
    fn version(&self) -> Option<String> {
        None
    }

    /// The laws' timeout, and how much they check.
    fn tuning(&self) -> StoreTuning;

    /// Laws that do not apply here, each with the reason. They are printed and counted, and the store's tests pin the count.
    fn skips(&self) -> &'static [(StoreLaw, &'static str)] {
        &[]
    }

    /// The store under test. It is the same one each time, except after a [`StoreHarness::crash`], which makes a new one.
    fn store(&self) -> Arc<dyn StoreBackend>;

    /// Another client of the same data, as another process would have one. For a store in this process it is the store itself.
    async fn another(&self) -> Done<Arc<dyn StoreBackend>> {
        Ok(self.store())
    }

    /// Another store of this kind, empty, that shares nothing with the first: snapshots travel between them.
    async fn foreign(&self) -> Done<Arc<dyn StoreBackend>> {
        Err(Obstacle::unsupported("another store"))
    }

    /// `true` if only the laws write to the store. A server that others write to at the same time is not alone: its last
    /// revision is then not compared with the laws' own.
    fn is_alone(&self) -> bool {
        true
    }

    /// Size in bytes of the largest document that it accepts. One byte more is `InvalidInput`.
    fn largest(&self) -> usize {
        Document::MAX_BYTES
    }

    /// Makes the store forget its history up to and including this revision, so that `Since::After(revision)` is `Expired` when
    /// this returns; the resources stay. It writes more changes than are kept ([`write_past`](super::write_past)), or compacts.
    /// The store has had later writes when this is called. It may add changes to its own resource, of the kind
    /// [`Expiry`](super::EXPIRY), and to nothing else.
    async fn expire(&self, revision: Revision) -> Done<()>;

    /// The number of changes after which a watcher that is open and not polled has lost its position for certain.
    fn overrun(&self) -> Done<Overrun> {
        Err(Obstacle::unsupported("a watcher that is too slow"))
    }

    /// Kills the process that keeps the data, and starts it again: [`StoreHarness::store`] then gives the store that an
    /// application would open after that. Nothing is flushed or closed before. Returns when the store can be used.
    async fn crash(&self) -> Done<()> {
        Err(Obstacle::unsupported("the death of what keeps the data"))
    }

    /// Opens a store of this kind on a disk that knows what each power cut may leave; the store keeps its data there through
    /// `runtide_core::wal::fs`. A store that was opened before on that disk was dropped, or is on a disk from before the power
    /// cut.
    ///
    /// Its thresholds must be so small that a few dozen writes meet each of its ways to rewrite, rotate and remove files.
    async fn open_on(&self, disk: &ModelDisk) -> Done<Arc<dyn StoreBackend>> {
        let _ = disk;
        Err(Obstacle::unsupported("files on a disk in memory"))
    }

    /// Disturbs the store, at once, and until [`StoreHarness::heal`] unless the disturbance says otherwise. In the meantime, calls
    /// may work, or fail with `Timeout` or `Unavailable`.
    async fn disturb(&self, disturbance: Disturbance) -> Supported {
        let _ = disturbance;
        Supported::No("disturbances: this store is in the process that uses it".to_owned())
    }

    /// Ends every disturbance; the store answers when this returns.
    async fn heal(&self) -> Done<()> {
        Ok(())
    }

    /// Counts the bytes that this process has allocated, if an allocator does that and nothing else runs at the same time.
    fn meter(&self) -> Option<&dyn Meter> {
        None
    }

    /// Removes all that the law left behind; called once, after the law.
    async fn finish(&self) {}
}

/// The timeout and the effort of the laws on a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreTuning {
    /// The longest wait for an event or an answer. It costs time only where a store is broken.
    pub timeout: Duration,
    /// How much is checked: a brief effort has as many writers, and fewer writes.
    pub effort: Effort,
}

impl StoreTuning {
    /// For a store in this process: everything is checked.
    pub const LOCAL: Self = Self { timeout: Duration::from_secs(60), effort: Effort::Full };

    /// For a store whose writes take milliseconds.
    pub const REMOTE: Self = Self { timeout: Duration::from_secs(300), effort: Effort::Brief };

    /// Sets how much is checked.
    #[must_use]
    pub const fn with_effort(mut self, effort: Effort) -> Self {
        self.effort = effort;
        self
    }

    /// Sets the timeout.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// How a watcher loses its position by being too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a harness makes it, and has to know all of it")]
pub struct Overrun {
    /// Number of changes behind which the position is lost. Fewer may be enough.
    pub changes: u64,
    /// `true` if the `Reset` has the number of changes that it replaces, which is then checked.
    pub counted: bool,
}

/// A disturbance of a remote store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Disturbance {
    /// Every link of every client breaks, once; new ones are accepted.
    Sever,
    /// Every link of [`StoreHarness::store`] breaks, and none can be made. Those of [`StoreHarness::another`] and of
    /// [`StoreHarness::expire`] are not touched.
    CutOff,
    /// The leader is killed. Healing starts it again.
    KillLeader,
    /// A follower is killed. Healing starts it again.
    KillFollower,
    /// The leader is cut off from the other members, and continues to think that it leads.
    IsolateLeader,
    /// The leader is paused, and continues later as if nothing had happened.
    PauseLeader,
}

impl Disturbance {
    /// All disturbances.
    pub const ALL: &'static [Self] =
        &[Self::Sever, Self::CutOff, Self::KillLeader, Self::KillFollower, Self::IsolateLeader, Self::PauseLeader];
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sever => "links that break",
            Self::CutOff => "links that are gone",
            Self::KillLeader => "the death of the leader",
            Self::KillFollower => "the death of a follower",
            Self::IsolateLeader => "a leader that is cut off from the others",
            Self::PauseLeader => "a leader that stands still",
        })
    }
}
