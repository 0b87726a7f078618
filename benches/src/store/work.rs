//! The works, and who does them.

use crate::{Round, is_trial};

/// One turn of a contender at a work.
pub type Turn = Box<dyn FnMut() -> Round>;

/// What a store is made to do. It has a million resources of 512 bytes, unless another number is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// A million new ones are applied to an empty store.
    Fill,
    /// Any of them is replaced.
    Replace,
    /// Any of them is got.
    Get,
    /// All of one namespace are listed, which is one in a hundred.
    List,
    /// The same, when one has been added to it since it was last listed.
    ListAfterAdding,
    /// Two threads, each of which gets nine times and replaces once.
    TwoThreads,
    /// A snapshot of 100,000 is written to memory.
    Snapshot,
    /// It is restored into an empty store.
    Restore,
}

impl Work {
    /// All of them, in the table's order.
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

    /// As the table has it.
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

    /// How many turns each contender takes: fewer where a turn is long.
    pub fn turns(self) -> usize {
        match self {
            Self::Fill => 3,
            Self::ListAfterAdding | Self::Snapshot | Self::Restore => 11,
            _ => 21,
        }
    }

    /// Whether the figure is the time for one, instead of how many in a second.
    pub fn is_a_time(self) -> bool {
        !matches!(self, Self::Get | Self::TwoThreads)
    }
}

/// How many there are of what is a million, or what will do for a trial.
pub(super) fn of_million(count: usize) -> usize {
    if is_trial() { count / 1_000 } else { count }
}

/// A contender at each work.
pub trait Peer {
    /// As the table has it.
    fn name(&self) -> &'static str;

    /// What must be known to read its figures; empty if nothing.
    fn note(&self) -> &'static str;

    /// How it does a turn of this work; `None` if it cannot.
    fn turn(&self, work: Work) -> Option<Turn>;

    /// Lets go of the store that one turn left to the next.
    fn clear(&self);

    /// What it holds for so many resources of that many bytes each, by `held`, which counts the bytes that are allocated.
    fn fill(&self, count: usize, size: usize) -> Box<dyn Holder>;
}

/// A filled store, to be looked at from outside.
pub trait Holder {
    /// Writes a snapshot, and gives its size; `None` if it cannot.
    fn snapshot(&mut self) -> Option<usize>;

    /// Restores the snapshot into another store, which must then hold as many.
    fn restore(&self) -> Box<dyn std::any::Any>;
}
