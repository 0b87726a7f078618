//! The hand-over between appenders and the commit thread, under a checker that tries the orders in which threads may run.
//!
//! `cargo xtask handover` runs it. It checks the real code: `wal::sync` gives the checker's locks, threads and clock in the
//! place of the standard library's. A thread that waits for what never comes is a deadlock, which the checker finds; it prints
//! the order, which `shuttle::replay` runs again.
//!
//! It takes memory to be sequentially consistent: orderings of atomics that are too weak are not found.
//!
//! That it bites: it found three ways to wait forever that all other tests had passed by (a leadership handed to a thread whose append
//! had failed, or whose sync was done already; a task forgotten that was polled by another waker), each within a few orders,
//! and finds them again without their repairs. So it does a head that is published before its sync, and a group of
//! which only the first is woken. The last two tests show that it sees such things at all.

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
    wal::{Durability, ReadFrom, Seq, Wal, WalOptions, WalReader},
};

const DIR: &str = "/log";

/// Orders tried of each life, by each of two ways of choosing.
const ORDERS: usize = 2_000;

fn check(life: fn()) {
    check_some(ORDERS, life);
}

fn check_some(orders: usize, life: fn()) {
    let run =
        |scheduler: Box<dyn Scheduler + Send>| shuttle::Runner::new(scheduler, shuttle::Config::default()).run(life);
    assert_eq!(run(Box::new(RandomScheduler::new(orders))), orders);
    assert_eq!(run(Box::new(PctScheduler::new(3, orders))), orders);
}

fn open(disk: &Watched, durability: Durability) -> Wal {
    let options = WalOptions { disk: Some(Arc::new(disk.clone())), durability, ..super::small() };
    Wal::open(Path::new(DIR), options).unwrap()
}

/// Appends, and looks whether the answer is true: the records are there, durably where that was promised.
fn append(wal: &Wal, disk: &Watched, records: usize) -> Result<RangeInclusive<u64>> {
    told(wal, disk, wal.append_batch_blocking(&vec![(KIND, &b"from a thread"[..]); records]))
}

fn append_in_task(wal: &Wal, disk: &Watched, records: usize) -> Result<RangeInclusive<u64>> {
    told(wal, disk, block_on(wal.append_batch(&vec![(KIND, &b"from a task"[..]); records])))
}

fn told(wal: &Wal, disk: &Watched, range: Result<RangeInclusive<Seq>>) -> Result<RangeInclusive<u64>> {
    if wal.inner.committer.durability == Durability::Commit {
        return told_durably(disk, range);
    }
    let range = range?;
    assert!(disk.written() >= range.end().0, "acknowledged, and not written");
    Ok(range.start().0..=range.end().0)
}

fn told_durably(disk: &Watched, range: Result<RangeInclusive<Seq>>) -> Result<RangeInclusive<u64>> {
    let range = range?;
    assert!(disk.synced() >= range.end().0, "acknowledged, and not synced");
    Ok(range.start().0..=range.end().0)
}

/// Each number was told once, and there is none between.
fn assert_gapless(ranges: impl IntoIterator<Item = RangeInclusive<u64>>) -> u64 {
    let mut ranges: Vec<_> = ranges.into_iter().collect();
    ranges.sort_by_key(|range| *range.start());
    ranges.into_iter().fold(0, |last, range| {
        assert_eq!(*range.start(), last + 1);
        *range.end()
    })
}

/// What is in the files.
fn records(disk: &Watched) -> u64 {
    let options = WalOptions { disk: Some(Arc::new(disk.clone())), ..WalOptions::default() };
    let records = WalReader::open(Path::new(DIR), ReadFrom::Start, options).unwrap();
    records.map(|record| record.unwrap().seq.0).zip(1..).fold(0, |_, (seq, expected)| {
        assert_eq!(seq, expected);
        seq
    })
}

