//! W2: the torn tail is cut, and nothing else.

use std::path::{Path, PathBuf};

use runtide_core::wal::OnCorruption;

use super::{Held, Tried, after, is_data, payload};
use crate::wal::{Crash, Cut, Effort, LogHarness, Looked, ModelDisk, WalLaw, WalLawResult};

/// First a log that was not closed is cut at every byte, as if the rest had never reached the disk, with and without zeros in
/// its place. Then a short history with records of several sectors is cut off at every operation with every subset of the
/// unsynced writes, and again at every operation of the repair.
pub(crate) fn w2_torn_tail(log: &dyn LogHarness, effort: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W2, log };
    Ok(Looked::at(every_cut(tried, effort)? + every_crash(tried, effort)?, "cuts and crash states"))
}

/// A log of a few records in one file, and the offset at which each of them ends.
struct Written {
    disk: ModelDisk,
    file: PathBuf,
    bytes: Vec<u8>,
    start: usize,
    ends: Vec<usize>,
}

fn write(tried: Tried<'_>, records: u64) -> Held<Written> {
    let disk = ModelDisk::new();
    let log = tried.open(&disk)?;
    let (mut starts, mut file) = (Vec::new(), None);
    let mut before = disk.files();
    // One more, whose beginning is the end of the last one.
    for n in 1..=records + 1 {
        tried.append(&*log, n)?;
        let after = disk.files();
        let changed = after.iter().find(|file| is_data(&file.0) && !before.contains(file)).cloned();
        let (path, now) = changed.ok_or_else(|| tried.broken("a record to be in a file", "no file changed"))?;
        let old = before.iter().find(|(old, _)| *old == path).map(|(_, bytes)| bytes.as_slice()).unwrap_or_default();
        let differs = |at: &usize| now.get(*at) != old.get(*at);
        starts.extend((0..now.len()).find(differs));
        if n <= records {
            file = Some((path, now));
            before = after;
        }
    }
    let (file, bytes) = file.ok_or_else(|| tried.broken("a record to be in a file", "none was appended"))?;
    // As a killed writer leaves it.
    let disk = disk.copy();
    disk.put(&file, Some(bytes.clone()));
    Ok(Written { disk, file, bytes, start: starts.remove(0), ends: starts })
}

fn every_cut(tried: Tried<'_>, effort: Effort) -> Held<u64> {
    let written = write(tried, 8)?;
    let last = written.ends.last().copied().unwrap_or_default();
    let mut cuts = 0;
    for at in (written.start..=last).step_by(effort.pick(1, 5)) {
        for zeros in [false, true] {
            let mut left = written.bytes.get(..at).unwrap_or_default().to_vec();
            if zeros {
                left.resize(written.bytes.len().max(at), 0);
            }
            let what = if zeros { "followed by zeros" } else { "where the file ends" };
            let located = |mut broken: super::Broken| {
                broken.found = format!("{}, cut at byte {at}, {what}", broken.found);
                broken
            };
            cut(tried, &written, &left).map_err(located)?;
            cuts += 1;
        }
    }
    Ok(cuts)
}

fn cut(tried: Tried<'_>, written: &Written, left: &[u8]) -> Held {
    let disk = written.disk.copy();
    disk.put(&written.file, Some(left.to_vec()));
    // The bytes that are cut off may have been zeros.
    let whole = written.ends.iter().filter(|end| left.get(..**end) == written.bytes.get(..**end)).count() as u64;
    let kept = usize::try_from(whole).ok().and_then(|whole| written.ends.get(whole.checked_sub(1)?));
    let kept = kept.copied().unwrap_or(written.start);

    // Read by a reader only, before a writer repairs it.
    let read: Vec<_> = tried.read(&disk, OnCorruption::Stop)?;
    let read: Vec<_> = tried.works("read the whole records", read.into_iter().collect::<Result<Vec<_>, _>>())?;
    tried.ensure(tried.in_order(&read, 1)? == whole + 1, "the whole records, and no other", read.len())?;
    tried.sound(&disk, None)?;

    let log = tried.open(&disk)?;
    let garbage = left.iter().skip(kept).rposition(|byte| *byte != 0).map(|last| kept + last);
    tried.ensure(
        log.cut().is_some() == garbage.is_some(),
        "a report of a tail that was cut, if there was one",
        format!("{:?}", log.cut()),
    )?;
    if let (Some(cut), Some(last)) = (log.cut(), garbage) {
        // Padding belongs to the record before.
        let from = usize::try_from(*cut.bytes.start()).unwrap_or(usize::MAX);
        let reported = (kept..kept + 8).contains(&from) && *cut.bytes.end() == last as u64;
        tried.ensure(reported, &format!("bytes {kept} to {last} to be cut"), format!("{cut:?}"))?;
        tried.ensure(
            disk.read(&cut.copy).as_deref() == left.get(from..=last),
            "a copy of the bytes that were cut",
            format!("another one in {cut:?}"),
        )?;
    }
    for n in whole + 1..=whole + 2 {
        tried.append(&*log, n)?;
    }
    // Power cut, second recovery.
    let again = disk.crash();
    drop(log);
    let log = tried.open(&again)?;
    tried.ensure(log.cut().is_none(), "nothing more to be cut", format!("{:?}", log.cut()))?;
    let next = tried.in_order(&tried.all(&*log)?, 1)?;
    tried.ensure(
        next == whole + 3,
        "the records appended after the repair",
        format!("{} of {} records", next - 1, whole + 2),
    )?;
    drop(log);
    tried.sound(&again, None)
}

