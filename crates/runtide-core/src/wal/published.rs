//! What the writer has told: how far the log reaches, whether it failed, and who waits for more.

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
use crate::error::{Error, ErrorKind, Retry};

/// No lock of the log's guards anything that a panic could leave half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The failure of a write or a sync: every later call gets it again.
#[derive(Debug)]
pub(super) struct Failed {
    kind: ErrorKind,
    message: String,
    context: Vec<(&'static str, String)>,
}

impl From<&Error> for Failed {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind(), message: error.message().to_owned(), context: error.context().to_vec() }
    }
}

impl Failed {
    pub(super) fn error(&self) -> Error {
        let message = format!("the log takes no more until it is opened anew: {}", self.message);
        self.context
            .iter()
            .fold(Error::new(self.kind, "wal.append", message), |error, (key, value)| error.with_context(key, value))
            // Trying again without opening it anew is of no use.
            .with_retry(Retry::Never)
    }
}

/// Shared by the writer, its readers and its followers.
#[derive(Debug)]
pub(super) struct Published {
    acked: AtomicU64,
    synced: AtomicU64,
    closed: AtomicBool,
    failed: OnceLock<Failed>,
    place: Mutex<Place>,
    followers: Mutex<Vec<Waker>>,
}

/// Where the log ends, and where things are in the segment that is being written.
#[derive(Debug)]
struct Place {
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
            place: Mutex::new(Place { log, head, segment, index }),
            followers: Mutex::default(),
        }
    }

    /// The last record that was acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// The last record that was synced.
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
        let place = lock(&self.place);
        Anchor::new(place.log, place.head.0, place.head.1)
    }

    /// The first record of the segment that is being written.
    pub(super) fn segment(&self) -> u64 {
        lock(&self.place).segment
    }

    /// The commit in the segment being written from which record `seq` is not far.
    pub(super) fn near(&self, segment: u64, seq: u64) -> Option<Entry> {
        let place = lock(&self.place);
        if place.segment != segment {
            return None;
        }
        let behind = place.index.partition_point(|entry| entry.seq <= seq);
        place.index.get(behind.checked_sub(1)?).copied()
    }

    /// A commit is there.
    pub(super) fn commit(&self, head: (u64, Hash), segment: u64, entry: Option<Entry>) {
        let mut place = lock(&self.place);
        if place.segment != segment {
            place.segment = segment;
            place.index.clear();
        }
        place.index.extend(entry);
        place.head = head;
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

    /// Wakes this one at the next change. Look again after the call: the change may have come before it.
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
