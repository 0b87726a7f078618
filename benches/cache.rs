//! A hundred thousand instances: the memory that they take, and the CPU time of a resync of all of them.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::cast_precision_loss)]

use std::time::Duration;

use peak_alloc::PeakAlloc;
use runtide_benches::{
    Clock, Feed, Round, Scripted, Table, bytes, fleet, is_trial, met, millis, nanos, resident_bytes,
};
use runtide_core::{
    BackendId, EventStream, Gap, Health, InstanceId, InstanceState, Listing, RuntimeEventKind, WatchOptions,
    watch::{Driver, DriverOptions, Signal, SignalBody},
};
use tokio::runtime::Runtime;

/// Counts the requested bytes; the allocator's own bytes per block are in the resident figure.
#[global_allocator]
static HELD: PeakAlloc = PeakAlloc;

const RING: usize = 4_096;
const GOAL_BYTES: f64 = 1.5 * 1_024.0;
const GOAL_CPU: Duration = Duration::from_millis(500);

fn main() {
    let count = if is_trial() { 1_000 } else { 100_000 };
    let turns = if is_trial() { 1 } else { 7 };
    // Memory first, in a fresh heap.
    let mut bench = Bench::new(count);
    let mut table = Table::new(["instances", "what", "figure", "each", "goal"]);
    let mut memory = |what: &str, held: usize, goal: bool| {
        let each = held as f64 / count as f64;
        let goal = if goal { met("≤ 1.5 KiB each", each <= GOAL_BYTES) } else { String::new() };
        table.row([count.to_string(), what.to_owned(), bytes(held as f64), bytes(each), goal]);
    };
    memory("held by driver, cache and ring", bench.held, true);
    if let Some(resident) = bench.resident {
        memory("the same, resident", resident, false);
    }
    memory("most at any time during the first listing", bench.peak, false);
    let before = HELD.current_usage();
    let quiet = bench.held;
    bench.fill_ring();
    memory("held once the ring is full of events", quiet + HELD.current_usage() - before, true);

    let mut cpu = |what: &str, mut turn: Box<dyn FnMut() -> Round + '_>, goal: bool| {
        let mut rounds: Vec<Round> = (0..turns).map(|_| turn()).collect();
        rounds.sort_by_key(|round| round.cpu);
        let Some(round) = rounds.get(turns / 2) else { return };
        let goal = if goal { met("< 500 ms of CPU", round.cpu < GOAL_CPU) } else { String::new() };
        let figure = format!("{} of CPU", millis(round.cpu.as_secs_f64()));
        table.row([count.to_string(), what.to_owned(), figure, nanos(round.cpu_each()), goal]);
    };
    cpu("resync, all of them changed", Box::new(|| bench.resync(true)), true);
    cpu("resync, nothing changed", Box::new(|| bench.resync(false)), true);
    cpu("comparison after a resume, nothing changed", Box::new(|| bench.confirm()), true);
    cpu("resync for one late subscriber", Box::new(|| bench.latecomer()), true);
    cpu("first listing", Box::new(|| Bench::new(count).first), true);
    table.print();
}

struct Bench {
    runtime: Runtime,
    backend: BackendId,
    driver: Driver,
    feed: Feed,
    stream: EventStream,
    health: Health,
    count: usize,
    first: Round,
    held: usize,
    peak: usize,
    resident: Option<usize>,
}

impl Bench {
    fn new(count: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (before, resident) = (HELD.current_usage(), resident_bytes());
        let backend = BackendId::from("bench");
        let (driver, feed) = Scripted::driver(&backend, DriverOptions::default());
        let health = Health::Healthy;
        feed.will_list(fleet::rows(&backend, count, health));
        HELD.reset_peak_usage();
        let clock = Clock::start();
        let mut stream = {
            let _inside = runtime.enter();
            driver.watch(WatchOptions::default()).unwrap()
        };
        runtime.block_on(resync(&mut stream, count));
        let first = clock.stop(count as u64);
        let held = HELD.current_usage().saturating_sub(before);
        let peak = HELD.peak_usage().saturating_sub(before);
        let resident = resident.and_then(|before| resident_bytes()?.checked_sub(before));
        Self { runtime, backend, driver, feed, stream, health, count, first, held, peak, resident }
    }

    /// Fills the ring with events.
    fn fill_ring(&mut self) {
        let ids: Vec<InstanceId> = (0..self.count).take(256).map(|n| fleet::id(n).into()).collect();
        let states = [InstanceState::Stopped, InstanceState::Running];
        for state in states.into_iter().cycle().take(RING / ids.len() + 2) {
            self.feed.emit(ids.iter().map(|id| fleet::edge(id, state)).collect());
            self.runtime.block_on(async {
                for _ in 0..ids.len() {
                    let event = self.stream.next().await.unwrap().unwrap();
                    assert_eq!(event.instance().unwrap().state, state);
                }
            });
        }
    }

    /// A resync after a gap: every instance is listed and emitted. The rows are made before the clock starts.
    fn resync(&mut self, changed: bool) -> Round {
        if changed {
            self.health = if self.health == Health::Healthy { Health::Unhealthy } else { Health::Healthy };
        }
        self.feed.will_list(fleet::rows(&self.backend, self.count, self.health));
        let clock = Clock::start();
        self.feed.emit(vec![Signal::new(SignalBody::Lost(Gap::HistoryExpired))]);
        self.runtime.block_on(resync(&mut self.stream, self.count));
        clock.stop(self.count as u64)
    }

    /// A listing that confirms the cache and emits no event; the two edges sent after it show that it is done.
    fn confirm(&mut self) -> Round {
        let rows = fleet::rows(&self.backend, self.count, self.health);
        let clock = Clock::start();
        self.feed.emit(vec![Signal::new(SignalBody::Full(Listing::complete(rows)))]);
        let id = InstanceId::from(fleet::id(0));
        self.feed.emit(vec![fleet::edge(&id, InstanceState::Paused), fleet::edge(&id, InstanceState::Running)]);
        self.runtime.block_on(async {
            for _ in 0..2 {
                let event = self.stream.next().await.unwrap().unwrap();
                assert!(matches!(event.kind, RuntimeEventKind::Updated { .. }), "{:?}", event.kind);
            }
        });
        clock.stop(self.count as u64)
    }

    /// A new subscriber reads its first resync, which the cache serves.
    fn latecomer(&mut self) -> Round {
        let clock = Clock::start();
        let mut late = {
            let _inside = self.runtime.enter();
            self.driver.watch(WatchOptions::default()).unwrap()
        };
        self.runtime.block_on(resync(&mut late, self.count));
        clock.stop(self.count as u64)
    }
}

/// Reads a resync to its end, and counts its rows.
async fn resync(stream: &mut EventStream, count: usize) {
    let (mut shown, mut events) = (0, Vec::with_capacity(256));
    loop {
        stream.next_batch(&mut events, 256).await.unwrap().unwrap();
        for event in events.drain(..) {
            match &event.kind {
                RuntimeEventKind::ResyncBegin { .. } => shown = 0,
                RuntimeEventKind::Present(_) => shown += 1,
                RuntimeEventKind::ResyncEnd(_) => {
                    assert_eq!(shown, count);
                    return;
                }
                other => panic!("{other:?} inside a resync"),
            }
        }
    }
}
