//! What the driver's task and the subscribers share, behind one lock: the machine, the ring, and who waits.

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
    /// The subscribers' wishes changed.
    pub(super) wishes: Notify,
    /// The run is to end.
    pub(super) stop: CancellationToken,
}

/// Behind the lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) machine: Machine,
    pub(super) ring: Ring,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    subscribers: usize,
    full: usize,
    /// Slots with a waker.
    waiting: Vec<usize>,
    /// Subscribers that wait for the rows to be complete.
    pending: usize,
    /// Subscribers that may still come to the bracket whose view is kept.
    before_bracket: usize,
    /// The backend was closed.
    pub(super) closed: bool,
    /// The last subscriber is gone: this run takes no new one.
    pub(super) over: bool,
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
            before_bracket: 0,
            closed: false,
            over: false,
        };
        Self { state: Mutex::new(state), wishes: Notify::new(), stop: CancellationToken::new() }
    }

    /// Never poisoned for good: no code behind the lock leaves the state half changed on purpose, and a panic of a
    /// subscriber's filter must not take the others with it.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// One step of the machine; what came of it is in the ring, and whoever waited is awake.
    pub(super) fn step(
        &self,
        input: Input<'_>,
        commands: &mut Vec<Command>,
        wake: &mut Vec<Waker>,
    ) -> (Option<Instant>, bool) {
        let mut state = self.lock();
        let State { machine, ring, .. } = &mut *state;
        machine.step(Instant::now(), SystemTime::now(), input);
        let bracket = ring.bracket();
        let mut news = false;
        let entries = machine.take_entries();
        ring.make_room(entries.len());
        for entry in entries {
            ring.push(entry);
            news = true;
        }
        commands.extend(machine.take_commands());
        let after = (machine.deadline(), machine.is_open());
        if ring.bracket() != bracket {
            state.before_bracket = state.subscribers;
            if state.subscribers == 0 {
                state.ring.release_bracket();
            }
        }
        // A change of the machine that put nothing into the ring may still be what a subscriber waits for (it went live).
        if news || state.pending > 0 {
            let waiting = std::mem::take(&mut state.waiting);
            wake.extend(waiting.iter().filter_map(|slot| state.slots.get_mut(*slot)?.as_mut()?.waker.take()));
        }
        drop(state);
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
    /// The closest look that anybody wants.
    pub(super) fn wanted(&self) -> Detail {
        if self.full > 0 { Detail::Full } else { Detail::Summary }
    }

    pub(super) fn subscribe(&mut self, next: u64, detail: Detail) -> usize {
        self.subscribers += 1;
        self.full += usize::from(detail == Detail::Full);
        if self.ring.bracket().is_some_and(|bracket| next <= bracket) {
            self.before_bracket += 1;
        }
        let slot = Some(Slot { waker: None, next, detail, pending: false });
        if let Some(free) = self.free.pop()
            && let Some(place) = self.slots.get_mut(free)
        {
            *place = slot;
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

    /// A subscriber went on.
    pub(super) fn advance(&mut self, slot: usize, next: u64) {
        if let Some(slot) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            let was = std::mem::replace(&mut slot.next, next);
            self.passed(was, next);
        }
    }

    /// A subscriber waits for the rows to be complete, or does not any more.
    pub(super) fn set_pending(&mut self, slot: usize, pending: bool) {
        if let Some(slot) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            self.pending -= usize::from(std::mem::replace(&mut slot.pending, pending));
            self.pending += usize::from(pending);
        }
    }

    /// The view of a bracket is given back once nobody can come to it any more.
    fn passed(&mut self, from: u64, to: u64) {
        let Some(bracket) = self.ring.bracket() else { return };
        if from <= bracket && to > bracket {
            self.before_bracket = self.before_bracket.saturating_sub(1);
            if self.before_bracket == 0 {
                self.ring.release_bracket();
            }
        }
    }

    pub(super) fn wait(&mut self, slot: usize, waker: &Waker) {
        let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        match &mut place.waker {
            Some(old) => old.clone_from(waker),
            none => {
                *none = Some(waker.clone());
                self.waiting.push(slot);
            }
        }
    }
}
