//! What fails on a disk, and how much is asked of it.

use std::{
    io::{Error, ErrorKind, Result},
    ops::Sub,
    path::PathBuf,
};

/// A sort of operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A write; half of it is written.
    Write,
    /// A sync of a file or a folder.
    Sync,
    /// There is no room for a new file, or for more of one.
    Full,
    /// A name cannot be changed or removed.
    Name,
}

impl Fault {
    /// Each of them.
    pub const ALL: &'static [Self] = &[Self::Write, Self::Sync, Self::Full, Self::Name];
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    plan: Option<Plan>,
    happened: bool,
    hits: Vec<Hit>,
}

/// What an operation that failed was about.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    /// The file or folder; of a renaming, the new name.
    pub(crate) path: PathBuf,
    /// There was nothing in the file yet.
    pub(crate) blank: bool,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    fault: Fault,
    left: u64,
    for_good: bool,
}

impl Faults {
    pub(super) fn plan(&mut self, fault: Fault, nth: u64, for_good: bool) {
        *self = Self { plan: Some(Plan { fault, left: nth, for_good }), ..Self::default() };
    }

    /// What it failed on stays known.
    pub(super) fn heal(&mut self) -> bool {
        self.plan = None;
        std::mem::take(&mut self.happened)
    }

    pub(super) fn hits(&self) -> &[Hit] {
        &self.hits
    }

    /// An operation of this sort: does it fail?
    pub(super) fn meet(&mut self, fault: Fault, hit: impl FnOnce() -> Hit) -> Result<()> {
        let Some(plan) = self.plan.as_mut().filter(|plan| plan.fault == fault) else { return Ok(()) };
        if plan.left > 0 {
            plan.left -= 1;
            return Ok(());
        }
        if !plan.for_good {
            self.plan = None;
        }
        self.happened = true;
        self.hits.push(hit());
        Err(match fault {
            Fault::Full => ErrorKind::StorageFull.into(),
            _ => Error::other(format!("the model disk fails: {fault:?}")),
        })
    }
}

/// How much was asked of a disk. The difference of two tells what happened in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// Reads.
    pub reads: u64,
    /// Bytes that they gave.
    pub bytes_read: u64,
    /// The largest room that was ever given to one read, in bytes; of a difference, what it was at the end.
    pub largest_read: u64,
    /// Syncs of files, failed ones included.
    pub syncs: u64,
    /// Syncs of a file whose last sync failed, and that was not changed since; and of a folder whose last sync failed.
    pub syncs_tried_again: u64,
    /// Writes to where the last write failed.
    pub writes_tried_again: u64,
}

impl Load {
    pub(super) fn read(&mut self, room: u64, got: u64) {
        self.reads += 1;
        self.bytes_read += got;
        self.largest_read = self.largest_read.max(room);
    }
}

impl Sub for Load {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            bytes_read: self.bytes_read - before.bytes_read,
            largest_read: self.largest_read,
            syncs: self.syncs - before.syncs,
            syncs_tried_again: self.syncs_tried_again - before.syncs_tried_again,
            writes_tried_again: self.writes_tried_again - before.writes_tried_again,
        }
    }
}
