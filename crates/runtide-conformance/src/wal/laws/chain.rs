//! W7: the chain and the anchor.

use std::path::{Path, PathBuf};

use runtide_core::ErrorKind;

use super::{DIR, Held, Tried, is_data, options};
use crate::wal::{Audit, Effort, LogHarness, Looked, ModelDisk, WalLaw, WalLawResult};

/// Two logs grow from the same beginning with records of the same lengths, so that pieces of one fit into the other, as any
/// program that can write the files could put them. Every piece is exchanged, swapped, taken out and cut.
/// Each record is a separate commit here.
pub(crate) fn w7_chain(log: &dyn LogHarness, effort: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W7, log };
    let begun = begun(tried)?;
    let ours = grow(tried, &begun, b'a', effort.pick(60, 30))?;
    let theirs = grow(tried, &begun, b'b', effort.pick(60, 30))?;
    let anchor = ours.last().map(|step| step.anchor.clone()).unwrap_or_default();
    let disk = ours.last().map(|step| step.disk.copy()).unwrap_or_default();
    tried.sound(&disk, Some(&anchor))?;
    let mut forged = 0;
    for (step, other) in ours.iter().zip(&theirs) {
        let last = step.n == ours.len();
        forged += 1;
        detected(tried, step, last, &rewritten(tried, &disk, step, other)?, &anchor, "rewritten")?;
    }
    for pair in ours.windows(2) {
        if let [a, b] = pair
            && let Some(swapped) = swapped(&disk, a, b)
        {
            forged += 1;
            detected(tried, b, b.n == ours.len(), &swapped, &anchor, "and the one before it, swapped,")?;
        }
    }
    for pair in ours.windows(2) {
        if let [a, b] = pair
            && let Some(removed) = removed(&disk, a, b)
        {
            forged += 1;
            gone(tried, &removed, &anchor, &format!("record {}, taken out with the rest moved up,", a.n))?;
        }
    }
    let segments: Vec<_> =
        disk.files().into_iter().filter(|(path, _)| ours.iter().any(|step| step.file == *path)).collect();
    for (path, _) in segments.iter().rev().skip(1) {
        let removed = disk.copy();
        removed.put(path, None);
        forged += 1;
        gone(tried, &removed, &anchor, &format!("{}, taken out,", path.display()))?;
    }
    // The end is cut off, or another one is put in its range: only an anchor reveals it.
    for (step, other) in ours.iter().zip(&theirs) {
        let early = audit(tried, &disk, Some(&step.anchor))?;
        tried.ensure(early.anchored, "an anchor in the middle to be found", format!("{early:?}"))?;
        let whole = ours.len() == step.n;
        for (what, disk) in [("a tail that was cut", &step.disk), ("a log with another end", &other.disk)] {
            let with = audit(tried, disk, Some(&anchor))?;
            let ours_all = whole && what.ends_with("cut");
            tried.ensure(
                with.corruption.is_none() && with.anchored == ours_all,
                &format!("{what} to lack the anchor"),
                format!("{with:?}"),
            )?;
            let without = audit(tried, disk, None)?;
            tried.ensure(!without.anchored, "no anchor without one", format!("{without:?}"))?;
            // The whole log with its own anchor is no forgery.
            forged += if ours_all { 0 } else { 2 };
        }
    }
    Ok(Looked::at(forged, "forgeries"))
}

/// The beginning of a log, as a killed writer leaves it.
fn begun(tried: Tried<'_>) -> Held<ModelDisk> {
    let disk = ModelDisk::new();
    let log = tried.open(&disk)?;
    for n in 1..=5 {
        tried.append(&*log, n)?;
    }
    Ok(disk.copy())
}

/// A log after one more record, and that record's file and bytes.
struct Step {
    n: usize,
    disk: ModelDisk,
    anchor: String,
    file: PathBuf,
    range: std::ops::Range<usize>,
}

