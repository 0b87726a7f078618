//! Bare group commit, as one would write it by hand: no order kept over restarts, no chain, one file that is reserved.

use std::{
    fs::File,
    mem,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::oneshot;

use super::{drive::Appends, format::push_frame};
use crate::is_trial;

/// How much room is reserved at once: more than the turns of a table take. What was written once is not written again, since
/// a disk syncs that faster, and no log can do so.
const ROOM: u64 = 1 << 30;

/// How long a group waits for those of the last one who have not come back.
const LINGER: Duration = Duration::from_micros(60);

/// A file with its room reserved, so that a sync has no blocks to add to it.
pub(super) struct Reserved {
    file: File,
    room: u64,
    at: u64,
}

fn reserve(file: &File, from: u64) -> u64 {
    let room = if is_trial() { ROOM / 256 } else { ROOM };
    fallocate(file, FallocateFlags::empty(), from, room).expect("room on the disk");
    file.sync_all().expect("a sync");
    from + room
}

impl Reserved {
    pub(super) fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a folder");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(dir.join("log"));
        let file = file.expect("a file");
        Self { room: reserve(&file, 0), file, at: 0 }
    }

    /// Writes, and syncs the bytes but not the file's times.
    pub(super) fn commit(&mut self, bytes: &[u8]) {
        if self.at + bytes.len() as u64 > self.room {
            self.room = reserve(&self.file, self.room);
        }
        self.file.write_all_at(bytes, self.at).expect("a write");
        self.file.sync_data().expect("a sync");
        self.at += bytes.len() as u64;
    }
}

#[derive(Default)]
struct Forming {
    bytes: Vec<u8>,
    waiting: Vec<oneshot::Sender<()>>,
    closing: bool,
}

#[derive(Default)]
struct Shared {
    forming: Mutex<Forming>,
    work: Condvar,
    arrived: AtomicUsize,
}

/// Tasks put their records into a buffer; one thread swaps it, writes, syncs, and answers each.
pub(super) struct TaskGroup {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl TaskGroup {
    pub(super) fn new(dir: &Path, linger: bool) -> Self {
        let shared = Arc::<Shared>::default();
        let (of_thread, file) = (Arc::clone(&shared), Reserved::new(dir));
        let thread = Some(thread::spawn(move || of_thread.commit_all(file, linger)));
        Self { shared, thread }
    }
}

impl Drop for TaskGroup {
    fn drop(&mut self) {
        self.shared.forming.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        self.shared.work.notify_one();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))), "the commit thread panicked");
    }
}

impl Appends for TaskGroup {
    async fn append(&self, record: &[u8]) {
        let (sender, receiver) = oneshot::channel();
        {
            let mut forming = self.shared.forming.lock().expect("no panic");
            push_frame(&mut forming.bytes, record);
            forming.waiting.push(sender);
            self.shared.arrived.store(forming.waiting.len(), Ordering::Release);
            if forming.waiting.len() == 1 {
                self.shared.work.notify_one();
            }
        }
        receiver.await.expect("an answer");
    }
}

impl Shared {
    fn commit_all(&self, mut file: Reserved, linger: bool) {
        let (mut bytes, mut waiting) = (Vec::new(), Vec::new());
        let mut last = 0;
        loop {
            let mut forming = self.forming.lock().expect("no panic");
            while forming.waiting.is_empty() {
                if forming.closing {
                    return;
                }
                forming = self.work.wait(forming).expect("no panic");
            }
            if linger {
                drop(forming);
                self.linger(last);
                forming = self.forming.lock().expect("no panic");
            }
            mem::swap(&mut forming.bytes, &mut bytes);
            mem::swap(&mut forming.waiting, &mut waiting);
            drop(forming);
            last = waiting.len();
            file.commit(&bytes);
            bytes.clear();
            for waits in waiting.drain(..) {
                // One who has gone need not be told.
                let _ = waits.send(());
            }
        }
    }

    fn linger(&self, last: usize) {
        let until = Instant::now() + LINGER;
        while self.arrived.load(Ordering::Acquire) < last && Instant::now() < until {
            thread::yield_now();
        }
    }
}

/// One thread of those that wait commits for all: no thread of its own, and none to wake for a lone writer.
pub(super) struct ThreadGroup {
    forming: Mutex<Led>,
    file: Mutex<Reserved>,
    done: Condvar,
}

#[derive(Default)]
struct Led {
    bytes: Vec<u8>,
    spare: Vec<u8>,
    /// The number of the group that forms, and of the last that is durable.
    number: u64,
    durable: u64,
    busy: bool,
}

impl ThreadGroup {
    pub(super) fn new(dir: &Path) -> Self {
        let forming = Mutex::new(Led { number: 1, ..Led::default() });
        Self { forming, file: Mutex::new(Reserved::new(dir)), done: Condvar::new() }
    }

    pub(super) fn append(&self, record: &[u8]) {
        let mut forming = self.forming.lock().expect("no panic");
        push_frame(&mut forming.bytes, record);
        let mine = forming.number;
        while forming.durable < mine {
            if forming.busy {
                forming = self.done.wait(forming).expect("no panic");
                continue;
            }
            forming.busy = true;
            forming.number += 1;
            let fresh = mem::take(&mut forming.spare);
            let mut bytes = mem::replace(&mut forming.bytes, fresh);
            drop(forming);
            self.file.lock().expect("no panic").commit(&bytes);
            bytes.clear();
            forming = self.forming.lock().expect("no panic");
            forming.spare = bytes;
            // One at a time, so the group that was written is the one before the forming one.
            forming.durable = forming.number - 1;
            forming.busy = false;
            self.done.notify_all();
        }
    }
}
