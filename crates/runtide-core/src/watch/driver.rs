//! [`Driver`]: the one reconnect loop of a backend value, and the thin task that feeds the machine.

use std::{
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::Waker,
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    hub::Hub,
    machine::{Command, Input, Machine, Resume, Setup},
    source::{Flow, Inspection, Inspector, Listing, Signal, Source},
    stream::EventStream,
    subscription::{Start, Subscription},
};
use crate::{
    backend::lock,
    error::{Error, ErrorKind, Result},
    event::{Epoch, Gap, ResumeToken},
    instance::{BackendId, InstanceId},
    names::setters,
    options::{Detail, WatchOptions},
};

/// Default number of ring entries.
const RING: usize = 4_096;
/// Least number of ring entries: an outage, its end and a resync fit into them.
const RING_MIN: usize = 8;
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A link that stays up for so long each time is dialled at most ten times a minute.
const HEALTHY_AFTER: Duration = Duration::from_secs(6);

/// Longest duration of `Source::open`, `Inspector::list` and `Inspector::inspect`. A backend may end its calls earlier.
const GUARD: Duration = Duration::from_secs(180);

/// Options of a [`Driver`]. `None`: the documented default.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DriverOptions {
    /// Events kept for all subscribers together; 4,096 by default, and at least 8.
    pub ring: Option<NonZeroUsize>,
    /// Longest time from an attempt to connect to the next one; 30 s. Attempts that reach no daemon have their own, short
    /// interval: [`Retry::Poll`](crate::Retry::Poll).
    pub max_backoff: Option<Duration>,
    /// Time for which a link must stay up for earlier failures to be forgotten; 6 s.
    pub healthy_after: Option<Duration>,
    /// Seed of the jitter, for simulations that must replay; random by default.
    pub jitter_seed: Option<u64>,
}

setters!(DriverOptions {
    /// Sets the number of events kept for all subscribers together.
    with_ring: ring: Option<NonZeroUsize>;
    /// Sets the longest time from an attempt to connect to the next one.
    with_max_backoff: max_backoff: Option<Duration>;
    /// Sets the time for which a link must stay up for earlier failures to be forgotten.
    with_healthy_after: healthy_after: Option<Duration>;
    /// Seeds the jitter.
    with_jitter_seed: jitter_seed: Option<u64>;
});

type MakeSource = dyn Fn() -> Box<dyn Source> + Send + Sync;

/// The one reconnect loop, cache and ring of a backend value.
///
/// # Behavior
/// * A run begins with the first subscriber: it makes a source, and drives it in one task. It ends with the last subscriber,
///   and drops both. No task runs without a subscriber.
/// * An outage of the runtime is never an error: it is an event, and the driver reconnects indefinitely.
/// * Dropping the driver, or [`Driver::close`], ends every stream with `Cancelled`.
pub struct Driver {
    backend: BackendId,
    options: DriverOptions,
    source: Box<MakeSource>,
    runs: Mutex<Runs>,
}

#[derive(Default)]
struct Runs {
    current: Option<Run>,
    /// `Run::done` of the runs that are stopping; removed some time after their tasks have ended.
    ending: Vec<CancellationToken>,
    closed: bool,
}

struct Run {
    hub: Arc<Hub>,
    /// Cancelled as soon as the task and its source are dropped.
    done: CancellationToken,
}

impl Driver {
    /// Creates a driver; it connects with its first subscriber. `source` is called once for each run.
    pub fn new<S: Source>(
        backend: BackendId,
        options: DriverOptions,
        source: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        Self { backend, options, source: Box::new(move || Box::new(source())), runs: Mutex::default() }
    }