fn every_crash(tried: Tried<'_>, effort: Effort) -> Held<u64> {
    let disk = ModelDisk::new();
    let log = tried.open(&disk)?;
    for n in 1..=effort.pick(10, 6) {
        // Together some 1500 bytes: four sectors, any of which may be missing.
        let payloads: Vec<_> = (0..3).map(|part| vec![u8::try_from(n * 4 + part).unwrap_or(1); 500]).collect();
        let batch: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
        tried.works("append a batch", log.append_batch(&batch))?;
        disk.mark(n * 3);
    }
    drop(log);
    let mut inner = 0;
    let mut shown = 0_u64;
    let outer = disk.crashes(0..usize::MAX, effort.pick(32, 4), 3, |crash| {
        shown += 1;
        if shown.is_multiple_of(effort.pick(4, 8)) {
            inner += repair(tried, crash).map_err(after(crash))?;
        } else {
            repaired_again(tried, &crash.disk, crash.mark.unwrap_or(0)).map_err(after(crash))?;
        }
        Ok(())
    })?;
    Ok(outer + inner)
}

/// The log can be opened, has the acknowledged records in whole batches, and new records survive the next power cut.
fn repaired_again(tried: Tried<'_>, disk: &ModelDisk, acknowledged: u64) -> Held {
    let log = tried.open(disk)?;
    let there = tried.all(&*log)?.len() as u64;
    let fine = there >= acknowledged && there.is_multiple_of(3);
    tried.ensure(fine, &format!("{acknowledged} records, and whole batches"), there)?;
    tried.works("append after the repair", log.append(&payload(1)))?;
    let again = disk.crash();
    drop(log);
    let log = tried.open(&again)?;
    tried.ensure(log.cut().is_none(), "nothing more to be cut", format!("{:?}", log.cut()))?;
    let entries = tried.all(&*log)?;
    let last = entries.last().is_some_and(|entry| entry.bytes == payload(1));
    tried.ensure(last && entries.len() as u64 == there + 1, "the record appended after the repair", entries.len())
}

/// The power goes at any operation of the repair: the torn bytes are still in their file, or in the copy.
fn repair(tried: Tried<'_>, crash: &Crash<'_>) -> Held<u64> {
    let disk = crash.disk.copy();
    let log = tried.open(&disk)?;
    let cut = log.cut();
    let opened = disk.operations();
    drop(log);
    let torn = cut.map(|cut| {
        let torn = crash.disk.read(&cut.file).and_then(|bytes| piece(&bytes, &cut));
        let torn =
            torn.ok_or_else(|| tried.broken("the bytes that were cut to have been there", format!("{cut:?}")))?;
        Ok::<_, super::Broken>((torn, cut))
    });
    let torn = torn.transpose()?;
    disk.crashes(0..opened + 1, 4, 4, |second| {
        if let Some((torn, cut)) = &torn {
            let there = |path: &Path| second.disk.read(path);
            let in_place = there(&cut.file).and_then(|bytes| piece(&bytes, cut)).as_ref() == Some(torn);
            let aside = there(&cut.copy).as_ref() == Some(torn);
            tried.ensure(in_place || aside, "a copy of the tail before it is cut", "neither").map_err(after(second))?;
        }
        repaired_again(tried, &second.disk, crash.mark.unwrap_or(0)).map_err(after(second))
    })
}

fn piece(bytes: &[u8], cut: &Cut) -> Option<Vec<u8>> {
    let offset = |at: u64| usize::try_from(at).ok();
    bytes.get(offset(*cut.bytes.start())?..=offset(*cut.bytes.end())?).map(<[u8]>::to_vec)
}
