//! Signals of the stream. Live, they are applied; while a resync is prepared, they name the instances to inspect.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{Command, Machine, Mode, Phase};
use crate::{
    event::{Gap, ResumeToken, RuntimeEventKind},
    instance::{Instance, InstanceId, InstanceState},
    options::Detail,
    watch::{
        merge,
        relist::{Purpose, Relist, Reported},
        source::{Edge, Signal, SignalBody},
    },
};

/// Most signals that are held back during a probation; with more of them the history counts as lost.
const HELD: usize = 10_000;

impl Machine {
    pub(super) fn signal(&mut self, now: Instant, signal: Signal) {
        let Phase::Open { mode, .. } = &mut self.phase else { return };
        match mode {
            Mode::Held { signals, .. } if signals.len() < HELD && !matches!(signal.body, SignalBody::Lost(_)) => {
                return signals.push(signal);
            }
            Mode::Held { until, .. } => {
                // A resync replaces the replay, and is shown after the probation: nothing was announced, so that a listing
                // that fails belongs to the same outage.
                let gap = if let SignalBody::Lost(gap) = signal.body { gap } else { Gap::Disconnected };
                let mut relist = Relist::new(Purpose::Resync(gap), now);
                relist.wait_until(*until);
                self.relist = Some(relist);
                *mode = Mode::Listing;
            }
            _ => {}
        }
        let listing = matches!(self.phase, Phase::Open { mode: Mode::Listing, .. });
        if listing && let SignalBody::Lost(gap) = signal.body {
            let reached = self.next_token.clone();
            if self.relist.as_mut().is_some_and(|relist| relist.lost(gap, reached, now)) {
                self.commands.push(Command::Abandon); // the answer may be older than the missed reports
            }
        }
        let token =
            if listing || matches!(signal.body, SignalBody::Lost(_)) { &mut self.next_token } else { &mut self.token };
        if signal.token.is_some() {
            token.clone_from(&signal.token);
        }
        if listing {
            self.signal_while_listing(now, signal.body);
        } else {
            self.signal_live(now, signal);
        }
    }

    /// A report during a resync may be older than the listing: it names an instance to inspect, and nothing more.
    fn signal_while_listing(&mut self, now: Instant, body: SignalBody) {
        let Some(relist) = &mut self.relist else { return };
        match body {
            SignalBody::State(instance) => relist.touch(&instance.id.clone(), Reported::State(instance), now),
            SignalBody::Gone(id) => relist.touch(&id, Reported::Gone, now),
            SignalBody::Hint(id) => relist.touch(&id, Reported::Hint, now),
            SignalBody::Edge(edge) => relist.touch(&edge.id.clone(), Reported::Edge(edge), now),
            SignalBody::Full(snapshot) => {
                self.commands.push(Command::Abandon);
                self.relisted(now, Ok(snapshot));
            }
            SignalBody::Lost(_) | SignalBody::Alive | SignalBody::CaughtUp => {}
        }
    }

    fn signal_live(&mut self, now: Instant, signal: Signal) {
        let Signal { body, token, at } = signal;
        match body {
            SignalBody::Edge(edge) => self.edge(now, &edge, token, at),
            SignalBody::State(instance) => {
                self.reported(&instance.id, now);
                self.take_in(&instance, token, at);
            }
            SignalBody::Gone(id) => {
                self.reported(&id, now);
                self.inspect_queue.settle(&id);
                self.gone(&id, token, at);
            }
            SignalBody::Hint(id) => {
                if let Some(relist) = &mut self.relist {
                    relist.touch(&id, Reported::Hint, now);
                }
                self.inspect_queue.hint(&id, now, false);
            }
            SignalBody::Full(snapshot) => {
                self.relist = None;
                self.commands.push(Command::Abandon);
                let ids = self.inspect_queue.drain();
                for id in &ids {
                    self.inspect_queue.hint(id, now, false);
                }
                let mut relist = Relist::new(Purpose::Confirm, now);
                relist.answered(snapshot, now, Duration::ZERO);
                self.relist = Some(relist);
            }
            SignalBody::Lost(gap) => self.lost(now, gap),
            SignalBody::CaughtUp => self.caught_up(now),
            SignalBody::Alive => {}
        }
    }

    /// The stream reported this instance: answers that are under way may be older.
    fn reported(&mut self, id: &InstanceId, now: Instant) {
        self.inspect_queue.reported(id);
        if let Some(relist) = &mut self.relist {
            relist.touch(id, Reported::Hint, now);
        }
    }

    fn edge(&mut self, now: Instant, edge: &Edge, token: Option<ResumeToken>, at: Option<SystemTime>) {
        self.reported(&edge.id, now);
        self.edges_name_incarnations = edge.incarnation.is_some();
        let mut before = self.cache.get(&edge.id).cloned();
        let mut after = match &before {
            Some(before) => merge::after_edge(before, edge),
            None => merge::from_edge(&self.backend, edge),
        };
        if let Some(row) = before.as_mut().filter(|_| after.is_none() && self.unconfirmed.contains(&edge.id)) {
            // The state from before the gap must not make an edge from after it seem old.
            *row = Arc::new(Instance { state: InstanceState::Unknown, ..Instance::clone(row) });
            after = merge::after_edge(row, edge);
        }
        if let Some(after) = after {
            self.adopt(before.as_ref(), after, token, at);
            if self.wanted == Detail::Full {
                self.inspect_queue.hint(&edge.id, now, false);
            }
        } else if before.is_none() {
            self.inspect_queue.hint(&edge.id, now, true); // no report described it: an inspection is all there will be
        } else {
            tracing::trace!(backend = %self.backend, instance = %edge.id, state = %edge.state, "an old edge");
        }
    }

    pub(super) fn gone(&mut self, id: &InstanceId, token: Option<ResumeToken>, at: Option<SystemTime>) {
        self.unconfirmed.remove(id);
        if let Some(last) = self.cache.remove(id) {
            self.emit(RuntimeEventKind::Removed(Arc::clone(&last)), Some(last), token, at);
        }
    }

    /// Applies a state that the stream reported.
    fn take_in(&mut self, instance: &Arc<Instance>, token: Option<ResumeToken>, at: Option<SystemTime>) {
        let before = self.cache.get(&instance.id).cloned();
        let after = match &before {
            Some(before) => merge::merged(before, instance),
            None => Instance::clone(instance),
        };
        self.adopt(before.as_ref(), after, token, at);
    }

    /// Replaces the row, and emits the events that lead to it.
    pub(super) fn adopt(
        &mut self,
        before: Option<&Arc<Instance>>,
        mut after: Instance,
        token: Option<ResumeToken>,
        at: Option<SystemTime>,
    ) {
        self.unconfirmed.remove(&after.id);
        after.generation = before.map_or(0, |before| before.generation.wrapping_add(1));
        let after = Arc::new(after);
        match merge::events(before, &after) {
            [None, _] => {}
            [Some(only), None] => {
                let held = self.cache.insert(after);
                self.emit(only, held, token, at);
            }
            [Some(end), Some(start)] => {
                let held = self.cache.insert(after);
                self.emit(end, held.clone(), None, None); // not reported: it follows from the start
                self.emit(start, held, token, at);
            }
        }
    }
}
