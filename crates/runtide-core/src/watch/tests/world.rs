//! A runtime of a few maps and a queue: its reports and its answers are scripted separately, so that they can disagree.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, time::Instant};

use crate::{
    completeness::Completeness,
    error::{Error, ErrorKind, Failure, Result},
    event::{Gap, ResumeToken, RuntimeEvent, RuntimeEventKind},
    instance::{ExitStatus, Instance, InstanceId, InstanceKind, InstanceState},
    options::{Detail, WatchOptions},
    watch::{
        Driver, DriverOptions, Edge, EventStream, Flow, Inspection, Inspector, Listing, Opened, Signal, SignalBody,
        Source,
    },
};

pub(super) enum Reported {
    Signal(Signal),
    Close,
    Break,
}

type Change = Box<dyn FnOnce(&mut State) + Send>;

#[derive(Default)]
pub(super) struct State {
    pub(super) there: BTreeMap<InstanceId, Arc<Instance>>,
    pub(super) reported: VecDeque<Reported>,
    /// The next results of `open`; when empty, `Fresh(Initial)`.
    pub(super) opens: VecDeque<Result<Opened>>,
    /// Edges that a resumed stream reports before it has caught up.
    pub(super) report_on_open: Vec<(&'static str, InstanceState)>,
    pub(super) dials: Vec<Instant>,
    pub(super) resumes: Vec<Option<ResumeToken>>,
    pub(super) snapshots: usize,
    pub(super) inspects: Vec<Vec<InstanceId>>,
    pub(super) partial: bool,
    pub(super) list_fails: bool,
    pub(super) answer_takes: Duration,
    pub(super) token: u64,
    pub(super) sources: usize,
    /// Runs when a listing is requested, before it is taken.
    pub(super) during_snapshot: Option<Change>,
    /// The same for inspections.
    pub(super) during_inspect: VecDeque<Change>,
    /// Number of inspections that fail.
    pub(super) inspects_fail: usize,
    /// A summary has no incarnation.
    pub(super) lean: bool,
}

#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) news: Arc<Notify>,
    pub(super) hints_only: bool,
    pub(super) max_silence: Option<Duration>,
}

pub(super) fn instance(name: &str, state: InstanceState) -> Instance {
    Instance::new("test", name, name, InstanceKind::Container, state)
}

impl State {
    pub(super) fn put(&mut self, instance: Instance) {
        self.there.insert(instance.id.clone(), Arc::new(instance));
    }

    pub(super) fn report(&mut self, body: SignalBody) {
        self.token += 1;
        let token = ResumeToken::new(self.token.to_string());
        self.reported.push_back(Reported::Signal(Signal::new(body).with_token(token)));
    }

    pub(super) fn report_edge(&mut self, name: &str, state: InstanceState, exit: Option<ExitStatus>) {
        let described = Some(Arc::new(instance(name, state)));
        self.report(SignalBody::Edge(Edge { id: name.into(), incarnation: None, state, exit, described }));
    }

    fn seen(&self, row: &Arc<Instance>, detail: Detail) -> Arc<Instance> {
        match detail {
            Detail::Summary if self.lean => Arc::new(Instance { incarnation: None, ..Instance::clone(row) }),
            _ => Arc::clone(row),
        }
    }

    /// Starts the instance, and reports it.
    pub(super) fn start(&mut self, name: &str) {
        self.put(instance(name, InstanceState::Running));
        self.report_edge(name, InstanceState::Running, None);
    }

    pub(super) fn die(&mut self, name: &str, code: i32) {
        self.put(Instance { exit: Some(ExitStatus::code(code)), ..instance(name, InstanceState::Stopped) });
        self.report_edge(name, InstanceState::Stopped, Some(ExitStatus::code(code)));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.there.remove(&InstanceId::from(name));
        self.report(SignalBody::Gone(name.into()));
    }
}

impl World {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.news.notify_waiters();
    }

    pub(super) fn driver(&self) -> Driver {
        self.driver_with(DriverOptions::default())
    }

    pub(super) fn driver_with(&self, options: DriverOptions) -> Driver {
        let world = self.clone();
        Driver::new("test".into(), options.with_jitter_seed(7), move || {
            world.lock().sources += 1;
            TestSource { world: world.clone(), open: false }
        })
    }
}

struct TestSource {
    world: World,
    open: bool,
}

impl Drop for TestSource {
    fn drop(&mut self) {
        self.world.lock().sources -= 1;
    }
}

#[async_trait]
impl Source for TestSource {
    async fn open(&mut self, resume: Option<&ResumeToken>) -> Result<Opened> {
        let mut state = self.world.lock();
        state.dials.push(Instant::now());
        state.resumes.push(resume.cloned());
        let opened = state.opens.pop_front().unwrap_or(Ok(Opened::Fresh(Gap::Initial)));
        self.open = opened.is_ok();
        if matches!(opened, Ok(Opened::Resumed)) && !state.report_on_open.is_empty() {
            for (name, edge) in std::mem::take(&mut state.report_on_open) {
                state.report_edge(name, edge, None);
            }
            state.report(SignalBody::CaughtUp);
        }
        opened
    }

    async fn next_batch(&mut self, out: &mut Vec<Signal>) -> Result<Flow> {
        assert!(self.open, "the driver reads from a closed stream");
        loop {
            let news = self.world.news.notified();
            {
                let mut state = self.world.lock();
                while let Some(reported) = state.reported.pop_front() {
                    match reported {
                        Reported::Signal(signal) => out.push(signal),
                        Reported::Close => {
                            self.open = false;
                            return Ok(Flow::Closed);
                        }
                        Reported::Break => {
                            self.open = false;
                            return Err(Error::new(ErrorKind::Unavailable, "test.read", "severed"));
                        }
                    }
                }
                if !out.is_empty() {
                    return Ok(Flow::Open);
                }
            }
            news.await;
        }
    }

