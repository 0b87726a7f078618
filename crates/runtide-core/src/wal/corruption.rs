//! Corrupt ranges of a file, and the errors for them and for a failing disk.

use std::{
    fmt, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{format::BadHeader, record::Seq};
use crate::error::{Error, ErrorKind};

/// A range of a segment whose bytes are not those that were written there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Corruption {
    /// The segment's file; where a whole segment is missing, the path that it would have.
    pub segment: PathBuf,
    /// The first and the last byte, counted from the file's start.
    pub bytes: RangeInclusive<u64>,
    /// The first and the last record that are missing, if the rest of the chain shows them.
    pub seqs: Option<RangeInclusive<Seq>>,
}

impl Corruption {
    /// `end` is the offset of the first byte behind the range.
    pub(super) fn new(segment: &Path, start: u64, end: u64, seqs: Option<(u64, u64)>) -> Self {
        let seqs = seqs.filter(|(first, last)| first <= last).map(|(first, last)| Seq(first)..=Seq(last));
        Self { segment: segment.to_owned(), bytes: start..=end.saturating_sub(1).max(start), seqs }
    }

    /// Returns true if this record is known to be missing.
    pub(super) fn has(&self, seq: u64) -> bool {
        self.seqs.as_ref().is_some_and(|seqs| seqs.contains(&Seq(seq)))
    }

    pub(super) fn error(&self, operation: &'static str, message: &str) -> Error {
        let error = Error::new(ErrorKind::Corrupt, operation, message)
            .with_context("segment", self.segment.display())
            .with_context("offset", self.bytes.start())
            .with_context("until", self.bytes.end());
        match &self.seqs {
            Some(seqs) => error.with_context("seq", seqs.start()).with_context("last_seq", seqs.end()),
            None => error,
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, bytes {} to {}", self.segment.display(), self.bytes.start(), self.bytes.end())?;
        match &self.seqs {
            Some(seqs) => write!(f, ", records {} to {}", seqs.start(), seqs.end()),
            None => Ok(()),
        }
    }
}

/// An error of the disk, with the path of the file.
pub(super) fn disk_error(operation: &'static str, path: &Path, error: io::Error) -> Error {
    let kind = ErrorKind::of_disk(&error);
    let message = match kind {
        ErrorKind::NotFound => "the file is not there",
        _ if error.kind() == io::ErrorKind::ReadOnlyFilesystem => "the disk can only be read",
        ErrorKind::PermissionDenied => "the system denies access to the file",
        ErrorKind::Unavailable => "the disk is full",
        _ => "the disk failed",
    };
    Error::new(kind, operation, message).with_context("path", path.display()).with_source(error)
}

/// The error for a file that has a segment's name and no valid header.
pub(super) fn header_error(operation: &'static str, path: &Path, bad: BadHeader) -> Error {
    match bad {
        BadHeader::Corrupt => Corruption::new(path, 0, super::format::SEGMENT_HEADER as u64, None)
            .error(operation, "the segment's header is corrupt, or this is no segment"),
        BadHeader::Version(version) => Error::new(
            ErrorKind::Unsupported,
            operation,
            format!("version {version} of the format is unknown here; version {} is known", super::format::VERSION),
        )
        .with_context("segment", path.display()),
        BadHeader::Flags(flags) => Error::new(
            ErrorKind::Unsupported,
            operation,
            format!("the segment needs features that are unknown here: flags {flags:#x}"),
        )
        .with_context("segment", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn every_error_of_the_disk_has_its_kind_and_shows_its_cause_once() {
        for (io, kind) in [
            (io::ErrorKind::NotFound, ErrorKind::NotFound),
            (io::ErrorKind::PermissionDenied, ErrorKind::PermissionDenied),
            (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied),
            (io::ErrorKind::StorageFull, ErrorKind::Unavailable),
            (io::ErrorKind::QuotaExceeded, ErrorKind::Unavailable),
            (io::ErrorKind::Other, ErrorKind::Unexpected),
        ] {
            let cause = io::Error::from(io).to_string();
            let error = disk_error("wal.open", Path::new("/x"), io.into());
            assert_eq!(error.kind(), kind, "{io}");
            assert!(!error.message().contains(&cause), "{error}");
            assert_eq!(error.source().map(ToString::to_string), Some(cause), "{io}");
        }
    }
}
