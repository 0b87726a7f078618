//! The hand-over between appenders and the commit thread, under a checker that tries the orders in which threads may run.
//!
//! `cargo xtask handover` runs it. It checks the real code: `wal::sync` exports the checker's locks, threads and clock in place
//! of the standard library's. A thread that is never woken is a deadlock, which the checker finds; it prints the order, which
//! `shuttle::replay` runs again.
//!
//! It assumes sequentially consistent memory: it does not find orderings of atomics that are too weak.
//!
//! Evidence that it works: it found three deadlocks that all other tests had missed (the lead handed to a thread whose append had
//! failed, or whose sync was done already; a task that was polled with another waker and never woken), each within a few
//! orders, and finds them again without their fixes. It also finds a head that is published before its sync, and a group of
//! which only the first caller is woken. The last two tests show that it detects a missed wake-up and an early acknowledgement.

mod disk;

use std::{
    future::{Future, poll_fn},
    ops::RangeInclusive,
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use shuttle::{
    future::block_on,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
    thread,
};

use self::disk::{Fail, Watched};
use super::{KIND, payload};
use crate::{
    error::{ErrorKind, Result},
    wal::{Durability, ReadFrom, Retention, Seq, Wal, WalOptions, WalReader},
};

const DIR: &str = "/log";

/// Number of thread orders that each of the two schedulers tries per scenario.
const ORDERS: usize = 2_000;

fn check(scenario: fn()) {
    check_some(ORDERS, scenario);
}

fn check_some(orders: usize, scenario: fn()) {
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        shuttle::Runner::new(scheduler, shuttle::Config::default()).run(scenario)
    };
    assert_eq!(run(Box::new(RandomScheduler::new(orders))), orders);
    assert_eq!(run(Box::new(PctScheduler::new(3, orders))), orders);
}

fn open(disk: &Watched, durability: Durability) -> Wal {
    let options = WalOptions { disk: Some(Arc::new(disk.clone())), durability, ..super::small() };
    Wal::open(Path::new(DIR), options).unwrap()
}

/// Appends, and checks the acknowledgement: the records are written, and synced where the durability promises it.
fn append(wal: &Wal, disk: &Watched, records: usize) -> Result<RangeInclusive<u64>> {
    check_acknowledged(wal, disk, wal.append_batch_blocking(&vec![(KIND, &b"from a thread"[..]); records]))
}

fn append_in_task(wal: &Wal, disk: &Watched, records: usize) -> Result<RangeInclusive<u64>> {
    check_acknowledged(wal, disk, block_on(wal.append_batch(&vec![(KIND, &b"from a task"[..]); records])))
}

fn check_acknowledged(wal: &Wal, disk: &Watched, range: Result<RangeInclusive<Seq>>) -> Result<RangeInclusive<u64>> {
    if wal.inner.committer.durability == Durability::Commit {
        return check_synced(disk, range);
    }
    let range = range?;
    assert!(disk.written() >= range.end().0, "acknowledged, and not written");
    Ok(range.start().0..=range.end().0)
}

fn check_synced(disk: &Watched, range: Result<RangeInclusive<Seq>>) -> Result<RangeInclusive<u64>> {
    let range = range?;
    assert!(disk.synced() >= range.end().0, "acknowledged, and not synced");
    Ok(range.start().0..=range.end().0)
}

/// Asserts that the ranges follow each other from 1 on, with no number missing or twice; returns the last.
fn assert_gapless(ranges: impl IntoIterator<Item = RangeInclusive<u64>>) -> u64 {
    let mut ranges: Vec<_> = ranges.into_iter().collect();
    ranges.sort_by_key(|range| *range.start());
    ranges.into_iter().fold(0, |last, range| {
        assert_eq!(*range.start(), last + 1);
        *range.end()
    })
}

/// Reads the log from its files; returns the number of the last record.
fn records(disk: &Watched) -> u64 {
    let options = WalOptions { disk: Some(Arc::new(disk.clone())), ..WalOptions::default() };
    let records = WalReader::open(Path::new(DIR), ReadFrom::Start, options).unwrap();
    records.map(|record| record.unwrap().seq.0).zip(1..).fold(0, |_, (seq, expected)| {
        assert_eq!(seq, expected);
        seq
    })
}

