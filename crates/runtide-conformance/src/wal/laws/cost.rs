//! W9: what opening and tail read.

use super::{Held, SEGMENT, Tried, payload};
use crate::wal::{Effort, Load, LogHarness, Looked, ModelDisk, WalLaw, WalLawResult};

/// Beside one segment: headers, footers, the lock's text, and what is read ahead.
const SLACK: u64 = 32 << 10;

/// The same log at two lengths, one twenty times the other, after an orderly end and after a crash: the bytes that opening
/// and `tail` read are counted, not timed.
pub(crate) fn w9_cost(log: &dyn LogHarness, effort: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W9, log };
    let small = loads(tried, 100)?;
    let records = 100 * effort.pick(20, 10);
    let large = loads(tried, records)?;
    for ((what, most, long), (_, _, short)) in large.iter().zip(&small) {
        let fine = long.bytes_read <= most + SLACK;
        let found = format!(
            "{} bytes in {} reads, of a log of {records}; {} of one of 100",
            long.bytes_read, long.reads, short.bytes_read
        );
        tried.ensure(fine, &format!("{what} to read {} bytes at most", most + SLACK), found)?;
    }
    Ok(Looked::at(records, "records"))
}

/// What was asked of the disk for each deed, and how much it may be.
fn loads(tried: Tried<'_>, records: u64) -> Held<Vec<(String, u64, Load)>> {
    let disk = ModelDisk::new();
    let log = tried.open(&disk)?;
    for n in 1..=records {
        tried.append(&*log, n)?;
    }
    let crashed = disk.copy();
    tried.works("close the log", log.close())?;
    let closed = disk.copy();
    let mut loads = Vec::new();
    for (how, disk) in [("after an orderly end", closed), ("after a crash", crashed)] {
        let before = disk.load();
        let log = tried.open(&disk)?;
        loads.push((format!("opening {how}"), 2 * SEGMENT, disk.load() - before));
        for n in [1, 10, 50] {
            let before = disk.load();
            let tail = tried.works("read the tail", log.tail(n))?;
            let first = records + 1 - n as u64;
            tried.ensure(tried.in_order(&tail, first)? == records + 1, "the last records", tail.len())?;
            // Each with what lies around it; the index has an entry for each segment or 64 KiB.
            let bytes: u64 = (first..=records).map(|n| payload(n).len() as u64 + 200).sum();
            loads.push((format!("tail({n})"), bytes + SEGMENT, disk.load() - before));
        }
    }
    Ok(loads)
}
