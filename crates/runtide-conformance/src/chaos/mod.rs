//! Chaos: a backend at work on a runtime that is broken again and again, and a check that nothing was lost, left or leaked.
//!
//! Workers create, start, stop, freeze, rename and remove instances, run commands in them, join them to networks and move the
//! content of volumes, through the backend and beside it, each verb only where `Capabilities` says that the backend has it. In the
//! meantime connections are severed, refused, stalled and half-opened, and the daemon is stopped and killed. All of that is drawn
//! from one seed. A run consists of rounds, every third without a fault. At the end of each round is a check point:
//!
//! * the fold of the stream, the backend's list and each of its inspections equal what the harness sees from outside;
//! * in a round whose stream had no gap, each start, stop and removal that the harness saw was reported, in order and once;
//! * no call lasted longer than its deadline and [`SLACK`]; no error came that no fault explains; no output was cut silently;
//! * no object is left that [`OperationLog::reap_orphans`](runtide_journal::OperationLog::reap_orphans) does not find;
//! * open descriptors and connections are within [`HELD`], and tasks within [`TASKS`], of those after the warm-up.
//!
//! At the end of the run the memory has not grown by more than [`GROWTH`] since the warm-up, and once streams and backend are
//! dropped, no connection and no descriptor is open that was not open before.

mod calls;
mod figures;
mod leftovers;
mod process;
mod schedule;
mod step_log;
pub mod store;
mod worker;

