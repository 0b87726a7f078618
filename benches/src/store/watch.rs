//! One writer of a store, many watchers.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use criterion::Criterion;
use runtide_core::{
    Gap,
    store::{
        Document, Precondition, Resource, ResourceRef, Revision, Selector, StoreBackend, StoreEvent, StoreStream,
        StoreWatchOptions,
    },
};
use runtide_memory::MemoryStore;
use tokio::runtime::{Builder, Runtime};

use super::{contender::Contender, objects::Objects, runtide::Runtide, work::Turn};
use crate::{
    Clock, Contest, Figures, Gate, Table, bytes, count,
    fan::{Broadcast, Numbered, Ringed, TAKE, Watcher},
    is_trial, met, nanos, percent, times,
};

/// The resources, which are written one after the other, round and round.
const RESOURCES: Objects = Objects { count: 1_024, size: 512 };

/// Number of watchers in most workloads.
const MANY: usize = 1_000;

/// Writes in one burst.
const BURST: usize = 1_024;

/// Event of the contenders that are no store.
#[derive(Clone, Debug)]
pub struct Change(Arc<Resource>);

impl Numbered for Change {
    fn number(&self) -> u64 {
        self.0.revision.0
    }
}

impl Numbered for StoreEvent {
    fn number(&self) -> u64 {
        self.revision().0
    }
}

/// A fan-out: delivers each write to many watchers.
pub trait Fan: Send + Sync + Sized + 'static {
    /// Name of the fan-out in the tables.
    const NAME: &'static str;

    /// A write, prepared before the clock starts.
    type Write: Send + 'static;

    /// Starts as many clones of `watcher` as tasks on the runtime; returns when all are watching.
    fn new(runtime: &Runtime, watchers: usize, watcher: &Watcher) -> Self;

    /// Prepares write number `n`.
    fn prepare(n: u64) -> Self::Write;

    /// Performs a write.
    fn write(&self, write: Self::Write) -> impl Future<Output = ()> + Send;
}

fn write(n: u64) -> (ResourceRef, Document) {
    let object = RESOURCES.get(usize::try_from(n).unwrap_or(usize::MAX) % RESOURCES.count, n);
    (Runtide::key(&object.namespace, &object.name), Document::json(object.body))
}

async fn apply(store: &MemoryStore, (reference, document): (ResourceRef, Document)) {
    store.apply(&reference, document, Precondition::None).await.expect("an apply");
}

/// Runtide's store; its watchers take up to `AT_A_TIME` events per call.
#[derive(Debug)]
pub struct Watched<const AT_A_TIME: usize>(MemoryStore);

/// A store that holds all of [`RESOURCES`].
async fn full_store() -> MemoryStore {
    let store = MemoryStore::new();
    for n in 0..RESOURCES.count as u64 {
        apply(&store, write(n)).await;
    }
    store
}

async fn watch(store: &MemoryStore, selector: &Selector) -> StoreStream {
    let mut stream = store.watch(selector, StoreWatchOptions::default()).await.expect("a watch");
    let begin = stream.next().await.expect("a first event").expect("a first event");
    assert!(matches!(begin, StoreEvent::Bookmark { .. }));
    stream
}

async fn follow(mut stream: StoreStream, mut watcher: Watcher, at_a_time: usize) {
    let mut events = Vec::with_capacity(at_a_time);
    loop {
        let came = if at_a_time == 1 {
            stream.next().await.map(|event| event.map(|event| events.push(event)))
        } else {
            stream.next_batch(&mut events, at_a_time).await.map(|came| came.map(|_| ()))
        };
        let Some(Ok(())) = came else { return };
        for event in events.drain(..) {
            if matches!(event, StoreEvent::Modified(_)) {
                watcher.takes(&event);
            } else {
                assert!(watcher.may_lose(), "a watcher lagged");
            }
        }
    }
}

impl<const AT_A_TIME: usize> Fan for Watched<AT_A_TIME> {
    const NAME: &'static str = if AT_A_TIME == 1 { "Runtide, one by one" } else { "Runtide" };

    type Write = (ResourceRef, Document);

