//! One segment's file: its header, and its footer if it has one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    corruption::{Corruption, disk_error, header_error},
    format::{Footer, SEGMENT_HEADER, SegmentHeader, TRAILER},
    fs::{Disk, File},
    scan::find_id,
    window::{STEP, Window},
};
use crate::error::{ErrorKind, Result};

/// Offset of the first commit in a segment, in bytes.
pub(super) const DATA: u64 = SEGMENT_HEADER as u64;

/// An open segment whose header is sound.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) header: SegmentHeader,
}

impl Segment {
    pub(super) fn open(disk: &dyn Disk, first: u64, path: &Path, operation: &'static str) -> Result<Self> {
        let file = disk.open(path).map_err(|error| disk_error(operation, path, error))?;
        Self::read(Arc::from(file), first, path, operation)
    }

    /// Reads the header of a file that should be the segment that begins with record `first`.
    pub(super) fn read(file: Arc<dyn File>, first: u64, path: &Path, operation: &'static str) -> Result<Self> {
        let mut bytes = vec![0; SEGMENT_HEADER];
        let read = file.read_at(&mut bytes, 0).map_err(|error| disk_error(operation, path, error))?;
        let header = SegmentHeader::decode(bytes.get(..read).unwrap_or_default())
            .map_err(|bad| header_error(operation, path, bad))?;
        if header.first != first {
            let corruption = Corruption::new(path, 0, DATA, None);
            let message = format!("the segment's name and its header differ: it begins with record {}", header.first);
            return Err(corruption.error(operation, &message));
        }
        Ok(Self { path: path.to_owned(), file, header })
    }

    /// Opens a segment whose header is corrupt, with a header made up from other sources: the log's id comes from another
    /// segment, or one that serves in its place from the first whole commit, or from the bytes that are left of the header.
    pub(super) fn guess(
        disk: &dyn Disk,
        first: u64,
        path: &Path,
        others: impl Iterator<Item = (u64, PathBuf)>,
        operation: &'static str,
    ) -> Result<Self> {
        let failed = |error| disk_error(operation, path, error);
        let file: Arc<dyn File> = Arc::from(disk.open(path).map_err(failed)?);
        let mut bytes = [0; 32];
        file.read_at(&mut bytes, 0).map_err(failed)?;
        let mut known = others.filter_map(|(first, path)| Self::open(disk, first, &path, operation).ok());
        let mut log = known.next().map(|segment| segment.header.log);
        if log.is_none() {
            let mut window = Window::new(&*file, file.size().map_err(failed)?, STEP);
            log = find_id(&mut window, DATA, first).map_err(failed)?;
        }
        let header = SegmentHeader {
            log: log.or_else(|| bytes.last_chunk().copied()).unwrap_or_default(),
            first,
            prev: [0; 32],
            created: 0,
            epoch: 0,
            synced: 0,
            keyed: None,
            purpose: 0,
        };
        Ok(Self { path: path.to_owned(), file, header })
    }

    /// Opens a segment even if its header is corrupt: then with one that states nothing.
    pub(super) fn open_any(disk: &dyn Disk, first: u64, path: &Path, operation: &'static str) -> Result<Self> {
        match Self::open(disk, first, path, operation) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                Self::guess(disk, first, path, std::iter::empty(), operation)
            }
            segment => segment,
        }
    }

    pub(super) fn size(&self, operation: &'static str) -> Result<u64> {
        self.file.size().map_err(|error| disk_error(operation, &self.path, error))
    }

    /// The offset of the footer at the file's end, and the footer.
    pub(super) fn footer(&self) -> io::Result<Option<(u64, Footer)>> {
        let size = self.file.size()?;
        let Some(at) = size.checked_sub(TRAILER as u64).filter(|at| *at >= DATA) else { return Ok(None) };
        let mut trailer = [0; TRAILER];
        let read = self.file.read_at(&mut trailer, at)?;
        let Some(length) = trailer.get(..read).and_then(Footer::length) else { return Ok(None) };
        let Some(start) = size.checked_sub(length).filter(|start| *start >= DATA) else { return Ok(None) };
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let read = self.file.read_at(&mut bytes, start)?;
        let footer = bytes.get(..read).and_then(|bytes| Footer::decode(bytes, &self.header.log));
        Ok(footer.filter(|footer| self.is_consistent(footer, start)).map(|footer| (start, footer)))
    }

    /// Returns true if the footer's fields are consistent with this segment.
    fn is_consistent(&self, footer: &Footer, start: u64) -> bool {
        let offsets_in_range = footer
            .index
            .iter()
            .all(|entry| (DATA..footer.end).contains(&entry.at) && (footer.first..=footer.last).contains(&entry.seq));
        footer.first == self.header.first
            && footer.last.checked_add(1).is_some_and(|next| next >= footer.first)
            && (DATA..=start).contains(&footer.end)
            && offsets_in_range
            && footer.index.is_sorted_by(|a, b| a.seq < b.seq && a.at < b.at)
    }
}
