//! One writer, many watchers: deliveries in bursts, beside what one would write by hand.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_precision_loss)]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use runtide_benches::{
    Clock, Contest, Feed, Gate, Round, Scripted, Table, count, criterion, fleet, met, nanos, percent, times,
};
use runtide_core::{
    BackendId, Cursor, Driver, DriverOptions, Epoch, EventStream, Health, InstanceId, InstanceState, RuntimeEvent,
    RuntimeEventKind, WatchOptions,
};
use tokio::{
    runtime::Runtime,
    sync::{broadcast, mpsc, watch},
};

/// Instances, and events in one hand-over.
const INSTANCES: usize = 256;
/// Hand-overs in one burst: it fits into the ring, so that nobody falls behind.
const BATCHES: usize = 4;
const BURST: usize = INSTANCES * BATCHES;
const RING: usize = 4_096;
/// Events that a watcher takes at a time.
const TAKE: usize = 256;
const GOAL: f64 = 25e6;

type Event = Arc<RuntimeEvent>;

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
        let ring = Ringed::new(&runtime, watchers);
        let broadcast = Broadcast::new(&runtime, watchers);
        let channels = Channels::new(&runtime, watchers);
        let figures = Contest::new(format!("fanout/{watchers}"))
            .with("runtide", || batched.burst())
            .with("runtide, one by one", || single.burst())
            .with("bare ring", || ring.burst())
            .with("tokio broadcast", || broadcast.burst())
            .with("mpsc per watcher", || channels.burst())
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

/// Checks that nothing is lost or out of order, and says when a burst is complete.
struct Watcher {
    gate: Arc<Gate>,
    seen: usize,
    last: Option<u64>,
}

impl Watcher {
    fn new(gate: &Arc<Gate>) -> Self {
        Self { gate: Arc::clone(gate), seen: 0, last: None }
    }

    fn takes(&mut self, event: &RuntimeEvent) {
        let seq = event.cursor.seq;
        if let Some(last) = self.last.replace(seq) {
            assert!(seq == last + 1 || seq == 0, "{seq} after {last}");
        }
        self.seen += 1;
        if self.seen == BURST {
            self.seen = 0;
            self.gate.pass();
        }
    }
}

/// Runs one burst, from its first signal until every watcher has all of it.
fn burst(runtime: &Runtime, gate: &Gate, watchers: usize, send: impl FnOnce()) -> Round {
    gate.arm(watchers);
    let clock = Clock::start();
    send();
    runtime.block_on(gate.wait());
    clock.stop((watchers * BURST) as u64)
}

/// The driver: signals go in, events are made of them, and come out of everybody's stream.
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
        feed.will_show(rows);
        gate.arm(watchers);
        let guard = runtime.enter();
        for _ in 0..watchers {
            let stream = driver.watch(WatchOptions::default()).unwrap();
            runtime.spawn(watch_stream(stream, Watcher::new(&gate), take));
        }
        drop(guard);
        runtime.block_on(gate.wait());
        Self { runtime, gate, watchers, feed, ids, _driver: driver }
    }

    fn burst(&self) -> Round {
        burst(self.runtime, &self.gate, self.watchers, || {
            for n in 0..BATCHES {
                let state = if n % 2 == 0 { InstanceState::Stopped } else { InstanceState::Running };
                self.feed.tell(self.ids.iter().map(|id| fleet::edge(id, state)).collect());
            }
        })
    }
}

async fn watch_stream(mut stream: EventStream, mut watcher: Watcher, take: usize) {
    while stream.next().await.unwrap().unwrap().kind != RuntimeEventKind::ResyncEnd {}
    watcher.gate.pass();
    if take == 1 {
        while let Some(Ok(event)) = stream.next().await {
            watcher.takes(&event);
        }
        return;
    }
    let mut events = Vec::with_capacity(take);
    while let Some(Ok(_)) = stream.next_batch(&mut events, take).await {
        events.drain(..).for_each(|event| watcher.takes(&event));
    }
}

/// Ready-made events, numbered from 0: the peers do not make theirs.
fn events() -> Vec<Event> {
    let backend = BackendId::from("bench");
    let epoch = Epoch::from("bench");
    let rows = fleet::rows(&backend, INSTANCES, Health::Healthy);
    let event = |n: usize| {
        let kind = RuntimeEventKind::Started(Arc::clone(&rows[n % INSTANCES]));
        Arc::new(RuntimeEvent::new(
            backend.clone(),
            Cursor::new(epoch.clone(), n as u64, None),
            SystemTime::now(),
            kind,
        ))
    };
    (0..BURST).map(event).collect()
}

