//! One writer, many watchers: deliveries in bursts, next to hand-written fan-outs.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_precision_loss)]

use std::{sync::Arc, time::SystemTime};

use runtide_benches::{
    Contest, Feed, Gate, Round, Scripted, Table, count, criterion,
    fan::{Broadcast, Channels, Numbered, Ringed, TAKE, Watcher, burst},
    fleet, met, nanos, percent, times,
};
use runtide_core::{
    BackendId, Cursor, EventStream, Health, InstanceId, InstanceState, RuntimeEvent, RuntimeEventKind, WatchOptions,
    event::Epoch,
    watch::{Driver, DriverOptions},
};
use tokio::runtime::Runtime;

/// Number of instances, and of events that a source hands over at once.
const INSTANCES: usize = 256;
/// Number of hand-overs in one burst: a burst fits into the ring, so that no watcher lags.
const BATCHES: usize = 4;
const BURST: usize = INSTANCES * BATCHES;
const GOAL: f64 = 25e6;

/// An event whose clone is one reference count.
#[derive(Clone)]
struct Event(Arc<RuntimeEvent>);

impl Numbered for Event {
    fn number(&self) -> u64 {
        self.0.cursor.seq
    }
}

fn main() {
    let mut criterion = criterion();
    let mut table = Table::new([
        "watchers",
        "fan-out by",
        "deliveries/s",
        "in the best turn",
        "CPU each",
        "runtide is",
        "its CPU is",
        "goal",
    ]);
    for watchers in [1, 10, 100, 1_000] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        let (batched, single) = (Watched::new(&runtime, watchers, TAKE), Watched::new(&runtime, watchers, 1));
        let peer = Peer::new(&runtime, watchers);
        let ring = Ringed::new(&runtime, watchers, &peer.watcher());
        let broadcast = Broadcast::new(&runtime, watchers, &peer.watcher());
        let channels = Channels::new(&runtime, watchers, &peer.watcher());
        let figures = Contest::new(format!("fanout/{watchers}"))
            .with("runtide", || batched.burst())
            .with("runtide, one by one", || single.burst())
            .with("bare ring", || {
                peer.burst(|events| events.chunks(INSTANCES).for_each(|batch| ring.push(batch.iter().cloned())))
            })
            .with("tokio broadcast", || {
                peer.burst(|events| events.iter().for_each(|event| broadcast.push(event.clone())))
            })
            .with("mpsc per watcher", || peer.burst(|events| events.iter().for_each(|event| channels.push(event))))
            .run(&mut criterion);
        for name in figures.names() {
            let rate = figures.rate(name);
            let goal =
                if watchers == 1_000 && name == "runtide" { met("≥ 25 M/s", rate >= GOAL) } else { String::new() };
            let (faster, cpu) = if name == "runtide" {
                (String::new(), String::new())
            } else {
                (times(figures.faster("runtide", name)), percent(figures.cpu_ratio("runtide", name)))
            };
            table.row([
                watchers.to_string(),
                name.to_owned(),
                count(rate),
                count(figures.best_rate(name)),
                nanos(figures.cpu_each(name)),
                faster,
                cpu,
                goal,
            ]);
        }
    }
    criterion.final_summary();
    table.print();
}

/// A driver with its watchers: it turns signals into events, which every stream yields.
struct Watched<'a> {
    runtime: &'a Runtime,
    gate: Arc<Gate>,
    watchers: usize,
    feed: Feed,
    ids: Vec<InstanceId>,
    _driver: Driver,
}

impl<'a> Watched<'a> {
    fn new(runtime: &'a Runtime, watchers: usize, take: usize) -> Self {
        let (backend, gate) = (BackendId::from("bench"), Arc::new(Gate::default()));
        let (driver, feed) = Scripted::driver(&backend, DriverOptions::default());
        let rows = fleet::rows(&backend, INSTANCES, Health::Healthy);
        let ids = rows.iter().map(|row| row.id.clone()).collect();
        feed.will_list(rows);
        gate.arm(watchers);
        let guard = runtime.enter();
        for _ in 0..watchers {
            let stream = driver.watch(WatchOptions::default()).unwrap();
            runtime.spawn(watch_stream(stream, Watcher::new(&gate, BURST), take));
        }
        drop(guard);
        runtime.block_on(gate.wait());
        Self { runtime, gate, watchers, feed, ids, _driver: driver }
    }

    fn burst(&self) -> Round {
        burst(self.runtime, &self.gate, self.watchers, BURST, || {
            for n in 0..BATCHES {
                let state = if n % 2 == 0 { InstanceState::Stopped } else { InstanceState::Running };
                self.feed.emit(self.ids.iter().map(|id| fleet::edge(id, state)).collect());
            }
        })
    }
}

async fn watch_stream(mut stream: EventStream, mut watcher: Watcher, take: usize) {
    while !matches!(stream.next().await.unwrap().unwrap().kind, RuntimeEventKind::ResyncEnd(_)) {}
    watcher.is_ready();
    if take == 1 {
        while let Some(Ok(event)) = stream.next().await {
            watcher.takes(&Event(event));
        }
        return;
    }
    let mut events = Vec::with_capacity(take);
    while let Some(Ok(_)) = stream.next_batch(&mut events, take).await {
        events.drain(..).for_each(|event| watcher.takes(&Event(event)));
    }
}

/// Prepared events for the peers, which make none themselves; numbered from 0.
fn events() -> Vec<Event> {
    let backend = BackendId::from("bench");
    let epoch = Epoch::from("bench");
    let rows = fleet::rows(&backend, INSTANCES, Health::Healthy);
    let event = |n: usize| {
        let kind = RuntimeEventKind::Started(Arc::clone(&rows[n % INSTANCES]));
        Event(Arc::new(RuntimeEvent::new(
            backend.clone(),
            Cursor::new(epoch.clone(), n as u64, None),
            SystemTime::now(),
            kind,
        )))
    };
    (0..BURST).map(event).collect()
}

/// The gate and the prepared events that the peers share.
struct Peer<'a> {
    runtime: &'a Runtime,
    gate: Arc<Gate>,
    watchers: usize,
    events: Vec<Event>,
}

impl<'a> Peer<'a> {
    fn new(runtime: &'a Runtime, watchers: usize) -> Self {
        Self { runtime, gate: Arc::default(), watchers, events: events() }
    }

    fn watcher(&self) -> Watcher {
        Watcher::new(&self.gate, BURST)
    }

    fn burst(&self, send: impl FnOnce(&[Event])) -> Round {
        burst(self.runtime, &self.gate, self.watchers, BURST, || send(&self.events))
    }
}
