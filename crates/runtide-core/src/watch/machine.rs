//! The driver's state machine: a step from (state, input) to (state, entries, commands), without clock, socket or lock.
//!
//! This file has the state and [`Machine::step`]. The handlers of the inputs are in `link` (the phases of the link), `reports`
//! (signals of the stream) and `inspections` (listings and inspections).

mod inspections;
mod link;
mod reports;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    backoff::Backoff,
    cache::{Cache, View},
    inspect_queue::InspectQueue,
    relist::{Purpose, Relist},
    ring::Entry,
    source::{Flow, Inspection, Listing, Opened, Signal},
};
use crate::{
    backend::saturating_add,
    completeness::Completeness,
    error::{Error, ErrorKind, Failure, Result},
    event::{Continuity, Cursor, Epoch, ResumeToken, RuntimeEvent, RuntimeEventKind},
    instance::{BackendId, Instance, InstanceId},
    options::Detail,
};

/// Input of a step.
#[derive(Debug)]
pub(super) enum Input<'a> {
    /// `Source::open` ended.
    Opened(Result<Opened>),
    /// `Source::next_batch` returned signals.
    Batch(&'a mut Vec<Signal>, Flow),
    /// `Source::next_batch` failed.
    Broken(Error),
    /// `Inspector::list` ended.
    Relisted(Result<Listing>),
    /// `Inspector::inspect` ended, for a [`Command::Reinspect`].
    Reinspected(Result<Vec<Inspection>>),
    /// `Inspector::inspect` ended, for a [`Command::Inspect`] of these ids.
    Inspected(Vec<InstanceId>, Result<Vec<Inspection>>),
    /// The deadline passed. A run begins with a tick, too.
    Tick,
    /// The highest detail that any subscriber wants now.
    Wanted(Detail),
}

/// Work for the driver's task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Open(Option<ResumeToken>),
    Relist(Detail),
    /// Inspect these instances to complete the listing that is under way.
    Reinspect(Vec<InstanceId>, Detail),
    /// Inspect these instances because of hints.
    Inspect(Vec<InstanceId>, Detail),
    /// Drop every listing and inspection that is under way.
    Abandon,
}

/// State that a run begins with, from the options of its first subscriber.
#[derive(Debug, Default)]
pub(super) struct Resume {
    pub(super) token: Option<ResumeToken>,
    /// The consumer's rows at that token.
    pub(super) rows: Option<Vec<Arc<Instance>>>,
    /// Completeness of these rows.
    pub(super) completeness: Completeness,
    /// `true` if the subscriber gave a cursor to resume from.
    pub(super) wanted: bool,
}

#[derive(Debug)]
enum Phase {
    /// Not connected: the next attempt is at `retry_at`.
    Down { retry_at: Instant },
    /// `Source::open` is under way.
    Opening,
    /// Connected. `live_since` is the time at which the link first went live, or lost something in a replay that was announced;
    /// failures are forgotten by how long that lasts.
    Open { mode: Mode, last_signal: Instant, live_since: Option<Instant> },
}

