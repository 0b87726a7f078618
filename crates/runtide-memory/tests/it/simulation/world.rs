//! One random history, from its seed.

use std::{num::NonZeroU16, num::NonZeroUsize, sync::Arc, time::Duration};

use fastrand::Rng;
use runtide_conformance::compare::differences;
use runtide_core::{
    Address, Detail, ExitStatus, Freshness, Health, Instance, InstanceFilter, InstanceId, LabelMatch, Labels, Port,
    Protocol, RuntimeBackend, UnixSignal, WatchOptions, watch::DriverOptions,
};
use runtide_memory::{
    Blueprint, Call, Config, Dialect, FactKind, Garble, MemoryBackend, MemoryRuntime, Reboot, RuntimeOptions,
};

use super::subscriber::{Subscriber, number};

/// Totals of the events, so that a run can show that it was not idle.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) steps: u64,
    pub(crate) facts: u64,
    /// Number of edges that had to be reported, and were.
    pub(crate) edges: u64,
    pub(crate) resyncs: u64,
    pub(crate) resumed: u64,
    pub(crate) lagged: u64,
    pub(crate) outages: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.facts += other.facts;
        self.edges += other.edges;
        self.resyncs += other.resyncs;
        self.resumed += other.resumed;
        self.lagged += other.lagged;
        self.outages += other.outages;
    }
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of this history, independent of the others")]
struct World {
    rng: Rng,
    runtime: MemoryRuntime,
    backend: Arc<MemoryBackend>,
    subscribers: Vec<Subscriber>,
    ids: Vec<InstanceId>,
    made: usize,
    trace: bool,
    dialect: Dialect,
    /// `false` if the stream is garbled or late in this history: the edges that must be reported are then not known.
    faithful: bool,
    down: bool,
    dead: bool,
    partial: bool,
}

pub(crate) async fn history(seed: u64, trace: bool) -> Result<Tally, String> {
    let mut rng = Rng::with_seed(seed);
    let dialect = match rng.u8(0..10) {
        0..6 => Dialect::Edges,
        6..8 => Dialect::Hints,
        _ => Dialect::States,
    };
    let kept = [2, 8, 64, 4_096][rng.usize(0..4)];
    let mut config = Config::default()
        .with_dialect(dialect)
        .with_edges_name_incarnation(rng.bool())
        .with_driver(DriverOptions::default().with_jitter_seed(seed).with_ring(NonZeroUsize::new(kept)));
    if rng.bool() {
        config = config.with_lean_summary();
    }
    let history = [3_usize, 20, 256][rng.usize(0..3)];
    if trace {
        println!("seed {seed}: {dialect:?}, ring {kept}, history {history}, lean {}", config.lean_summary);
    }
    let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(seed).with_history(history));
    let backend = Arc::new(MemoryBackend::new(config, runtime.clone()).map_err(|error| error.to_string())?);
    let faithful = rng.u8(0..3) > 0;
    let mut world = World {
        rng,
        runtime,
        backend,
        subscribers: Vec::new(),
        ids: Vec::new(),
        made: 0,
        trace,
        dialect,
        faithful,
        down: false,
        dead: false,
        partial: false,
    };
    world.run().await
}

