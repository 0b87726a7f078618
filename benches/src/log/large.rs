//! Runtide's log at a size where every full read is visible.

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
    /// Writes and syncs this many bytes.
    pub fn make(dir: PathBuf, bytes: u64) -> Self {
        let records = usize::try_from(bytes / FRAME).expect("a number of records");
        fill(&dir, unsynced(), records);
        Self { dir, records }
    }

    /// The folder of the log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes of the records in the files.
    pub fn size(&self) -> u64 {
        self.records as u64 * FRAME
    }

    /// Opened for writing.
    pub fn open(&self) -> Wal {
        open(&self.dir)
    }

    /// Seconds to open it; then a record is written, and the log is closed in order.
    pub fn open_closed(&self) -> f64 {
        let (wal, took) = timed(|| self.open());
        once_more(&wal);
        wal.close().expect("a close");
        took
    }

    /// Seconds to open it after its process was killed with the last segment nearly full.
    pub fn open_killed(&self) -> f64 {
        Child::leaves_open(Runtide::NAME, &self.dir);
        timed(|| self.open()).1
    }

    /// Seconds to read the last hundred records.
    pub fn tail(&self, wal: &Wal) -> f64 {
        let (tail, took) = timed(|| wal.tail(100).expect("a tail"));
        assert_eq!(tail.len(), 100);
        took
    }
}

/// Verifies the log; returns the time, and the process's peak memory in bytes.
pub(super) fn verified(dir: &Path) -> (Duration, u64) {
    let begin = Instant::now();
    let verified = verify(dir, None, None).expect("a check");
    let took = begin.elapsed();
    assert_eq!((verified.corruption, verified.torn), (None, None));
    (took, memory::peak())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begin = Instant::now();
    let done = work();
    (done, begin.elapsed().as_secs_f64())
}