#[derive(Debug)]
enum Mode {
    /// Resumed, but the link flapped lately: the replayed signals are held back until the link has stayed up for a moment, so
    /// that a flapping link is one outage.
    Held {
        until: Instant,
        signals: Vec<Signal>,
    },
    /// Resumed: the runtime replays the events of the outage.
    Replaying,
    /// A resync is being prepared: reports are collected for its listing, and emit nothing.
    Listing,
    Live,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; all combinations occur")]
pub(super) struct Machine {
    backend: BackendId,
    epoch: Epoch,
    /// Number of the next entry.
    seq: u64,
    /// Number of epochs that `resync_epoch` has made.
    resyncs: u64,
    last_resync: Option<Instant>,
    cache: Cache,
    /// Completeness of the rows: that of the last resync, or of the consumer's table.
    completeness: Completeness,
    /// True if the last listing was partial.
    was_partial: bool,
    phase: Phase,
    reports_edges: bool,
    max_silence: Option<Duration>,
    backoff: Backoff,
    healthy_after: Duration,
    /// Number of links in a row that were announced and fell before they were healthy.
    falls: u32,
    /// Time of the last dial; the pause before the next one counts from it.
    dialled: Instant,
    /// Resume token of the cached rows: they have every change before it.
    token: Option<ResumeToken>,
    /// Resume token of the resync that is being prepared; replaces `token` when the resync is emitted. Until then the rows are
    /// older than this token.
    next_token: Option<ResumeToken>,
    /// The outage that was announced and is not over, with its cause.
    #[expect(clippy::option_option, reason = "an outage without a cause is one: the runtime closed the stream")]
    outage: Option<Option<Failure>>,
    /// `true` for a run that began with a cursor, until it has resumed or emitted a resync. A resumption is then announced as
    /// `BackendReconnected`, although this run announced no outage.
    resuming: bool,
    /// `true` if the rows are the consumer's, or those of a resync: the base to which a replay is applied.
    has_baseline: bool,
    wanted: Detail,
    /// True if the rows are in full detail.
    full: bool,
    /// Instances whose rows are from before a gap, and which no answer has confirmed since. Such a row may be outdated, so an
    /// edge that seems to be older than it is not dropped.
    unconfirmed: BTreeSet<InstanceId>,
    /// True if the last edge named its incarnation; assumed before the first edge.
    edges_name_incarnations: bool,
    inspect_queue: InspectQueue,
    relist: Option<Relist>,
    /// Wall-clock time of the current step, for the events that it emits.
    wall: SystemTime,
    entries: Vec<Entry>,
    commands: Vec<Command>,
}

/// Settings of a run.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) backend: BackendId,
    pub(super) epoch: Epoch,
    pub(super) reports_edges: bool,
    pub(super) max_silence: Option<Duration>,
    pub(super) max_backoff: Duration,
    pub(super) healthy_after: Duration,
    pub(super) jitter_seed: Option<u64>,
    pub(super) detail: Detail,
    pub(super) resume: Resume,
}

impl Machine {
    pub(super) fn new(setup: Setup, now: Instant) -> Self {
        let mut cache = Cache::default();
        let has_baseline = setup.resume.rows.is_some();
        let mut unconfirmed = BTreeSet::new();
        for row in setup.resume.rows.into_iter().flatten() {
            // It is not known if an answer had confirmed the consumer's row.
            unconfirmed.insert(row.id.clone());
            cache.insert(row);
        }
        Self {
            backend: setup.backend,
            epoch: setup.epoch,
            seq: 1,
            resyncs: 0,
            last_resync: None,
            cache,
            completeness: setup.resume.completeness,
            was_partial: false,
            phase: Phase::Down { retry_at: now },
            reports_edges: setup.reports_edges,
            max_silence: setup.max_silence,
            backoff: Backoff::new(setup.max_backoff, setup.jitter_seed),
            healthy_after: setup.healthy_after,
            falls: 0,
            dialled: now,
            token: setup.resume.token,
            next_token: None,
            outage: None,
            resuming: setup.resume.wanted,
            has_baseline,
            wanted: setup.detail,
            full: false,
            unconfirmed,
            edges_name_incarnations: true,
            inspect_queue: InspectQueue::default(),
            relist: None,
            wall: SystemTime::UNIX_EPOCH,
            entries: Vec::new(),
            commands: Vec::new(),
        }
    }

    pub(super) fn backend(&self) -> &BackendId {
        &self.backend
    }

    pub(super) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    pub(super) fn token(&self) -> Option<&ResumeToken> {
        self.token.as_ref()
    }

    pub(super) fn outage(&self) -> Option<&Option<Failure>> {
        self.outage.as_ref()
    }

    /// True if every change so far is in the rows, at this detail.
    pub(super) fn is_live(&self, detail: Detail) -> bool {
        matches!(self.phase, Phase::Open { mode: Mode::Live, .. }) && (self.full || detail == Detail::Summary)
    }

    /// True if the runtime replays the events of an outage, and the subscribers know it.
    pub(super) fn is_replaying(&self) -> bool {
        matches!(self.phase, Phase::Open { mode: Mode::Replaying, .. })
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// True if the run began with a cursor, and has neither resumed nor emitted a resync yet.
    pub(super) fn is_resuming(&self) -> bool {
        self.resuming
    }

    /// True if the rows are the consumer's, or those of a resync.
    pub(super) fn has_baseline(&self) -> bool {
        self.has_baseline
    }

    pub(super) fn completeness(&self) -> &Completeness {
        &self.completeness
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn view(&self) -> View {
        self.cache.view()
    }

    /// Makes an epoch for a resync, or for the events that precede a subscriber's first one.
    pub(super) fn resync_epoch(&mut self) -> Epoch {
        self.resyncs += 1;
        Epoch::new(format!("{}.{}", self.epoch, self.resyncs))
    }

    /// Time at which the machine needs the next `Tick`.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Down { retry_at } => Some(*retry_at),
            Phase::Opening => None,
            Phase::Open { mode, last_signal, .. } => {
                let silence = self.max_silence.map(|most| saturating_add(*last_signal, most));
                let held = if let Mode::Held { until, .. } = mode { Some(*until) } else { None };
                let inspections = if matches!(mode, Mode::Live) { self.inspect_queue.due() } else { None };
                let relist = self.relist.as_ref().and_then(Relist::due);
                [silence, held, inspections, relist].into_iter().flatten().min()
            }
        }
    }