impl World {
    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("  {}", what());
        }
    }

    async fn run(&mut self) -> Result<Tally, String> {
        let steps = self.rng.u64(20..80);
        for _ in 0..self.rng.usize(0..6) {
            self.change();
        }
        self.subscribe().await?;
        for _ in 0..steps {
            match self.rng.u8(0..100) {
                0..50 => self.change(),
                50..68 => self.pass().await,
                68..80 => self.fault(),
                80..84 => {
                    self.say(|| "heal".into());
                    self.heal();
                }
                84..88 => self.subscribe().await?,
                _ => self.meddle().await?,
            }
            let ahead = self.ahead();
            for subscriber in self.subscribers.iter_mut().filter(|subscriber| !subscriber.stalled) {
                subscriber.drain(ahead, self.trace)?;
            }
        }
        self.verdict(steps).await
    }

    /// Lets time pass, and tasks run.
    async fn pass(&mut self) {
        let span = match self.rng.u8(0..10) {
            0..4 => Duration::from_millis(self.rng.u64(0..5)),
            4..7 => Duration::from_millis(self.rng.u64(0..500)),
            7..9 => Duration::from_millis(self.rng.u64(0..10_000)),
            _ => Duration::from_secs(self.rng.u64(0..200)),
        };
        self.say(|| format!("{span:?} pass"));
        tokio::time::sleep(span).await;
    }

    fn any_id(&mut self) -> Option<InstanceId> {
        (!self.ids.is_empty()).then(|| self.ids[self.rng.usize(0..self.ids.len())].clone())
    }

    fn blueprint(&mut self) -> Blueprint {
        self.made += 1;
        let labels: Labels = [("tier", ["front", "back"][self.rng.usize(0..2)])].into_iter().collect();
        Blueprint::named(format!("i{}", self.made)).with_labels(labels)
    }

    /// Changes something at the runtime, which refuses a change that is impossible in the present state.
    fn change(&mut self) {
        let design = self.blueprint();
        let Some(id) = self.any_id().filter(|_| self.rng.u8(0..5) > 0) else {
            let id = if self.rng.bool() { self.runtime.run(design) } else { self.runtime.create(design) };
            self.say(|| format!("new {id:?}"));
            return self.ids.extend(id.ok());
        };
        let (runtime, code) = (self.runtime.clone(), self.rng.i32(0..4));
        let number = NonZeroU16::MIN.saturating_add(self.rng.u16(0..3));
        let (what, done) = match self.rng.u8(0..18) {
            0 | 1 => ("start", runtime.start(&id)),
            2 | 3 => ("exit", runtime.exit(&id, ExitStatus::code(code))),
            4 => ("hup", runtime.kill(&id, UnixSignal::HUP)),
            5 => ("pause", runtime.pause(&id)),
            6 => ("unpause", runtime.unpause(&id)),
            7 => ("rename", runtime.rename(&id, format!("r{}", self.made))),
            8 => ("health", runtime.set_health(&id, [Health::Healthy, Health::Unhealthy][self.rng.usize(0..2)])),
            9 => ("ports", runtime.set_ports(&id, vec![Port::new(number, Protocol::Tcp)])),
            10 => {
                let ip = std::net::Ipv4Addr::new(10, 0, 0, self.rng.u8(1..4)).into();
                ("addresses", runtime.set_addresses(&id, vec![Address::new(ip, None)]))
            }
            11 => {
                let labels: Labels = [("tier", ["front", "back"][self.rng.usize(0..2)])].into_iter().collect();
                ("labels", runtime.set_labels(&id, labels))
            }
            12 | 13 => ("remove", runtime.remove(&id)),
            14 => ("restart", runtime.restart(&id)),
            15 => ("vanish", runtime.vanish(&id)),
            16 => {
                let (id, done) = match runtime.recreate(&id) {
                    Ok(id) => (Some(id), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                self.ids.extend(id);
                ("recreate", done)
            }
            _ => {
                // Runs too short for any inspection.
                for _ in 0..self.rng.u8(1..6) {
                    let short = self.blueprint();
                    if let Ok(id) = runtime.run(short) {
                        let _ = runtime.exit(&id, ExitStatus::code(code));
                        let _ = runtime.remove(&id);
                    }
                }
                ("short runs", Ok(()))
            }
        };
        self.say(|| format!("{what} {id}: {}", if done.is_ok() { "done" } else { "refused" }));
    }

    /// The newest token that a listing may have seen, if streams were dead in this history.
    fn ahead(&self) -> Option<u64> {
        let newest = self.runtime.history().last().map(|fact| number(Some(&fact.token)));
        newest.filter(|_| self.dead)
    }

    fn heal(&mut self) {
        self.runtime.heal();
        if std::mem::take(&mut self.down) {
            self.runtime.come_up(Reboot::default());
        }
    }

    fn fault(&mut self) {
        let runtime = self.runtime.clone();
        let id = self.any_id();
        let pick = self.rng.u8(0..if self.faithful { 15 } else { 19 });
        let what = match pick {
            0 | 1 => {
                runtime.sever();
                "sever"
            }
            2 | 3 => {
                runtime.close_streams();
                "close"
            }
            4 => {
                runtime.half_open();
                self.dead = true;
                "half-open"
            }
            5 => {
                runtime.faults(|faults| faults.refuse = true);
                "refuse"
            }
            6 => {
                let call = [Call::List, Call::Events, Call::Inspect][self.rng.usize(0..3)];
                runtime.faults(|faults| faults.deny.insert(call));
                "deny"
            }
            7 => {
                let call = [Call::List, Call::Events, Call::Inspect][self.rng.usize(0..3)];
                runtime.faults(|faults| faults.stall.insert(call));
                "stall"
            }
            8 => {
                let slow = Duration::from_millis(self.rng.u64(1..3_000));
                runtime.faults(|faults| faults.slow.insert(Call::List, slow));
                runtime.faults(|faults| faults.slow.insert(Call::Inspect, slow / 2));
                "slow answers"
            }
            9 => {
                runtime.lose_history();
                "lose history"
            }
            10 => {
                runtime.go_down();
                self.down = true;
                "down"
            }
            11 => {
                let mut reboot = Reboot::default();
                if self.rng.bool() {
                    reboot = reboot.keeping_history();
                }
                if self.rng.bool() {
                    reboot = reboot.stopping_instances();
                }
                runtime.reboot(reboot);
                self.down = false;
                "reboot"
            }
            12 => {
                let few = self.rng.usize(0..3);
                runtime.faults(|faults| faults.truncate_list = Some(few));
                self.partial = true;
                "truncated lists"
            }
            13 => {
                runtime.faults(|faults| faults.bad_items.extend(id));
                self.partial = true;
                "a bad item"
            }
            14 => {
                runtime.faults(|faults| faults.close_at_once = true);
                "close at once"
            }
            15 => {
                let garble = if self.rng.bool() { Garble::Body } else { Garble::Whole };
                runtime.faults(|faults| faults.garble = Some(garble));
                "garbled events"
            }
            16 => {
                runtime.faults(|faults| faults.duplicate = true);
                "duplicated events"
            }
            17 => {
                runtime.faults(|faults| faults.reorder = true);
                "reordered events"
            }
            _ => {
                let delay = Duration::from_millis(self.rng.u64(1..400));
                runtime.faults(|faults| faults.delay = Some(delay));
                "late events"
            }
        };
        self.say(|| what.to_owned());
    }

    fn options(&mut self) -> (WatchOptions, bool) {
        let mut options = WatchOptions::default();
        if self.rng.u8(0..4) == 0 {
            options = options.with_detail(Detail::Full);
        }
        if self.rng.u8(0..4) == 0 {
            options = options.with_bookmark_every(Duration::from_secs(self.rng.u64(1..30)));
        }
        let unfiltered = self.rng.u8(0..5) > 0;
        if !unfiltered {
            options = options.with_filter(InstanceFilter::default().with_labels([LabelMatch::is("tier", "front")]));
        }
        (options, unfiltered)
    }

    async fn subscribe(&mut self) -> Result<(), String> {
        if self.subscribers.len() >= 5 {
            return Ok(());
        }
        let (options, unfiltered) = self.options();
        let name = self.made + self.subscribers.len();
        self.say(|| format!("subscriber {name} comes ({options:?})"));
        let stream = self.backend.watch(options).await.map_err(|error| error.to_string())?;
        self.subscribers.push(Subscriber::new(name, stream, unfiltered));
        Ok(())
    }

    /// Makes a subscriber stop reading, continue, leave, or come back to its position.
    async fn meddle(&mut self) -> Result<(), String> {
        if self.subscribers.is_empty() {
            return self.subscribe().await;
        }
        let at = self.rng.usize(0..self.subscribers.len());
        match self.rng.u8(0..8) {
            0..3 => {
                let subscriber = &mut self.subscribers[at];
                subscriber.stalled = !subscriber.stalled;
                let (name, stalled) = (subscriber.name, subscriber.stalled);
                self.say(|| format!("subscriber {name} stalls: {stalled}"));
            }
            3 => {
                let gone = self.subscribers.swap_remove(at);
                self.say(|| format!("subscriber {} leaves", gone.name));
            }
            _ => {
                // The process ends, with all its streams, and one consumer comes back with its stored position.
                let alone = self.rng.bool();
                let mut back = self.subscribers.swap_remove(at);
                if alone {
                    self.subscribers.clear();
                }
                let Some(from) = back.position.clone().filter(|_| back.unfiltered) else { return Ok(()) };
                let known = back.table.clone();
                back.stream = runtide_core::EventStream::new(futures_util::stream::empty());
                if alone && self.rng.bool() {
                    self.pass().await;
                    for _ in 0..self.rng.u8(0..5) {
                        self.change();
                    }
                }
                let with_known = self.rng.u8(0..4) > 0;
                self.say(|| {
                    format!("subscriber {} comes back to {from:?}, alone {alone}, known {with_known}", back.name)
                });
                let mut options = WatchOptions::default().with_from(from.clone());
                if with_known {
                    options = options.with_known(known);
                }
                let stream = self.backend.watch(options).await.map_err(|error| error.to_string())?;
                back.resume(stream, &from, with_known, !self.subscribers.is_empty());
                self.subscribers.push(back);
            }
        }
        Ok(())
    }

    /// Heals, rests, and checks every subscriber.
    async fn verdict(&mut self, steps: u64) -> Result<Tally, String> {
        self.say(|| "heal, and rest".into());
        self.heal();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(30)).await;
            let ahead = self.ahead();
            for subscriber in &mut self.subscribers {
                subscriber.drain(ahead, self.trace)?;
            }
        }
        let truth = self.runtime.truth();
        let facts = self.runtime.history();
        // The end of an instance that no list ever showed cannot be reported: its stream has no more than its id.
        let lifecycle = |kind: FactKind| match kind {
            FactKind::Started | FactKind::Stopped => true,
            FactKind::Removed => !self.partial,
            _ => false,
        };
        let tokens: Vec<u64> = facts
            .iter()
            .filter(|fact| fact.told && lifecycle(fact.kind))
            .map(|fact| number(Some(&fact.token)))
            .collect();
        let mut tally = Tally { steps, facts: facts.len() as u64, ..Tally::default() };
        for subscriber in &mut self.subscribers {
            let front = |instance: &&Instance| {
                subscriber.unfiltered
                    || instance.labels.as_ref().is_some_and(|labels| labels.get("tier").is_some_and(|t| t == "front"))
            };
            let wrong = differences(
                "the stream's fold",
                subscriber.table.iter().map(|row| &**row).filter(front),
                "the runtime's state",
                truth.iter().filter(front),
            );
            if !wrong.is_empty() {
                return Err(format!("subscriber {}: {}", subscriber.name, wrong.join("; ")));
            }
            let (known, fresh) = subscriber.knows(self.backend.id());
            if !known.is_complete() || fresh != Some(Freshness::Live) {
                return Err(format!("subscriber {}: at rest its table is {known:?} and {fresh:?}", subscriber.name));
            }
            if subscriber.unfiltered && self.faithful && self.dialect == Dialect::Edges {
                let head = tokens.last().copied().unwrap_or(0);
                let missing = subscriber.missing(&tokens, head);
                if let Some(token) = missing.first() {
                    let fact = facts.iter().find(|fact| number(Some(&fact.token)) == *token);
                    return Err(format!(
                        "subscriber {}: {} edges were never reported, the first is {fact:?}",
                        subscriber.name,
                        missing.len()
                    ));
                }
                tally.edges += tokens.len() as u64;
            }
            tally.resyncs += subscriber.resyncs;
            tally.resumed += subscriber.resumed;
            tally.lagged += subscriber.lagged;
            tally.outages += subscriber.outages;
        }
        Ok(tally)
    }
}
