//! State shared by the driver's task and the subscribers, behind one lock: the machine, the ring, and the waiting subscribers.

use std::{
    sync::{Mutex, MutexGuard},
    task::Waker,
    time::SystemTime,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    machine::{Command, Input, Machine},
    ring::Ring,
};
use crate::{backend::lock, options::Detail};

/// Shared by one run of the driver and its subscribers.
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
    /// Notified when the detail that the subscribers want may have changed.
    pub(super) detail_changed: Notify,
    /// Cancelled when the run must end.
    pub(super) stop: CancellationToken,
}

/// State behind the lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) machine: Machine,
    pub(super) ring: Ring,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    subscribers: usize,
    full: usize,
    /// Slots that have a waker.
    waiting: Vec<usize>,
    /// Subscribers that wait for the rows to be complete.
    pending: usize,
    /// Subscribers that have not reached the resync whose view is kept.
    before_resync: usize,
    /// The backend was closed.
    pub(super) closed: bool,
    /// The last subscriber is gone: this run takes no new one.
    pub(super) over: bool,
}

/// The outcome of a step, for the driver's task.
#[derive(Debug, Clone, Copy)]
pub(super) struct After {
    /// Time of the next tick.
    pub(super) deadline: Option<Instant>,
    /// The source's stream is open.
    pub(super) is_open: bool,
    /// A subscriber was awakened.
    pub(super) has_woken: bool,
}

#[derive(Debug)]
struct Slot {
    waker: Option<Waker>,
    /// The number of the entry to be read next.
    next: u64,
    detail: Detail,
    pending: bool,
}

impl Hub {
    pub(super) fn new(machine: Machine, capacity: usize) -> Self {
        let state = State {
            machine,
            ring: Ring::new(capacity),
            slots: Vec::new(),
            free: Vec::new(),
            subscribers: 0,
            full: 0,
            waiting: Vec::new(),
            pending: 0,
            before_resync: 0,
            closed: false,
            over: false,
        };
        Self { state: Mutex::new(state), detail_changed: Notify::new(), stop: CancellationToken::new() }
    }

    /// Ignores poison: no code behind the lock leaves the state half changed, and a panic in one subscriber's filter must not
    /// end the others.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// One step of the machine. Its entries are then in the ring, and the subscribers that waited for them are awake.
    pub(super) fn step(&self, input: Input<'_>, commands: &mut Vec<Command>, wake: &mut Vec<Waker>) -> After {
        let mut state = self.lock();
        let State { machine, ring, .. } = &mut *state;
        machine.step(Instant::now(), SystemTime::now(), input);
        let resync = ring.resync();
        let mut news = false;
        let entries = machine.take_entries();
        ring.make_room(entries.len());
        for entry in entries {
            ring.push(entry);
            news = true;
        }
        commands.extend(machine.take_commands());
        let mut after = After { deadline: machine.deadline(), is_open: machine.is_open(), has_woken: false };
        if ring.resync() != resync {
            state.before_resync = state.subscribers;
            if state.subscribers == 0 {
                state.ring.release_resync();
            }
        }
        // A subscriber may also wait for a change of the machine that put nothing into the ring (it went live).
        if news || state.pending > 0 {
            let waiting = std::mem::take(&mut state.waiting);
            wake.extend(waiting.iter().filter_map(|slot| state.slots.get_mut(*slot)?.as_mut()?.waker.take()));
        }
        drop(state);
        after.has_woken = !wake.is_empty();
        for waker in wake.drain(..) {
            waker.wake();
        }
        after
    }

    /// Ends every stream with `Cancelled`, and the run.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.over = true;
        let wakers: Vec<Waker> = state.slots.iter_mut().filter_map(|slot| slot.as_mut()?.waker.take()).collect();
        state.waiting.clear();
        drop(state);
        self.stop.cancel();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// The highest detail that a subscriber wants.
    pub(super) fn wanted(&self) -> Detail {
        if self.full > 0 { Detail::Full } else { Detail::Summary }
    }

    pub(super) fn subscribe(&mut self, next: u64, detail: Detail) -> usize {
        self.subscribers += 1;
        self.full += usize::from(detail == Detail::Full);
        if self.ring.resync().is_some_and(|resync| next <= resync) {
            self.before_resync += 1;
        }
        let slot = Some(Slot { waker: None, next, detail, pending: false });
        if let Some(free) = self.free.pop()
            && let Some(entry) = self.slots.get_mut(free)
        {
            *entry = slot;
            return free;
        }
        self.slots.push(slot);
        self.slots.len() - 1
    }

    pub(super) fn unsubscribe(&mut self, slot: usize) {
        let Some(left) = self.slots.get_mut(slot).and_then(Option::take) else { return };
        self.free.push(slot);
        self.waiting.retain(|waiting| *waiting != slot);
        self.subscribers -= 1;
        self.full -= usize::from(left.detail == Detail::Full);
        self.pending -= usize::from(left.pending);
        self.passed(left.next, u64::MAX);
        self.over |= self.subscribers == 0;
    }

    /// Moves a subscriber forward.
    pub(super) fn advance(&mut self, slot: usize, next: u64) {
        if let Some(slot) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            let was = std::mem::replace(&mut slot.next, next);
            self.passed(was, next);
        }
    }

    /// Records that a subscriber waits for the rows to be complete, or no longer does.
    pub(super) fn set_pending(&mut self, slot: usize, pending: bool) {
        if let Some(slot) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            self.pending -= usize::from(std::mem::replace(&mut slot.pending, pending));
            self.pending += usize::from(pending);
        }
    }

    /// Releases the view of a resync once no subscriber can reach it any more.
    fn passed(&mut self, from: u64, to: u64) {
        let Some(resync) = self.ring.resync() else { return };
        if from <= resync && to > resync {
            self.before_resync = self.before_resync.saturating_sub(1);
            if self.before_resync == 0 {
                self.ring.release_resync();
            }
        }
    }

    pub(super) fn wait(&mut self, slot: usize, waker: &Waker) {
        let Some(entry) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        match &mut entry.waker {
            Some(old) => old.clone_from(waker),
            none => {
                *none = Some(waker.clone());
                self.waiting.push(slot);
            }
        }
    }
}