    fn new(runtime: &Runtime, watchers: usize, watcher: &Watcher) -> Self {
        runtime.block_on(async {
            let store = full_store().await;
            for _ in 0..watchers {
                tokio::spawn(follow(watch(&store, &Selector::all()).await, watcher.clone(), AT_A_TIME));
            }
            Self(store)
        })
    }

    fn prepare(n: u64) -> Self::Write {
        write(n)
    }

    async fn write(&self, write: Self::Write) {
        apply(&self.0, write).await;
    }
}

fn change(n: u64) -> Change {
    let (reference, document) = write(n);
    Change(Arc::new(Resource::new(reference, document, Revision(n))))
}

impl Fan for Ringed<Change> {
    const NAME: &'static str = "bare ring";

    type Write = Change;

    fn new(runtime: &Runtime, watchers: usize, watcher: &Watcher) -> Self {
        Self::new(runtime, watchers, watcher)
    }

    fn prepare(n: u64) -> Change {
        change(n)
    }

    async fn write(&self, change: Change) {
        self.push([change]);
    }
}

impl Fan for Broadcast<Change> {
    const NAME: &'static str = "tokio broadcast";

    type Write = Change;

    fn new(runtime: &Runtime, watchers: usize, watcher: &Watcher) -> Self {
        Self::new(runtime, watchers, watcher)
    }

    fn prepare(n: u64) -> Change {
        change(n)
    }

    async fn write(&self, change: Change) {
        self.push(change);
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime")
}

/// Counter that numbers the writes of one contender; the numbers below [`RESOURCES`]`.count` filled the store.
#[derive(Debug, Default)]
struct Numbers(AtomicU64);

impl Numbers {
    fn take<F: Fan>(&self, count: usize) -> Vec<F::Write> {
        let from = self.0.fetch_add(count as u64, Ordering::Relaxed) + RESOURCES.count as u64;
        (from..from + count as u64).map(F::prepare).collect()
    }
}

/// A burst of writes, measured until every watcher has every event.
fn burst<F: Fan>(watchers: usize, events: usize) -> Turn {
    let (runtime, gate, numbers) = (runtime(), Arc::new(Gate::default()), Numbers::default());
    let fan = F::new(&runtime, watchers, &Watcher::new(&gate, events));
    Box::new(move || {
        let writes = numbers.take::<F>(events);
        gate.arm(watchers);
        let clock = Clock::start();
        runtime.block_on(async {
            for write in writes {
                fan.write(write).await;
            }
            gate.wait().await;
        });
        clock.stop((watchers * events) as u64)
    })
}

/// One write after the other, each of which waits until every watcher has its event.
fn each_waits<F: Fan>(watchers: usize) -> Turn {
    let (runtime, gate, numbers) = (runtime(), Arc::new(Gate::default()), Numbers::default());
    let fan = F::new(&runtime, watchers, &Watcher::new(&gate, 1));
    let count = if is_trial() { 3 } else { 100 };
    Box::new(move || {
        let writes = numbers.take::<F>(count);
        let clock = Clock::start();
        runtime.block_on(async {
            for write in writes {
                gate.arm(watchers);
                fan.write(write).await;
                gate.wait().await;
            }
        });
        clock.stop((watchers * count) as u64)
    })
}

/// Writes that wait for no watcher. `keeps` are streams that are held and never read.
fn at_full_speed<F: Fan>(runtime: Runtime, fan: F, keeps: Vec<StoreStream>) -> Turn {
    let numbers = Numbers::default();
    let count = if is_trial() { 1_000 } else { 50_000 };
    Box::new(move || {
        let _silent = &keeps;
        let writes = numbers.take::<F>(count);
        let clock = Clock::start();
        runtime.block_on(async {
            for write in writes {
                fan.write(write).await;
            }
        });
        clock.stop(count as u64)
    })
}

fn while_they_read<F: Fan>(watchers: usize) -> Turn {
    let runtime = runtime();
    let fan = F::new(&runtime, watchers, &Watcher::losing());
    at_full_speed(runtime, fan, Vec::new())
}

/// Each watcher watches its own namespace, which has no resources, so that no write concerns it.
fn while_they_wait_elsewhere(watchers: usize) -> Turn {
    let runtime = runtime();
    let store = runtime.block_on(full_store());
    for n in 0..watchers {
        let selector = Runtide::namespace(&format!("elsewhere-{n}"));
        let stream = runtime.block_on(watch(&store, &selector));
        runtime.spawn(follow(stream, Watcher::losing(), TAKE));
    }
    at_full_speed(runtime, Watched::<TAKE>(store), Vec::new())
}

fn while_they_sleep(watchers: usize) -> Turn {
    let runtime = runtime();
    let store = runtime.block_on(full_store());
    let streams = (0..watchers).map(|_| runtime.block_on(watch(&store, &Selector::all()))).collect();
    at_full_speed(runtime, Watched::<TAKE>(store), streams)
}

/// The turns of a fan-out at each workload; its types are erased.
pub trait Fans {
    /// Name of the fan-out in the tables.
    fn name(&self) -> &'static str;

