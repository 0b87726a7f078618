//! The workloads, and the interface of the contenders that run them.

use crate::{Round, is_trial};

/// Runs one turn of a contender at a workload, and returns its time and count.
pub type Turn = Box<dyn FnMut() -> Round>;

/// A workload for a store. The store has a million resources of 512 bytes, unless the variant says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Applies a million new resources to an empty store.
    Fill,
    /// Replaces random resources.
    Replace,
    /// Gets random resources.
    Get,
    /// Lists a namespace: a hundredth of the resources.
    List,
    /// Lists a namespace to which a resource has been added since its last listing.
    ListAfterAdding,
    /// Two threads, each of which gets nine times for each replacement.
    TwoThreads,
    /// Writes a snapshot of 100,000 resources to memory.
    Snapshot,
    /// Restores a snapshot of 100,000 resources into an empty store.
    Restore,
}

impl Work {
    /// All workloads, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Fill,
        Self::Replace,
        Self::Get,
        Self::List,
        Self::ListAfterAdding,
        Self::TwoThreads,
        Self::Snapshot,
        Self::Restore,
    ];

    /// Name of the workload in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Fill => "apply 1 M new",
            Self::Replace => "apply to one of 1 M",
            Self::Get => "get one of 1 M",
            Self::List => "list 10,000 of 1 M",
            Self::ListAfterAdding => "the same, one added since",
            Self::TwoThreads => "2 threads, 90 % get",
            Self::Snapshot => "snapshot of 100,000",
            Self::Restore => "restore of 100,000",
        }
    }

    /// Number of turns of each contender: fewer where a turn is long.
    pub fn turns(self) -> usize {
        match self {
            Self::Fill => 3,
            Self::ListAfterAdding | Self::Snapshot | Self::Restore => 11,
            _ => 21,
        }
    }

    /// `true` if the figure is the time of one call, `false` if it is the number of calls per second.
    pub fn is_a_time(self) -> bool {
        !matches!(self, Self::Get | Self::TwoThreads)
    }
}

/// `count`, or a thousandth of it in a trial, where nothing is measured.
pub(super) fn of_million(count: usize) -> usize {
    if is_trial() { count / 1_000 } else { count }
}

/// A contender whose types are erased.
pub trait Peer {
    /// Name of the contender in the tables.
    fn name(&self) -> &'static str;

    /// Note that is printed below the table; empty if there is none.
    fn note(&self) -> &'static str;

    /// A turn at this workload; `None` if the contender does not support it.
    fn turn(&self, work: Work) -> Option<Turn>;

    /// Drops the filled store that the workloads share.
    fn clear(&self);

    /// Fills a new store with `count` resources with bodies of `size` bytes. The caller measures how much memory that takes.
    fn fill(&self, count: usize, size: usize) -> Box<dyn Holder>;
}

/// A filled store, whose memory and snapshots are measured.
pub trait Holder {
    /// Writes a snapshot and returns its size in bytes; `None` if the store has no snapshots.
    fn snapshot(&mut self) -> Option<usize>;

    /// Restores the last snapshot into another store, checks its count, and returns that store.
    fn restore(&self) -> Box<dyn std::any::Any>;
}
