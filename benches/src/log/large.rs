//! Runtide's log at a size where whatever looks at all of it shows.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use runtide_core::wal::{Wal, verify};

use super::{
    child::Child,
    memory,
    runtide::{Runtide, fill, once_more, open, unsynced},
};

/// A frame of 256 bytes of payload.
const FRAME: u64 = 288;

/// A large log, closed.
#[derive(Debug)]
pub struct Large {
    dir: PathBuf,
    records: usize,
}

impl Large {
    /// Writes and syncs so many bytes.
    pub fn make(dir: PathBuf, bytes: u64) -> Self {
        let records = usize::try_from(bytes / FRAME).expect("a number of records");
        fill(&dir, unsynced(), records);
        Self { dir, records }
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the records take in the files, in bytes.
    pub fn size(&self) -> u64 {
        self.records as u64 * FRAME
    }

    /// Opened for writing.
    pub fn open(&self) -> Wal {
        open(&self.dir)
    }

    /// How long it takes to open; then it is written to, and closed in order.
    pub fn open_closed(&self) -> f64 {
        let (wal, took) = timed(|| self.open());
        once_more(&wal);
        wal.close().expect("a close");
        took
    }

    /// How long it takes to open after the process that had it open was killed, with its last segment nearly full.
    pub fn open_killed(&self) -> f64 {
        Child::leaves_open(Runtide::NAME, &self.dir);
        timed(|| self.open()).1
    }

    /// How long it takes to read the last hundred.
    pub fn tail(&self, wal: &Wal) -> f64 {
        let (tail, took) = timed(|| wal.tail(100).expect("a tail"));
        assert_eq!(tail.len(), 100);
        took
    }
}

/// What a process that verifies tells of itself: how long it took, and the most memory that it held.
pub(super) fn verified(dir: &Path) -> (Duration, u64) {
    let begin = Instant::now();
    let verified = verify(dir, None, None).expect("a look");
    let took = begin.elapsed();
    assert_eq!((verified.corruption, verified.torn), (None, None));
    (took, memory::peak())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begin = Instant::now();
    let done = work();
    (done, begin.elapsed().as_secs_f64())
}
