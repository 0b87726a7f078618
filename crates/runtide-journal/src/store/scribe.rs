//! The one who writes: a thread that takes what was decided, makes it durable, and shows it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use runtide_core::store::{LocalStore, Planned, Resource, Revision, StoreImage};

use super::{format, replay::stamped};
use crate::JournalOptions;
use runtide_core::{
    Error, ErrorKind, Result, Retry,
    backend::lock,
    wal::{Durability, Seq, Wal},
};

/// Records, and bytes, that are committed together at most.
const RECORDS: usize = 4_096;
const BYTES: usize = 8 << 20;

/// Bytes of a checkpoint that are written with each commit, so that writers hardly notice.
const STEP: usize = 1 << 20;

/// In so many parts a group is shown and answered, so that some of its writers decide their next writes while others are shown.
/// With more parts 512 writers are in each other's way; with one 64 are a fifth slower.
const PARTS: usize = 4;

/// How long a group waits for writers of the last one who have not come back: less than a sync takes.
const LINGER: Duration = Duration::from_micros(60);

/// What a record takes beside its body, about.
const OVERHEAD: usize = 128;

/// Something for the scribe to do, in order.
pub(super) enum Task {
    /// A decided write.
    Write { planned: Planned, done: oneshot::Sender<Result<()>>, room: OwnedSemaphorePermit },
    /// Says when all that came before is durable.
    Barrier { done: oneshot::Sender<Result<()>>, room: OwnedSemaphorePermit },
    /// Replaces everything. Nothing else is under way.
    Restore { resources: Vec<Arc<Resource>>, done: oneshot::Sender<Result<Revision>>, room: OwnedSemaphorePermit },
}

/// What the store and its scribe share.
pub(super) struct Desk<S> {
    pub(super) store: S,
    pub(super) wal: Wal,
    options: JournalOptions,
    /// Held while a write is decided, so that the order of the log is that of the revisions.
    queue: Mutex<Queue>,
    more: Condvar,
    /// Writes in the queue, to be looked at without the lock.
    arrived: AtomicUsize,
}

#[derive(Default)]
pub(super) struct Queue {
    tasks: VecDeque<Task>,
    /// The scribe has something to do.
    busy: bool,
    closed: bool,
    /// The last revision that was given away.
    last: Revision,
}

impl Queue {
    /// Whether all that was decided is durable and shown.
    pub(super) fn is_at_rest(&self) -> bool {
        self.tasks.is_empty() && !self.busy
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.closed { Err(Error::new(ErrorKind::Cancelled, "store.apply", "the store was closed")) } else { Ok(()) }
    }
}

impl<S: LocalStore> Desk<S> {
    pub(super) fn new(store: S, wal: Wal, options: JournalOptions, last: Revision) -> Self {
        let queue = Mutex::new(Queue { last, ..Queue::default() });
        Self { store, wal, options, queue, more: Condvar::new(), arrived: AtomicUsize::new(0) }
    }

    /// Nobody panics while holding it.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// One more thing to do.
    pub(super) fn push(&self, queue: &mut Queue, task: Task) {
        if let Task::Write { planned, .. } = &task {
            queue.last = queue.last.max(planned.revision);
            self.arrived.fetch_add(1, Ordering::Release);
        }
        queue.tasks.push_back(task);
        // Who finds the scribe at work, or another before it, need not wake it, which takes longer than all else here.
        if !queue.busy && queue.tasks.len() == 1 {
            self.more.notify_one();
        }
    }

    /// The scribe does what is in the queue, and ends.
    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.more.notify_one();
    }

    /// What the scribe's thread does.
    pub(super) fn run(&self, checkpoint: Seq, since: u64) {
        let _ends = Ends(self);
        let mut scribe = Scribe { desk: self, checkpoint, since, writing: None };
        let mut last = 0;
        loop {
            let mut tasks = VecDeque::new();
            {
                let mut queue = self.queue();
                queue.busy = false;
                while queue.tasks.is_empty() && !queue.closed && scribe.writing.is_none() {
                    queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                if queue.tasks.is_empty() && queue.closed {
                    return;
                }
                queue.busy = true;
            }
            self.linger(last);
            {
                let mut queue = self.queue();
                std::mem::swap(&mut tasks, &mut queue.tasks);
                last = self.arrived.swap(0, Ordering::AcqRel);
            }
            scribe.work(tasks);
        }
    }

    /// Waits a little for writers of the last group who have not come back, as the log does. A lone writer never waits.
    fn linger(&self, last: usize) {
        if last < 2 || self.options.wal.durability != Durability::Commit {
            return;
        }
        let until = Instant::now() + LINGER;
        while self.arrived.load(Ordering::Acquire) < last && Instant::now() < until {
            thread::yield_now();
        }
    }
}