/// A ring behind a lock, and a number that says how far it is: no filter, no bracket, no end.
struct Ringed<'a> {
    runtime: &'a Runtime,
    gate: Arc<Gate>,
    watchers: usize,
    events: Vec<Event>,
    ring: Arc<Mutex<Ring>>,
    head: watch::Sender<usize>,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Event>,
    /// The number of the next one.
    head: usize,
}

impl<'a> Ringed<'a> {
    fn new(runtime: &'a Runtime, watchers: usize) -> Self {
        let gate = Arc::new(Gate::default());
        let ring = Arc::<Mutex<Ring>>::default();
        let (head, told) = watch::channel(0);
        for _ in 0..watchers {
            runtime.spawn(watch_ring(Arc::clone(&ring), told.clone(), Watcher::new(&gate)));
        }
        Self { runtime, gate, watchers, events: events(), ring, head }
    }

    fn burst(&self) -> Round {
        burst(self.runtime, &self.gate, self.watchers, || {
            for batch in self.events.chunks(INSTANCES) {
                let mut ring = self.ring.lock().unwrap();
                for event in batch {
                    if ring.events.len() >= RING {
                        ring.events.pop_front();
                    }
                    ring.events.push_back(Arc::clone(event));
                }
                ring.head += batch.len();
                let head = ring.head;
                drop(ring);
                self.head.send_replace(head);
            }
        })
    }
}

async fn watch_ring(ring: Arc<Mutex<Ring>>, mut told: watch::Receiver<usize>, mut watcher: Watcher) {
    let mut next = 0;
    let mut taken: Vec<Event> = Vec::with_capacity(TAKE);
    loop {
        {
            let ring = ring.lock().unwrap();
            let behind = ring.head - next;
            let at = ring.events.len() - behind;
            taken.extend(ring.events.range(at..at + behind.min(TAKE)).cloned());
        }
        if taken.is_empty() {
            if told.wait_for(|head| *head > next).await.is_err() {
                return;
            }
            continue;
        }
        next += taken.len();
        taken.drain(..).for_each(|event| watcher.takes(&event));
    }
}

/// `tokio::sync::broadcast`.
struct Broadcast<'a> {
    runtime: &'a Runtime,
    gate: Arc<Gate>,
    watchers: usize,
    events: Vec<Event>,
    sender: broadcast::Sender<Event>,
}

impl<'a> Broadcast<'a> {
    fn new(runtime: &'a Runtime, watchers: usize) -> Self {
        let gate = Arc::new(Gate::default());
        let (sender, _) = broadcast::channel::<Event>(RING);
        for _ in 0..watchers {
            let (mut receiver, mut watcher) = (sender.subscribe(), Watcher::new(&gate));
            runtime.spawn(async move {
                loop {
                    match receiver.recv().await {
                        Ok(event) => watcher.takes(&event),
                        Err(broadcast::error::RecvError::Closed) => return,
                        Err(lagged) => panic!("{lagged}"),
                    }
                }
            });
        }
        Self { runtime, gate, watchers, events: events(), sender }
    }

    fn burst(&self) -> Round {
        burst(self.runtime, &self.gate, self.watchers, || {
            for event in &self.events {
                self.sender.send(Arc::clone(event)).unwrap();
            }
        })
    }
}

/// A channel for each watcher.
struct Channels<'a> {
    runtime: &'a Runtime,
    gate: Arc<Gate>,
    watchers: usize,
    events: Vec<Event>,
    senders: Vec<mpsc::Sender<Event>>,
}

impl<'a> Channels<'a> {
    fn new(runtime: &'a Runtime, watchers: usize) -> Self {
        let gate = Arc::new(Gate::default());
        let mut senders = Vec::new();
        for _ in 0..watchers {
            let (sender, mut receiver) = mpsc::channel::<Event>(RING);
            let mut watcher = Watcher::new(&gate);
            runtime.spawn(async move {
                let mut events = Vec::with_capacity(TAKE);
                while receiver.recv_many(&mut events, TAKE).await > 0 {
                    events.drain(..).for_each(|event| watcher.takes(&event));
                }
            });
            senders.push(sender);
        }
        Self { runtime, gate, watchers, events: events(), senders }
    }

    fn burst(&self) -> Round {
        burst(self.runtime, &self.gate, self.watchers, || {
            for event in &self.events {
                for sender in &self.senders {
                    sender.try_send(Arc::clone(event)).unwrap();
                }
            }
        })
    }
}
