//! The state that the writer publishes to readers and followers: the last acknowledged and synced records, the head, a
//! failure, and the wakers of the followers.

use std::{
    sync::{OnceLock, PoisonError},
    task::Waker,
};

use super::{
    anchor::Anchor,
    format::{Entry, Hash, LogId},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use crate::error::{Error, Failure, Retry};

/// Locks, even if the lock is poisoned: no lock of the log guards data that a panic could leave half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The failure of a write or a sync: every later call gets it again.
#[derive(Debug)]
pub(super) struct Failed(Failure);

impl From<&Error> for Failed {
    fn from(error: &Error) -> Self {
        Self(Failure::from(error))
    }
}

impl Failed {
    pub(super) fn error(&self) -> Error {
        let mut failure = self.0.clone();
        "wal.append".clone_into(&mut failure.operation);
        failure.message = format!("the log refuses calls until it is opened again: {}", failure.message);
        // Trying again without opening the log again is of no use.
        Error::from(failure).with_retry(Retry::Never)
    }
}

/// The published state, shared by the writer, its readers and its followers.
#[derive(Debug)]
pub(super) struct Published {
    acked: AtomicU64,
    synced: AtomicU64,
    closed: AtomicBool,
    failed: OnceLock<Failed>,
    position: Mutex<Position>,
    followers: Mutex<Vec<Waker>>,
}

/// The head of the log, and the index of the active segment.
#[derive(Debug)]
struct Position {
    log: LogId,
    head: (u64, Hash),
    segment: u64,
    index: Vec<Entry>,
}

impl Published {
    pub(super) fn new(log: LogId, head: (u64, Hash), synced: u64, segment: u64, index: Vec<Entry>) -> Self {
        Self {
            acked: AtomicU64::new(head.0),
            synced: AtomicU64::new(synced),
            closed: AtomicBool::new(false),
            failed: OnceLock::new(),
            position: Mutex::new(Position { log, head, segment, index }),
            followers: Mutex::default(),
        }
    }

    /// Number of the last record that was acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// Number of the last record that was synced.
    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    pub(super) fn failed(&self) -> Option<&Failed> {
        self.failed.get()
    }

    pub(super) fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn head(&self) -> Anchor {
        let position = lock(&self.position);
        Anchor::new(position.log, position.head.0, position.head.1)
    }

    /// Number of the first record of the active segment.
    pub(super) fn segment(&self) -> u64 {
        lock(&self.position).segment
    }

    /// The last indexed commit at or before record `seq`; `None` if `segment` is not the active one, or has none.
    pub(super) fn near(&self, segment: u64, seq: u64) -> Option<Entry> {
        let position = lock(&self.position);
        if position.segment != segment {
            return None;
        }
        let behind = position.index.partition_point(|entry| entry.seq <= seq);
        position.index.get(behind.checked_sub(1)?).copied()
    }

    /// Publishes a commit as acknowledged.
    pub(super) fn commit(&self, head: (u64, Hash), segment: u64, entry: Option<Entry>) {
        let mut position = lock(&self.position);
        if position.segment != segment {
            position.segment = segment;
            position.index.clear();
        }
        position.index.extend(entry);
        position.head = head;
        self.acked.store(head.0, Ordering::Release);
    }

    pub(super) fn sync(&self, seq: u64) {
        self.synced.fetch_max(seq, Ordering::AcqRel);
    }

    pub(super) fn fail(&self, failed: Failed) {
        let _ = self.failed.set(failed);
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake_followers();
    }

    /// Registers a waker for the next change. Check the state again after the call: the change may have come before it.
    pub(super) fn follow(&self, waker: &Waker) {
        let mut followers = lock(&self.followers);
        if !followers.iter().any(|other| other.will_wake(waker)) {
            followers.push(waker.clone());
        }
    }

    pub(super) fn wake_followers(&self) {
        let followers = std::mem::take(&mut *lock(&self.followers));
        followers.into_iter().for_each(Waker::wake);
    }
}