struct Scribe<'a, S> {
    desk: &'a Desk<S>,
    checkpoint: Seq,
    since: u64,
    writing: Option<Checkpoint>,
}

/// A checkpoint that is being written.
struct Checkpoint {
    begin: Seq,
    image: StoreImage,
    /// Resources that are in the log; none if not even the beginning is.
    done: Option<usize>,
}

type Waiting = (Planned, oneshot::Sender<Result<()>>, OwnedSemaphorePermit);

impl<S: LocalStore> Scribe<'_, S> {
    fn work(&mut self, mut tasks: VecDeque<Task>) {
        loop {
            let (mut writes, mut bytes): (Vec<Waiting>, usize) = (Vec::new(), 0);
            while writes.len() < RECORDS && bytes < BYTES {
                match tasks.pop_front() {
                    Some(Task::Write { planned, done, room }) => {
                        bytes += planned.document.as_ref().map_or(0, |document| document.bytes.len());
                        writes.push((planned, done, room));
                    }
                    Some(other) => {
                        tasks.push_front(other);
                        break;
                    }
                    None => break,
                }
            }
            if (!writes.is_empty() || self.writing.is_some())
                && let Err((error, writes)) = self.commit(writes)
            {
                return self.fail(&error, writes, tasks);
            }
            match tasks.pop_front() {
                None => return,
                Some(Task::Barrier { done, room }) => {
                    drop(room);
                    let _ = done.send(Ok(()));
                }
                Some(Task::Restore { resources, done, room }) => {
                    let restored = self.restore(resources);
                    drop(room);
                    let _ = done.send(restored);
                }
                Some(write) => tasks.push_front(write),
            }
        }
    }

    /// Makes writes durable, and a step of a checkpoint with them; then shows them.
    fn commit(&mut self, writes: Vec<Waiting>) -> Result<(), (Error, Vec<Waiting>)> {
        // The checkpoint's part first: what is written now comes after the moment that it shows.
        let (mut payloads, whole) = self.step();
        let checkpoint = whole.unwrap_or(self.checkpoint);
        payloads.extend(writes.iter().map(|(planned, ..)| format::written(checkpoint, planned)));
        if let Err(error) = self.append(&payloads) {
            return Err((error, writes));
        }
        let part = writes.len().div_ceil(PARTS);
        let mut writes = writes.into_iter().peekable();
        while writes.peek().is_some() {
            let mut waiting = Vec::with_capacity(part);
            let planned = writes.by_ref().take(part).map(|(planned, done, room)| {
                waiting.push((done, room));
                planned
            });
            self.desk.store.publish(planned.collect());
            for (done, room) in waiting {
                drop(room);
                // Somebody who does not wait any more does not want to know.
                let _ = done.send(Ok(()));
            }
        }
        if let Some(begin) = whole {
            self.begun(begin);
        }
        let rows = usize::try_from(self.desk.store.count()).unwrap_or(usize::MAX);
        if self.writing.is_none() && self.desk.options.is_due(self.since, rows) {
            self.writing = Some(Checkpoint { begin: self.next(), image: self.desk.store.image(), done: None });
        }
        Ok(())
    }

    /// The next part of the checkpoint that is being written, and where that begins if this is its last.
    fn step(&mut self) -> (Vec<Vec<u8>>, Option<Seq>) {
        let Some(writing) = &mut self.writing else { return (Vec::new(), None) };
        let (revision, count) = (writing.image.revision, writing.image.resources.len());
        let mut payloads = Vec::new();
        let mut done = writing.done.unwrap_or_else(|| {
            payloads.push(format::begin(self.checkpoint, revision, count as u64, false));
            0
        });
        let mut bytes = 0;
        for resource in writing.image.resources.iter().skip(done) {
            bytes += resource.written().bytes.len() + OVERHEAD;
            payloads.push(format::part(self.checkpoint, resource));
            done += 1;
            if bytes >= STEP {
                break;
            }
        }
        writing.done = Some(done);
        if done < count {
            return (payloads, None);
        }
        payloads.push(format::end(writing.begin, revision, count as u64));
        let begin = writing.begin;
        self.writing = None;
        (payloads, Some(begin))
    }

    /// A checkpoint is whole.
    fn begun(&mut self, begin: Seq) {
        (self.checkpoint, self.since) = (begin, 0);
        tracing::debug!(at = %begin, "a checkpoint of the store");
        let Some(policy) = self.desk.options.retention.clone() else { return };
        let keep = policy.keep_from.map_or(begin, |keep| keep.min(begin));
        // What is acknowledged may not be synced, if the log was told so: the checkpoint must be, before what it stands for goes.
        let wal = &self.desk.wal;
        if let Err(error) = wal.sync_blocking().and_then(|()| wal.retain(policy.with_keep_from(keep))) {
            // If it is a failure of the log, the next write is told.
            tracing::warn!(%error, "nothing was dropped from the store's log");
        }
    }

    fn restore(&mut self, resources: Vec<Arc<Resource>>) -> Result<Revision> {
        self.writing = None;
        let revision = {
            let mut queue = self.desk.queue();
            queue.last = Revision(queue.last.0.saturating_add(1));
            queue.last
        };
        let image = StoreImage::new(revision, stamped(resources, revision));
        let (begin, count) = (self.next(), image.resources.len() as u64);
        let mut payloads = vec![format::begin(self.checkpoint, revision, count, true)];
        let mut bytes = 0;
        for resource in &image.resources {
            bytes += resource.written().bytes.len() + OVERHEAD;
            payloads.push(format::part(self.checkpoint, resource));
            if bytes >= STEP {
                self.append(&std::mem::take(&mut payloads)).map_err(|error| unknown(&error))?;
                bytes = 0;
            }
        }
        payloads.push(format::end(begin, revision, count));
        self.append(&payloads).map_err(|error| unknown(&error))?;
        self.desk.store.load(image);
        self.begun(begin);
        Ok(revision)
    }

    /// The number that the next record will have: nobody else appends.
    fn next(&self) -> Seq {
        self.desk.wal.anchor().seq.next()
    }

    fn append(&mut self, payloads: &[Vec<u8>]) -> Result<()> {
        if payloads.is_empty() {
            return Ok(());
        }
        let records: Vec<_> = payloads.iter().map(|payload| (format::KIND, payload.as_slice())).collect();
        self.desk.wal.append_reserved_blocking(&records)?;
        self.since += records.len() as u64;
        Ok(())
    }

    /// The log has failed, for good: nothing that was decided will be shown.
    fn fail(&mut self, error: &Error, writes: Vec<Waiting>, tasks: VecDeque<Task>) {
        self.writing = None;
        let mut queue = self.desk.queue();
        let mut waiting: Vec<oneshot::Sender<Result<()>>> = Vec::new();
        let mut restores = Vec::new();
        let mut planned: Vec<Planned> = Vec::new();
        for (write, done, _) in writes {
            planned.push(write);
            waiting.push(done);
        }
        for task in tasks.into_iter().chain(std::mem::take(&mut queue.tasks)) {
            match task {
                Task::Write { planned: write, done, .. } => {
                    planned.push(write);
                    waiting.push(done);
                }
                Task::Barrier { done, .. } => waiting.push(done),
                Task::Restore { done, .. } => restores.push(done),
            }
        }
        planned.into_iter().rev().for_each(|write| self.desk.store.forget(write));
        drop(queue);
        for done in waiting {
            let _ = done.send(Err(unknown(error)));
        }
        for done in restores {
            // It was not begun.
            let _ = done.send(Err(same(error)));
        }
    }
}

/// The same failure, for one of many.
fn same(error: &Error) -> Error {
    let same = Error::new(error.kind(), "store.apply", error.message()).with_retry(Retry::Never);
    error.context().iter().fold(same, |same, (key, value)| same.with_context(key, value))
}

/// What was being written may be there after the next opening.
fn unknown(error: &Error) -> Error {
    same(error).with_context("outcome", "unknown")
}

/// However the scribe ends, nobody waits for it.
struct Ends<'a, S>(&'a Desk<S>);

impl<S> Drop for Ends<'_, S> {
    fn drop(&mut self) {
        let tasks = {
            let mut queue = lock(&self.0.queue);
            queue.closed = true;
            std::mem::take(&mut queue.tasks)
        };
        drop(tasks);
    }
}
