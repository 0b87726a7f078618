//! Bare, hand-written group commit: no order over restarts, no chain, one preallocated file.

use std::{
    collections::VecDeque,
    fs::File,
    mem,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::oneshot;

use super::{drive::Appends, format::push_frame};
use crate::is_trial;

/// Bytes preallocated together, more than the turns of a table need. No byte is overwritten, since a disk syncs that faster,
/// and no log can do so.
const ROOM: u64 = 1 << 30;

/// A preallocated file, so that a sync allocates no blocks.
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

    /// Writes, and syncs the data but not the file's times.
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

/// Tasks append their records to a buffer; one thread swaps it, writes, syncs, and answers each task.
pub(super) struct TaskGroup {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl TaskGroup {
    pub(super) fn new(dir: &Path, linger: Duration) -> Self {
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
            let number = forming.waiting.len();
            push_frame(&mut forming.bytes, number, record);
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
    fn commit_all(&self, mut file: Reserved, linger: Duration) {
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
            if !linger.is_zero() {
                drop(forming);
                await_last(&self.arrived, last, linger);
                forming = self.forming.lock().expect("no panic");
            }
            mem::swap(&mut forming.bytes, &mut bytes);
            mem::swap(&mut forming.waiting, &mut waiting);
            self.arrived.store(0, Ordering::Release);
            drop(forming);
            last = waiting.len();
            file.commit(&bytes);
            bytes.clear();
            for waits in waiting.drain(..) {
                // A task that has ended needs no answer.
                let _ = waits.send(());
            }
        }
    }
}

/// Waits briefly until as many appenders have arrived as the last group had.
fn await_last(arrived: &AtomicUsize, last: usize, linger: Duration) {
    let until = Instant::now() + linger;
    while arrived.load(Ordering::Acquire) < last && Instant::now() < until {
        thread::yield_now();
    }
}

/// One of the waiting threads leads: it commits for all, and hands the lead to a later arrival before it wakes the others. It
/// needs no separate thread, and wakes none for a lone writer.
pub(super) struct ThreadGroup {
    forming: Mutex<Led>,
    arrived: AtomicUsize,
    file: Mutex<(Reserved, usize)>,
    linger: Duration,
}

#[derive(Default)]
struct Led {
    bytes: Vec<u8>,
    waiting: VecDeque<Arc<Waiter>>,
    spare: (Vec<u8>, VecDeque<Arc<Waiter>>),
    busy: bool,
}

struct Waiter {
    thread: Thread,
    state: AtomicU8,
}

const NOTHING: u8 = 0;
const LEAD: u8 = 1;
const DURABLE: u8 = 2;

impl Waiter {
    fn tell(&self, what: u8) {
        self.state.store(what, Ordering::Release);
        self.thread.unpark();
    }
}

impl ThreadGroup {
    pub(super) fn new(dir: &Path, linger: Duration) -> Self {
        let file = Mutex::new((Reserved::new(dir), 0));
        Self { forming: Mutex::default(), arrived: AtomicUsize::new(0), file, linger }
    }

    pub(super) fn append(&self, record: &[u8]) {
        thread_local! {
            static OWN: Arc<Waiter> = Arc::new(Waiter { thread: thread::current(), state: AtomicU8::new(NOTHING) });
        }
        let mut forming = self.forming.lock().expect("no panic");
        let number = forming.waiting.len();
        push_frame(&mut forming.bytes, number, record);
        self.arrived.fetch_add(1, Ordering::Release);
        if !forming.busy {
            forming.busy = true;
            drop(forming);
            return self.lead();
        }
        let own = OWN.with(Arc::clone);
        own.state.store(NOTHING, Ordering::Relaxed);
        forming.waiting.push_back(Arc::clone(&own));
        drop(forming);
        loop {
            match own.state.load(Ordering::Acquire) {
                NOTHING => thread::park(),
                LEAD => return self.lead(),
                _ => return,
            }
        }
    }

    /// Commits the forming group, which includes the caller.
    fn lead(&self) {
        let mut file = self.file.lock().expect("no panic");
        await_last(&self.arrived, file.1, self.linger);
        let (mut bytes, mut waiting) = {
            let mut forming = self.forming.lock().expect("no panic");
            let (bytes, waiting) = mem::take(&mut forming.spare);
            file.1 = self.arrived.swap(0, Ordering::AcqRel);
            (mem::replace(&mut forming.bytes, bytes), mem::replace(&mut forming.waiting, waiting))
        };
        file.0.commit(&bytes);
        drop(file);
        {
            let mut forming = self.forming.lock().expect("no panic");
            match forming.waiting.pop_front() {
                Some(next) => next.tell(LEAD),
                None => forming.busy = false,
            }
        }
        waiting.drain(..).for_each(|waiter| waiter.tell(DURABLE));
        bytes.clear();
        self.forming.lock().expect("no panic").spare = (bytes, waiting);
    }
}
