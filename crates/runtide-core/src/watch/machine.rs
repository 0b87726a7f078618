//! The driver's state machine: a step from (state, input) to (state, entries, commands), without clock, socket or lock.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    backoff::Backoff,
    cache::{Cache, Picture},
    looks::{Looks, Worth},
    merge,
    ring::{Bracket, Entry},
    source::{Edge, Flow, Inspection, Opened, Signal, SignalBody, Snapshot},
    survey::{Purpose, SETTLE, Survey, Told},
};
use crate::{
    BackendId, Continuity, Cursor, Detail, Epoch, Error, ErrorKind, Failure, Gap, Instance, InstanceId, InstanceState,
    NativeMark, Result, Retry, RuntimeEvent, RuntimeEventKind,
};

/// From this failure in a row on, a link must stay up for a moment before it is announced: a link that flaps is one
/// outage, not many.
const FLAPPING: u32 = 4;

/// How long that moment is at most.
const PROBATION: Duration = Duration::from_secs(5);

/// Signals that are held back during a probation; more of them, and the history counts as lost.
const HELD: usize = 10_000;

/// The shortest time between two brackets of one link.
const BRACKET_SPACING: Duration = Duration::from_secs(1);

/// What a step is told.
#[derive(Debug)]
pub(super) enum Input {
    /// `Source::open` ended.
    Opened(Result<Opened>),
    /// `Source::next_batch` gave something.
    Batch(Vec<Signal>, Flow),
    /// `Source::next_batch` failed.
    Broken(Error),
    /// `Looker::snapshot` ended.
    Surveyed(Result<Snapshot>),
    /// `Looker::inspect` ended, for a look at everything.
    Reinspected(Result<Vec<Inspection>>),
    /// `Looker::inspect` ended.
    Inspected(Vec<InstanceId>, Result<Vec<Inspection>>),
    /// The deadline passed, or it is time to begin.
    Tick,
    /// The closest look that a subscriber wants.
    Wanted(Detail),
}

/// What the task must do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Open(Option<NativeMark>),
    Survey(Detail),
    /// Look again at what a look at everything leaves open.
    Reinspect(Vec<InstanceId>, Detail),
    Inspect(Vec<InstanceId>, Detail),
    /// Drop whatever look is under way.
    Abandon,
}