    fn inspector(&self) -> Arc<dyn Inspector> {
        Arc::new(self.world.clone())
    }

    fn max_silence(&self) -> Option<Duration> {
        self.world.max_silence
    }

    fn reports_edges(&self) -> bool {
        !self.world.hints_only
    }
}

#[async_trait]
impl Inspector for World {
    async fn list(&self, detail: Detail) -> Result<Listing> {
        if let Some(during) = { self.lock().during_snapshot.take() } {
            self.change(during);
        }
        let (snapshot, takes) = {
            let mut state = self.lock();
            state.snapshots += 1;
            if state.list_fails {
                return Err(Error::new(ErrorKind::PermissionDenied, "test.list", "denied"));
            }
            let mut snapshot = Listing::complete(state.there.values().map(|row| state.seen(row, detail)).collect());
            if state.partial {
                let failure = Failure::new(ErrorKind::Protocol, "test.list", "no number");
                snapshot.completeness = Completeness::Partial(vec![failure]);
            }
            (snapshot, state.answer_takes)
        };
        tokio::time::sleep(takes).await;
        Ok(snapshot)
    }

    async fn inspect(&self, ids: &[InstanceId], detail: Detail) -> Result<Vec<Inspection>> {
        if let Some(during) = { self.lock().during_inspect.pop_front() } {
            self.change(during);
        }
        let (answers, takes) = {
            let mut state = self.lock();
            state.inspects.push(ids.to_vec());
            if state.inspects_fail > 0 {
                state.inspects_fail -= 1;
                return Err(Error::new(ErrorKind::Unavailable, "test.inspect", "severed"));
            }
            let answer = |id: &InstanceId| match state.there.get(id) {
                Some(instance) if detail == Detail::Full => {
                    let mut instance = Instance::clone(instance);
                    instance.restarts.get_or_insert(0);
                    Inspection::Present(Arc::new(instance))
                }
                Some(instance) => Inspection::Present(state.seen(instance, detail)),
                None => Inspection::Absent(id.clone()),
            };
            (ids.iter().map(answer).collect(), state.answer_takes)
        };
        tokio::time::sleep(takes).await;
        Ok(answers)
    }
}

/// An event in short: `started a`, `resync_begin`, …
pub(super) fn brief(event: &RuntimeEvent) -> String {
    match (&event.kind, event.instance()) {
        (kind, Some(instance)) => format!("{} {}", kind.name(), instance.name),
        (RuntimeEventKind::ResyncBegin { gap }, _) => format!("resync_begin {gap:?}"),
        (RuntimeEventKind::ResyncEnd(Completeness::Partial(_)), _) => "resync_end partial".to_owned(),
        (RuntimeEventKind::ResyncEnd(Completeness::Unknown), _) => "resync_end unknown".to_owned(),
        (RuntimeEventKind::BackendReconnected { continuity }, _) => format!("reconnected {continuity:?}"),
        (RuntimeEventKind::BackendDisconnected { cause }, _) => {
            format!("disconnected {}", if cause.is_some() { "broken" } else { "closed" })
        }
        (kind, _) => kind.name().to_owned(),
    }
}

/// The events until the stream is quiet for so long.
pub(super) async fn until_quiet(stream: &mut EventStream, quiet: Duration) -> Vec<Arc<RuntimeEvent>> {
    let mut events = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(quiet, stream.next()).await {
        events.push(event.unwrap());
    }
    check_order(&events);
    events
}

pub(super) async fn briefs(stream: &mut EventStream, quiet: Duration) -> Vec<String> {
    until_quiet(stream, quiet).await.iter().map(|event| brief(event)).collect()
}

/// R1 and R2 for the events of an unfiltered subscriber.
pub(super) fn check_order(events: &[Arc<RuntimeEvent>]) {
    for pair in events.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        if before.cursor.epoch == after.cursor.epoch {
            let step = u64::from(!matches!(after.kind, RuntimeEventKind::Bookmark));
            assert_eq!(before.cursor.seq + step, after.cursor.seq, "{before:?} {after:?}");
        } else {
            let edge = matches!(after.kind, RuntimeEventKind::ResyncBegin { .. } | RuntimeEventKind::ResyncEnd(_));
            assert!(edge, "the epoch changes at {after:?}");
        }
    }
    let mut inside = false;
    for event in events {
        match &event.kind {
            RuntimeEventKind::ResyncBegin { .. } => inside = true,
            RuntimeEventKind::ResyncEnd(_) => inside = false,
            RuntimeEventKind::Present(_) => assert!(inside),
            kind => assert!(!inside, "{kind:?} in a resync"),
        }
    }
}

pub(super) async fn watch(driver: &Driver) -> EventStream {
    let mut stream = driver.watch(WatchOptions::default()).unwrap();
    let opening = briefs(&mut stream, Duration::from_secs(1)).await;
    assert_eq!(opening.first().map(String::as_str), Some("resync_begin Initial"));
    assert_eq!(opening.last().map(String::as_str), Some("resync_end"));
    stream
}

pub(super) const QUIET: Duration = Duration::from_secs(1);
pub(super) const LONG: Duration = Duration::from_secs(100);
