//! Faults of a disk, and its load.

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
    /// The disk is full: no new file, and no file may grow.
    Full,
    /// A name cannot be changed or removed.
    Name,
}

impl Fault {
    /// Every fault.
    pub const ALL: &'static [Self] = &[Self::Write, Self::Sync, Self::Full, Self::Name];
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    plan: Option<Plan>,
    happened: bool,
    hits: Vec<Hit>,
}

/// The file or folder of a failed operation.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    /// The file or folder; of a rename, the new name.
    pub(crate) path: PathBuf,
    /// `true` if there was nothing in the file yet.
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

    /// Ends the fault; `true` if it happened. Its hits stay known.
    pub(super) fn heal(&mut self) -> bool {
        self.plan = None;
        std::mem::take(&mut self.happened)
    }

    pub(super) fn hits(&self) -> &[Hit] {
        &self.hits
    }

    /// Fails an operation of this sort, if its turn has come.
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

/// Operations of a disk so far. The difference of two shows the operations in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// Number of reads.
    pub reads: u64,
    /// Bytes that the reads returned.
    pub bytes_read: u64,
    /// The largest buffer ever given to one read, in bytes; of a difference, its value at the end.
    pub largest_read: u64,
    /// Syncs of files, failed ones included.
    pub syncs: u64,
    /// Syncs of a file whose last sync failed, and that was not changed since; and of a folder whose last sync failed.
    pub syncs_tried_again: u64,
    /// Writes at an offset where the last write failed.
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