/// Appends this many records, all of the same length.
fn grow(tried: Tried<'_>, begun: &ModelDisk, with: u8, records: usize) -> Held<Vec<Step>> {
    let disk = begun.copy();
    let log = tried.open(&disk)?;
    let mut steps: Vec<Step> = Vec::new();
    for n in 1..=records {
        let before = disk.files();
        tried.works("append", log.append(&[[with; 90].as_slice(), &[n.to_le_bytes()[0]]].concat()))?;
        let after = disk.files();
        // The newest file that has other bytes, and the range of the bytes that changed.
        let old = |path: &Path| {
            before.iter().find(|(old, _)| old == path).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
        };
        let changed = after.iter().rfind(|(path, now)| is_data(path) && old(path) != *now);
        let (file, now) =
            changed.cloned().ok_or_else(|| tried.broken("a record to be in a file", "no file changed"))?;
        let was = old(&file);
        let differs = |at: &usize| now.get(*at).copied().unwrap_or(0) != was.get(*at).copied().unwrap_or(0);
        let start = (0..now.len()).find(differs).unwrap_or_default();
        let end = (0..now.len()).rev().find(differs).unwrap_or_default() + 1;
        steps.push(Step { n, disk: disk.copy(), anchor: log.anchor(), file, range: start..end });
    }
    Ok(steps)
}

fn audit(tried: Tried<'_>, disk: &ModelDisk, anchor: Option<&str>) -> Held<Audit> {
    tried.works("verify", tried.log.verify(Path::new(DIR), anchor, &options(disk)))
}

/// Our log with one record of theirs.
fn rewritten(tried: Tried<'_>, disk: &ModelDisk, ours: &Step, theirs: &Step) -> Held<ModelDisk> {
    let forged = disk.copy();
    let mut bytes = forged.read(&ours.file).unwrap_or_default();
    let piece = theirs.disk.read(&ours.file).and_then(|bytes| bytes.get(ours.range.clone()).map(<[u8]>::to_vec));
    let piece = piece.ok_or_else(|| tried.broken("logs of equal lengths to lie alike", format!("{:?}", ours.range)))?;
    bytes.get_mut(ours.range.clone()).unwrap_or_default().copy_from_slice(&piece);
    forged.put(&ours.file, Some(bytes));
    Ok(forged)
}

/// Checks that a forged record is found: before the last one as corruption; the last one only by the anchor.
fn detected(tried: Tried<'_>, step: &Step, last: bool, forged: &ModelDisk, anchor: &str, how: &str) -> Held {
    let audit = audit(tried, forged, Some(anchor))?;
    let found = !audit.anchored && (last || audit.corruption.is_some());
    tried.ensure(found, &format!("record {} {how} to be found", step.n), format!("{audit:?}"))
}

/// Checks that a removal before the end is found with the anchor: as corruption, or as a tail that was never acknowledged, if
/// nothing behind it is at its offset any more.
fn gone(tried: Tried<'_>, forged: &ModelDisk, anchor: &str, what: &str) -> Held {
    match tried.log.verify(Path::new(DIR), Some(anchor), &options(forged)) {
        Ok(audit) => {
            let found = !audit.anchored && (audit.corruption.is_some() || audit.torn.is_some());
            tried.ensure(found, &format!("{what} to be found"), format!("{audit:?}"))
        }
        Err(error) => tried.ensure(error.kind() == ErrorKind::Corrupt, &format!("{what} to be found"), error),
    }
}

/// Our log without a record, the rest of its file moved up, if the next one is in the same file.
fn removed(disk: &ModelDisk, a: &Step, b: &Step) -> Option<ModelDisk> {
    let mut bytes = disk.read(&a.file).filter(|_| a.file == b.file && a.range.start < b.range.start)?;
    let len = bytes.len();
    bytes.drain(a.range.start..b.range.start);
    bytes.resize(len, 0);
    let disk = disk.copy();
    disk.put(&a.file, Some(bytes));
    Some(disk)
}

/// Our log with two neighbours exchanged, if they are in one file and have one length.
fn swapped(disk: &ModelDisk, a: &Step, b: &Step) -> Option<ModelDisk> {
    let bytes = disk.read(&a.file).filter(|_| a.file == b.file && a.range.len() == b.range.len())?;
    let mut forged = bytes.clone();
    forged.get_mut(a.range.clone())?.copy_from_slice(bytes.get(b.range.clone())?);
    forged.get_mut(b.range.clone())?.copy_from_slice(bytes.get(a.range.clone())?);
    let disk = disk.copy();
    disk.put(&a.file, Some(forged));
    Some(disk)
}
