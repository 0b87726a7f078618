//! W9: bytes read by opening and tail.

use std::num::NonZeroU64;

use super::{Held, Tried, options, payload};
use crate::wal::{Effort, Load, LogHarness, Looked, ModelDisk, WalLaw, WalLawResult};

/// Bytes in addition to one segment: headers, footers, the lock's text, and read-ahead.
const SLACK: u64 = 32 << 10;

/// Large against the slack, so that a segment more than one is noticed.
const SEGMENT: u64 = 128 << 10;

/// Bytes between the entries of the index.
const INDEX: u64 = 64 << 10;

/// Records of a log of one segment and a bit.
const SHORT: u64 = 700;

/// The same log at two lengths, one twenty times the other, after an orderly end and after a crash: the bytes that opening
/// and `tail` read are counted, not timed.
pub(crate) fn w9_cost(log: &dyn LogHarness, effort: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W9, log };
    let small = loads(tried, SHORT)?;
    let records = SHORT * effort.pick(20, 10);
    let large = loads(tried, records)?;
    for ((what, most, long), (_, _, short)) in large.iter().zip(&small) {
        // Neither may the number of reads depend on the number of segments; it may, on how full the last one is.
        let fine = long.bytes_read <= most + SLACK && long.reads <= 2 * short.reads + 20;
        let found = format!(
            "{} bytes in {} reads, of a log of {records}; {} in {} of one of {SHORT}",
            long.bytes_read, long.reads, short.bytes_read, short.reads
        );
        tried.ensure(fine, &format!("{what} to read {} bytes at most", most + SLACK), found)?;
    }
    Ok(Looked::at(records, "records"))
}

/// The disk's load for each call, and the bytes that it may read.
fn loads(tried: Tried<'_>, records: u64) -> Held<Vec<(String, u64, Load)>> {
    let disk = ModelDisk::new();
    let large = |disk: &ModelDisk| options(disk).with_segment_bytes(NonZeroU64::new(SEGMENT));
    let log = tried.open_with(large(&disk))?;
    for n in 1..=records {
        tried.append(&*log, n)?;
    }
    let crashed = disk.copy();
    tried.works("close the log", log.close())?;
    let closed = disk.copy();
    let mut loads = Vec::new();
    for (how, disk, most) in [("after an orderly end", closed, SEGMENT), ("after a crash", crashed, 2 * SEGMENT)] {
        let before = disk.load();
        let log = tried.open_with(large(&disk))?;
        loads.push((format!("opening {how}"), most, disk.load() - before));
        for n in [1, 10, 50] {
            let before = disk.load();
            let tail = tried.works("read the tail", log.tail(n))?;
            let first = records + 1 - n as u64;
            tried.ensure(tried.in_order(&tail, first)? == records + 1, "the last records", tail.len())?;
            // Each record with its neighbourhood. The reading begins at an entry of the index, and reads ahead; they may be in
            // two segments.
            let bytes: u64 = (first..=records).map(|n| payload(n).len() as u64 + 200).sum();
            loads.push((format!("tail({n})"), bytes + 3 * INDEX, disk.load() - before));
        }
    }
    Ok(loads)
}
