//! The rules that every stream obeys: [`StreamChecker`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use runtide_core::{
    Cursor, Incarnation, Instance, InstanceId, InstanceState, RuntimeEvent, RuntimeEventKind as Kind,
    event::{Continuity, Epoch},
};

use crate::{Law, Violation, outcome::line};

/// Number of earlier events that a violation shows.
const TRAIL: usize = 24;

/// Checks one stream for the rules of every stream: the shape of the resyncs (R1), the numbering (R2), the order of each
/// instance's edges (R4) and the uniqueness of reported facts (R5).
///
/// ```
/// use runtide_conformance::StreamChecker;
/// use runtide_core::{Cursor, Gap, RuntimeEvent, RuntimeEventKind};
///
/// let event = |seq, kind| RuntimeEvent::new("demo".into(), Cursor::new("e".into(), seq, None), std::time::SystemTime::now(), kind);
/// let mut checker = StreamChecker::default();
/// checker.observe(&event(1, RuntimeEventKind::ResyncBegin { gap: Gap::Initial }))?;
/// assert!(checker.observe(&event(2, RuntimeEventKind::Bookmark)).is_err()); // inside a resync there is only `Present`
/// # Ok::<(), runtide_conformance::Violation>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct StreamChecker {
    filtered: bool,
    phase: Phase,
    /// The last event's position; before the first event, the position that the watch resumes from.
    last: Option<Cursor>,
    /// The position of the last event outside a resync.
    ring: Option<Cursor>,
    keys: BTreeSet<[u8; 32]>,
    seen: BTreeMap<InstanceId, InstanceSeen>,
    staged: BTreeMap<InstanceId, InstanceSeen>,
    trail: VecDeque<String>,
}

/// The checker's position in the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// No event came yet.
    #[default]
    Fresh,
    /// No event came yet, and the watch has a position to resume from.
    Resuming,
    /// The link is down.
    Down {
        /// `true` if the stream had reported instances before the outage.
        knew: bool,
    },
    /// The link is back and a resync must follow.
    Lost,
    /// The link is back and the edges of the outage are being replayed; `CaughtUp` ends them.
    Replaying,
    /// The stream goes on in the ring of the same run, perhaps within a replay.
    InRing,
    /// A resync of this epoch is open.
    Resync(Epoch),
    /// The stream is live: each edge is delivered.
    Live,
}

/// The stream's last report of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct InstanceSeen {
    alive: bool,
    incarnation: Option<Incarnation>,
    /// The incarnation of the last reported start.
    started: Option<Incarnation>,
    removed: bool,
}

impl InstanceSeen {
    fn of(instance: &Instance) -> Self {
        Self {
            alive: instance.state.is_alive(),
            incarnation: instance.incarnation.clone(),
            started: None,
            removed: false,
        }
    }
}

impl StreamChecker {
    /// For a stream with a filter: numbers rise, and may leave some out.
    #[must_use]
    pub fn filtered(mut self) -> Self {
        self.filtered = true;
        self
    }

    /// For a stream that resumes after this position. The events seen before, keys included, still count.
    #[must_use]
    pub fn resumed(mut self, from: &Cursor) -> Self {
        self.phase = Phase::Resuming;
        self.last = Some(from.clone());
        self.ring = Some(from.clone());
        self.staged.clear();
        // The consumer may have stored an older position than the last event that it saw: the events between come again.
        self.keys.clear();
        self.seen.clear();
        self.trail.clear();
        self
    }

    /// For a stream that resumes after the very last event that this checker saw: no fact may come a second time.
    #[must_use]
    pub fn resumed_after_last(self, from: &Cursor) -> Self {
        let keys = self.keys.clone();
        Self { keys, ..self.resumed(from) }
    }

