//! Salvage: copies every record of a corrupt log that can still be read into a new log.

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    corruption::{Corruption, disk_error},
    engine::Engine,
    format::{COMMIT_HEADER, push_frame},
    fs::Disk,
    layout::Layout,
    open,
    options::{Durability, OnCorruption, WalOptions},
    purpose::WalPurpose,
    purpose_of_log,
    queue::GROUP_BYTES,
    reader::{Found, WalReader},
    record::{ReadFrom, Record, RecordKind, nanos},
    segment::Segment,
};
use crate::error::{Error, ErrorKind, Result};

const SALVAGE: &str = "wal.salvage";

/// Most lost records in a row that salvage accepts. More would have taken over 4 GiB of frames, so the number is taken for
/// corrupt.
const MOST_LOST: u64 = 1 << 27;

/// The result of salvage: the number of recovered records, and every range that was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Records in the new log, without the records of kind [`RecordKind::LOST`].
    pub recovered: u64,
    /// Records of the old log that were left out, because they do not belong to what it is for.
    #[serde(default)]
    pub foreign: u64,
    /// Ranges of the old log that could not be read, an unfinished tail included.
    pub lost: Vec<Corruption>,
}

/// Copies every readable record of a log into a new log; the old log is left as it is.
///
/// A record is recovered if its checksum holds, even if its neighbours are corrupt. It keeps its number, its time and its kind; a
/// lost record is replaced by an empty one of the kind [`RecordKind::LOST`], so that the numbers stay without gaps. The new log
/// has its own chain, without a key, and other commits: anchors of the old log are not in it.
///
/// The new log is for what the old one is for, as its sound headers and records tell; if none is left, it may be for anything. A
/// log of a journal or a store ([`WalPurpose`](super::WalPurpose)) has records of one kind; others, which another program
/// appended, are left out, so that the journal can be opened again.
///
/// A tail that nothing proves to have been durable is not recovered, but is in the report.
///
/// Memory: one block of the old log, one commit of the new log, and the list of the lost ranges.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) if there is no log in `dir`, [`AlreadyExists`](ErrorKind::AlreadyExists) if there is one
/// in `out`, [`Conflict`](ErrorKind::Conflict) if another writer has that one open, and the errors of the disk.
///
/// ```
/// use runtide_core::wal::{RecordKind, Wal, WalOptions, salvage};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let (old, new) = (dir.path().join("old"), dir.path().join("new"));
/// let wal = Wal::open(&old, WalOptions::default())?;
/// wal.append_blocking(RecordKind(1), b"hello")?;
/// let report = salvage(&old, &new)?;
/// assert_eq!((report.recovered, report.lost.len()), (1, 0));
/// # Ok::<(), runtide_core::Error>(())
/// ```
pub fn salvage(dir: &Path, out: &Path) -> Result<SalvageReport> {
    salvage_with(dir, out, &WalOptions::default())
}

/// [`salvage`] with options: the new log's key and segment size, and the disk of both logs.
///
/// # Errors
/// As [`salvage`].
pub fn salvage_with(dir: &Path, out: &Path, options: &WalOptions) -> Result<SalvageReport> {
    let disk = options.disk();
    let mut reader = WalReader::start(Arc::clone(&disk), dir, ReadFrom::Start, OnCorruption::Continue, None)?;
    match Layout::read(&*disk, out) {
        Ok(layout) if !layout.segments.is_empty() => {
            return Err(Error::new(ErrorKind::AlreadyExists, SALVAGE, "there is already a log")
                .with_context("path", out.display()));
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(disk_error(SALVAGE, out, error)),
        _ => {}
    }
    let purpose = purpose_of(&*disk, dir)?;
    let kind = WalPurpose::of_code(purpose).and_then(WalPurpose::kind);
    let options = WalOptions { durability: Durability::Os, ..options.clone() };
    let engine = open::begin_at(out, &options, purpose, reader.next_seq().0)?;
    let mut copy = Copy { engine, commit: Vec::new(), first: 0, count: 0 };
    let mut report = SalvageReport { recovered: 0, foreign: 0, lost: Vec::new() };
    while let Some(found) = reader.step()? {
        match found {
            Found::Corruption(corruption) => report.lost.push(corruption),
            Found::Record(record) if kind.is_some_and(|kind| ![kind, RecordKind::LOST].contains(&record.kind)) => {
                report.foreign += 1;
            }
            Found::Record(record) => {
                copy.fill_up_to(&record)?;
                copy.push(record.seq.0, nanos(record.at), record.kind, &record.bytes)?;
                report.recovered += 1;
            }
        }
    }
    report.lost.extend(reader.unfinished()?);
    copy.flush()?;
    copy.engine.close()?;
    Ok(report)
}

/// Code of the log's purpose, for the new log.
///
/// Any record of a journal or a store tells that the log is its own: an application's may be one that another program appended.
fn purpose_of(disk: &dyn Disk, dir: &Path) -> Result<u16> {
    let layout = Layout::read(disk, dir).map_err(|error| disk_error(SALVAGE, dir, error))?;
    let segments = layout.segments.iter().map(|(first, path)| Segment::open_any(disk, *first, path, SALVAGE));
    purpose_of_log::of_log(segments, |found| found.kind().is_some(), SALVAGE)
}

/// The new log, and the commit that is forming for it.
struct Copy {
    engine: Engine,
    commit: Vec<u8>,
    first: u64,
    count: u32,
}

impl Copy {
    fn next(&self) -> u64 {
        self.engine.head.0.saturating_add(1).saturating_add(u64::from(self.count))
    }

    /// Writes a record of kind [`RecordKind::LOST`] for each number that is missing before this record.
    fn fill_up_to(&mut self, record: &Record) -> Result<()> {
        if record.seq.0.saturating_sub(self.next()) > MOST_LOST {
            return Err(Error::new(
                ErrorKind::Corrupt,
                SALVAGE,
                "more records are missing than the log can ever have had",
            )
            .with_context("seq", self.next())
            .with_context("until", record.seq));
        }
        while self.next() < record.seq.0 {
            self.push(self.next(), nanos(record.at), RecordKind::LOST, &[])?;
        }
        Ok(())
    }

    fn push(&mut self, seq: u64, time: u64, kind: RecordKind, payload: &[u8]) -> Result<()> {
        if self.count == 0 {
            self.commit.clear();
            self.commit.resize(COMMIT_HEADER, 0);
            self.first = seq;
        }
        push_frame(&mut self.commit, seq, time, kind.0, payload);
        self.count += 1;
        if self.commit.len() >= GROUP_BYTES / 2 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let count = std::mem::take(&mut self.count);
        if count == 0 { Ok(()) } else { self.engine.write(&mut self.commit, self.first, count) }
    }
}
