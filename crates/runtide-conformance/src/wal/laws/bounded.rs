//! W10: memory.

use std::{num::NonZeroU64, path::Path};

use runtide_core::wal::{OnCorruption, ReadFrom, WalOptions};

use super::{DIR, Held, Tried, options};
use crate::wal::{Effort, LogHarness, Looked, Meter, ModelDisk, WalLaw, WalLawResult};

/// Bytes that reading may be ahead of the records it has returned, and that one read may ask for.
const AHEAD: u64 = 1 << 20;

/// Bytes of memory that each call may take: verify has 1 MiB for each of at most eight threads.
const MEMORY: usize = 4 << 20;
const MEMORY_OF_VERIFY: usize = 12 << 20;

/// A log of 32 MiB is read, verified and written out. No read may ask for more than 1 MiB, or be further ahead of the records
/// that were returned; and where an allocator counts, the bytes held may not grow by more than 4 MiB.
pub(crate) fn w10_bounded(log: &dyn LogHarness, effort: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W10, log };
    let records = effort.pick(8192, 2048);
    let disk = large(tried, records)?;
    let options = || large_segments(&disk);
    let meter = log.meter();
    let measured = |what: &str, most: usize, call: &mut dyn FnMut() -> Held| {
        let held = meter.map(Meter::reset);
        call()?;
        let grown = meter.map_or(0, Meter::peak).saturating_sub(held.unwrap_or(0));
        tried.ensure(grown <= most, &format!("{what} to take {most} bytes of memory at most"), grown)?;
        let largest = disk.load().largest_read;
        tried.ensure(largest <= AHEAD, &format!("{what} to read {AHEAD} bytes at once at most"), largest)
    };
    let writer = tried.open_with(options())?;
    let readers = |from| [writer.reader(from), log.reader(Path::new(DIR), from, options())];
    for number in 0..2 {
        measured("a reader", MEMORY, &mut || {
            let before = disk.load();
            let reader = readers(ReadFrom::Start).into_iter().nth(number).into_iter().flatten().next();
            let reader = reader.ok_or_else(|| tried.broken("to read", "an error"))?;
            let mut given = 0;
            let mut count = 0;
            for entry in reader {
                given += tried.works("read", entry)?.bytes.len() as u64;
                count += 1;
                let ahead = (disk.load() - before).bytes_read.saturating_sub(given + given / 8);
                tried.ensure(
                    ahead <= AHEAD,
                    "a reader to read as it goes",
                    format!("{ahead} bytes ahead of record {count}"),
                )?;
            }
            tried.ensure(count == records, &format!("{records} records"), count)
        })?;
    }
    measured("tail", MEMORY, &mut || tried.works("read the tail", writer.tail(20)).map(drop))?;
    writer.close().map_err(|error| tried.broken("to close", error))?;
    measured("dump", MEMORY, &mut || tried.works("dump", log.dump(Path::new(DIR), &mut std::io::sink(), &options())))?;
    measured("verify", MEMORY_OF_VERIFY, &mut || {
        let audit = tried.works("verify", log.verify(Path::new(DIR), None, &options()))?;
        tried.ensure(audit.records == records, &format!("{records} records"), format!("{audit:?}"))
    })?;
    Ok(Looked::at(records * 4096, "bytes"))
}

fn large_segments(disk: &ModelDisk) -> WalOptions {
    options(disk).with_segment_bytes(NonZeroU64::new(1 << 20)).with_on_corruption(OnCorruption::Stop)
}

fn large(tried: Tried<'_>, records: u64) -> Held<ModelDisk> {
    let disk = ModelDisk::new();
    let log = tried.open_with(large_segments(&disk))?;
    let payload = vec![7; 4096];
    let batch = vec![payload.as_slice(); 32];
    for _ in 0..records / 32 {
        tried.works("append a batch", log.append_batch(&batch))?;
    }
    tried.works("close the log", log.close())?;
    Ok(disk.copy())
}
