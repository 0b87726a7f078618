//! The peer `commitlog`.

use std::{
    fs::{self, File},
    path::Path,
    sync::Mutex,
};

use commitlog::{
    LogOptions, ReadLimit,
    message::{MessageBuf, MessageSet},
};
use runtide_benches::log::{Records, Seen, million};

use crate::Store;

/// Records in a set of messages, which may have 1 MB.
const SET: usize = 3_500;

/// Bytes read together.
const READ: usize = 256 << 10;

/// A log of the crate's, and a second handle of its file, for syncs.
pub struct CommitLog(Mutex<(commitlog::CommitLog, File)>);

impl std::fmt::Debug for CommitLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CommitLog").finish()
    }
}

fn open(dir: &Path) -> commitlog::CommitLog {
    commitlog::CommitLog::new(LogOptions::new(dir)).expect("a log")
}

impl Store for CommitLog {
    const NAME: &'static str = "commitlog";
    const NOTE: &'static str = "it has no sync (its `flush` does none): we sync its file after each append, its index not. \
                                It checks nothing when it is opened.";

    fn open(dir: &Path) -> Self {
        let log = open(dir);
        let segment = fs::read_dir(dir).expect("a folder").filter_map(Result::ok).map(|file| file.path());
        let mut segments: Vec<_> = segment.filter(|path| path.extension().is_some_and(|kind| kind == "log")).collect();
        segments.sort();
        let last = segments.pop().expect("a segment, of up to 1 GB, so that it stays the last one");
        Self(Mutex::new((log, File::options().write(true).open(last).expect("the segment"))))
    }

    fn append(&self, record: &[u8]) {
        let (log, file) = &mut *self.0.lock().expect("no panic");
        log.append_msg(record).expect("an append");
        file.sync_data().expect("a sync");
    }

    fn append_all(&self, records: &Records, count: usize) {
        let (log, file) = &mut *self.0.lock().expect("no panic");
        let mut set = MessageBuf::default();
        for begin in (0..count).step_by(SET) {
            set.clear();
            for n in begin..count.min(begin + SET) {
                set.push(records.get(n)).expect("a message");
            }
            log.append(&mut set).expect("an append");
        }
        file.sync_data().expect("a sync");
    }

    fn replay(dir: &Path) -> Box<dyn FnMut(&mut Seen)> {
        let log = open(dir);
        Box::new(move |seen| {
            let mut at = 0;
            while at < million() as u64 {
                let set = log.read(at, ReadLimit::max_bytes(READ)).expect("a read");
                set.iter().for_each(|message| seen.record(message.payload()));
                at += set.len() as u64;
            }
        })
    }

    fn tail(&self, count: usize) -> usize {
        let (log, _) = &*self.0.lock().expect("no panic");
        let first = log.next_offset() - count as u64;
        log.read(first, ReadLimit::max_bytes(READ)).expect("a read").len()
    }
}
