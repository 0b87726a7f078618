//! One group commit for what stands on the log: it decides and pushes under the log's own lock, and a hook shows what became
//! durable before the callers are woken.

use std::{
    fmt, mem,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
};

use super::{
    commit::Committer,
    published::lock,
    queue::{Caller, Group, Queue},
    record::{RecordKind, Seq, now},
    retain::{Retained, Retention},
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

/// The log, for its hook.
#[derive(Debug)]
pub struct Commits<'a>(&'a Committer);

impl Commits<'_> {
    /// Hands records over that no caller waits for; as many as `fill` pushes, whether there is room or not. They are in the
    /// next commit. `None` if the log takes nothing more.
    pub fn hand_over<T>(&self, fill: impl FnOnce(&mut Forming<'_>) -> T) -> Option<T> {
        let mut queue = lock(&self.0.queue);
        self.0.check(&queue).ok()?;
        let before = queue.next;
        let value = fill(&mut Forming { queue: &mut queue, time: None });
        if queue.next > before {
            self.0.arrive(&mut queue);
            self.0.give_turn(&mut queue);
        }
        Some(value)
    }

    /// As [`Wal::sync_blocking`](super::Wal::sync_blocking).
    ///
    /// # Errors
    /// A failure of the log.
    pub fn sync(&self) -> Result<()> {
        self.0.sync_here()
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

impl Forming<'_> {
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

/// In so many parts a commit is shown and its tasks woken: some of them decide their next writes while others are shown. With
/// one part 64 writers were a fifth slower; with more, 512 writers were in each other's way.
const PARTS: u64 = 4;

/// The hook of a log, and how far it has seen.
#[derive(Default)]
pub(super) struct Hooked {
    hook: OnceLock<Arc<dyn CommitHook>>,
    /// One call at a time.
    order: Mutex<()>,
    /// The last record that the hook has seen committed.
    shown: AtomicU64,
    /// It has seen the log's failure.
    failed: AtomicBool,
}

impl Hooked {
    pub(super) fn set(&self, hook: Arc<dyn CommitHook>, acked: u64) -> std::result::Result<(), Arc<dyn CommitHook>> {
        self.shown.store(acked, Ordering::Release);
        self.hook.set(hook)
    }

    /// Shows what is durable, or that nothing more will be. The leader of a later group may come first, and shows those before
    /// it too: so the order is that of the log.
    pub(super) fn run(&self, committer: &Committer, group: &mut Group) {
        let Some(hook) = self.hook.get() else { return };
        let _one_at_a_time = lock(&self.order);
        let failed = committer.published.failed().is_some();
        if failed {
            committer.last_commit_is_over();
        }
        let acked = committer.published.acked();
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

    pub(super) fn settle(&self, committer: &Committer) {
        let Some(hook) = self.hook.get() else { return };
        let _one_at_a_time = lock(&self.order);
        if !self.failed.load(Ordering::Acquire) {
            hook.settled(&Commits(committer));
        }
    }

    /// The last record that the hook has seen; without one, the last that was acknowledged.
    fn shown(&self, committer: &Committer) -> u64 {
        match self.hook.get() {
            Some(_) => self.shown.load(Ordering::Acquire),
            None => committer.published.acked(),
        }
    }

    /// What became of the records up to `last`, once the hook knows.
    fn outcome(&self, committer: &Committer, last: u64) -> Option<Result<()>> {
        // In this order: what is shown is shown, whatever comes after it.
        let failed = self.failed.load(Ordering::Acquire) || self.hook.get().is_none();
        if self.shown(committer) >= last {
            return Some(Ok(()));
        }
        committer.published.failed().filter(|_| failed).map(|failed| Err(failed.error()))
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked").field("shown", &self.shown).finish_non_exhaustive()
    }
}

/// A task's hand-over, until it is durable and shown.
pub(super) struct HandOver<'a, T, F> {
    committer: &'a Committer,
    state: State<T, F>,
}

enum State<T, F> {
    Begins(Result<usize>, F),
    /// Until the record is shown; the waker is the one that its group has.
    Waits(T, u64, Waker),
    Over,
}

impl<'a, T, F: FnOnce(&mut Forming<'_>) -> T> HandOver<'a, T, F> {
    pub(super) fn new(committer: &'a Committer, frames: Result<usize>, fill: F) -> Self {
        Self { committer, state: State::Begins(frames, fill) }
    }

    fn begin(&mut self, frames: usize, fill: F, cx: &Context<'_>) -> Poll<Result<T>> {
        let committer = self.committer;
        let mut queue = lock(&committer.queue);
        committer.check(&queue)?;
        if !queue.has_room(frames, Caller::Task(cx.waker())) {
            self.state = State::Begins(Ok(frames), fill);
            return Poll::Pending;
        }
        let value = fill(&mut Forming { queue: &mut queue, time: None });
        let last = queue.next.saturating_sub(1);
        if committer.hooked.shown(committer) >= last {
            return Poll::Ready(Ok(value));
        }
        committer.arrive(&mut queue);
        queue.group.wait(Caller::Task(cx.waker()), last);
        committer.give_turn(&mut queue);
        drop(queue);
        self.state = State::Waits(value, last, cx.waker().clone());
        Poll::Pending
    }
}

impl<T: Unpin, F: FnOnce(&mut Forming<'_>) -> T + Unpin> Future for HandOver<'_, T, F> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match mem::replace(&mut this.state, State::Over) {
            State::Begins(frames, fill) => this.begin(frames?, fill, cx),
            State::Waits(value, last, waker) => {
                this.committer.wake_also(&waker, cx);
                if let Some(done) = this.committer.hooked.outcome(this.committer, last) {
                    return Poll::Ready(done.map(|()| value));
                }
                this.state = State::Waits(value, last, waker);
                Poll::Pending
            }
            // It gave its answer.
            State::Over => Poll::Pending,
        }
    }
}