/// What a run begins with.
#[derive(Debug, Default)]
pub(super) struct Resume {
    pub(super) mark: Option<NativeMark>,
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
    mark: Option<NativeMark>,
    /// The same after the bracket that is in the making. Until it is shown, the rows are older than that.
    ahead: Option<NativeMark>,
    /// The outage, as it was announced.
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
    looks: Looks,
    survey: Option<Survey>,
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
        for row in setup.resume.rows.into_iter().flatten() {
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
            mark: setup.resume.mark,
            ahead: None,
            outage: None,
            resuming: setup.resume.wanted,
            grounded,
            wanted: setup.detail,
            full: false,
            unsure: BTreeSet::new(),
            looks: Looks::default(),
            survey: None,
            wall: SystemTime::UNIX_EPOCH,
            entries: Vec::new(),
            commands: Vec::new(),
        }
    }

    // ---- what the outside may know

    pub(super) fn backend(&self) -> &BackendId {
        &self.backend
    }

    pub(super) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    pub(super) fn mark(&self) -> Option<&NativeMark> {
        self.mark.as_ref()
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

    pub(super) fn picture(&self) -> Picture {
        self.cache.picture()
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
                let looks = if matches!(mode, Mode::Live) { self.looks.due() } else { None };
                let survey = self.survey.as_ref().and_then(Survey::due);
                [silence, held, looks, survey].into_iter().flatten().min()
            }
        }
    }

    // ---- the step

    /// Takes one input in. `entries` and `commands` are then to be fetched.
    pub(super) fn step(&mut self, now: Instant, wall: SystemTime, input: Input) {
        self.wall = wall;
        match input {
            Input::Opened(Ok(opened)) => self.opened(now, opened),
            Input::Opened(Err(error)) | Input::Broken(error) => self.fall(now, Some(&error)),
            Input::Batch(signals, flow) => {
                self.heard(now);
                for signal in signals {
                    self.signal(now, signal);
                }
                if flow == Flow::Closed && self.is_open() {
                    self.fall(now, None);
                }
            }
            Input::Surveyed(answer) => self.surveyed(now, answer),
            Input::Reinspected(answer) => {
                let settle = self.settle();
                if let Some(survey) = &mut self.survey {
                    survey.inspected(answer.unwrap_or_default(), now, settle);
                }
            }
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
                let resume = self.mark.clone().filter(|_| self.grounded || self.resuming);
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
        self.drive_survey(now);
        if self.is_live(Detail::Summary) && self.wanted == Detail::Full && !self.full && self.survey.is_none() {
            self.survey = Some(Survey::new(Purpose::Confirm, now));
            self.drive_survey(now);
        }
        if matches!(self.phase, Phase::Open { mode: Mode::Live, .. }) && self.looks.due().is_some_and(|due| due <= now)
        {
            let ids = self.looks.ask(now);
            // A hint may stand for a message that nobody could read: only a look that shows the life proves that it is the same.
            let lives = ids.iter().any(|id| self.cache.get(id).is_some_and(|known| known.incarnation.is_some()));
            let detail = if lives { Detail::Full } else { self.wanted };
            if !ids.is_empty() {
                self.commands.push(Command::Inspect(ids, detail));
            }
        }
    }

    // ---- the link

    fn opened(&mut self, now: Instant, opened: Opened) {
        if !matches!(self.phase, Phase::Opening) {
            return;
        }
        let flapping = self.backoff.failures() >= FLAPPING;
        let mode = match opened {
            Opened::Resumed if flapping => Mode::Held { until: now + PROBATION, signals: Vec::new() },
            Opened::Resumed => Mode::Replaying,
            Opened::Fresh(_) => Mode::Listing,
        };
        tracing::debug!(backend = %self.backend, ?opened, flapping, "connected");
        let replaying = matches!(mode, Mode::Replaying);
        self.phase = Phase::Open { mode, heard: now, live_since: None };
        match opened {
            Opened::Resumed if replaying => self.reconnected(Continuity::Resumed),
            Opened::Resumed => {}
            Opened::Fresh(gap) => {
                self.ahead = None;
                let gap = match gap {
                    Gap::Initial if self.last_bracket.is_some() => Gap::Disconnected,
                    Gap::Initial if self.resuming => Gap::ForeignCursor,
                    gap => gap,
                };
                let mut survey = Survey::new(Purpose::Bracket(gap), now);
                if flapping {
                    survey.wait_until(now + PROBATION);
                }
                self.survey = Some(survey);
            }
        }
    }

    fn heard(&mut self, now: Instant) {
        if let Phase::Open { heard, .. } = &mut self.phase {
            *heard = now;
        }
    }

    /// The link is gone; `None`: closed cleanly.
    fn fall(&mut self, now: Instant, error: Option<&Error>) {
        let lived = match &self.phase {
            Phase::Open { live_since: Some(since), .. } => now.saturating_duration_since(*since),
            _ => Duration::ZERO,
        };
        let healthy = lived >= self.healthy_after;
        if healthy {
            self.backoff.reset();
        }
        let mut pause = self.backoff.next();
        if healthy && error.is_none() {
            pause = Duration::ZERO; // routine: proxies close old streams
        }
        if let Some(Retry::After(asked)) = error.map(Error::retry) {
            pause = pause.max(asked);
        }
        let cause = error.map(Failure::from);
        match &cause {
            Some(cause) => tracing::info!(backend = %self.backend, %cause, retry_in = ?pause, "disconnected"),
            None => tracing::info!(backend = %self.backend, retry_in = ?pause, "the runtime closed the stream"),
        }
        self.phase = Phase::Down { retry_at: now + pause };
        self.survey = None;
        self.ahead = None;
        self.looks.clear();
        self.full = false;
        self.commands.push(Command::Abandon);
        if self.outage.is_none() {
            self.outage = Some(cause.clone());
            self.emit(RuntimeEventKind::BackendDisconnected { cause }, None, None, None);
        }
    }

    fn reconnected(&mut self, continuity: Continuity) {
        let resumed = self.resuming && continuity == Continuity::Resumed;
        if self.outage.take().is_some() || resumed {
            self.emit(RuntimeEventKind::BackendReconnected { continuity }, None, None, None);
        }
        self.resuming = false;
    }

    fn go_live(&mut self, now: Instant) {
        if let Phase::Open { mode, live_since, .. } = &mut self.phase {
            *mode = Mode::Live;
            live_since.get_or_insert(now);
        }
    }

    // ---- what the stream says

    fn signal(&mut self, now: Instant, signal: Signal) {
        let Phase::Open { mode, .. } = &mut self.phase else { return };
        match mode {
            Mode::Held { signals, .. } if signals.len() < HELD => return signals.push(signal),
            Mode::Held { .. } => {
                *mode = Mode::Listing;
                self.survey = Some(Survey::new(Purpose::Bracket(Gap::Disconnected), now));
            }
            _ => {}
        }
        let listing = matches!(self.phase, Phase::Open { mode: Mode::Listing, .. });
        let place =
            if listing || matches!(signal.body, SignalBody::Lost(_)) { &mut self.ahead } else { &mut self.mark };
        if signal.mark.is_some() {
            place.clone_from(&signal.mark);
        }
        if listing {
            self.signal_while_listing(now, signal.body);
        } else {
            self.signal_live(now, signal);
        }
    }

    /// What is told while a bracket is made may be older than the bracket: it says where to look, and nothing more.
    fn signal_while_listing(&mut self, now: Instant, body: SignalBody) {
        let Some(survey) = &mut self.survey else { return };
        match body {
            SignalBody::State(instance) => survey.touch(&instance.id.clone(), Told::State(instance), now),
            SignalBody::Gone(id) => survey.touch(&id, Told::Gone, now),
            SignalBody::Hint(id) => survey.touch(&id, Told::Something, now),
            SignalBody::Edge(edge) => survey.touch(&edge.id.clone(), Told::Edge(edge), now),
            SignalBody::Full(snapshot) => {
                self.commands.push(Command::Abandon);
                self.surveyed(now, Ok(snapshot));
            }
            SignalBody::Lost(_) => {
                // An answer that is under way may be older than what was missed.
                self.commands.push(Command::Abandon);
                survey.again(now);
            }
            SignalBody::Alive | SignalBody::CaughtUp => {}
        }
    }

    fn signal_live(&mut self, now: Instant, signal: Signal) {
        let Signal { body, mark, at } = signal;
        match body {
            SignalBody::Edge(edge) => self.edge(now, &edge, mark, at),
            SignalBody::State(instance) => {
                self.told(&instance.id, now);
                self.take_in(&instance, mark, at);
            }
            SignalBody::Gone(id) => {
                self.told(&id, now);
                self.looks.settle(&id);
                self.gone(&id, mark, at);
            }
            SignalBody::Hint(id) => {
                if let Some(survey) = &mut self.survey {
                    survey.touch(&id, Told::Something, now);
                }
                self.looks.hint(&id, now, false);
            }
            SignalBody::Full(snapshot) => {
                self.survey = None;
                self.commands.push(Command::Abandon);
                let ids = self.looks.drain();
                for id in &ids {
                    self.looks.hint(id, now, false);
                }
                let mut survey = Survey::new(Purpose::Confirm, now);
                survey.answered(snapshot, now, Duration::ZERO);
                self.survey = Some(survey);
            }
            SignalBody::Lost(gap) => self.lost(now, gap),
            SignalBody::CaughtUp => self.caught_up(now),
            SignalBody::Alive => {}
        }
    }

    /// Something was told of this instance: looks that are under way may be older.
    fn told(&mut self, id: &InstanceId, now: Instant) {
        self.looks.told(id);
        if let Some(survey) = &mut self.survey {
            survey.touch(id, Told::Something, now);
        }
    }

    fn edge(&mut self, now: Instant, edge: &Edge, mark: Option<NativeMark>, at: Option<SystemTime>) {
        self.told(&edge.id, now);
        let mut before = self.cache.get(&edge.id).cloned();
        if let Some(row) = before.as_mut().filter(|_| self.unsure.contains(&edge.id)) {
            *row = Arc::new(Instance { state: InstanceState::Unknown, ..Instance::clone(row) });
        }
        let after = match &before {
            Some(before) => merge::after_edge(before, edge),
            None => merge::from_edge(&self.backend, edge),
        };
        match after {
            Some(after) => {
                self.adopt(before, after, mark, at);
                if self.wanted == Detail::Full {
                    self.looks.hint(&edge.id, now, false);
                }
            }
            None => {
                tracing::trace!(backend = %self.backend, instance = %edge.id, state = %edge.state, "an old edge");
                if before.is_none() {
                    self.looks.hint(&edge.id, now, true); // nobody described it: a look is all there will be
                }
            }
        }
    }

    fn gone(&mut self, id: &InstanceId, mark: Option<NativeMark>, at: Option<SystemTime>) {
        self.unsure.remove(id);
        if let Some(last) = self.cache.remove(id) {
            self.emit(RuntimeEventKind::Removed(Arc::clone(&last)), Some(last), mark, at);
        }
    }

    /// Takes a state in that counts.
    fn take_in(&mut self, instance: &Arc<Instance>, mark: Option<NativeMark>, at: Option<SystemTime>) {
        let before = self.cache.get(&instance.id).cloned();
        let after = match &before {
            Some(before) => merge::merged(before, instance),
            None => Instance::clone(instance),
        };
        self.adopt(before, after, mark, at);
    }

    /// Takes in what a look saw. Where the stream does not tell of lives, one may have begun and ended unseen.
    fn take_look(&mut self, instance: &Arc<Instance>) {
        let before = self.cache.get(&instance.id).cloned();
        let after = match &before {
            Some(before) if self.reports_edges => merge::merged(before, instance),
            Some(before) => merge::merged_over_gap(before, instance),
            None => Instance::clone(instance),
        };
        self.adopt(before, after, None, None);
    }

    fn adopt(
        &mut self,
        before: Option<Arc<Instance>>,
        mut after: Instance,
        mark: Option<NativeMark>,
        at: Option<SystemTime>,
    ) {
        self.unsure.remove(&after.id);
        after.generation = before.as_ref().map_or(0, |before| before.generation.wrapping_add(1));
        let after = Arc::new(after);
        match merge::events(before.as_ref(), &after) {
            [None, _] => {}
            [Some(only), None] => {
                let held = self.cache.insert(after);
                self.emit(only, held, mark, at);
            }
            [Some(end), Some(start)] => {
                let held = self.cache.insert(after);
                self.emit(end, held.clone(), None, None); // nobody told it: it follows from the start
                self.emit(start, held, mark, at);
            }
        }
    }

    fn lost(&mut self, now: Instant, gap: Gap) {
        tracing::info!(backend = %self.backend, ?gap, "something was missed");
        if let Phase::Open { mode, .. } = &mut self.phase {
            *mode = Mode::Listing;
        }
        if self.ahead.is_none() {
            self.ahead.clone_from(&self.mark);
        }
        self.commands.push(Command::Abandon);
        let mut survey = Survey::new(Purpose::Bracket(gap), now);
        for id in self.looks.drain() {
            survey.touch(&id, Told::Something, now);
        }
        if let Some(last) = self.last_bracket {
            survey.wait_until(last + BRACKET_SPACING);
        }
        self.survey = Some(survey);
    }

    fn caught_up(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Open { mode: Mode::Replaying, .. }) {
            return;
        }
        if self.grounded {
            self.go_live(now);
            self.survey = Some(Survey::new(Purpose::Confirm, now));
        } else {
            self.lost(now, Gap::Disconnected); // nobody said what was known: show everything
        }
    }

    // ---- what looking says

    fn drive_survey(&mut self, now: Instant) {
        let Some(survey) = &mut self.survey else { return };
        survey.prove(now, |seen| self.cache.get(&seen.id).is_some_and(|known| merge::life_is_open(known, seen)));
        if survey.must_ask(now) {
            let detail = self.wanted;
            survey.asked(detail);
            self.commands.push(Command::Survey(detail));
        } else if let Some(ids) = survey.must_inspect(now) {
            let detail = survey.closeness();
            self.commands.push(Command::Reinspect(ids, detail));
        } else if survey.is_done(now)
            && let Some(survey) = self.survey.take()
        {
            self.conclude(now, survey);
        }
    }

    /// Where the stream tells all, it is given a moment to tell what a look saw.
    fn settle(&self) -> Duration {
        if self.reports_edges { SETTLE } else { Duration::ZERO }
    }

    fn surveyed(&mut self, now: Instant, answer: Result<Snapshot>) {
        let held = self.cache.len();
        let settle = self.settle();
        let Some(survey) = &mut self.survey else { return };
        match answer {
            Ok(snapshot)
                if snapshot.is_complete() && snapshot.instances.is_empty() && held > 0 && !survey.doubted() =>
            {
                tracing::info!(backend = %self.backend, held, "everything vanished: looking again");
                survey.doubt(now);
            }
            Ok(snapshot) => survey.answered(snapshot, now, settle),
            Err(error) if survey.purpose() == Purpose::Confirm => {
                tracing::warn!(backend = %self.backend, %error, "the look failed");
                survey.failed(now);
            }
            Err(error) => self.fall(now, Some(&error)),
        }
    }

    fn inspected(&mut self, now: Instant, ids: &[InstanceId], answer: Result<Vec<Inspection>>) {
        self.looks.answered();
        let answers = match answer {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(backend = %self.backend, %error, "the look failed");
                Vec::new()
            }
        };
        let mut unexplained = None;
        for answer in &answers {
            let id = answer.id();
            let worth = self.looks.take(id, now);
            let ahead = |known: Option<&Arc<Instance>>| match (known, answer) {
                (Some(known), Inspection::Present(seen)) => merge::lifecycle_differs(known, seen),
                (Some(_), Inspection::Absent(_)) | (None, Inspection::Present(_)) => true,
                _ => false,
            };
            if worth == Worth::Nothing {
                continue;
            }
            if matches!(answer, Inspection::Unknown { .. }) {
                self.looks.failed(id, now);
                continue;
            }
            if worth != Worth::Truth && self.reports_edges && ahead(self.cache.get(id)) {
                if worth == Worth::Unexplained {
                    unexplained = Some(id.clone());
                } else {
                    self.looks.doubt(id, now);
                }
                continue;
            }
            self.looks.settle(id);
            if let Some(survey) = &mut self.survey {
                survey.touch(id, Told::Something, now); // its answer may be older than this one
            }
            match answer {
                Inspection::Present(instance) => self.take_look(instance),
                Inspection::Absent(id) => self.gone(id, None, None),
                Inspection::Unknown { .. } => {}
            }
        }
        for id in ids {
            self.looks.failed_if_asked(id, now); // no answer at all
        }
        if let Some(id) = unexplained {
            // The stream should have told it by now: it is late, deaf or dead. A new one tells it again, or shows everything.
            let message = "a look shows what the stream does not tell";
            self.fall(now, Some(&Error::new(ErrorKind::Protocol, "watch.look", message).with_context("instance", id)));
        }
    }

    /// A look at everything is complete, as far as it goes.
    fn conclude(&mut self, now: Instant, survey: Survey) {
        match survey.purpose() {
            Purpose::Bracket(gap) => self.bracket(now, gap, survey),
            Purpose::Confirm => self.confirm(now, survey),
        }
    }

    /// The rows are replaced by what was seen, and everybody is shown them.
    fn bracket(&mut self, now: Instant, gap: Gap, survey: Survey) {
        let outcome = survey.into_outcome(&self.backend);
        self.unsure.clear();
        if outcome.complete {
            let gone: Vec<InstanceId> =
                self.cache.iter().filter(|row| !outcome.rows.contains_key(&row.id)).map(|row| row.id.clone()).collect();
            for id in gone {
                self.cache.remove(&id);
            }
        } else {
            tracing::warn!(backend = %self.backend, "the look at everything was not complete");
            let unseen = self.cache.iter().filter(|row| !outcome.rows.contains_key(&row.id));
            for row in unseen.map(|row| merge::unseen(row)).collect::<Vec<_>>() {
                self.unsure.insert(row.id.clone());
                self.cache.insert(Arc::new(row));
            }
        }
        for instance in outcome.rows.into_values() {
            match self.cache.get(&instance.id) {
                None => {
                    self.cache.insert(instance);
                }
                Some(before) => {
                    let mut after = merge::merged_over_gap(before, &instance);
                    if after != **before {
                        after.generation = before.generation.wrapping_add(1);
                        self.cache.insert(Arc::new(after));
                    }
                }
            }
        }
        self.full = outcome.detail == Detail::Full;
        self.grounded = true;
        self.reconnected(Continuity::Lost); // at the old place: whoever resumes from there has not seen the bracket
        self.mark = self.ahead.take();
        self.show(now, gap);
        self.go_live(now);
        for (id, told) in outcome.open {
            // Of what nobody described, a look is all there will be.
            let undescribed = matches!(told, Told::Edge(_)) && self.cache.get(&id).is_none();
            self.looks.hint(&id, now, undescribed);
        }
        if !outcome.complete {
            self.survey = Some(Survey::later(now));
        }
    }

    fn show(&mut self, now: Instant, gap: Gap) {
        tracing::debug!(backend = %self.backend, ?gap, instances = self.cache.len(), "resync");
        let bracket = Bracket {
            gap,
            epoch: self.bracket_epoch(),
            native: self.mark.clone(),
            observed_at: self.wall,
            picture: Some(self.cache.picture()),
            full: self.full,
        };
        self.last_bracket = Some(now);
        self.seq += 1;
        self.entries.push(Entry::Bracket(bracket));
    }

    /// The rows are compared with what was seen. What was told while looking is left to the stream.
    fn confirm(&mut self, now: Instant, survey: Survey) {
        let outcome = survey.into_outcome(&self.backend);
        let left = |id: &InstanceId, looks: &Looks| outcome.open.contains_key(id) || looks.is_wanted(id);
        let differs = self.reports_edges
            && (outcome.rows.values().any(|seen| {
                !left(&seen.id, &self.looks)
                    && self.cache.get(&seen.id).is_none_or(|known| merge::contradicts(known, seen))
            }) || (outcome.complete
                && self
                    .cache
                    .iter()
                    .any(|known| !outcome.rows.contains_key(&known.id) && !left(&known.id, &self.looks))));
        let missing: Vec<InstanceId> = if outcome.complete {
            let rows = self.cache.iter().map(|known| &known.id);
            rows.filter(|id| !outcome.rows.contains_key(*id) && !left(id, &self.looks)).cloned().collect()
        } else {
            Vec::new()
        };
        for id in outcome.rows.keys().filter(|id| !left(id, &self.looks)) {
            self.unsure.remove(id);
        }
        if differs {
            tracing::info!(backend = %self.backend, "what was told and what is there differ");
            for id in missing {
                self.cache.remove(&id);
            }
            for seen in outcome.rows.values().filter(|seen| !left(&seen.id, &self.looks)) {
                let mut after = match self.cache.get(&seen.id) {
                    Some(before) => merge::merged(before, seen),
                    None => Instance::clone(seen),
                };
                after.generation = after.generation.wrapping_add(1);
                self.cache.insert(Arc::new(after));
            }
            self.full = outcome.detail == Detail::Full;
            self.show(now, Gap::Disconnected);
        } else {
            for id in missing {
                self.gone(&id, None, None);
            }
            let seen: Vec<Arc<Instance>> =
                outcome.rows.values().filter(|seen| !left(&seen.id, &self.looks)).cloned().collect();
            for instance in seen {
                self.take_look(&instance);
            }
            self.full |= outcome.detail == Detail::Full;
        }
        for id in outcome.open.keys() {
            self.looks.hint(id, now, false);
        }
        if !outcome.complete {
            self.survey = Some(Survey::later(now));
        }
    }

    // ---- what is told

    fn emit(
        &mut self,
        kind: RuntimeEventKind,
        before: Option<Arc<Instance>>,
        mark: Option<NativeMark>,
        at: Option<SystemTime>,
    ) {
        let cursor = Cursor::new(self.epoch.clone(), self.seq, self.mark.clone());
        self.seq += 1;
        let mut event = RuntimeEvent::new(self.backend.clone(), cursor, self.wall, kind);
        (event.mark, event.native_at) = (mark, at);
        self.entries.push(Entry::Event { event: Arc::new(event), before });
    }
}
