//! W3: corruption is found, named, and neither skipped nor destroyed.

use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Path, PathBuf},
};

use runtide_core::{
    ErrorKind,
    wal::{OnCorruption, ReadFrom, Retention, Seq},
};

use super::{DIR, Held, Tried, context, is_data, options, payload};
use crate::wal::{Effort, LogHarness, Looked, ModelDisk, WalLaw, WalLawResult};

const RECORDS: u64 = 60;

/// A file with fewer bytes is no segment.
const SMALL: usize = 1024;

/// A log of several segments, closed in order, of which one byte after the other is flipped, one sector after the other
/// zeroed, bytes taken out, and each file removed; one from which old records were dropped, less densely; and one that was not
/// closed, byte by byte. Every reader, `verify`, salvage and a new writer meet each of them.
pub(crate) fn w3_corruption(log: &dyn LogHarness, effort: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W3, log };
    let whole = ModelDisk::new();
    tried.written(&whole, RECORDS)?;
    let whole = whole.copy();
    tried.sound(&whole, None)?;
    let retained = whole.copy();
    let log = tried.open(&retained)?;
    let first = tried.works("drop old records", log.retain(Retention::default().with_keep_from(Seq(30))))?;
    tried.works("close the log", log.close())?;
    drop(log);
    let mut count = everywhere(tried, &whole, 1, effort.pick(1, 37))?;
    count += everywhere(tried, &retained.copy(), first, effort.pick(29, 199))?;
    count += not_closed(tried, effort.pick(2, 61))?;
    Ok(Looked::at(count, "corrupt logs"))
}

/// Flips bytes of the newest file of a log that was not closed: only its last record may be taken for a torn tail.
fn not_closed(tried: Tried<'_>, stride: usize) -> Held<u64> {
    let disk = ModelDisk::new();
    let log = tried.open(&disk)?;
    for n in 1..=RECORDS {
        tried.append(&*log, n)?;
    }
    let disk = disk.copy();
    drop(log);
    let newest = disk.files().into_iter().rfind(|(path, bytes)| is_data(path) && bytes.len() > SMALL);
    let Some((path, bytes)) = newest else { return Ok(0) };
    let ats = (0..bytes.len()).step_by(stride);
    let count = ats.len() as u64;
    for at in ats {
        let mut flipped = bytes.clone();
        if let Some(byte) = flipped.get_mut(at) {
            *byte ^= 0x10;
        }
        let corrupt =
            CorruptLog { sound: &disk, path: &path, at: at..at + 1, is_last: true, may_be_torn: true, first: 1 };
        corrupt.met(tried, Some(flipped), false)?;
    }
    Ok(count)
}

/// Corrupts a log that begins with record `first` at every `stride`th byte of each file, and smaller files at every byte.
fn everywhere(tried: Tried<'_>, sound: &ModelDisk, first: u64, stride: usize) -> Held<u64> {
    let files: Vec<_> = sound.files().into_iter().filter(|(path, _)| is_data(path)).collect();
    let last = files.iter().rfind(|(_, bytes)| bytes.len() > SMALL).map(|(path, _)| path.clone());
    let mut count = 0;
    for (path, bytes) in &files {
        let is_last = Some(path) == last.as_ref();
        let mut met = |at: Range<usize>, bytes: Option<Vec<u8>>, thoroughly| {
            count += 1;
            let of = at.end;
            let may_be_torn = bytes.as_ref().is_some_and(|bytes| bytes.len() <= of);
            CorruptLog { sound, path, at, is_last, may_be_torn, first }.met(tried, bytes, thoroughly)
        };
        let stride = if bytes.len() > SMALL { stride } else { 1 };
        for at in (0..bytes.len()).step_by(stride) {
            let mut flipped = bytes.clone();
            if let Some(byte) = flipped.get_mut(at) {
                *byte ^= 0x10;
            }
            met(at..at + 1, Some(flipped), (at / stride) % 61 == 0)?;
        }
        for at in (0..bytes.len()).step_by(512) {
            let mut zeroed = bytes.clone();
            let end = (at + 512).min(bytes.len());
            zeroed.get_mut(at..end).unwrap_or_default().fill(0);
            met(at..end, Some(zeroed), true)?;
        }
        // A missing byte: all later bytes move.
        for at in (0..bytes.len()).step_by(stride * 29) {
            let mut shorter = bytes.clone();
            shorter.remove(at);
            met(at.saturating_sub(1)..bytes.len(), Some(shorter), true)?;
        }
        if !is_last {
            met(0..bytes.len(), None, true)?;
        }
    }
    Ok(count)
}

/// A log of which a range of one file is not as it was written.
struct CorruptLog<'a> {
    sound: &'a ModelDisk,
    path: &'a PathBuf,
    at: Range<usize>,
    /// `true` for the newest file.
    is_last: bool,
    /// `true` if the corrupt range reaches to the file's end, or nothing in the file shows where the range ends.
    may_be_torn: bool,
    /// The log's first record.
    first: u64,
}

