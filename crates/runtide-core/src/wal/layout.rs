//! File names in a log's folder.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{corruption::Corruption, fs::Disk, options::OnCorruption};
use crate::error::Result;

/// Suffix of a segment's name. Before it is the number of the segment's first record, in 20 digits, so that names sort as
/// numbers.
const SEGMENT: &str = ".wal";

/// Suffix of a file that is being made: it is not yet part of the log.
const UNFINISHED: &str = ".tmp";

/// Name of the next segment's file before it has a number, without the suffix.
const NEXT: &str = "next";

/// Name of the file that holds the number of the log's first record, if that is not 1.
const BEGIN: &str = "begin";

const BEGIN_MAGIC: [u8; 8] = *b"RUNTIDEB";

/// Size of that file in bytes: magic number, record number, checksum.
const BEGIN_SIZE: usize = 20;

/// The files of a log.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// First record and path of each segment, ascending; without segments that retention dropped.
    pub(super) segments: Vec<(u64, PathBuf)>,
    /// Files that an interrupted retention or creation left.
    pub(super) leftovers: Vec<PathBuf>,
    /// Number of the first record, if it is not 1: retention has dropped some, or salvage found none before.
    pub(super) begin: Option<u64>,
    /// Set if the file [`BEGIN`] is corrupt: `segments` may then include some that retention dropped.
    pub(super) corruption: Option<Corruption>,
}

impl Layout {
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Self> {
        let layout = Self::list(disk, dir)?;
        // The file `begin` may have appeared, and a segment disappeared, while the names were listed.
        if layout.begin.is_none() && layout.missing(dir).is_some() { Self::list(disk, dir) } else { Ok(layout) }
    }

    /// The layout from the active segment on, as the writer knows it: the folder is not listed, so the cost does not grow with
    /// the log.
    pub(super) fn active(dir: &Path, first: u64) -> Self {
        Self { segments: vec![(first, segment_path(dir, first))], ..Self::default() }
    }

    fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Self> {
        let mut layout = Self::default();
        let mut begin = None;
        for path in disk.list(dir)? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if let Some(first) = segment_number(name) {
                layout.segments.push((first, path));
            } else if [NEXT, BEGIN].iter().any(|made| name.strip_suffix(UNFINISHED) == Some(made)) {
                layout.leftovers.push(path);
            } else if name == BEGIN {
                begin = Some(path);
            }
        }
        layout.segments.sort_unstable();
        if let Some(path) = begin {
            layout.begin = read_begin(disk, &path)?;
            layout.corruption = layout.begin.is_none().then(|| Corruption::new(&path, 0, BEGIN_SIZE as u64, None));
            let dropped = layout.segments.partition_point(|(first, _)| Some(*first) < layout.begin);
            layout.leftovers.extend(layout.segments.drain(..dropped).map(|(_, path)| path));
        }
        Ok(layout)
    }

    /// The range that is missing before the first segment.
    pub(super) fn missing(&self, dir: &Path) -> Option<Corruption> {
        let (first, _) = self.segments.first()?;
        let begin = self.begin.unwrap_or(1);
        // If the file `begin` is corrupt, that is reported instead.
        (self.corruption.is_none() && begin < *first)
            .then(|| Corruption::new(&segment_path(dir, begin), 0, 0, Some((begin, first.saturating_sub(1)))))
    }

    /// The corruption of the file `begin`, if any; an error if the options say to stop at corruption.
    pub(super) fn corruption(
        &self,
        on_corruption: OnCorruption,
        operation: &'static str,
    ) -> Result<Option<Corruption>> {
        match &self.corruption {
            Some(corruption) if on_corruption == OnCorruption::Stop => {
                Err(corruption.error(operation, "the file that says where the log begins is corrupt"))
            }
            corruption => Ok(corruption.clone()),
        }
    }

    /// Index of the segment that has this record; `None` if it lies before the first segment.
    pub(super) fn holding(&self, seq: u64) -> Option<usize> {
        self.segments.partition_point(|(first, _)| *first <= seq).checked_sub(1)
    }
}

pub(super) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}{SEGMENT}"))
}

fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT)?;
    (digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Path at which the next segment is made.
pub(super) fn unfinished_path(dir: &Path) -> PathBuf {
    dir.join(format!("{NEXT}{UNFINISHED}"))
}

/// Path at which the next [`BEGIN`] is made.
pub(super) fn unfinished_begin(dir: &Path) -> PathBuf {
    dir.join(format!("{BEGIN}{UNFINISHED}"))
}

/// Path of the copy of bytes cut from a segment. Its suffix is not a segment's, so it is never read as one.
pub(super) fn aside_path(segment: &Path, epoch: u64, at: u64) -> PathBuf {
    let mut name = segment.file_name().unwrap_or_default().to_owned();
    name.push(format!(".torn-{epoch}-{at}"));
    segment.with_file_name(name)
}

/// Path of the lock file of the log in `dir`. The writer holds an exclusive lock on it for as long as the log is open.
pub fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// Drops everything before a segment in one step: from the rename on, earlier segments are not part of the log.
pub(super) fn write_begin(disk: &dyn Disk, dir: &Path, first: u64) -> io::Result<()> {
    let mut bytes = BEGIN_MAGIC.to_vec();
    bytes.extend_from_slice(&first.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let unfinished = unfinished_begin(dir);
    let file = disk.create(&unfinished)?;
    file.write_at(&bytes, 0)?;
    file.sync()?;
    disk.rename(&unfinished, &dir.join(BEGIN))?;
    disk.sync_dir(dir)
}

/// Reads the number of the first record; `None` if the file is corrupt.
fn read_begin(disk: &dyn Disk, path: &Path) -> io::Result<Option<u64>> {
    let mut bytes = [0; BEGIN_SIZE];
    let read = disk.open(path)?.read_at(&mut bytes, 0)?;
    let number = || {
        let (covered, crc) = bytes.get(..read)?.split_last_chunk::<4>()?;
        let (magic, number) = covered.split_first_chunk::<8>()?;
        let sound = *magic == BEGIN_MAGIC && crc32c::crc32c(covered) == u32::from_le_bytes(*crc);
        sound.then(|| number.first_chunk().copied().map(u64::from_le_bytes))?
    };
    Ok(number())
}
