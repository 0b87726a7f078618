//! The purpose of a log on the disk, by its sound headers and records.

use std::{io, path::Path};

use super::{
    corruption::disk_error,
    format::FRAME_HEADER,
    purpose::WalPurpose,
    record::RecordKind,
    scan::find_frame,
    segment::{DATA, Segment},
    window::{STEP, Window},
};
use crate::error::{Error, ErrorKind, Result};

/// Code of the purpose of the log that has these segments; 0 if nothing sound tells it, so that the log may be for anything.
///
/// Only headers and records count whose checksum holds. The first segment decides whose header states the purpose, or, if its header
/// is corrupt or from before there was a purpose, that has a record that is `enough`. Without such a segment any record decides.
pub(super) fn of_log(
    segments: impl Iterator<Item = Result<Segment>>,
    enough: impl Fn(WalPurpose) -> bool,
    operation: &'static str,
) -> Result<u16> {
    let mut code = 0;
    for segment in segments {
        let segment = match segment {
            // Retention has dropped it in the meantime.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            segment => segment?,
        };
        if segment.header.purpose != 0 {
            return Ok(segment.header.purpose);
        }
        let found_purpose =
            by_records(&segment, &enough).map_err(|error| disk_error(operation, &segment.path, error))?;
        code = found_purpose.map_or(code, WalPurpose::code);
        if found_purpose.is_some_and(&enough) {
            break;
        }
    }
    Ok(code)
}

/// The purpose by a sound record of the segment: the first that is `enough`, otherwise the last.
fn by_records(segment: &Segment, enough: impl Fn(WalPurpose) -> bool) -> io::Result<Option<WalPurpose>> {
    let size = segment.file.size()?;
    let mut window = Window::new(&*segment.file, size, STEP);
    let (mut at, mut next, mut found_purpose) = (DATA, segment.header.first, None);
    // The file has no space for more records, so that bytes of a payload seldom pass for a frame's header.
    let last = next.saturating_add(size / FRAME_HEADER as u64);
    while let Some((found, frame)) = find_frame(&mut window, at, size, next..=last)? {
        found_purpose = WalPurpose::of_kind(RecordKind(frame.kind)).or(found_purpose);
        if found_purpose.is_some_and(&enough) {
            break;
        }
        (at, next) = (found + frame.size(), frame.seq.saturating_add(1));
    }
    Ok(found_purpose)
}

/// Refuses to write a log that is for something else. A log of unknown purpose may be written for anything.
///
/// The last segment comes first: any purpose that it has is enough, so that no other one is read.
pub(super) fn check(
    dir: &Path,
    segments: impl Iterator<Item = Result<Segment>>,
    wanted: WalPurpose,
    operation: &'static str,
) -> Result<()> {
    let code = of_log(segments, |_| true, operation)?;
    if code == 0 || code == wanted.code() {
        return Ok(());
    }
    let error = match WalPurpose::of_code(code) {
        Some(purpose) => {
            let message = format!("this log belongs to {purpose}, and {wanted} may not write it");
            Error::new(ErrorKind::InvalidInput, operation, message)
        }
        None => Error::new(ErrorKind::Unsupported, operation, "this log belongs to a later version of Runtide")
            .with_context("purpose", code),
    };
    Err(error.with_context("path", dir.display()))
}