    /// A burst of `events` writes to `watchers` watchers.
    fn burst(&self, watchers: usize, events: usize) -> Turn;

    /// Writes, each of which waits for `watchers` watchers.
    fn each_waits(&self, watchers: usize) -> Turn;

    /// Writes at full speed while `watchers` watchers read; a watcher may lag.
    fn while_they_read(&self, watchers: usize) -> Turn;
}

/// A [`Fan`] as a [`Fans`]; it has no state.
pub struct Fanned<F>(std::marker::PhantomData<fn() -> F>);

impl<F> Fanned<F> {
    /// Its only value.
    pub const NEW: Self = Self(std::marker::PhantomData);
}

impl<F> fmt::Debug for Fanned<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fanned").finish()
    }
}

impl<F: Fan> Fans for Fanned<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn burst(&self, watchers: usize, events: usize) -> Turn {
        burst::<F>(watchers, events)
    }

    fn each_waits(&self, watchers: usize) -> Turn {
        each_waits::<F>(watchers)
    }

    fn while_they_read(&self, watchers: usize) -> Turn {
        while_they_read::<F>(watchers)
    }
}

/// Runtide, the bare ring that stands for the limit, and tokio's broadcast.
pub const FANS: [&dyn Fans; 4] = [
    &Fanned::<Watched<TAKE>>::NEW,
    &Fanned::<Watched<1>>::NEW,
    &Fanned::<Ringed<Change>>::NEW,
    &Fanned::<Broadcast<Change>>::NEW,
];

/// Runs every workload with every fan-out, and prints the tables.
pub fn compare(fans: &[&dyn Fans], criterion: &mut Criterion) {
    let mut table = Table::new(["watchers", "work", "by", "figure", "best turn", "CPU each", "Runtide is", "goal"]);
    let mut add = |watchers: usize, work: &str, figures: &Figures, goal: Option<(&str, f64)>| {
        for name in figures.names() {
            let rate = figures.rate(name);
            let (is, goal) = match goal {
                _ if name != Runtide::NAME => (times(figures.faster(Runtide::NAME, name)), String::new()),
                Some((goal, least)) => (String::new(), met(goal, rate >= least)),
                None => Default::default(),
            };
            let (figure, best) = (format!("{}/s", count(rate)), format!("{}/s", count(figures.best_rate(name))));
            let cpu = nanos(figures.cpu_each(name));
            table.row([watchers.to_string(), work.to_owned(), name.to_owned(), figure, best, cpu, is, goal]);
        }
    };
    let contest = |title: String, criterion: &mut Criterion, turn: &dyn Fn(&dyn Fans) -> Turn| {
        eprintln!("{title}");
        let contest = Contest::new(title).turns(11);
        fans.iter().fold(contest, |contest, fan| contest.with(fan.name(), turn(*fan))).run(criterion)
    };
    for watchers in [10, 100, MANY] {
        let figures = contest(format!("burst/{watchers}"), criterion, &|fan| fan.burst(watchers, BURST));
        add(watchers, "deliveries in bursts", &figures, (watchers == MANY).then_some(("≥ 25 M/s", 25e6)));
    }
    let figures = contest("each waits".into(), criterion, &|fan| fan.each_waits(MANY));
    add(MANY, "deliveries, each write waits for all", &figures, Some(("≥ 1.8 M/s", 1.8e6)));
    let figures = contest("full speed".into(), criterion, &|fan| fan.while_they_read(MANY));
    add(MANY, "writes while all read", &figures, Some(("≥ 0.5 M/s", 0.5e6)));
    table.print();
    writers(criterion);
    criterion.final_summary();
}