/// So many threads and so many tasks append at once, each twice; then the log is closed.
fn many(durability: Durability, threads: usize, tasks: usize) {
    let disk = Watched::default();
    let wal = open(&disk, durability);
    let work = (0..threads + tasks).map(|number| {
        let (wal, disk) = (wal.clone(), disk.clone());
        let append = if number < threads { append } else { append_in_task };
        thread::spawn(move || [append(&wal, &disk, 1 + number % 2).unwrap(), append(&wal, &disk, 1).unwrap()])
    });
    let told: Vec<_> = work.collect::<Vec<_>>().into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let last = assert_gapless(told);
    assert_eq!(wal.anchor().seq.0, last);
    wal.close().unwrap();
    assert_eq!((records(&disk), disk.synced()), (last, last), "closing syncs all of it");
}

#[test]
fn threads_are_each_told_their_own_numbers_once_and_not_before_they_are_durable() {
    check(|| many(Durability::Commit, 3, 0));
}

#[test]
fn tasks_are_each_told_their_own_numbers_once_and_not_before_they_are_durable() {
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
                told(&wal, &disk, done).unwrap()
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
fn a_dropped_append_harms_nobody() {
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
        // It happens all the same: whoever appends first has the first number.
        assert_eq!(records(&disk), 4);
        assert!(own.end() != other.end());
    });
}

#[test]
fn a_failure_reaches_everyone_who_waits_and_everyone_who_comes() {
    fn life(fail: Fail, durability: Durability) {
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
        for told in work.into_iter().flat_map(|thread| thread.join().unwrap()) {
            assert!(
                told.is_ok_and(|range| *range.end() <= disk.written())
                    || wal.inner.committer.published.failed().is_some()
            );
        }
        let _ = wal.sync_blocking();
        // An interval may not have been over.
        if durability == Durability::Commit {
            assert_eq!(append(&wal, &disk, 1).unwrap_err().kind(), ErrorKind::Unexpected);
        }
        let _ = wal.close();
        assert_eq!(append(&wal, &disk, 1).unwrap_err().retry(), crate::error::Retry::Never);
    }
    check(|| life(Fail::Sync, Durability::Commit));
    check(|| life(Fail::Write, Durability::Commit));
    check(|| life(Fail::Sync, Durability::Every(Duration::from_millis(1))));
}

#[test]
fn closing_lets_what_was_appended_be_committed_and_refuses_the_rest() {
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
        let told: Vec<_> = work.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(
            told.iter().all(|told| told.as_ref().map_or_else(|error| error.kind() == ErrorKind::Cancelled, |_| true))
        );
        let last = assert_gapless(told.into_iter().flatten());
        assert_eq!(records(&disk), last);
    });
}

#[test]
fn whoever_asks_for_a_sync_gets_it_and_leaves_nobody_behind() {
    fn life(durability: Durability) {
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
    check(|| life(Durability::Commit));
    check(|| life(Durability::Os));
}

#[test]
fn those_for_whom_there_is_no_room_get_some() {
    // Megabytes each time.
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
        let told = work.into_iter().map(|thread| thread.join().unwrap().0);
        assert_eq!(assert_gapless(told.map(|seq| seq..=seq)), 3);
        wal.close().unwrap();
    });
}

#[test]
fn a_follower_sees_all_of_it_and_then_the_end() {
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
fn the_checker_sees_who_is_never_woken() {
    check(|| {
        let disk = Watched::default();
        let wal = open(&disk, Durability::Commit);
        let mut append = pin!(wal.append(KIND, b"nobody's waker"));
        let deaf = poll_fn(|_| append.as_mut().poll(&mut Context::from_waker(Waker::noop())));
        block_on(deaf).unwrap();
    });
}

#[test]
#[should_panic(expected = "acknowledged, and not synced")]
fn the_checker_sees_what_is_acknowledged_too_early() {
    check(|| {
        let disk = Watched::default();
        let wal = open(&disk, Durability::Os);
        let told = wal.append_blocking(KIND, b"not synced").map(|seq| seq..=seq);
        told_durably(&disk, told).unwrap();
    });
}