    /// Adds a subscriber; the first one starts a run.
    ///
    /// # Errors
    /// `Cancelled` after `close`; `Unexpected` outside a tokio runtime.
    pub fn watch(&self, options: WatchOptions) -> Result<EventStream> {
        let mut runs = self.lock();
        if runs.closed {
            return Err(self.error(ErrorKind::Cancelled, "the backend was closed"));
        }
        if let Some(run) = &runs.current {
            let mut state = run.hub.lock();
            if !state.over {
                let start = match &options.from {
                    None => Start::Resync(Gap::Initial),
                    Some(from) if from.epoch != *state.machine.epoch() || from.seq >= state.ring.next() => {
                        Start::Resync(Gap::ForeignCursor)
                    }
                    Some(from) => Start::At(from.seq + 1),
                };
                // As long as the ring is empty, new subscribers start at its first entry and share the first resync. A run
                // that resumes may have no such resync, so there each of them gets its own.
                let start = match start {
                    Start::Resync(Gap::Initial) if state.ring.next() == 1 && !state.machine.is_resuming() => {
                        Start::At(1)
                    }
                    start => start,
                };
                let full = options.detail == Detail::Full;
                let subscription = Subscription::new(&run.hub, &mut state, options, start);
                drop(state);
                if full {
                    run.hub.detail_changed.notify_one();
                }
                return Ok(EventStream::from_ring(subscription));
            }
        }
        let handle = Handle::try_current().map_err(|error| {
            self.error(ErrorKind::Unexpected, "a watch must be opened inside a tokio runtime").with_source(error)
        })?;
        let (run, subscription) = self.start(&handle, options);
        runs.ending.retain(|done| !done.is_cancelled());
        if let Some(old) = runs.current.replace(run) {
            runs.ending.push(old.done);
        }
        Ok(EventStream::from_ring(subscription))
    }