    /// `true` if every edge so far is delivered, and those that come will be.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live | Phase::InRing)
    }

    /// `true` inside a resync.
    pub fn in_bracket(&self) -> bool {
        matches!(self.phase, Phase::Resync(_))
    }

    /// The last events, oldest first.
    pub fn trail(&self) -> impl Iterator<Item = String> {
        self.trail.iter().cloned()
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// The violation, with the events before it. The checker must not be used afterwards.
    pub fn observe(&mut self, event: &RuntimeEvent) -> Result<(), Violation> {
        if self.trail.len() == TRAIL {
            self.trail.pop_front();
        }
        self.trail.push_back(line(event));
        let checked = self.shape(event).and_then(|next| {
            self.numbers(event)?;
            Ok(next)
        });
        let checked = checked.and_then(|next| {
            self.unique(event)?;
            self.order(event)?;
            Ok(next)
        });
        let next = checked.map_err(|violation| violation.after(self.trail()))?;
        if !matches!(next, Phase::Resync(_)) {
            self.ring = Some(event.cursor.clone());
        }
        self.phase = next;
        self.last = Some(event.cursor.clone());
        Ok(())
    }

    /// R1: the events that may come here, and the phase that follows.
    fn shape(&self, event: &RuntimeEvent) -> Result<Phase, Violation> {
        let found = || format!("{} {}", line(event), self.phase.position());
        let broken = |expected: &str| Err(Violation::of(Law::R1, expected, found()));
        if let Phase::Resync(epoch) = &self.phase {
            return match &event.kind {
                Kind::Present(_) => Ok(Phase::Resync(epoch.clone())),
                Kind::ResyncEnd(_) => Ok(Phase::Live),
                _ => broken("only `Present` up to `ResyncEnd`"),
            };
        }
        match (&event.kind, &self.phase) {
            (Kind::Present(_) | Kind::ResyncEnd(_), _) => {
                broken("`Present` and `ResyncEnd` only after a `ResyncBegin`")
            }
            (Kind::ResyncBegin { .. }, _) => Ok(Phase::Resync(event.cursor.epoch.clone())),
            (Kind::BackendDisconnected { .. }, Phase::Down { .. }) => {
                broken("one `BackendDisconnected` for each outage")
            }
            (Kind::BackendDisconnected { .. }, Phase::Fresh) => Ok(Phase::Down { knew: false }),
            (Kind::BackendDisconnected { .. }, _) => Ok(Phase::Down { knew: true }),
            (Kind::BackendReconnected { continuity }, Phase::Down { knew }) => match continuity {
                Continuity::Resumed if *knew => Ok(Phase::Replaying),
                Continuity::Resumed => broken("a resync after the first connection: there is nothing to resume"),
                _ => Ok(Phase::Lost),
            },
            (Kind::BackendReconnected { continuity }, Phase::Resuming) => match continuity {
                Continuity::Resumed => Ok(Phase::Replaying),
                _ => Ok(Phase::Lost),
            },
            (Kind::BackendReconnected { .. }, _) => broken("`BackendReconnected` only after `BackendDisconnected`"),
            (Kind::CaughtUp, Phase::Replaying | Phase::InRing) => Ok(Phase::Live),
            (Kind::CaughtUp, Phase::Resuming) if self.is_same_run(event) => Ok(Phase::Live),
            (Kind::CaughtUp, _) => broken("one `CaughtUp`, after a `BackendReconnected` that resumed"),
            (Kind::Bookmark, Phase::Fresh) => broken("`ResyncBegin` or `BackendDisconnected` first"),
            (Kind::Bookmark, phase) | (_, phase @ (Phase::Live | Phase::Replaying | Phase::InRing)) => {
                Ok(phase.clone())
            }
            (_, Phase::Resuming) if self.is_same_run(event) => Ok(Phase::InRing),
            (_, Phase::Fresh | Phase::Resuming) => broken("no instance event before the first `ResyncBegin`"),
            (_, Phase::Down { .. }) => broken("no instance event while the link is down"),
            (_, Phase::Lost) => broken("a `ResyncBegin` after a reconnect that lost its position"),
            (_, Phase::Resync(_)) => broken("only `Present` up to `ResyncEnd`"),
        }
    }

    /// In the same run of the process the ring simply goes on after the cursor.
    fn is_same_run(&self, event: &RuntimeEvent) -> bool {
        self.last.as_ref().is_some_and(|last| last.epoch == event.cursor.epoch)
    }

    /// R2: the numbers.
    fn numbers(&self, event: &RuntimeEvent) -> Result<(), Violation> {
        let Cursor { epoch, seq, .. } = &event.cursor;
        let broken = |expected: String| Err(Violation::of(Law::R2, expected, line(event)));
        let follows =
            |last: &Cursor| if self.filtered { *seq > last.seq } else { Some(*seq) == last.seq.checked_add(1) };
        let step = if self.filtered { "a number above" } else { "the number after" };
        match (&event.kind, &self.last) {
            (Kind::ResyncBegin { .. }, last) => {
                if last.as_ref().is_some_and(|last| last.epoch == *epoch) {
                    return broken("a separate epoch for a resync".into());
                }
                if *seq != 1 && !self.filtered {
                    return broken("a resync numbered from 1".into());
                }
                Ok(())
            }
            (Kind::ResyncEnd(_), Some(last)) => {
                if last.epoch == *epoch {
                    return broken("`ResyncEnd` numbered in the epoch of the next event, not in the resync's".into());
                }
                match &self.ring {
                    Some(ring) if ring.epoch == *epoch && *seq < ring.seq => {
                        broken(format!("a number not below {}, the last one of this epoch", ring.seq))
                    }
                    _ => Ok(()),
                }
            }
            (Kind::Bookmark, Some(last)) => {
                let repeats = last.epoch == *epoch && (*seq == last.seq || (self.filtered && *seq > last.seq));
                if repeats {
                    Ok(())
                } else {
                    broken(format!("a bookmark at the last cursor, {}/{}", last.epoch, last.seq))
                }
            }
            (Kind::BackendReconnected { .. } | Kind::BackendDisconnected { .. }, Some(_))
                if self.phase == Phase::Resuming =>
            {
                Ok(())
            }
            (_, Some(last)) if last.epoch != *epoch => {
                broken(format!("epoch {}: it changes only at `ResyncBegin` and `ResyncEnd`", last.epoch))
            }
            (_, Some(last)) if !follows(last) => broken(format!("{step} {}", last.seq)),
            _ => Ok(()),
        }
    }

    /// R5: each reported fact once.
    fn unique(&mut self, event: &RuntimeEvent) -> Result<(), Violation> {
        match event.key() {
            Some(key) if !self.keys.insert(key) => {
                Err(Violation::of(Law::R5, "each reported fact once", format!("a second {}", line(event))))
            }
            _ => Ok(()),
        }
    }

    /// R4, as far as the stream alone shows it: no incarnation begins twice, none ends that did not begin, and only a new
    /// start follows a removal.
    fn order(&mut self, event: &RuntimeEvent) -> Result<(), Violation> {
        let broken = |expected: &str| Err(Violation::of(Law::R4, expected, line(event)));
        match &event.kind {
            Kind::ResyncBegin { .. } => self.staged.clear(),
            Kind::Present(instance) => {
                let known = self.staged.insert(instance.id.clone(), InstanceSeen::of(instance));
                if known.is_some() {
                    let found = format!("a second {}", line(event));
                    return Err(Violation::of(Law::R1, "each instance once in a resync", found));
                }
            }
            Kind::ResyncEnd(_) => self.seen = std::mem::take(&mut self.staged),
            Kind::Started(instance) => {
                let before = self.seen.get(&instance.id);
                let same_run =
                    |before: &InstanceSeen| before.incarnation.is_some() && before.incarnation == instance.incarnation;
                if before.is_some_and(|before| before.alive && same_run(before)) {
                    return broken("a start only of an incarnation that is not there yet");
                }
                if before.is_some_and(|before| before.started.is_some() && before.started == instance.incarnation) {
                    return broken("one start for each incarnation");
                }
                let run =
                    InstanceSeen { alive: true, started: instance.incarnation.clone(), ..InstanceSeen::of(instance) };
                self.seen.insert(instance.id.clone(), run);
            }
            Kind::Stopped(instance) => {
                let before = self.seen.get(&instance.id);
                if before.is_some_and(|before| before.removed) {
                    return broken("nothing of an instance after its removal");
                }
                if instance.state.is_alive() {
                    return broken("a `Stopped` instance not to be alive");
                }
                let started = before.and_then(|before| before.started.clone());
                self.seen.insert(instance.id.clone(), InstanceSeen { started, ..InstanceSeen::of(instance) });
            }
            Kind::Updated { instance, .. } => {
                let before = self.seen.get(&instance.id);
                let started = before.and_then(|before| before.started.clone());
                self.seen.insert(instance.id.clone(), InstanceSeen { started, ..InstanceSeen::of(instance) });
            }
            Kind::Removed(instance) => {
                if self.seen.get(&instance.id).is_some_and(|before| before.removed) {
                    return broken("one removal for each instance");
                }
                self.seen.insert(instance.id.clone(), InstanceSeen { removed: true, ..InstanceSeen::default() });
            }
            _ => {}
        }
        match &event.kind {
            Kind::Started(instance) if instance.state == InstanceState::Created => {
                broken("a `Started` instance not to be new")
            }
            _ => Ok(()),
        }
    }
}

impl Phase {
    fn position(&self) -> &'static str {
        match self {
            Self::Fresh => "at the beginning",
            Self::Resuming => "at the beginning of a resumed stream",
            Self::Down { .. } => "while the link is down",
            Self::Lost => "after the link came back without its position",
            Self::Replaying => "while the missed edges are replayed",
            Self::InRing => "after a position in the ring",
            Self::Resync(_) => "inside a resync",
            Self::Live => "while live",
        }
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