use std::{
    collections::BTreeSet,
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use runtide_core::{ErrorKind, ListOptions, RuntimeBackend, WatchOptions};
use tokio::{
    sync::RwLock,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use self::{
    calls::Calls,
    leftovers::{Objects, reap},
    process::Memory,
    schedule::{Abilities, Episodes, Faults, Lasts},
    worker::{BESIDE, Scene, work},
};
pub use self::{calls::SLACK, figures::Figures};
use crate::{
    Absent, Clock, Done, Fault, Harness, Held, Law, Obstacle, Subscriber, Supported, Violation, Workload, absent,
    compare,
    laws::{edges::reported_in_order, resources::given_back},
    run::block_on,
};

/// Workers at a time.
const WORKERS: u64 = 4;

/// Instances that are there during the whole run.
const RESIDENTS: usize = 3;

/// Descriptors and connections that may be open at a check point beyond those after the warm-up: connections that the backend keeps
/// for its next calls, which the calls of the last moment decide. A leak grows with each round.
pub const HELD: usize = 16;

/// Tasks that may live beyond those after the warm-up, and beyond the backend: what a create made whose answer never came is looked
/// for by a task, for some minutes. A call that leaks a task exceeds it within two rounds.
pub const TASKS: usize = 64;

/// Bytes by which the memory may grow after the warm-up: what the harness keeps of each fact, and what the allocator keeps of
/// memory that was given back. A leak of 1 KiB in each call exceeds it within a run of ten minutes.
pub const GROWTH: u64 = 16 << 20;

/// Time in which a daemon ends what it does for a caller that is gone.
const SETTLED: Duration = Duration::from_millis(500);

/// The variable with the time that a run takes, in seconds.
pub const TIME: &str = "RUNTIDE_CHAOS_SECONDS";

/// The variable with the seed of a run.
pub const SEED: &str = "RUNTIDE_CHAOS_SEED";

/// The seed of a run, and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The seed of all that is drawn.
    pub seed: u64,
    /// The time in which rounds are begun.
    pub time: Duration,
}

impl Plan {
    /// A run of this time and seed.
    pub fn new(seed: u64, time: Duration) -> Self {
        Self { seed, time }
    }

    /// The run that the environment describes; by default a short one.
    ///
    /// # Errors
    /// The variable that is no number.
    pub fn from_environment() -> Result<Self, String> {
        fn number<T: FromStr>(name: &str, default: T) -> Result<T, String> {
            let Ok(text) = std::env::var(name) else { return Ok(default) };
            text.parse().map_err(|_| format!("{name} is '{text}', expected a number"))
        }
        Ok(Self::new(number(SEED, 14)?, Duration::from_secs(number(TIME, 20)?)))
    }

    /// The time of a round's churn.
    fn round(self) -> Duration {
        (self.time / 4).clamp(Duration::from_secs(4), Duration::from_secs(15))
    }
}

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broken {
    /// The differences.
    pub what: Vec<String>,
    /// The last steps before it, oldest first.
    pub log: Vec<String>,
    /// The seed that repeats the schedule.
    pub seed: u64,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the last {} steps:", self.log.len())?;
        for step in &self.log {
            writeln!(f, "    {step}")?;
        }
        writeln!(f, "seed {}:", self.seed)?;
        for what in &self.what {
            writeln!(f, "  {what}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Broken {}

/// The body of a test: a run as the environment describes it. A harness that is absent is reported as a skip.
///
/// # Panics
/// If the run fails, or cannot be made though it should.
#[track_caller]
#[expect(clippy::panic, clippy::print_stdout, reason = "it is the body of a test, and prints the figures")]
pub fn test<H, F>(start: impl FnOnce() -> F)
where
    H: Harness + 'static,
    F: Future<Output = Result<H, Absent>>,
{
    let plan = Plan::from_environment().unwrap_or_else(|error| panic!("{error}"));
    let ran = block_on(Clock::Real, async {
        let harness: Arc<dyn Harness> = Arc::new(start().await?);
        let ran = run(&harness, plan, |line| println!("{line}")).await;
        harness.finish().await;
        Ok::<_, Absent>(ran)
    });
    match ran {
        Err(error) => panic!("no tokio runtime: {error}"),
        Ok(Err(absent)) => absent::report("chaos", absent),
        Ok(Ok(Err(broken))) => panic!("{broken}"),
        Ok(Ok(Ok(figures))) => println!("{figures}"),
    }
}

/// Runs it. `progress` gets a line at each check point.
///
/// # Errors
/// The first check point that failed, with the differences and the steps before it.
pub async fn run(harness: &Arc<dyn Harness>, plan: Plan, progress: impl FnMut(&str)) -> Result<Figures, Broken> {
    let calls = Calls::new();
    match Stage::set(harness, plan, calls).await {
        Ok(stage) => stage.run(progress).await,
        Err(violation) => Err(Broken { what: vec![violation.to_string()], log: Vec::new(), seed: plan.seed }),
    }
}

/// A run under way.
struct Stage {
    plan: Plan,
    harness: Arc<dyn Harness>,
    scene: Arc<Scene>,
    /// Resources that the process held before there was a backend.
    bare: Held,
    before: Objects,
    figures: Figures,
}

impl Stage {
    async fn set(harness: &Arc<dyn Harness>, plan: Plan, calls: Calls) -> Result<Self, Violation> {
        let timing = harness.timing();
        let deadline = timing.deadline * 2;
        let mut tuning = timing.tuning();
        (tuning.deadline, tuning.max_silence) = (Some(deadline), Some(timing.max_silence));
        let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
        let tag = format!("c{:x}", nanos & 0xfff_ffff);
        let mut residents = Vec::new();
        for number in 0..RESIDENTS {
            let id = harness.create(&format!("{tag}-resident{number}{BESIDE}"), &Workload::Idle).await?;
            harness.start(&id).await?;
            residents.push(id);
        }
        // Threads and a resolver, made once and kept for good, are no leak.
        let backend = harness.backend(&tuning).await?;
        let _info = backend.connect().await.map_err(Obstacle::failed)?;
        drop(Subscriber::live(&**harness, &backend).await?);
        drop(backend);
        sleep(timing.quiet).await;
        let bare = harness.held().await;

        let backend = harness.backend(&tuning).await?;
        let _info = backend.connect().await.map_err(Obstacle::failed)?;
        let before = Objects::now(&**harness, &*backend).await?;
        let owner = format!("chaos-{tag}");
        let scene = Arc::new(Scene {
            backend,
            calls,
            owner,
            tag,
            deadline,
            residents,
            networks: RwLock::default(),
            harness: Arc::clone(harness),
        });
        Ok(Self { plan, harness: Arc::clone(harness), scene, bare, before, figures: Figures::new(plan.seed) })
    }

    async fn run(mut self, mut progress: impl FnMut(&str)) -> Result<Figures, Broken> {
        let ran = self.rounds(&mut progress).await;
        let (mut log, seed) = (self.scene.calls.log(), self.plan.seed);
        let mut what = self.scene.calls.wrongs();
        what.extend(ran.err().map(|violation| violation.to_string()));
        if what.is_empty() {
            self.figures.calls = self.scene.calls.lines();
            self.figures.faults = self.scene.calls.faults();
            let Self { harness, scene, mut bare, figures, .. } = self;
            drop(scene);
            bare.tasks = bare.tasks.map(|tasks| tasks + TASKS);
            match given_back(&*harness, Law::R15, &bare, "the run: streams and backend were dropped").await {
                Ok(()) => return Ok(figures),
                Err(violation) => what.push(violation.to_string()),
            }
        } else {
            log = self.scene.calls.log();
            // So that the daemon is there for what comes next, without what this run made.
            let _ = self.harness.heal().await;
            // A backend whose calls hang is no reason to wait indefinitely.
            let reaped = timeout(self.harness.timing().timeout * 2, reap(&self.scene, &self.before)).await;
            what.extend(reaped.unwrap_or_default().into_iter().map(|left| format!("left: {left}")));
        }
        Err(Broken { what, log, seed })
    }

    async fn rounds(&mut self, progress: &mut impl FnMut(&str)) -> Result<(), Violation> {
        let began = Instant::now();
        let can = Abilities::of(&self.scene.backend.capabilities());
        let mut workers: Vec<Episodes> =
            (0..WORKERS).map(|worker| Episodes::of(self.plan.seed, worker, can, RESIDENTS)).collect();
        let mut faults = Faults::of(self.plan.seed);
        let mut stream = Subscriber::live(&*self.harness, &self.scene.backend).await?;
        let mut warm = Warm::default();
        let mut round = 0_u64;
        while began.elapsed() < self.plan.time || round < 3 {
            let is_calm = is_calm(round);
            let (from, facts) = (stream.events.len(), self.harness.facts().await?.len());
            self.scene
                .calls
                .note(format_args!("round {round} begins, {}", if is_calm { "calm" } else { "with faults" }));
            self.scene.calls.calm(is_calm);
            let until = Instant::now() + self.plan.round();
            let churned = stream.during(async {
                let disturbed = async {
                    if !is_calm {
                        disturb(&self.scene, &mut faults, until).await;
                    }
                };
                tokio::join!(churn(&self.scene, workers, until), disturbed).0
            });
            workers = churned.await?;
            // Under way when the round ended, or caused by what a round left: the check point is no part of a calm round.
            self.scene.calls.calm(false);
            self.check(&mut stream, from, facts).await?;

            let held = self.harness.held().await;
            warm.check(round, began.elapsed() < self.plan.time / 5, held)?;
            self.figures.observe(&stream);
            self.figures.round(held);
            progress(&self.figures.progress(began.elapsed(), is_calm));
            stream = self.resumed(stream, round).await?;
            round += 1;
        }
        if self.harness.dialect().edges && self.figures.proven == 0 {
            return Err(Violation::harness("show one round without a gap", "each had one, so no edge was compared"));
        }
        self.figures.growth = warm.growth(self.harness.is_real())?;
        Ok(())
    }

    /// The check point after a round.
    async fn check(&mut self, stream: &mut Subscriber, from: usize, facts: usize) -> Result<(), Violation> {
        let (h, scene) = (&*self.harness, &self.scene);
        h.heal().await?;
        let left = stream.during(async {
            answers(h, &*scene.backend).await?;
            // A power cut takes those that are on no disk: they are there again before the next round, not in it.
            let there: BTreeSet<_> = h.truth().await?.into_iter().map(|instance| instance.id).collect();
            for id in scene.residents.iter().filter(|id| !there.contains(*id)) {
                h.start(id).await?;
            }
            Ok::<_, Violation>(reap(scene, &self.before).await)
        });
        let left = left.await??;
        if !left.is_empty() {
            return Err(Violation::harness("find everything that the run left", left.join(", ")));
        }
        stream.converge(h, Law::R6).await?;
        self.agrees(stream).await?;
        let wrong = scene.calls.wrongs();
        if !wrong.is_empty() {
            return Err(Violation::harness("see each call end as it must", format!("{} that did not", wrong.len())));
        }
        if h.dialect().edges && stream.gaps(from).next().is_none() {
            let seen = h.facts().await?;
            let seen = seen.get(facts..).unwrap_or_default();
            let mut ids: Vec<_> = seen.iter().map(|fact| &fact.id).collect();
            ids.extend(stream.events.iter().skip(from).filter_map(|event| Some(&event.instance()?.id)));
            ids.sort();
            ids.dedup();
            for id in ids {
                // An outside observer may know an instance by its first start alone.
                let is_unknown = !seen.iter().any(|fact| fact.id == *id);
                if is_unknown && stream.edges_of(id, from).eq(["removed"]) {
                    continue;
                }
                reported_in_order(h, Law::R21, stream, id, from, seen)?;
                self.figures.proven += stream.edges_of(id, from).count() as u64;
            }
        }
        Ok(())
    }

    /// The list and each inspection agree with the runtime, as the stream does. What is at rest stays so.
    async fn agrees(&self, stream: &mut Subscriber) -> Result<(), Violation> {
        let (h, backend) = (&*self.harness, &self.scene.backend);
        let truth = h.truth().await?;
        let read = stream.during(async {
            let listed = backend.list_instances(ListOptions::default()).await.map_err(Obstacle::failed)?;
            let mut inspected = Vec::new();
            for one in &truth {
                match backend.inspect(&one.id).await {
                    Ok(instance) => inspected.push(instance),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(Obstacle::failed(error)),
                }
            }
            Ok((listed, inspected))
        });
        let (listed, inspected) = read.await??;
        let mut differs = compare::differences(
            "the list",
            listed.instances.iter().map(|row| &**row),
            "the runtime's state",
            truth.iter(),
        );
        differs.extend(compare::differences(
            "the inspections",
            inspected.iter().map(|row| &**row),
            "the runtime's state",
            truth.iter(),
        ));
        if differs.is_empty() && listed.is_complete() {
            return Ok(());
        }
        let found = if differs.is_empty() { "an incomplete list".to_owned() } else { differs.join("; ") };
        Err(stream.violation(Law::R6, "the list and the inspections to equal the runtime's state", &found))
    }

    /// The stream of the next round goes on where this one ended: in the same run of the driver, or, before every other round, in the
    /// next one, once the connection of this one is closed.
    async fn resumed(&self, stream: Subscriber, round: u64) -> Result<Subscriber, Violation> {
        let (h, backend) = (&*self.harness, &self.scene.backend);
        let Some((position, _)) = stream.table.position(backend.id()) else {
            return Err(stream.violation(Law::R7, "a position to resume from", "none"));
        };
        let options = WatchOptions::default().with_from(position.clone()).with_known(stream.table.clone());
        if round.is_multiple_of(2) || is_calm(round + 1) {
            // Nothing comes until something happens.
            return Subscriber::open(backend, options).await;
        }
        let without = h.held().await.connections.map(|connections| connections.saturating_sub(1));
        drop(stream);
        given_back(h, Law::R15, &Held::new(without, None, None), "the last stream was dropped").await?;
        let mut next = Subscriber::open(backend, options).await?;
        next.converge(h, Law::R7).await?;
        Ok(next)
    }
}

/// Every third round is without a fault, the first one included.
fn is_calm(round: u64) -> bool {
    round.is_multiple_of(3)
}

/// Resources and memory at the last check point of the warm-up.
#[derive(Default)]
struct Warm(Option<(Held, Option<Memory>)>);

impl Warm {
    /// The check point after a round: during the warm-up it counts, and afterwards it compares.
    fn check(&mut self, round: u64, is_early: bool, held: Held) -> Result<(), Violation> {
        let (first, _) = match self.0 {
            Some(warm) if round >= 2 && !is_early => warm,
            _ => *self.0.insert((held, Memory::now())),
        };
        let more = |count: Option<usize>, many| count.map(|count| count + many);
        // The harness has a proxy in this process: a connection has three ends here.
        let descriptors = more(first.descriptors, 3 * HELD);
        let bound = Held::new(more(first.connections, HELD), descriptors, more(first.tasks, TASKS));
        if held.is_within(&bound) {
            return Ok(());
        }
        let expected = format!(
            "to hold at most {HELD} more connections than after the warm-up ({first:?}), three times as many descriptors, and {TASKS} more tasks"
        );
        Err(Violation::of(Law::R15, expected, format!("{held:?}")))
    }

    /// The memory after the warm-up and now, in KiB; of a process with other tests in it, it says nothing and is not judged.
    fn growth(&self, is_alone: bool) -> Result<Option<(u64, u64)>, Violation> {
        let (Some((_, Some(first))), Some(last)) = (self.0, Memory::now()) else { return Ok(None) };
        if is_alone && last.now.saturating_sub(first.now) > GROWTH / 1024 {
            let expected = format!("find at most {} KiB more than {} KiB resident", GROWTH / 1024, first.now);
            return Err(Violation::harness(expected, format!("{} KiB", last.now)));
        }
        Ok(Some((first.now, last.now)))
    }
}

/// Has all workers work until a time, and returns their schedules.
async fn churn(scene: &Arc<Scene>, workers: Vec<Episodes>, until: Instant) -> Vec<Episodes> {
    let mut running = JoinSet::new();
    for (number, episodes) in workers.into_iter().enumerate() {
        let scene = Arc::clone(scene);
        running.spawn(async move { (number, work(scene, number, episodes, until).await) });
    }
    let mut done = running.join_all().await;
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, episodes)| episodes).collect()
}

/// Causes faults until a time.
async fn disturb(scene: &Scene, faults: &mut Faults, until: Instant) {
    let calls = &scene.calls;
    while Instant::now() < until {
        let disturbance = faults.draw();
        sleep_until((Instant::now() + disturbance.after).min(until)).await;
        let fault = &disturbance.fault;
        let lasts = match disturbance.lasts {
            Lasts::For(time) => time,
            Lasts::BeyondDeadlines => scene.deadline + SLACK + Duration::from_secs(2),
        };
        calls.note(format_args!("fault: {fault:?} for {lasts:?}"));
        let ends_the_daemon = matches!(fault, Fault::KillDaemon | Fault::RestartDaemon);
        let alone = if ends_the_daemon {
            let alone = scene.networks.write().await;
            // The daemon may still be at a call that its caller gave up.
            sleep(SETTLED).await;
            Some(alone)
        } else {
            None
        };
        // A stall ends with the connections whose bytes were withheld.
        if matches!(fault, Fault::Sever | Fault::Refuse | Fault::Stall) {
            calls.cut();
        }
        match scene.harness.fault(fault).await {
            Supported::Yes => calls.fault(fault),
            Supported::No(reason) => calls.note(format_args!("fault: {fault:?} is not caused: {reason}")),
        }
        drop(alone);
        sleep(lasts).await;
        let healed = scene.harness.heal().await;
        calls.note(format_args!("healed: {}", healed.map_or_else(|error| error.to_string(), |()| "ok".to_owned())));
    }
}

/// Waits until the runtime answers the backend. One that was killed may first have much to clear away.
async fn answers(h: &dyn Harness, backend: &dyn RuntimeBackend) -> Done<()> {
    let deadline = Instant::now() + h.timing().timeout * 3;
    loop {
        match backend.connect().await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(Obstacle::failed(error)),
            Err(_) => sleep(h.timing().quiet / 4).await,
        }
    }
}