    /// Ends every stream with `Cancelled`, and returns once every task and source is dropped. Later watches are `Cancelled`.
    pub async fn close(&self) {
        let waiting: Vec<CancellationToken> = {
            let mut runs = self.lock();
            runs.closed = true;
            if let Some(run) = runs.current.take() {
                run.hub.close();
                runs.ending.push(run.done);
            }
            runs.ending.clone()
        };
        for done in waiting {
            done.cancelled().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Runs> {
        lock(&self.runs)
    }

    fn error(&self, kind: ErrorKind, message: &str) -> Error {
        Error::new(kind, "watch", message).with_context("backend", &self.backend)
    }

    fn start(&self, handle: &Handle, options: WatchOptions) -> (Run, Subscription) {
        let mut source = (self.source)();
        let resume = Resume {
            token: options.from.as_ref().and_then(|from| from.native.clone()),
            rows: options
                .from
                .as_ref()
                .and(options.known.as_ref())
                .map(|known| known.of(&self.backend).cloned().collect()),
            completeness: options
                .known
                .as_ref()
                .map(|known| known.completeness(&self.backend).clone())
                .unwrap_or_default(),
            wanted: options.from.is_some(),
        };
        if let Some(rows) = &resume.rows {
            source.learn(rows);
        }
        let setup = Setup {
            backend: self.backend.clone(),
            epoch: Epoch::new(uuid::Uuid::now_v7().to_string()),
            reports_edges: source.reports_edges(),
            max_silence: source.max_silence(),
            max_backoff: self.options.max_backoff.unwrap_or(MAX_BACKOFF),
            healthy_after: self.options.healthy_after.unwrap_or(HEALTHY_AFTER),
            jitter_seed: self.options.jitter_seed,
            detail: options.detail,
            resume,
        };
        let capacity = self.options.ring.map_or(RING, NonZeroUsize::get).max(RING_MIN);
        let hub = Arc::new(Hub::new(Machine::new(setup, Instant::now()), capacity));
        let subscription = Subscription::new(&hub, &mut hub.lock(), options, Start::At(1));
        let done = CancellationToken::new();
        let guard = done.clone().drop_guard();
        let span = tracing::info_span!("runtide.watch", backend = %self.backend);
        let task = Task { hub: Arc::clone(&hub), inspector: source.inspector(), source };
        handle.spawn(
            async move {
                let _done = guard;
                task.run().await;
            }
            .instrument(span),
        );
        (Run { hub, done }, subscription)
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("backend", &self.backend).field("options", &self.options).finish_non_exhaustive()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(run) = self.lock().current.take() {
            run.hub.close();
        }
    }
}

/// The task of one run.
struct Task {
    hub: Arc<Hub>,
    source: Box<dyn Source>,
    inspector: Arc<dyn Inspector>,
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The requested ids, and the inspector's answer.
type Inspected = (Vec<InstanceId>, Result<Vec<Inspection>>);

/// Requests to the inspector that are under way, at most one of each kind.
#[derive(Default)]
struct Requests {
    relist: Option<Pending<Result<Listing>>>,
    reinspect: Option<Pending<Inspected>>,
    inspect: Option<Pending<Inspected>>,
}

/// The request to open the source's stream.
struct Open {
    resume: Option<ResumeToken>,
}

impl Task {
    async fn run(mut self) {
        let hub = Arc::clone(&self.hub);
        // Both wait for all of the run: each would cost a lock in each iteration.
        let mut stopped = pin!(hub.stop.cancelled());
        let mut detail_changed = pin!(hub.detail_changed.notified());
        let (mut commands, mut wake): (Vec<Command>, Vec<Waker>) = (Vec::new(), Vec::new());
        let mut requests = Requests::default();
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        let mut after = hub.step(Input::Tick, &mut commands, &mut wake);
        let mut batch: Vec<Signal> = Vec::new();
        loop {
            if let Some(Open { resume }) = self.execute(&mut commands, &mut requests) {
                let opened = tokio::select! {
                    biased;
                    () = stopped.as_mut() => return,
                    opened = open_source(&mut *self.source, resume) => opened,
                };
                batch.clear();
                after = hub.step(Input::Opened(opened), &mut commands, &mut wake);
                continue;
            }
            if after.has_woken {
                // A subscriber on this thread would wait until this task has found nothing more to do.
                tokio::task::yield_now().await;
            }
            // If the deadline moved later, the timer stays as it is: it fires early, and that tick does nothing. This costs
            // less than resetting the timer in each iteration.
            if let Some(deadline) = after.deadline
                && (timer.is_elapsed() || timer.deadline() > deadline)
            {
                timer.as_mut().reset(deadline);
            }
            let Requests { relist, reinspect, inspect } = &mut requests;
            let input = tokio::select! {
                biased;
                () = stopped.as_mut() => return,
                () = detail_changed.as_mut() => {
                    detail_changed.set(hub.detail_changed.notified());
                    Input::Wanted(hub.lock().wanted())
                }
                Some(answer) = poll_some(relist) => { *relist = None; Input::Relisted(answer) }
                Some((_, answer)) = poll_some(reinspect) => { *reinspect = None; Input::Reinspected(answer) }
                Some((ids, answer)) = poll_some(inspect) => { *inspect = None; Input::Inspected(ids, answer) }
                () = timer.as_mut(), if after.deadline.is_some() => Input::Tick,
                flow = self.source.next_batch(&mut batch), if after.is_open => match flow {
                    Ok(flow) => Input::Batch(&mut batch, flow),
                    Err(error) => {
                        // Signals that were received before the failure still count.
                        hub.step(Input::Batch(&mut batch, Flow::Open), &mut commands, &mut wake);
                        Input::Broken(error)
                    }
                },
            };
            after = hub.step(input, &mut commands, &mut wake);
        }
    }

    /// Executes the machine's commands, except `Open`, which is returned: the caller has the source. The machine opens only when
    /// no request is under way, so `Open` may be executed last.
    fn execute(&self, commands: &mut Vec<Command>, requests: &mut Requests) -> Option<Open> {
        let mut open = None;
        for command in commands.drain(..) {
            match command {
                Command::Relist(detail) => requests.relist = Some(self.relist(detail)),
                Command::Inspect(ids, detail) => requests.inspect = Some(self.inspect(ids, detail)),
                Command::Reinspect(ids, detail) => requests.reinspect = Some(self.inspect(ids, detail)),
                Command::Abandon => *requests = Requests::default(),
                Command::Open(resume) => open = Some(Open { resume }),
            }
        }
        open
    }

    fn relist(&self, detail: Detail) -> Pending<Result<Listing>> {
        let inspector = Arc::clone(&self.inspector);
        Box::pin(async move { guarded("watch.list", inspector.list(detail)).await })
    }

    fn inspect(&self, ids: Vec<InstanceId>, detail: Detail) -> Pending<Inspected> {
        let inspector = Arc::clone(&self.inspector);
        Box::pin(async move {
            let answer = guarded("watch.inspect", inspector.inspect(&ids, detail)).await;
            (ids, answer)
        })
    }
}

async fn open_source(source: &mut dyn Source, resume: Option<ResumeToken>) -> Result<super::source::Opened> {
    guarded("watch.open", source.open(resume.as_ref())).await
}

async fn guarded<T>(operation: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(GUARD, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(ErrorKind::Timeout, operation, format!("no answer within {GUARD:?}"))),
    }
}

async fn poll_some<T>(pending: &mut Option<Pending<T>>) -> Option<T> {
    match pending {
        Some(future) => Some(future.await),
        None => None,
    }
}
