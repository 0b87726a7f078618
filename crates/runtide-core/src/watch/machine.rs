//! The driver's state machine: a step from (state, input) to (state, entries, commands), without clock, socket or lock.
//!
//! What it holds, and the step; what a step does is in `link` (the link's phases), `reports` (what the stream says) and
//! `inspections` (what looking says).

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
    error::{Error, ErrorKind, Failure, Result},
    event::{Continuity, Cursor, Epoch, ResumeToken, RuntimeEvent, RuntimeEventKind},
    instance::{BackendId, Instance, InstanceId},
    options::Detail,
};

/// What a step is told.
#[derive(Debug)]
pub(super) enum Input<'a> {
    /// `Source::open` ended.
    Opened(Result<Opened>),
    /// `Source::next_batch` gave something.
    Batch(&'a mut Vec<Signal>, Flow),
    /// `Source::next_batch` failed.
    Broken(Error),
    /// `Inspector::list` ended.
    Relisted(Result<Listing>),
    /// `Inspector::inspect` ended, for a look at everything.
    Reinspected(Result<Vec<Inspection>>),
    /// `Inspector::inspect` ended.
    Inspected(Vec<InstanceId>, Result<Vec<Inspection>>),
    /// The deadline passed, or it is time to begin.
    Tick,
    /// The closest look that a subscriber wants.
    Wanted(Detail),
}

/// What the task must do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Open(Option<ResumeToken>),
    Relist(Detail),
    /// Look again at what a look at everything leaves open.
    Reinspect(Vec<InstanceId>, Detail),
    Inspect(Vec<InstanceId>, Detail),
    /// Drop whatever look is under way.
    Abandon,
}

/// What a run begins with.
#[derive(Debug, Default)]
pub(super) struct Resume {
    pub(super) token: Option<ResumeToken>,
    /// What the consumer held there.
    pub(super) rows: Option<Vec<Arc<Instance>>>,
    /// A place to resume from was given.
    pub(super) wanted: bool,
}

#[derive(Debug)]
enum Phase {
    Down { retry_at: Instant },
    Opening,
    Open { mode: Mode, heard: Instant, live_since: Option<Instant> },
}