    /// Handles one input, and the work that is due at `now`. The caller then takes the entries and the commands.
    pub(super) fn step(&mut self, now: Instant, wall: SystemTime, input: Input<'_>) {
        self.wall = wall;
        match input {
            Input::Opened(Ok(opened)) => self.opened(now, opened),
            Input::Opened(Err(error)) => self.not_opened(now, &error),
            Input::Broken(error) => self.disconnect(now, Some(&error)),
            Input::Batch(signals, flow) => {
                self.signal_received(now);
                for signal in signals.drain(..) {
                    self.signal(now, signal);
                }
                if flow == Flow::Closed && self.is_open() {
                    self.disconnect(now, None);
                }
            }
            Input::Relisted(answer) => self.relisted(now, answer),
            Input::Reinspected(answer) => self.reinspected(now, answer),
            Input::Inspected(ids, answer) => self.inspected(now, &ids, answer),
            Input::Tick => {}
            Input::Wanted(detail) => {
                self.wanted = detail;
                self.full &= detail == Detail::Full;
            }
        }
        self.due(now);
    }

    pub(super) fn take_entries(&mut self) -> std::vec::Drain<'_, Entry> {
        self.entries.drain(..)
    }

    pub(super) fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// Carries out the work that is due by now.
    fn due(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Down { retry_at } if *retry_at <= now => {
                self.phase = Phase::Opening;
                self.dialled = now;
                // Without rows, a replay has nothing to be applied to: only a consumer that gave a cursor is resumed.
                let resume = self.token.clone().filter(|_| self.has_baseline || self.resuming);
                self.commands.push(Command::Open(resume));
                return;
            }
            Phase::Down { .. } | Phase::Opening => return,
            Phase::Open { last_signal, .. } => {
                if let Some(most) = self.max_silence.filter(|most| saturating_add(*last_signal, *most) <= now) {
                    let error = Error::new(ErrorKind::Timeout, "watch.silence", format!("no signal for {most:?}"));
                    tracing::warn!(backend = %self.backend, silence = ?most, "the link is dead");
                    let up_until = *last_signal;
                    return self.fall(now, up_until, Some(&error));
                }
            }
        }
        if let Phase::Open { mode, .. } = &mut self.phase
            && let Mode::Held { until, signals } = mode
            && *until <= now
        {
            let signals = std::mem::take(signals);
            *mode = Mode::Replaying;
            self.reconnected(Continuity::Resumed);
            for signal in signals {
                self.signal(now, signal);
            }
        }
        self.drive_relist(now);
        if self.is_live(Detail::Summary) && self.wanted == Detail::Full && !self.full && self.relist.is_none() {
            self.relist = Some(Relist::new(Purpose::Confirm, now));
            self.drive_relist(now);
        }
        if matches!(self.phase, Phase::Open { mode: Mode::Live, .. })
            && self.inspect_queue.due().is_some_and(|due| due <= now)
        {
            let ids = self.inspect_queue.ask(now);
            // A hint may stand for a start that could not be decoded. If a row names an incarnation, its answer must name
            // it as well, to prove that this is still the same run: only full detail has it.
            let named = ids.iter().any(|id| self.cache.get(id).is_some_and(|known| known.incarnation.is_some()));
            let detail = if named { Detail::Full } else { self.wanted };
            if !ids.is_empty() {
                self.commands.push(Command::Inspect(ids, detail));
            }
        }
    }

    fn emit(
        &mut self,
        kind: RuntimeEventKind,
        before: Option<Arc<Instance>>,
        token: Option<ResumeToken>,
        at: Option<SystemTime>,
    ) {
        let cursor = Cursor::new(self.epoch.clone(), self.seq, self.token.clone());
        self.seq += 1;
        let mut event = RuntimeEvent::new(self.backend.clone(), cursor, self.wall, kind);
        (event.token, event.native_at) = (token, at);
        self.entries.push(Entry::Event { event: Arc::new(event), before });
    }
}
