//! Two histories: the events that the runtime reports (bounded; streams resume from it), and all facts (for tests of the
//! reports).

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use runtide_core::{ExitStatus, Gap, Incarnation, InstanceId, UnixSignal, backend::saturating_add, event::ResumeToken};
use tokio::time::Instant;

use super::{
    Phase, Record, State, Timer,
    boot::{Boot, Origin},
};
use crate::fault::Garble;

/// One change, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fact {
    /// Its resume token in the event stream: the runtime's own name, and the fact's number.
    pub token: ResumeToken,
    /// Time of the change, by the runtime's clock.
    pub at: SystemTime,
    /// Id of the instance.
    pub id: InstanceId,
    /// Name of the instance at that time.
    pub name: String,
    /// Run of the instance; `None`: it had not run yet.
    pub incarnation: Option<Incarnation>,
    /// Kind of the change.
    pub kind: FactKind,
    /// The runtime's own word for the state that it led to; [`state`](Self::state) is Runtide's.
    pub(crate) phase: Phase,
    /// For `Stopped`: the exit of the run, if the runtime knows it.
    pub exit: Option<ExitStatus>,
    /// True if the event stream reports it: not while the runtime is down, nor under [`Faults::swallow`](crate::Faults::swallow).
    pub told: bool,
}

/// Kind of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FactKind {
    /// The instance was created.
    Created,
    /// A run began.
    Started,
    /// A run ended.
    Stopped,
    /// Its processes were frozen.
    Paused,
    /// Its processes were thawed.
    Unpaused,
    /// It changed to another state that begins or ends no run.
    Moved,
    /// It was removed.
    Removed,
    /// A signal was delivered, and ended nothing.
    Signalled(UnixSignal),
    /// A field other than the state changed: this field of [`Instance`](runtide_core::Instance), or `*` for many.
    Changed(&'static str),
}

/// A fact on the wire.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) fact: Fact,
    /// The instance as the fact left it.
    pub(crate) record: Arc<Record>,
    pub(crate) garbled: Option<Garble>,
    /// Earliest time at which a stream delivers it.
    pub(crate) visible_at: Instant,
}

/// A swapped event does not wait for its neighbour indefinitely.
const LONGEST_HOLD: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct History {
    head: u64,
    pub(super) recent: VecDeque<Arc<Told>>,
    pub(super) facts: VecDeque<Fact>,
    /// An event held back, to be swapped with its neighbour.
    held: Option<Arc<Told>>,
    /// Resume tokens up to this number were lost in a restart.
    restarted_at: u64,
    /// `true` if a change happened while the runtime was down: it will not be reported.
    hole: bool,
}

impl History {
    /// The newest fact that a new stream has behind it.
    pub(super) fn newest(&self, now: Instant) -> Option<&ResumeToken> {
        self.recent.iter().take_while(|told| told.visible_at <= now).last().map(|told| &told.fact.token)
    }

    /// The events after the token, if the history proves that nothing is missing: the token itself must still be in it.
    pub(super) fn after(&self, boot: &Boot, token: &ResumeToken) -> Result<impl Iterator<Item = &Arc<Told>>, Gap> {
        if let Some(place) = self.recent.iter().rposition(|told| told.fact.token == *token) {
            return Ok(self.recent.iter().skip(place + 1));
        }
        Err(match boot.origin(token) {
            Origin::This(number) if number > self.restarted_at => Gap::HistoryExpired,
            Origin::This(_) | Origin::Another => Gap::RuntimeRestarted,
            Origin::Foreign => Gap::ForeignCursor,
        })
    }

    /// An event that is still held back was not reported: it is not history.
    pub(super) fn lose(&mut self) {
        self.recent.clear();
    }

    /// Facts are counted from 1 again. Those that happened stay for tests.
    pub(super) fn begin_again(&mut self) {
        *self = Self { facts: std::mem::take(&mut self.facts), ..Self::default() };
    }

    /// Restarts the history: nothing is left of it if the runtime did not keep it, or missed facts while it was down.
    pub(super) fn restart(&mut self, keep: bool) {
        if !keep || self.hole {
            self.lose();
            self.held = None;
            self.restarted_at = self.head;
        }
        self.hole = false;
    }
}

impl State {
    /// Records a fact, and reports it as the faults allow.
    pub(super) fn record_fact(&mut self, record: &Arc<Record>, kind: FactKind) {
        self.dirty = true;
        self.history.head += 1;
        let told = !self.down && !self.faults.swallow;
        self.history.hole |= self.down;
        let fact = Fact {
            token: self.boot.token(self.history.head),
            at: self.wall(),
            id: record.id.clone(),
            name: record.design.name.clone(),
            incarnation: record.incarnation(),
            kind,
            phase: record.phase,
            exit: record.exit.filter(|_| kind == FactKind::Stopped),
            told,
        };
        if self.options.facts > 0 {
            if self.history.facts.len() >= self.options.facts {
                self.history.facts.pop_front();
            }
            self.history.facts.push_back(fact.clone());
        }
        if !told {
            return;
        }
        let visible_at = saturating_add(self.now, self.faults.delay.unwrap_or_default());
        let new = Arc::new(Told { fact, record: Arc::clone(record), garbled: self.faults.garble, visible_at });
        match self.history.held.take() {
            Some(held) if held.fact.id == new.fact.id => {
                self.deliver(&held);
                self.hold_or_deliver(new);
            }
            Some(held) => {
                self.deliver(&new);
                self.deliver(&held);
            }
            None => self.hold_or_deliver(new),
        }
    }

    fn hold_or_deliver(&mut self, told: Arc<Told>) {
        if self.faults.reorder {
            self.schedule(LONGEST_HOLD, Timer::Release(told.fact.token.clone()));
            self.history.held = Some(told);
        } else {
            self.deliver(&told);
        }
    }

    /// Lets a held event go, if it is (still) this one.
    pub(super) fn release(&mut self, token: &ResumeToken) {
        if let Some(held) = self.history.held.take_if(|held| held.fact.token == *token) {
            self.deliver(&held);
        }
    }

    fn deliver(&mut self, told: &Arc<Told>) {
        self.dirty = true;
        if self.options.history > 0 {
            if self.history.recent.len() >= self.options.history {
                self.history.recent.pop_front();
            }
            self.history.recent.push_back(Arc::clone(told));
        }
        let copies = if self.faults.duplicate { 2 } else { 1 };
        let room = self.options.stream_buffer;
        for line in self.lines.values_mut() {
            line.hear(told, copies, room);
        }
    }
}
