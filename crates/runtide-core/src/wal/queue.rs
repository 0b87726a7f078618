//! The queue of requests to commit: the forming group, and the callers that wait for it.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Wake, Waker},
};

use super::{
    format::{COMMIT_HEADER, push_frame, push_frame_with},
    record::RecordKind,
    sync::{
        Instant,
        atomic::{AtomicBool, Ordering},
        thread::{self, Thread},
        thread_local,
    },
};

/// Largest size of a group, in bytes: a request that does not fit waits for the next group. A larger batch is a group by itself.
pub(super) const GROUP_BYTES: usize = 1 << 20;

/// A caller's request to the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    One(RecordKind, &'a [u8]),
    Many(&'a [(RecordKind, &'a [u8])]),
    /// No record, only a sync of all records before it.
    Sync,
}

/// A thread that waits for its request.
#[derive(Debug)]
pub(super) struct Parker {
    thread: Thread,
    /// True once the thread got the lead: it must commit the group that it is in.
    leads: AtomicBool,
}

impl Parker {
    /// The parker of the current thread.
    pub(super) fn current() -> Arc<Self> {
        thread_local! {
            static OWN: Arc<Parker> = Arc::new(Parker { thread: thread::current(), leads: AtomicBool::new(false) });
        }
        OWN.with(Arc::clone)
    }

    /// Hands the lead to the thread, and wakes it.
    pub(super) fn lead(&self) {
        self.leads.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Returns true, once, if the thread got the lead.
    pub(super) fn takes_lead(&self) -> bool {
        self.leads.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.thread.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.thread.unpark();
    }
}

/// The caller of a request, to be woken when it is done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Caller<'a> {
    Task(&'a Waker),
    Thread(&'a Arc<Parker>),
}

impl Caller<'_> {
    pub(super) fn waker(self) -> Waker {
        match self {
            Self::Task(waker) => waker.clone(),
            Self::Thread(parker) => Waker::from(Arc::clone(parker)),
        }
    }
}

/// Records that will be one commit.
#[derive(Debug)]
pub(super) struct Group {
    /// Space for the commit's header, then the frames of the records.
    pub(super) bytes: Vec<u8>,
    /// Number of the first record; valid if there is one.
    pub(super) first: u64,
    /// Number of records in the group.
    pub(super) count: u32,
    /// Number of calls in the group.
    pub(super) callers: usize,
    /// Wakers of the waiting tasks, each with the number of the last record that it waits for, in ascending order.
    pub(super) tasks: VecDeque<(u64, Waker)>,
    /// Waiting threads, in the order in which they came.
    pub(super) threads: VecDeque<Arc<Parker>>,
    /// True if a caller asks for a sync, regardless of the log's durability.
    pub(super) sync: bool,
}

impl Group {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; COMMIT_HEADER],
            first: 0,
            count: 0,
            callers: 0,
            tasks: VecDeque::new(),
            threads: VecDeque::new(),
            sync: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.callers == 0
    }

    /// Returns true if `frames` more bytes fit. A group without a record takes a request of any size.
    pub(super) fn has_room(&self, frames: usize) -> bool {
        self.count == 0 || frames.saturating_add(self.bytes.len()) <= GROUP_BYTES
    }

    /// Encodes the request's records, numbered from `next` on; returns the number of the last.
    pub(super) fn push(&mut self, next: u64, time: u64, request: Request<'_>) -> u64 {
        if self.count == 0 {
            self.first = next;
        }
        self.callers += 1;
        let mut seq = next;
        let mut one = |kind: RecordKind, payload: &[u8]| {
            push_frame(&mut self.bytes, seq, time, kind.0, payload);
            self.count = self.count.saturating_add(1);
            seq = seq.saturating_add(1);
        };
        match request {
            Request::One(kind, payload) => one(kind, payload),
            Request::Many(records) => records.iter().for_each(|(kind, payload)| one(*kind, payload)),
            Request::Sync => self.sync = true,
        }
        seq.saturating_sub(1)
    }

    /// Encodes one record; `write` appends the payload in place, without a copy.
    pub(super) fn push_with(&mut self, seq: u64, time: u64, kind: RecordKind, write: impl FnOnce(&mut Vec<u8>)) {
        if self.count == 0 {
            self.first = seq;
        }
        push_frame_with(&mut self.bytes, seq, time, kind.0, write);
        self.count = self.count.saturating_add(1);
    }

    /// Has the caller woken once the records up to `last` are committed.
    pub(super) fn wait(&mut self, caller: Caller<'_>, last: u64) {
        match caller {
            Caller::Task(waker) => self.tasks.push_back((last, waker.clone())),
            Caller::Thread(parker) => self.threads.push_back(Arc::clone(parker)),
        }
    }

    /// Wakes all callers of the group.
    pub(super) fn wake(&mut self) {
        self.tasks.drain(..).for_each(|(_, waker)| waker.wake());
        self.threads.drain(..).for_each(Wake::wake);
    }

    /// Wakes the tasks that wait for records up to `last`, and no later ones.
    pub(super) fn wake_tasks(&mut self, last: u64) {
        while let Some((of, _)) = self.tasks.front()
            && *of <= last
            && let Some((_, waker)) = self.tasks.pop_front()
        {
            waker.wake();
        }
    }

    /// Empties the group for reuse; a buffer that had grown for one large batch is freed.
    pub(super) fn clear(&mut self) {
        if self.bytes.capacity() > 2 * GROUP_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.bytes.resize(COMMIT_HEADER, 0);
        self.count = 0;
        self.callers = 0;
        self.sync = false;
    }
}

/// The hand-over between the appenders and the leader that commits.
#[derive(Debug)]
pub(super) struct Queue {
    /// The forming group.
    pub(super) group: Group,
    /// Number of the next record.
    pub(super) next: u64,
    /// True while there is a leader: a thread that commits, or has been woken to commit.
    pub(super) busy: bool,
    /// True if the commit thread must lead next.
    pub(super) turn: bool,
    /// True once the log is being closed: no more requests are accepted.
    pub(super) closing: bool,
    /// Time of the next sync for `Durability::Every`; `None` if none is scheduled.
    pub(super) due: Option<Instant>,
    /// Number of callers in the last group.
    pub(super) last: usize,
    /// Wakers of the callers for which the group had no room.
    pub(super) space: Vec<Waker>,
    /// Wakers of the tasks that were last polled with another waker than the one that their group has.
    pub(super) late: Vec<Waker>,
    /// An empty group that is kept for its buffers.
    pub(super) spare: Option<Group>,
}

impl Queue {
    pub(super) fn new(next: u64) -> Self {
        Self {
            group: Group::new(),
            next,
            busy: false,
            turn: false,
            closing: false,
            due: None,
            last: 0,
            space: Vec::new(),
            late: Vec::new(),
            spare: None,
        }
    }

    /// Returns true if `frames` more bytes fit into the forming group; if not, the caller is woken when it may try again.
    pub(super) fn has_room(&mut self, frames: usize, caller: Caller<'_>) -> bool {
        if self.group.has_room(frames) {
            return true;
        }
        let waker = caller.waker();
        if !self.space.iter().any(|other| other.will_wake(&waker)) {
            self.space.push(waker);
        }
        false
    }

    /// Takes the forming group, and begins a new one.
    pub(super) fn take(&mut self) -> Group {
        let fresh = self.spare.take().unwrap_or_else(Group::new);
        std::mem::replace(&mut self.group, fresh)
    }
}