/// Cost of watchers to a writer of Runtide's store.
fn writers(criterion: &mut Criterion) {
    const NO_WATCHER: &str = "no watcher";
    const ELSEWHERE: &str = "1,000 wait for other namespaces";
    const SLEEPER: &str = "1 never reads";
    const SLEEPERS: &str = "1,000 never read";
    eprintln!("writers");
    let figures = Contest::new("writers")
        .with(NO_WATCHER, while_they_sleep(0))
        .with(SLEEPER, while_they_sleep(1))
        .with(SLEEPERS, while_they_sleep(MANY))
        .with(ELSEWHERE, while_they_wait_elsewhere(MANY))
        .run(criterion);
    let mut table = Table::new(["watchers", "writes", "best turn", "vs no watcher", "goal"]);
    for name in figures.names() {
        let (rate, faster) = (figures.rate(name), figures.faster(name, NO_WATCHER));
        let goal = match name {
            SLEEPER | SLEEPERS => met("≥ 95 %", faster >= 0.95),
            ELSEWHERE => met("≥ 0.5 M/s", rate >= 0.5e6),
            _ => String::new(),
        };
        let (rate, best) = (format!("{}/s", count(rate)), format!("{}/s", count(figures.best_rate(name))));
        table.row([name.to_owned(), rate, best, percent(faster), goal]);
    }
    table.print();
    let writes = if is_trial() { 20_000 } else { 250_000 };
    let reset = runtime().block_on(async {
        let store = full_store().await;
        let mut sleeper = watch(&store, &Selector::all()).await;
        for n in 0..writes {
            apply(&store, write(RESOURCES.count as u64 + n)).await;
        }
        sleeper.next().await.expect("an event").expect("an event")
    });
    let StoreEvent::Reset { gap: Gap::Lagged { dropped }, .. } = reset else { panic!("no lagged reset: {reset:?}") };
    println!("A watcher that did not read {writes} writes gets a reset that says it lost {dropped}.");
    assert_eq!(dropped, writes);
}

/// Measures the memory of watchers of a full history, and prints the table. `held` returns the number of allocated bytes.
pub fn held(held: impl Fn() -> usize) {
    let runtime = runtime();
    let mut table =
        Table::new(["watchers", "store, history and watchers", "that is more", "once all wait", "more for each"]);
    let mut none = (0, 0);
    for watchers in [0, 1, 10, 100, MANY] {
        let before = held();
        runtime.block_on(async {
            let store = full_store().await;
            let mut streams = Vec::with_capacity(watchers);
            for _ in 0..watchers {
                streams.push(watch(&store, &Selector::all()).await);
            }
            for n in 0..25_000 {
                apply(&store, write(RESOURCES.count as u64 + n)).await;
            }
            let lagging = held() - before;
            let mut events = Vec::with_capacity(TAKE);
            for stream in &mut streams {
                while !matches!(events.last(), Some(StoreEvent::Bookmark { .. })) {
                    events.clear();
                    stream.next_batch(&mut events, TAKE).await.expect("an event").expect("an event");
                }
                events.clear();
                assert!(waits(stream), "it has everything");
            }
            drop(events);
            let waiting = held() - before;
            if watchers == 0 {
                none = (lagging, waiting);
            }
            let more = |held: usize, none: usize| held.saturating_sub(none) as f64;
            let each = more(lagging, none.0).max(more(waiting, none.1)) / watchers.max(1) as f64;
            table.row([
                watchers.to_string(),
                bytes(lagging as f64),
                bytes(more(lagging, none.0)),
                bytes(more(waiting, none.1)),
                format!("{each:.0} B"),
            ]);
        });
    }
    table.print();
}

/// `true` if the stream has no event ready.
fn waits(stream: &mut StoreStream) -> bool {
    let next = std::pin::pin!(stream.next());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    next.poll(&mut context).is_pending()
}
