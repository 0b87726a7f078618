//! An orphaned last segment: a power cut tore the segment before it, and nothing in either was promised to survive.
//!
//! It happens where commits are not synced one by one. Opening for writing sets such a segment aside; a reader that comes before
//! that leaves it out.

use std::path::PathBuf;

use super::{
    corruption::{Corruption, disk_error},
    fs::Disk,
    layout::Layout,
    open::{follows_durable, torn_before},
    segment::Segment,
};
use crate::error::{ErrorKind, Result};

impl Layout {
    /// Leaves out orphaned segments; returns the first of them, if there is any.
    pub(super) fn leave_out_orphaned(
        &mut self,
        disk: &dyn Disk,
        operation: &'static str,
    ) -> Result<Option<Corruption>> {
        let mut orphaned = None;
        while let Some(torn) = orphaned_last(disk, &self.segments, operation)? {
            self.segments.pop();
            orphaned = Some(torn);
        }
        Ok(orphaned)
    }
}

/// Returns the last segment if it is orphaned. A segment whose header cannot be read is left to the caller.
fn orphaned_last(disk: &dyn Disk, segments: &[(u64, PathBuf)], operation: &'static str) -> Result<Option<Corruption>> {
    let [.., (first_before, path_before), (first, path)] = segments else { return Ok(None) };
    let Some(last) = sound(Segment::open(disk, *first, path, operation))? else { return Ok(None) };
    if follows_durable(&last).map_err(|error| disk_error(operation, path, error))? {
        return Ok(None);
    }
    let Some(before) = sound(Segment::open(disk, *first_before, path_before, operation))? else { return Ok(None) };
    torn_before(&before, &last, operation)
}

fn sound(segment: Result<Segment>) -> Result<Option<Segment>> {
    match segment {
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => Ok(None),
        segment => segment.map(Some),
    }
}
