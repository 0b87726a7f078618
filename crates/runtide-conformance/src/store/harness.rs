//! What a store is to the laws: [`StoreHarness`].

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use runtide_core::store::{Document, Revision, StoreBackend};

use super::StoreLaw;
use crate::{
    Done, Obstacle, Supported,
    wal::{Effort, Meter, ModelDisk},
};

/// Gives the laws a store, and drives it to where they want it.
///
/// Each law gets a fresh harness, and with it a store that is empty: of a store elsewhere, a part of its own. Writing and
/// reading are done by the laws, through the interface; a harness does what the interface cannot: makes places expire, kills
/// what is behind a store, cuts its links.
///
/// What a store does not have is [`Obstacle::Unsupported`], with the reason. A law then goes on without that part and says so
/// in the report, or, if nothing is left of it, is skipped, which [`StoreHarness::skips`] must have announced.
///
/// No law assumes how quick a store is: what must come is waited for, up to [`StoreTuning::timeout`], and nothing is waited
/// for by the clock alone.
#[async_trait]
pub trait StoreHarness: Send + Sync {
    /// The store's name in the report, as `etcd`.
    fn name(&self) -> &'static str;

    /// Whether a real server is behind it.
    fn is_real(&self) -> bool {
        false
    }

    /// The server's version, where there is one.
    fn version(&self) -> Option<String> {
        None
    }

    /// How patient the laws are, and how much they look at.
    fn tuning(&self) -> StoreTuning;

    /// Laws that do not apply here, each with the reason. Printed, counted, and the count is pinned by the store's tests.
    fn skips(&self) -> &'static [(StoreLaw, &'static str)] {
        &[]
    }

    /// The store under test. The same one each time, but for the new one that there is after a [`StoreHarness::crash`].
    fn store(&self) -> Arc<dyn StoreBackend>;

    /// Another client of the same data, as another process would have one. In process it is the store itself.
    async fn another(&self) -> Done<Arc<dyn StoreBackend>> {
        Ok(self.store())
    }

    /// Another store of this kind, empty, that shares nothing with the first: snapshots travel between them.
    async fn foreign(&self) -> Done<Arc<dyn StoreBackend>> {
        Err(Obstacle::unsupported("another store"))
    }

    /// Whether nobody but the laws gives the store's revisions away. A server that others write to meanwhile is not alone: what
    /// it says of its last revision is then not held against it.
    fn is_alone(&self) -> bool {
        true
    }

    /// The largest document that it takes, in bytes. One byte more is `InvalidInput`.
    fn largest(&self) -> usize {
        Document::MAX_BYTES
    }

    /// Makes the store forget what was before this revision and the revision itself, so that `Since::After(revision)` is
    /// `Expired` when this returns; what is there stays there. By writing more than is kept ([`write_past`](super::write_past)),
    /// or by a compaction. The store has had later writes when this is called. It may add changes to a resource of its own, of
    /// the kind [`Expiry`](super::EXPIRY), and to nothing else.
    async fn expire(&self, revision: Revision) -> Done<()>;

    /// How far behind a watcher that is open and not polled has lost its place for certain.
    fn overrun(&self) -> Done<Overrun> {
        Err(Obstacle::unsupported("a watcher that is too slow"))
    }

    /// Kills what keeps the data, and starts it again: [`StoreHarness::store`] then gives what an application would open after
    /// that. Nothing is flushed, closed or said goodbye to. Returns when the store can be used.
    async fn crash(&self) -> Done<()> {
        Err(Obstacle::unsupported("the death of what keeps the data"))
    }

    /// Opens a store of this kind on a disk that knows what each power cut may leave, where it keeps its data through
    /// `runtide_core::wal::fs`. One that was opened before on that disk was dropped, or is on a disk from before the power cut.
    ///
    /// Its thresholds are to be so small that a few dozen writes meet each of its ways to rewrite, rotate and remove files.
    async fn open_on(&self, disk: &ModelDisk) -> Done<Arc<dyn StoreBackend>> {
        let _ = disk;
        Err(Obstacle::unsupported("files on a disk in memory"))
    }

    /// Disturbs the store, at once, and until [`StoreHarness::heal`] unless the disturbance says otherwise. Whether calls fail
    /// meanwhile, with `Timeout` or `Unavailable`, is the store's business.
    async fn disturb(&self, disturbance: Disturbance) -> Supported {
        let _ = disturbance;
        Supported::No("disturbances: this store is in the process that uses it".to_owned())
    }

    /// Mends everything; the store answers when this returns.
    async fn heal(&self) -> Done<()> {
        Ok(())
    }

    /// Counts the bytes that this process holds, where an allocator does that and nothing else runs meanwhile.
    fn meter(&self) -> Option<&dyn Meter> {
        None
    }

    /// Removes what is left; called once, after the law.
    async fn finish(&self) {}
}

/// How patient the laws are with a store, and how much they look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreTuning {
    /// The longest wait for what must come. It costs nothing but where a store is broken.
    pub timeout: Duration,
    /// How much is looked at: the number of writers stays, that of their writes is smaller.
    pub effort: Effort,
}

impl StoreTuning {
    /// For a store in this process: everything is looked at.
    pub const LOCAL: Self = Self { timeout: Duration::from_secs(60), effort: Effort::Full };

    /// For a store of which each write takes milliseconds.
    pub const REMOTE: Self = Self { timeout: Duration::from_secs(120), effort: Effort::Brief };

    /// With as much looked at.
    #[must_use]
    pub const fn with_effort(mut self, effort: Effort) -> Self {
        self.effort = effort;
        self
    }

    /// With this timeout.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// How a watcher loses its place by being too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a harness makes it, and has to know all of it")]
pub struct Overrun {
    /// So many changes behind, it has lost it. Fewer may do.
    pub changes: u64,
    /// Whether the `Reset` says how many changes it stands for, which is then checked.
    pub counted: bool,
}

/// What can happen to a store that is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Disturbance {
    /// Every link of every client breaks, once; new ones are welcome.
    Sever,
    /// Every link of [`StoreHarness::store`] breaks, and none can be made. Those of [`StoreHarness::another`] are not touched,
    /// nor what [`StoreHarness::expire`] does.
    CutOff,
    /// The member that leads is killed. Healing starts it again.
    KillLeader,
    /// A member that does not lead is killed. Healing starts it again.
    KillFollower,
    /// The member that leads is cut off from the others, and goes on to think that it leads.
    IsolateLeader,
    /// The member that leads stands still, and goes on later as if nothing had been.
    PauseLeader,
}

impl Disturbance {
    /// Every one.
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