/// Appends twice from each of `threads` threads and `tasks` tasks at the same time, then closes the log.
fn many(durability: Durability, threads: usize, tasks: usize) {
    let disk = Watched::default();
    let wal = open(&disk, durability);
    let work = (0..threads + tasks).map(|number| {
        let (wal, disk) = (wal.clone(), disk.clone());
        let append = if number < threads { append } else { append_in_task };
        thread::spawn(move || [append(&wal, &disk, 1 + number % 2).unwrap(), append(&wal, &disk, 1).unwrap()])
    });
    let ranges: Vec<_> = work.collect::<Vec<_>>().into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let last = assert_gapless(ranges);
    assert_eq!(wal.anchor().seq.0, last);
    wal.close().unwrap();
    assert_eq!((records(&disk), disk.synced()), (last, last), "closing syncs all of it");
}

#[test]
fn threads_each_get_their_own_numbers_once_and_not_before_they_are_durable() {
    check(|| many(Durability::Commit, 3, 0));
}

#[test]
fn tasks_each_get_their_own_numbers_once_and_not_before_they_are_durable() {
    check(|| many(Durability::Commit, 0, 3));
}

#[test]
fn threads_and_tasks_share_one_order() {
    check(|| many(Durability::Commit, 2, 2));
    check(|| many(Durability::Os, 2, 1));
    check(|| many(Durability::Every(Duration::from_millis(1)), 2, 1));
}

#[test]
fn a_task_that_is_polled_by_another_waker_is_woken_by_that_one() {
    check(|| {
        let disk = Watched::default();
        let wal = open(&disk, Durability::Commit);
        let moved = {
            let (wal, disk) = (wal.clone(), disk.clone());
            thread::spawn(move || {
                let records = [(KIND, &b"moved"[..])];
                let mut append = pin!(wal.append_batch(&records));
                let first = append.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                let done = if let Poll::Ready(done) = first { done } else { block_on(append) };
                check_acknowledged(&wal, &disk, done).unwrap()
            })
        };
        let other = {
            let (wal, disk) = (wal.clone(), disk.clone());
            thread::spawn(move || append_in_task(&wal, &disk, 1).unwrap())
        };
        let own = append(&wal, &disk, 1).unwrap();
        assert_eq!(assert_gapless([own, moved.join().unwrap(), other.join().unwrap()]), 3);
    });
}

#[test]
fn a_dropped_append_does_not_affect_other_appends() {
    check(|| {
        let disk = Watched::default();
        let wal = open(&disk, Durability::Commit);
        let dropped = {
            let wal = wal.clone();
            thread::spawn(move || {
                let mut append = Box::pin(wal.append(KIND, b"dropped"));
                let _ = append.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            })
        };
        let other = {
            let (wal, disk) = (wal.clone(), disk.clone());
            thread::spawn(move || append_in_task(&wal, &disk, 1).unwrap())
        };
        let own = append(&wal, &disk, 2).unwrap();
        let other = other.join().unwrap();
        dropped.join().unwrap();
        wal.close().unwrap();
        // The dropped append happens all the same, and the first caller to append gets the first number.
        assert_eq!(records(&disk), 4);
        assert!(own.end() != other.end());
    });
}

#[test]
fn a_failure_reaches_every_waiting_caller_and_every_later_one() {
    fn scenario(fail: Fail, durability: Durability) {
        let disk = Watched::default();
        let wal = open(&disk, durability);
        disk.fail(fail, 1);
        let work: Vec<_> = (0..4)
            .map(|number| {
                let (wal, disk) = (wal.clone(), disk.clone());
                let append = if number < 2 { append } else { append_in_task };
                thread::spawn(move || [append(&wal, &disk, 1), append(&wal, &disk, 1)])
            })
            .collect();
        for outcome in work.into_iter().flat_map(|thread| thread.join().unwrap()) {
            assert!(
                outcome.is_ok_and(|range| *range.end() <= disk.written())
                    || wal.inner.committer.published.failed().is_some()
            );
        }
        let _ = wal.sync_blocking();
        // With an interval, the failing sync may not have been due yet.
        if durability == Durability::Commit {
            assert_eq!(append(&wal, &disk, 1).unwrap_err().kind(), ErrorKind::Unexpected);
        }
        let _ = wal.close();
        assert_eq!(append(&wal, &disk, 1).unwrap_err().retry(), crate::error::Retry::Never);
    }
    check(|| scenario(Fail::Sync, Durability::Commit));
    check(|| scenario(Fail::Write, Durability::Commit));
    check(|| scenario(Fail::Sync, Durability::Every(Duration::from_millis(1))));
}

