//! The driver's state machine: a step from (state, input) to (state, entries, commands), without clock, socket or lock.
//!
//! This file has its state and the step. The parts of a step are in `link` (the phases of the link), `reports` (signals of
//! the stream) and `inspections` (listings and inspections).

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
    /// `Inspector::inspect` ended, for ids that a listing left open.
    Reinspected(Result<Vec<Inspection>>),
    /// `Inspector::inspect` ended.
    Inspected(Vec<InstanceId>, Result<Vec<Inspection>>),
    /// The deadline passed, or it is time to begin.
    Tick,
    /// The highest detail that a subscriber wants.
    Wanted(Detail),
}

/// Work for the driver's task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Open(Option<ResumeToken>),
    Relist(Detail),
    /// Inspect the ids that a listing left open.
    Reinspect(Vec<InstanceId>, Detail),
    Inspect(Vec<InstanceId>, Detail),
    /// Drop every listing and inspection that is under way.
    Abandon,
}

/// State that a run begins with.
#[derive(Debug, Default)]
pub(super) struct Resume {
    pub(super) token: Option<ResumeToken>,
    /// The consumer's rows at that token.
    pub(super) rows: Option<Vec<Arc<Instance>>>,
    /// A cursor to resume from was given.
    pub(super) wanted: bool,
}

#[derive(Debug)]
enum Phase {
    Down { retry_at: Instant },
    Opening,
    Open { mode: Mode, last_signal: Instant, live_since: Option<Instant> },
}

#[derive(Debug)]
enum Mode {
    /// Resumed, but the link flapped lately: its replay is held back for a moment.
    Held {
        until: Instant,
        signals: Vec<Signal>,
    },
    /// Resumed: the runtime replays the events of the outage.
    Replaying,
    /// A resync is being prepared: reports only name the instances to inspect.
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
    resyncs: u64,
    last_resync: Option<Instant>,
    cache: Cache,
    phase: Phase,
    reports_edges: bool,
    max_silence: Option<Duration>,
    backoff: Backoff,
    healthy_after: Duration,
    /// Resume token of the rows.
    token: Option<ResumeToken>,
    /// Resume token of the resync that is being prepared. Until it is emitted, the rows are older than that.
    next_token: Option<ResumeToken>,
    /// Cause of the outage that was announced.
    #[expect(clippy::option_option, reason = "an outage without a cause is one: the runtime closed the stream")]
    outage: Option<Option<Failure>>,
    /// Resumed from a cursor of another run: announced once, as the end of an outage is.
    resuming: bool,
    /// The rows are the consumer's, or those of a listing: a replay can be compared with them.
    has_baseline: bool,
    wanted: Detail,
    /// True if the rows are in full detail.
    full: bool,
    /// Rows from before a gap that no answer has confirmed since: their state does not prove that an edge is old.
    unconfirmed: BTreeSet<InstanceId>,
    /// True if the last edge named its incarnation; assumed before the first edge.
    edges_name_incarnations: bool,
    inspect_queue: InspectQueue,
    relist: Option<Relist>,
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
            // A stored row does not say if an answer had confirmed it.
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
            phase: Phase::Down { retry_at: now },
            reports_edges: setup.reports_edges,
            max_silence: setup.max_silence,
            backoff: Backoff::new(setup.max_backoff, setup.jitter_seed),
            healthy_after: setup.healthy_after,
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

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// True if the run began with a cursor to resume from, and has not reached the runtime yet.
    pub(super) fn is_resuming(&self) -> bool {
        self.resuming
    }

    /// True if the rows are those of the runtime at some time.
    pub(super) fn has_baseline(&self) -> bool {
        self.has_baseline
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn view(&self) -> View {
        self.cache.view()
    }

    /// Epoch for one more resync.
    pub(super) fn resync_epoch(&mut self) -> Epoch {
        self.resyncs += 1;
        Epoch::new(format!("{}.{}", self.epoch, self.resyncs))
    }

    /// Time of the next `Tick`.
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

    /// Handles one input. The caller then takes the entries and the commands.
    pub(super) fn step(&mut self, now: Instant, wall: SystemTime, input: Input<'_>) {
        self.wall = wall;
        match input {
            Input::Opened(Ok(opened)) => self.opened(now, opened),
            Input::Opened(Err(error)) | Input::Broken(error) => self.disconnect(now, Some(&error)),
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
                // Without a row that was emitted there is nothing to resume.
                let resume = self.token.clone().filter(|_| self.has_baseline || self.resuming);
                self.commands.push(Command::Open(resume));
                return;
            }
            Phase::Down { .. } | Phase::Opening => return,
            Phase::Open { last_signal, .. } => {
                if let Some(most) = self.max_silence.filter(|most| saturating_add(*last_signal, *most) <= now) {
                    let error = Error::new(ErrorKind::Timeout, "watch.silence", format!("no signal for {most:?}"));
                    tracing::warn!(backend = %self.backend, silence = ?most, "the link is dead");
                    return self.disconnect(now, Some(&error));
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
            // A hint may stand for a message that could not be read: only an answer with the incarnation proves that no run
            // began in between.
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
