//! Group commit: appenders encode into the forming group; the leader writes it, syncs once, and wakes each appender.
//!
//! `Queue::busy` is set while there is a leader. Tasks never lead: the commit thread leads for them. A thread that blocks in an
//! append leads its own group, and then hands the lead to a thread that came in the meantime, or to the commit thread. So a lone
//! thread needs no other thread, and with many the next write begins while the callers of the last group are still being woken.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{
    corruption::disk_error,
    engine::Engine,
    fs::Disk,
    hook::{Forming, Hooked, HookedLog},
    options::Durability,
    published::{Published, lock},
    queue::{Caller, Group, Parker, Queue, Request},
    record::now,
    retention::{Retained, Retention},
    sync::{
        Condvar, Instant, Mutex,
        atomic::{AtomicUsize, Ordering},
        thread,
    },
};
use crate::error::{Error, ErrorKind, Result};

/// Time for which a group waits for callers of the last group that have not come back. It is less than a sync takes, and pays
/// from 64 callers on (measured: 121,000 records a second without it, 186,000 with it).
const LINGER: Duration = Duration::from_micros(60);

/// The shortest interval of `Durability::Every`.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// State that the appenders and the commit thread share.
#[derive(Debug)]
pub(super) struct Committer {
    pub(super) queue: Mutex<Queue>,
    /// Wakes the commit thread.
    work: Condvar,
    /// Number of callers in the forming group, readable without the lock.
    arrived: AtomicUsize,
    engine: Mutex<Engine>,
    pub(super) published: Arc<Published>,
    pub(super) durability: Durability,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    /// Held by a retention, so that there is one at a time and none after closing; taken before the queue's lock.
    pub(super) retention: Mutex<()>,
    pub(super) hooked: Hooked,
}

impl HookedLog for Committer {
    fn hand_over(&self, fill: &mut dyn FnMut(&mut Forming<'_>)) {
        let mut queue = lock(&self.queue);
        if self.check(&queue).is_err() {
            return;
        }
        let before = queue.next;
        fill(&mut Forming::new(&mut queue));
        if queue.next > before {
            self.arrive(&mut queue);
            self.give_turn(&mut queue);
        }
    }

    fn sync(&self) -> Result<()> {
        self.sync_here()
    }

    fn retain(&self, policy: &Retention) -> Result<Retained> {
        self.drop_old(policy)
    }
}

/// A caller's part in a group: its records' numbers, and whether the caller leads.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    first: u64,
    last: u64,
    leads: bool,
}