#[derive(Debug)]
enum Mode {
    /// Resumed, but the link flapped lately: what it replays is held back for a moment.
    Held {
        until: Instant,
        signals: Vec<Signal>,
    },
    /// Resumed: what was missed is told again.
    Replaying,
    /// A bracket is in the making: whatever is told meanwhile only says where to look.
    Listing,
    Live,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; all combinations occur")]
pub(super) struct Machine {
    backend: BackendId,
    epoch: Epoch,
    /// The number of the next entry.
    seq: u64,
    brackets: u64,
    last_bracket: Option<Instant>,
    cache: Cache,
    phase: Phase,
    reports_edges: bool,
    max_silence: Option<Duration>,
    backoff: Backoff,
    healthy_after: Duration,
    /// Where the runtime's history goes on after the rows.
    token: Option<ResumeToken>,
    /// The same after the bracket that is in the making. Until it is shown, the rows are older than that.
    ahead: Option<ResumeToken>,
    /// The outage, as it was announced.
    #[expect(clippy::option_option, reason = "an outage without a cause is one: the runtime closed the stream")]
    outage: Option<Option<Failure>>,
    /// Resumed from a place of another run: said once, in place of the end of an outage.
    resuming: bool,
    /// The rows are what the consumer held, or what was seen: a replay can be compared with them.
    grounded: bool,
    wanted: Detail,
    /// The rows are in full detail.
    full: bool,
    /// Rows from before a gap that no look has shown since: what they say of the state is no reason to call an edge old.
    unsure: BTreeSet<InstanceId>,
    /// Whether edges say of which life they are, as the last one did. Nobody knows before the first.
    edges_name_lives: bool,
    inspect_queue: InspectQueue,
    relist: Option<Relist>,
    wall: SystemTime,
    entries: Vec<Entry>,
    commands: Vec<Command>,
}

/// What does not change during a run.
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
        let grounded = setup.resume.rows.is_some();
        let mut unsure = BTreeSet::new();
        for row in setup.resume.rows.into_iter().flatten() {
            // Whoever stored it cannot say whether a look had shown it.
            unsure.insert(row.id.clone());
            cache.insert(row);
        }
        Self {
            backend: setup.backend,
            epoch: setup.epoch,
            seq: 1,
            brackets: 0,
            last_bracket: None,
            cache,
            phase: Phase::Down { retry_at: now },
            reports_edges: setup.reports_edges,
            max_silence: setup.max_silence,
            backoff: Backoff::new(setup.max_backoff, setup.jitter_seed),
            healthy_after: setup.healthy_after,
            token: setup.resume.token,
            ahead: None,
            outage: None,
            resuming: setup.resume.wanted,
            grounded,
            wanted: setup.detail,
            full: false,
            unsure,
            edges_name_lives: true,
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

    /// Whether every change so far is in the rows, at the detail that is asked for.
    pub(super) fn is_live(&self, detail: Detail) -> bool {
        matches!(self.phase, Phase::Open { mode: Mode::Live, .. }) && (self.full || detail == Detail::Summary)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Whether the run began with a place to resume from, and has not reached the runtime yet.
    pub(super) fn is_resuming(&self) -> bool {
        self.resuming
    }

    /// Whether the rows are those of the runtime at some time.
    pub(super) fn is_grounded(&self) -> bool {
        self.grounded
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn view(&self) -> View {
        self.cache.view()
    }

    /// A numbering for one more bracket.
    pub(super) fn bracket_epoch(&mut self) -> Epoch {
        self.brackets += 1;
        Epoch::new(format!("{}.{}", self.epoch, self.brackets))
    }

    /// When the next `Tick` is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Down { retry_at } => Some(*retry_at),
            Phase::Opening => None,
            Phase::Open { mode, heard, .. } => {
                let silence = self.max_silence.map(|most| *heard + most);
                let held = if let Mode::Held { until, .. } = mode { Some(*until) } else { None };
                let looks = if matches!(mode, Mode::Live) { self.inspect_queue.due() } else { None };
                let relist = self.relist.as_ref().and_then(Relist::due);
                [silence, held, looks, relist].into_iter().flatten().min()
            }
        }
    }

    /// Takes one input in. `entries` and `commands` are then to be fetched.
    pub(super) fn step(&mut self, now: Instant, wall: SystemTime, input: Input<'_>) {
        self.wall = wall;
        match input {
            Input::Opened(Ok(opened)) => self.opened(now, opened),
            Input::Opened(Err(error)) | Input::Broken(error) => self.fall(now, Some(&error)),
            Input::Batch(signals, flow) => {
                self.heard(now);
                for signal in signals.drain(..) {
                    self.signal(now, signal);
                }
                if flow == Flow::Closed && self.is_open() {
                    self.fall(now, None);
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

    /// Whatever is due by now.
    fn due(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Down { retry_at } if *retry_at <= now => {
                self.phase = Phase::Opening;
                // Where nobody was shown anything yet, there is nothing to go on from.
                let resume = self.token.clone().filter(|_| self.grounded || self.resuming);
                self.commands.push(Command::Open(resume));
                return;
            }
            Phase::Down { .. } | Phase::Opening => return,
            Phase::Open { heard, .. } => {
                if let Some(most) = self.max_silence.filter(|most| *heard + *most <= now) {
                    let error =
                        Error::new(ErrorKind::Timeout, "watch.silence", format!("nothing was heard for {most:?}"));
                    tracing::warn!(backend = %self.backend, silence = ?most, "the link is dead");
                    return self.fall(now, Some(&error));
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
            // A hint may stand for a message that nobody could read: only a look that shows the life proves that it is the same.
            let lives = ids.iter().any(|id| self.cache.get(id).is_some_and(|known| known.incarnation.is_some()));
            let detail = if lives { Detail::Full } else { self.wanted };
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
