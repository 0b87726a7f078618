//! W4: numbers.

use std::thread;

use runtide_core::wal::{ReadFrom, Retention, Seq};

use super::{Held, Tried, after, payload};
use crate::wal::{Effort, LogHarness, Looked, ModelDisk, OpenLog, WalLaw, WalLawResult};

/// Numbers are checked in a history of several openings, segments and a retention, cut off at every operation and appended to
/// again; and with four threads that append at once.
pub(crate) fn w4_sequence(log: &dyn LogHarness, effort: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W4, log };
    let disk = ModelDisk::new();
    let mut next = 1;
    for opening in 0..3 {
        let log = tried.open(&disk)?;
        for _ in 0..25 {
            numbered(tried, &*log, next)?;
            next += 1;
        }
        if opening == 1 {
            let policy = Retention::default().with_keep_from(Seq(next - 20));
            tried.works("drop old segments", log.retain(policy))?;
        }
        tried.works("close the log", log.close())?;
    }
    let states = disk.crashes(0..usize::MAX, effort.pick(8, 2), 5, |crash| {
        let check = || {
            let log = tried.open(&crash.disk)?;
            let there = numbers(tried, &*log)?;
            numbered(tried, &*log, there + 1)?;
            tried.ensure(numbers(tried, &*log)? == there + 1, "the number behind the last one", there)
        };
        check().map_err(after(crash))
    })?;
    together(tried)?;
    Ok(Looked::at(states, "crash states"))
}

/// Appends a record, which must get this number.
fn numbered(tried: Tried<'_>, log: &dyn OpenLog, n: u64) -> Held {
    let seq = tried.append(log, n)?;
    tried.ensure(seq == n, &format!("record {n} to be number {n}"), seq)
}

/// The last number; there is no gap before it, and every number is that of the record appended under it.
fn numbers(tried: Tried<'_>, log: &dyn OpenLog) -> Held<u64> {
    let entries = tried.all(log)?;
    let first = entries.first().map_or(1, |entry| entry.seq);
    for (entry, expected) in entries.iter().zip(first..) {
        let right = entry.seq == expected && entry.bytes == payload(entry.seq);
        tried.ensure(right, &format!("number {expected}, on its record"), entry.seq)?;
    }
    Ok(first + entries.len() as u64 - 1)
}

/// Threads share one sequence, and each gets the numbers of its own records.
fn together(tried: Tried<'_>) -> Held {
    let disk = ModelDisk::new();
    let log = tried.open(&disk)?;
    let numbers = thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u8)
            .map(|thread| {
                let log = &*log;
                scope.spawn(move || (0..50_u8).map(|n| Ok((log.append(&[thread, n])?, [thread, n]))).collect())
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(Vec::new())));
        joined.collect::<runtide_core::Result<Vec<Vec<(u64, [u8; 2])>>>>()
    });
    let mut numbers: Vec<_> = tried.works("append from four threads", numbers)?.into_iter().flatten().collect();
    numbers.sort_unstable();
    let entries = tried.works("read", log.reader(ReadFrom::Start))?;
    let entries: Vec<_> = tried.works("read", entries.collect::<Result<Vec<_>, _>>())?;
    let read: Vec<_> = entries.iter().map(|entry| (entry.seq, &entry.bytes[..])).collect();
    let same = numbers.len() == 200 && numbers.iter().map(|(seq, bytes)| (*seq, &bytes[..])).eq(read);
    tried.ensure(
        same && numbers.iter().map(|(seq, _)| *seq).eq(1..=200),
        "numbers 1 to 200, each returned to its appender",
        numbers.len(),
    )
}