impl Committer {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            queue: Mutex::new(Queue::new(engine.head.0.saturating_add(1))),
            work: Condvar::new(),
            arrived: AtomicUsize::new(0),
            published: Arc::clone(&engine.published),
            durability: engine.durability,
            disk: Arc::clone(&engine.disk),
            dir: engine.dir.clone(),
            retention: Mutex::new(()),
            hooked: Hooked::default(),
            engine: Mutex::new(engine),
        }
    }

    /// Adds the request to the forming group. `None` if the group has no room for it: the caller is woken when it may try again.
    fn enqueue(&self, request: Request<'_>, frames: usize, caller: Caller<'_>) -> Result<Option<Ticket>> {
        let mut queue = lock(&self.queue);
        self.check(&queue)?;
        if !queue.has_room(frames, caller) {
            return Ok(None);
        }
        let first = queue.next;
        let last = queue.group.push(first, now(), request);
        queue.next = last.saturating_add(1);
        self.arrived.store(queue.group.callers, Ordering::Release);
        let mut leads = false;
        if let Caller::Thread(_) = caller
            && !queue.busy
        {
            (queue.busy, leads) = (true, true);
        } else {
            queue.group.wait(caller, last);
            self.give_turn(&mut queue);
        }
        Ok(Some(Ticket { first, last, leads }))
    }

    /// Checks that the log accepts records.
    ///
    /// # Errors
    /// The log's failure; `Cancelled` once the log is closed.
    pub(super) fn check(&self, queue: &Queue) -> Result<()> {
        if let Some(failed) = self.published.failed() {
            return Err(failed.error());
        }
        if queue.closing {
            return Err(Error::new(ErrorKind::Cancelled, "wal.append", "the log was closed"));
        }
        Ok(())
    }

    /// Makes the commit thread the leader, unless there is one: that leader passes the lead on.
    pub(super) fn give_turn(&self, queue: &mut Queue) {
        if !queue.busy {
            (queue.busy, queue.turn) = (true, true);
            self.work.notify_one();
        }
    }

    /// Counts one more caller in the forming group.
    pub(super) fn arrive(&self, queue: &mut Queue) {
        queue.group.callers += 1;
        self.arrived.store(queue.group.callers, Ordering::Release);
    }

    /// The outcome of a request whose last record is `last`, if it is known.
    fn outcome(&self, request: Request<'_>, last: u64) -> Option<Result<()>> {
        let done = if let Request::Sync = request { self.published.synced() } else { self.published.acked() };
        if done >= last {
            return Some(Ok(()));
        }
        self.published.failed().map(|failed| Err(failed.error()))
    }

    /// Blocks until the request is done; returns the numbers of its first and last record.
    pub(super) fn block(&self, request: Request<'_>, frames: usize) -> Result<(u64, u64)> {
        let parker = Parker::current();
        let ticket = loop {
            match self.enqueue(request, frames, Caller::Thread(&parker))? {
                Some(ticket) => break ticket,
                None => thread::park(),
            }
        };
        if ticket.leads {
            self.lead();
        }
        let done = loop {
            if parker.takes_lead() {
                self.lead();
            }
            if let Some(done) = self.outcome(request, ticket.last) {
                break done;
            }
            thread::park();
        };
        // Two outcomes may be known before the caller's group is committed: a failure of the log, and a sync of records that are
        // synced already.
        if done.is_err() || matches!(request, Request::Sync) {
            self.leave(&parker);
        }
        done.map(|()| (ticket.first, ticket.last))
    }

    /// Leaves a group before it is committed. The leader must not hand the lead to a thread that has left: the lead would be
    /// lost, and every later caller would wait indefinitely.
    fn leave(&self, parker: &Arc<Parker>) {
        lock(&self.queue).group.threads.retain(|other| !Arc::ptr_eq(other, parker));
        // The lead is handed over under the queue's lock: this thread has it by now, or never will.
        if parker.takes_lead() {
            self.lead();
        }
    }

    /// Commits a group in the current thread, and hands the lead on before it wakes the other callers.
    fn lead(&self) {
        let group = self.round();
        self.pass_on();
        self.finish(group);
    }

    /// Hands the lead to a thread of the forming group, or else to the commit thread. If the group is empty, there is no leader.
    fn pass_on(&self) {
        let mut queue = lock(&self.queue);
        if queue.group.is_empty() {
            queue.busy = false;
            if self.set_timer(&mut queue) || queue.closing {
                self.work.notify_one();
            }
        } else if let Some(next) = queue.group.threads.pop_front() {
            next.lead();
        } else {
            queue.turn = true;
            self.work.notify_one();
        }
    }

    /// Schedules a sync by the commit thread for records that are not synced yet; returns true if none was scheduled before.
    fn set_timer(&self, queue: &mut Queue) -> bool {
        let Durability::Every(interval) = self.durability else { return false };
        let news = queue.due.is_none() && self.published.acked() > self.published.synced();
        if news {
            queue.due = Some(Instant::now() + interval.max(MIN_INTERVAL));
        }
        news
    }

    /// Writes the forming group and syncs it. Only the leader calls it.
    fn round(&self) -> Group {
        let mut engine = lock(&self.engine);
        self.linger();
        let (mut group, space) = {
            let mut queue = lock(&self.queue);
            let group = queue.take();
            queue.last = group.callers;
            self.arrived.store(0, Ordering::Release);
            (group, std::mem::take(&mut queue.space))
        };
        space.into_iter().for_each(Waker::wake);
        if self.published.failed().is_some() {
            return group;
        }
        let mut write = || {
            if group.count > 0 {
                engine.write(&mut group.bytes, group.first, group.count)?;
            }
            // Records that are synced already are not synced again: a failure of that sync would reach no caller.
            if group.sync && self.published.synced() < engine.head.0 { engine.sync() } else { Ok(()) }
        };
        if let Err(error) = write() {
            self.published.fail((&error).into());
        }
        group
    }

    /// Fails the log for an error outside of a commit: later calls get it, and the followers are woken.
    pub(super) fn poison(&self, error: Error) -> Error {
        self.published.fail((&error).into());
        self.published.wake_followers();
        error
    }

    /// Waits a little for callers of the last group that have not come back, if the sync limits the throughput. A lone caller
    /// never waits.
    fn linger(&self) {
        if self.durability != Durability::Commit {
            return;
        }
        let last = lock(&self.queue).last;
        if last < 2 || self.arrived.load(Ordering::Acquire) >= last {
            return;
        }
        let until = Instant::now() + LINGER;
        while self.arrived.load(Ordering::Acquire) < last && Instant::now() < until {
            // Yield rather than sleep: a sleep takes longer than the whole linger, and the awaited callers may need this core.
            thread::yield_now();
        }
    }

    /// Calls the hook, wakes the callers of the group and the followers, and keeps the buffers for another group.
    fn finish(&self, mut group: Group) {
        self.hooked.run(&self.published, &mut group, || self.last_commit_is_over());
        group.wake();
        self.published.wake_followers();
        group.clear();
        let late = {
            let mut queue = lock(&self.queue);
            queue.spare.get_or_insert(group);
            std::mem::take(&mut queue.late)
        };
        late.into_iter().for_each(Waker::wake);
        self.hooked.settle(self);
    }

    /// Waits until no commit is being written: after a failure, the last acknowledged record is final then.
    fn last_commit_is_over(&self) {
        drop(lock(&self.engine));
    }

    /// Syncs the acknowledged records in the present thread; for the hook, which must not wait for a group, and for the timer.
    fn sync_here(&self) -> Result<()> {
        if let Some(failed) = self.published.failed() {
            return Err(failed.error());
        }
        if self.published.synced() >= self.published.acked() {
            return Ok(());
        }
        let begun = lock(&self.engine).begin_sync();
        let synced = begun.and_then(|(file, path, seq)| {
            file.sync().map_err(|error| disk_error("wal.append", &path, error))?;
            Ok(seq)
        });
        synced.map(|seq| self.published.sync(seq)).map_err(|error| self.poison(error))
    }

    /// Runs the commit thread until the log is closed.
    pub(super) fn run(&self) -> Result<()> {
        loop {
            let (turn, closing) = self.wait_for_work();
            if turn {
                loop {
                    let group = self.round();
                    self.finish(group);
                    let mut queue = lock(&self.queue);
                    self.set_timer(&mut queue);
                    let due = queue.due.is_some_and(|due| due <= Instant::now());
                    if queue.group.is_empty() {
                        queue.busy = false;
                        break;
                    }
                    drop(queue);
                    if due {
                        self.sync_in_time();
                    }
                }
            } else if closing {
                let done = lock(&self.engine).close();
                self.published.close();
                return done;
            } else {
                self.sync_in_time();
            }
        }
    }

    /// Sleeps until this thread must lead, returned as `(true, false)`, or close the log, `(false, true)`, or sync because the
    /// interval is over, `(false, false)`.
    fn wait_for_work(&self) -> (bool, bool) {
        let mut queue = lock(&self.queue);
        loop {
            if std::mem::take(&mut queue.turn) {
                return (true, false);
            }
            if queue.closing && !queue.busy {
                queue.busy = true;
                return (false, true);
            }
            let Some(due) = queue.due else {
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return (false, false);
            }
            (queue, _) = self.work.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Syncs at the end of the interval, without the engine's lock, so that commits can be written at the same time.
    fn sync_in_time(&self) {
        lock(&self.queue).due = None;
        // The failure is kept: the next caller gets it.
        drop(self.sync_here());
    }

    /// Registers the task's present waker if the group has another one: the leader that finishes a group next wakes it as well.
    /// Call it before each check of the outcome, since the group that is finished next may be another one.
    pub(super) fn wake_also(&self, known: &Waker, cx: &Context<'_>) {
        if known.will_wake(cx.waker()) {
            return;
        }
        let mut queue = lock(&self.queue);
        if !queue.late.iter().any(|other| other.will_wake(cx.waker())) {
            queue.late.push(cx.waker().clone());
        }
    }

    /// Has the commit thread commit every accepted request, and then end. Later calls are refused; a retention under way is waited
    /// for, since the lock of the folder is released next.
    pub(super) fn close(&self) {
        let retention = lock(&self.retention);
        lock(&self.queue).closing = true;
        drop(retention);
        self.work.notify_one();
    }
}

/// A task's request that is not yet done.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    committer: &'a Committer,
    request: Request<'a>,
    frames: usize,
    /// The task's part in a group, and the waker that the group has; `None` until a group had room.
    ticket: Option<(Ticket, Waker)>,
}

impl<'a> Pending<'a> {
    pub(super) fn new(committer: &'a Committer, request: Request<'a>, frames: usize) -> Self {
        Self { committer, request, frames, ticket: None }
    }

    /// Ready with the numbers of its first and last record once the request is done.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(u64, u64)>> {
        let Some((ticket, waker)) = &self.ticket else {
            let ticket = self.committer.enqueue(self.request, self.frames, Caller::Task(cx.waker()))?;
            self.ticket = ticket.map(|ticket| (ticket, cx.waker().clone()));
            return Poll::Pending;
        };
        self.committer.wake_also(waker, cx);
        match self.committer.outcome(self.request, ticket.last) {
            Some(done) => Poll::Ready(done.map(|()| (ticket.first, ticket.last))),
            None => Poll::Pending,
        }
    }
}
