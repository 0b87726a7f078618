//! Shares the log's group commit with a store on top of it: the store decides and pushes records under the log's lock, and its
//! hook publishes the durable ones before the callers are woken.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use super::{
    published::{Published, lock},
    queue::{Group, Queue},
    record::{RecordKind, Seq, now},
    retention::{Retained, Retention},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use crate::error::Result;

/// Follows the commits of a log. Calls come one at a time, in the thread of the leader: a slow hook delays the next commit.
///
/// # Behavior
/// * `committed` comes before a hand-over of those records returns, and before the other callers of the commit are woken. For one
///   commit it may come several times, each time with more of its records.
/// * `failed` comes once nothing more can become durable, and before an affected hand-over returns the failure.
/// * A hook must call the log that it follows only through [`Commits`]: any other call would wait for the hook itself.
pub trait CommitHook: Send + Sync + 'static {
    /// All records up to `last` are durable, as the log's [`Durability`](super::Durability) says.
    fn committed(&self, last: Seq);

    /// The callers of the commit were woken: the time for work that no caller waits for.
    fn settled(&self, commits: &Commits<'_>);

    /// The log has failed for good: records after the last call of `committed` are never acknowledged.
    fn failed(&self);
}

/// The operations of a log that its hook may call: none of them waits for a commit.
pub(super) trait HookedLog: fmt::Debug {
    /// Runs `fill` on the forming group, and has the group committed if `fill` pushed a record. Does not run it if the log is
    /// closed or has failed.
    fn hand_over(&self, fill: &mut dyn FnMut(&mut Forming<'_>));

    /// Syncs the acknowledged records in the present thread.
    fn sync(&self) -> Result<()>;

    /// Drops old segments.
    fn retain(&self, policy: &Retention) -> Result<Retained>;
}

/// The log, as its hook may use it.
#[derive(Debug)]
pub struct Commits<'a>(&'a dyn HookedLog);

impl Commits<'_> {
    /// Runs `fill` to push records that no caller waits for, as many as it likes, even if the group is full. They are in the next
    /// commit. `None` if the log is closed or has failed: `fill` did not run.
    pub fn hand_over<T>(&self, fill: impl FnOnce(&mut Forming<'_>) -> T) -> Option<T> {
        let (mut fill, mut value) = (Some(fill), None);
        self.0.hand_over(&mut |forming| value = fill.take().map(|fill| fill(forming)));
        value
    }

    /// Syncs the acknowledged records, as [`Wal::sync_blocking`](super::Wal::sync_blocking).
    ///
    /// # Errors
    /// The failure of the log, which is final.
    pub fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    /// Drops old segments, as [`Wal::retain`](super::Wal::retain).
    ///
    /// # Errors
    /// As [`Wal::retain`](super::Wal::retain).
    pub fn retain(&self, policy: &Retention) -> Result<Retained> {
        self.0.retain(policy)
    }
}

/// The group of records that will be the next commit.
#[derive(Debug)]
pub struct Forming<'a> {
    queue: &'a mut Queue,
    /// Time stamp of all records that are pushed through this value; `None` until the first is.
    time: Option<u64>,
}

impl<'a> Forming<'a> {
    pub(super) fn new(queue: &'a mut Queue) -> Self {
        Self { queue, time: None }
    }

    /// Number of the next record.
    pub fn next_seq(&self) -> Seq {
        Seq(self.queue.next)
    }

    /// Pushes a record and returns its number. `write` appends the payload, of at most
    /// [`Wal::MAX_RECORD`](super::Wal::MAX_RECORD) bytes, to the buffer that it is given, and must not touch the bytes before it.
    pub fn push(&mut self, kind: RecordKind, write: impl FnOnce(&mut Vec<u8>)) -> Seq {
        let time = *self.time.get_or_insert_with(now);
        let seq = self.queue.next;
        self.queue.group.push_with(seq, time, kind, write);
        self.queue.next = seq.saturating_add(1);
        Seq(seq)
    }
}

/// Number of parts in which a commit is passed to the hook and its tasks are woken: the tasks of one part decide their next
/// writes while the next part is published. With one part 64 writers were a fifth slower; with more, 512 writers hindered each
/// other.
const PARTS: u64 = 4;

/// The hook of a log, and the progress of its calls.
#[derive(Default)]
pub(super) struct Hooked {
    hook: OnceLock<Arc<dyn CommitHook>>,
    /// Held during calls of the hook, so that they come one at a time.
    order: Mutex<()>,
    /// Number of the last record that the hook has seen committed.
    shown: AtomicU64,
    /// True once the hook has seen the log's failure.
    failed: AtomicBool,
}

impl Hooked {
    /// Sets the hook, which sees the records after `acked`. An error if there is one already.
    pub(super) fn set(&self, hook: Arc<dyn CommitHook>, acked: u64) -> std::result::Result<(), Arc<dyn CommitHook>> {
        self.shown.store(acked, Ordering::Release);
        self.hook.set(hook)
    }

    /// Calls the hook for the durable records, and after a failure of the log for that. Leaders may overtake each other: one that
    /// comes first also passes on the records of earlier groups, so that the hook sees the log's order. `last_commit_is_over`
    /// waits until no commit is being written.
    pub(super) fn run(&self, published: &Published, group: &mut Group, last_commit_is_over: impl FnOnce()) {
        let Some(hook) = self.hook.get() else { return };
        let _one_at_a_time = lock(&self.order);
        let failed = published.failed().is_some();
        if failed {
            last_commit_is_over();
        }
        let acked = published.acked();
        let mut shown = self.shown.load(Ordering::Acquire);
        let part = acked.saturating_sub(shown).div_ceil(PARTS);
        while shown < acked {
            shown = shown.saturating_add(part).min(acked);
            hook.committed(Seq(shown));
            self.shown.store(shown, Ordering::Release);
            group.wake_tasks(shown);
        }
        if failed {
            hook.failed();
            self.failed.store(true, Ordering::Release);
        }
    }

    /// Calls `settled`, after the callers were woken; not after a failure.
    pub(super) fn settle(&self, log: &dyn HookedLog) {
        let Some(hook) = self.hook.get() else { return };
        let _one_at_a_time = lock(&self.order);
        if !self.failed.load(Ordering::Acquire) {
            hook.settled(&Commits(log));
        }
    }

    /// Number of the last record that the hook has seen; without a hook, of the last that was acknowledged.
    pub(super) fn shown(&self, published: &Published) -> u64 {
        match self.hook.get() {
            Some(_) => self.shown.load(Ordering::Acquire),
            None => published.acked(),
        }
    }

    /// The outcome for the records up to `last`, once the hook has seen it.
    pub(super) fn outcome(&self, published: &Published, last: u64) -> Option<Result<()>> {
        // Read the failure first: records that the hook has seen are a success, even if the log fails after them.
        let failed = self.failed.load(Ordering::Acquire) || self.hook.get().is_none();
        if self.shown(published) >= last {
            return Some(Ok(()));
        }
        published.failed().filter(|_| failed).map(|failed| Err(failed.error()))
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked").field("shown", &self.shown).finish_non_exhaustive()
    }
}