impl CorruptLog<'_> {
    /// Has readers, a writer and salvage meet the corruption.
    fn met(&self, tried: Tried<'_>, bytes: Option<Vec<u8>>, thoroughly: bool) -> Held<u64> {
        let located = |mut broken: super::Broken| {
            broken.found = format!("{}, with {} corrupt at {:?}", broken.found, self.path.display(), self.at);
            broken
        };
        let disk = self.sound.copy();
        disk.put(self.path, bytes);
        self.readers(tried, &disk).map_err(located)?;
        if thoroughly || self.is_last {
            self.writer(tried, &disk.copy()).map_err(located)?;
        }
        if thoroughly {
            self.salvage(tried, &disk).map_err(located)?;
        }
        Ok(1)
    }

    fn readers(&self, tried: Tried<'_>, disk: &ModelDisk) -> Held {
        let mut read = tried.read(disk, OnCorruption::Stop)?;
        let end = read.pop_if(|last| last.is_err());
        let entries: Vec<_> = tried.works("read up to the corruption", read.into_iter().collect::<Result<_, _>>())?;
        let next = tried.in_order(&entries, self.first)?;
        let reported = end.and_then(Result::err);
        // If everything from the last record on is corrupt, it is a torn tail.
        let torn = self.is_last && self.may_be_torn && next == RECORDS;
        tried.ensure(
            reported.is_some() || next == RECORDS + 1 || torn,
            "an error for records that are missing",
            format!("{next} is missing in silence"),
        )?;
        if let Some(error) = &reported {
            self.names_it(tried, error)?;
        }
        let audit = tried.log.verify(Path::new(DIR), None, &options(disk));
        let found = audit.as_ref().map_or(true, |audit| audit.corruption.is_some());
        tried.ensure(
            found || reported.is_none(),
            "verify to find the corruption that a reader meets",
            format!("{audit:?}"),
        )?;
        if reported.is_some() {
            self.continues(tried, disk)?;
        }
        Ok(())
    }

    /// Checks that the error is `Corrupt`, with the segment and the bytes.
    fn names_it(&self, tried: Tried<'_>, error: &runtide_core::Error) -> Held {
        let named = error.context().iter().any(|(key, _)| *key == "segment") && context(error, "offset").is_some();
        let fine = error.kind() == ErrorKind::Corrupt && named;
        tried.ensure(fine, "Corrupt, with segment and offset", format!("{error:?}"))?;
        let ours = error.context().iter().any(|(key, value)| *key == "segment" && Path::new(value) == self.path);
        if ours {
            let from = context(error, "offset").unwrap_or(u64::MAX);
            let until = context(error, "until").unwrap_or(u64::MAX);
            let meets = from < self.at.end as u64 && self.at.start as u64 <= until;
            tried.ensure(meets, "an error that names the corrupt bytes", format!("{error}"))?;
        }
        Ok(())
    }

    /// With `OnCorruption::Continue`, a reader returns each record that is whole, and names each that is not.
    fn continues(&self, tried: Tried<'_>, disk: &ModelDisk) -> Held {
        let mut missing: BTreeSet<u64> = (self.first..=RECORDS).collect();
        let mut named = BTreeSet::new();
        let mut unnamed = 0;
        for read in tried.read(disk, OnCorruption::Continue)? {
            match read {
                Ok(entry) => {
                    let fresh = missing.remove(&entry.seq) && entry.bytes == payload(entry.seq);
                    tried.ensure(fresh, "records as they were appended, each once", format!("number {}", entry.seq))?;
                }
                Err(error) => match (context(&error, "seq"), context(&error, "last_seq")) {
                    (Some(first), Some(last)) => named.extend(first..=last),
                    _ => unnamed += 1,
                },
            }
        }
        // Behind a corrupt end of the log, nothing shows the number of records.
        let reported = missing.iter().all(|seq| named.contains(seq)) || (self.is_last && unnamed > 0);
        tried.ensure(
            reported,
            "each missing record to be named by an error",
            format!("{missing:?} missing, {named:?} named"),
        )
    }

    /// Either the writer refuses, or reading reports the corruption; and the writer cuts no more than the last record.
    fn writer(&self, tried: Tried<'_>, disk: &ModelDisk) -> Held {
        let log = match tried.log.open(Path::new(DIR), options(disk)) {
            Ok(log) => log,
            Err(error) => return self.names_it(tried, &error),
        };
        let read = match log.reader(ReadFrom::Start) {
            Ok(entries) => tried.to_the_end(entries)?,
            Err(error) => vec![Err(error)],
        };
        let reported = read.iter().any(Result::is_err);
        let good: Vec<_> = read.into_iter().map_while(Result::ok).collect();
        let next = tried.in_order(&good, self.first)?;
        let fine = reported || next > RECORDS || (log.cut().is_some() && self.is_last && next >= RECORDS);
        tried.ensure(fine, "a writer to refuse a corrupt log", format!("it goes on behind record {}", next - 1))
    }

    /// Salvage recovers every readable record under its number, and leaves the old log as it is.
    fn salvage(&self, tried: Tried<'_>, disk: &ModelDisk) -> Held {
        let before = disk.files();
        let out = Path::new("/salvaged");
        // A log whose beginning is gone may have nothing left to salvage.
        let report = tried.works("salvage", tried.log.salvage(Path::new(DIR), out, &options(disk)))?;
        let after: Vec<_> = disk.files().into_iter().filter(|(path, _)| !path.starts_with(out)).collect();
        tried.ensure(before == after, "salvage to leave the old log as it is", "it changed")?;
        let entries = tried.works("read the salvaged log", tried.log.reader(out, ReadFrom::Start, options(disk)))?;
        let entries: Vec<_> = tried.works("read the salvaged log", entries.collect::<Result<_, _>>())?;
        let good = entries.iter().filter(|entry| !entry.lost);
        let right = good.clone().all(|entry| entry.bytes == payload(entry.seq));
        let count = good.count() as u64;
        tried.ensure(
            right && count == report.recovered,
            "each salvaged record under its number",
            format!("{report:?}, {count}"),
        )?;
        let read = tried.read(disk, OnCorruption::Continue)?;
        let readable = read.iter().filter(|read| read.is_ok()).count() as u64;
        tried.ensure(count == readable, &format!("all {readable} readable records"), count)?;
        tried.ensure(
            report.lost > 0 || count == RECORDS + 1 - self.first,
            "a report of the lost ranges",
            format!("{report:?}"),
        )
    }
}