#[test]
fn closing_commits_every_accepted_append_and_refuses_later_ones() {
    check(|| {
        let disk = Watched::default();
        let wal = open(&disk, Durability::Commit);
        let work: Vec<_> = (0..3)
            .map(|number| {
                let (wal, disk) = (wal.clone(), disk.clone());
                let append = if number < 2 { append } else { append_in_task };
                thread::spawn(move || [append(&wal, &disk, 1), append(&wal, &disk, 1)])
            })
            .collect();
        wal.close().unwrap();
        let outcomes: Vec<_> = work.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(
            outcomes
                .iter()
                .all(|outcome| outcome.as_ref().map_or_else(|error| error.kind() == ErrorKind::Cancelled, |_| true))
        );
        let last = assert_gapless(outcomes.into_iter().flatten());
        assert_eq!(records(&disk), last);
    });
}

#[test]
fn a_caller_that_asks_for_a_sync_gets_it_and_every_other_caller_is_woken() {
    fn scenario(durability: Durability) {
        let disk = Watched::default();
        let wal = open(&disk, durability);
        let work: Vec<_> = (0..4)
            .map(|number| {
                let (wal, disk) = (wal.clone(), disk.clone());
                thread::spawn(move || {
                    let append = if number % 2 == 0 { append } else { append_in_task };
                    let mine = append(&wal, &disk, 1).unwrap();
                    let synced = if number % 2 == 0 { wal.sync_blocking() } else { block_on(wal.sync()) };
                    synced.unwrap();
                    assert!(disk.synced() >= *mine.end());
                    mine
                })
            })
            .collect();
        assert_eq!(assert_gapless(work.into_iter().map(|thread| thread.join().unwrap())), 4);
        wal.close().unwrap();
    }
    check(|| scenario(Durability::Commit));
    check(|| scenario(Durability::Os));
}

#[test]
fn callers_that_find_a_full_group_get_space_in_a_later_one() {
    // Fewer orders, since each run writes megabytes.
    check_some(ORDERS / 30, || {
        let disk = Watched::default();
        let wal = open(&disk, Durability::Os);
        let large = vec![7; 600 << 10];
        let work: Vec<_> = (0..3)
            .map(|number| {
                let (wal, large) = (wal.clone(), large.clone());
                thread::spawn(move || {
                    if number == 0 { wal.append_blocking(KIND, &large) } else { block_on(wal.append(KIND, &large)) }
                        .unwrap()
                })
            })
            .collect();
        let numbers = work.into_iter().map(|thread| thread.join().unwrap().0);
        assert_eq!(assert_gapless(numbers.map(|seq| seq..=seq)), 3);
        wal.close().unwrap();
    });
}

#[test]
fn a_retention_has_the_lock_to_its_end_or_drops_nothing() {
    check(|| {
        let disk = Watched::default();
        let wal = open(&disk, Durability::Commit);
        for _ in 0..3 {
            wal.append_blocking(KIND, &[0; 5000]).unwrap();
        }
        let threaded = wal.clone();
        let retains = thread::spawn(move || threaded.retain(Retention::default().with_max_bytes(0)));
        wal.close().unwrap();
        match retains.join().unwrap() {
            Ok(retained) => assert!(retained.segments > 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
        }
    });
}

#[test]
fn a_follower_yields_every_record_and_then_ends() {
    check(|| {
        let disk = Watched::default();
        let wal = open(&disk, Durability::Commit);
        let mut follower = wal.follow(ReadFrom::Start).unwrap();
        let follower = {
            let disk = disk.clone();
            thread::spawn(move || {
                block_on(async {
                    let mut last = 0;
                    while let Some(record) = follower.next().await {
                        last += 1;
                        assert_eq!(record.unwrap().seq.0, last);
                        assert!(disk.synced() >= last, "shown, and not synced");
                    }
                    last
                })
            })
        };
        let (threaded, watched) = (wal.clone(), disk.clone());
        let other = thread::spawn(move || append(&threaded, &watched, 2).unwrap());
        wal.append_blocking(KIND, &payload(1)).unwrap();
        other.join().unwrap();
        wal.close().unwrap();
        assert_eq!(follower.join().unwrap(), 3);
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_checker_detects_a_task_that_is_never_woken() {
    check(|| {
        let disk = Watched::default();
        let wal = open(&disk, Durability::Commit);
        let mut append = pin!(wal.append(KIND, b"waker of no task"));
        let deaf = poll_fn(|_| append.as_mut().poll(&mut Context::from_waker(Waker::noop())));
        block_on(deaf).unwrap();
    });
}

#[test]
#[should_panic(expected = "acknowledged, and not synced")]
fn the_checker_detects_an_acknowledgement_before_the_sync() {
    check(|| {
        let disk = Watched::default();
        let wal = open(&disk, Durability::Os);
        let outcome = wal.append_blocking(KIND, b"not synced").map(|seq| seq..=seq);
        check_synced(&disk, outcome).unwrap();
    });
}
