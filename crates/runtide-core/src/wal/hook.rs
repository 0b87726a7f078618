//! One group commit for what stands on the log: it decides and pushes under the log's own lock, and a hook shows what became
//! durable before the callers are woken.

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

/// Follows the commits of a log, one call at a time, in the thread of the leader: a slow hook holds up the next commit.
///
/// # Behavior
/// * `committed` comes before any caller is told that the records are durable; for one commit it may come several times, each time
///   with more of its records.
/// * `failed` comes once nothing more can become durable, and before any caller is told of the failure that concerns it.
/// * A hook never calls the log it follows, but through [`Commits`]: it would wait for itself.
pub trait CommitHook: Send + Sync + 'static {
    /// All records up to `last` are durable, as the log's [`Durability`](super::Durability) says.
    fn committed(&self, last: Seq);

    /// The callers of the commit were woken: there is time for what no caller waits for.
    fn settled(&self, commits: &Commits<'_>);

    /// The log has failed for good: what was handed over behind the last call of `committed` is not acknowledged.
    fn failed(&self);
}

/// The verbs of a log that its hook may call: none of them waits for a commit.
pub(super) trait HookedLog: fmt::Debug {
    /// Runs `fill` on the forming group, and has the group committed if it pushed a record. Not run if the log accepts no more.
    fn hand_over(&self, fill: &mut dyn FnMut(&mut Forming<'_>));

    fn sync(&self) -> Result<()>;

    fn retain(&self, policy: &Retention) -> Result<Retained>;
}

/// The log, for its hook.
#[derive(Debug)]
pub struct Commits<'a>(&'a dyn HookedLog);

impl Commits<'_> {
    /// Hands records over that no caller waits for: as many as `fill` pushes, also if the group is full. They are in the next
    /// commit. `None` if the log accepts no more records.
    pub fn hand_over<T>(&self, fill: impl FnOnce(&mut Forming<'_>) -> T) -> Option<T> {
        let (mut fill, mut value) = (Some(fill), None);
        self.0.hand_over(&mut |forming| value = fill.take().map(|fill| fill(forming)));
        value
    }

    /// As [`Wal::sync_blocking`](super::Wal::sync_blocking).
    ///
    /// # Errors
    /// A failure of the log.
    pub fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    /// As [`Wal::retain`](super::Wal::retain).
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
    /// The time of the records, once one was pushed.
    time: Option<u64>,
}

impl<'a> Forming<'a> {
    pub(super) fn new(queue: &'a mut Queue) -> Self {
        Self { queue, time: None }
    }

    /// The number that the next record will have.
    pub fn next_seq(&self) -> Seq {
        Seq(self.queue.next)
    }

    /// Pushes a record; `write` appends its payload, of at most [`Wal::MAX_RECORD`](super::Wal::MAX_RECORD) bytes, to the group's.
    pub fn push(&mut self, kind: RecordKind, write: impl FnOnce(&mut Vec<u8>)) -> Seq {
        let time = *self.time.get_or_insert_with(now);
        let seq = self.queue.next;
        self.queue.group.push_with(seq, time, kind, write);
        self.queue.next = seq.saturating_add(1);
        Seq(seq)
    }
}

/// Number of parts in which a commit is shown and its tasks are woken, so that some tasks decide their next writes while others are
/// shown. With one part 64 writers were a fifth slower; with more, 512 writers hindered each other.
const PARTS: u64 = 4;

/// The hook of a log, and the records that it has seen.
#[derive(Default)]
pub(super) struct Hooked {
    hook: OnceLock<Arc<dyn CommitHook>>,
    /// Held during a call of the hook.
    order: Mutex<()>,
    /// The last record that the hook has seen committed.
    shown: AtomicU64,
    /// True once the hook has seen the log's failure.
    failed: AtomicBool,
}

impl Hooked {
    pub(super) fn set(&self, hook: Arc<dyn CommitHook>, acked: u64) -> std::result::Result<(), Arc<dyn CommitHook>> {
        self.shown.store(acked, Ordering::Release);
        self.hook.set(hook)
    }

    /// Shows the durable records, or that there will be no more of them. The leader of a later group may come first, and shows the
    /// earlier ones too: the order is that of the log. `last_commit_is_over` waits until no commit is being written.
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

    /// Gives the hook its time after the callers were woken.
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

    /// The outcome for the records up to `last`, once the hook knows it.
    pub(super) fn outcome(&self, published: &Published, last: u64) -> Option<Result<()>> {
        // The failure is read first: a record that is shown stays shown, also if the log fails after it.
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
