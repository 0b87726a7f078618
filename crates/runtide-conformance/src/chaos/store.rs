//! Chaos for a store: writers at work on a store whose links and members are broken again and again.
//!
//! Each writer has resources that no other writes, so that it knows what they are, up to writes whose outcome is unknown. It writes
//! through the store under test and through another client of the same data; a watcher follows all of it. At each check point, once
//! every disturbance is healed, these are the same: the fold of the watch, a listing of the store, a listing of the other client, and
//! what the writers know. Deadlines, errors, descriptors and memory are judged as for a runtime.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use runtide_core::store::{
    Document, Precondition, ResourceRef, Selector, Since, StoreBackend, StoreBackendExt, StoreEvent, StoreStream,
    StoreWatchOptions,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Broken, Plan, WORKERS, Warm,
    calls::{Call, Calls},
    figures::Figures,
    is_calm,
    schedule::{generator, millis},
};
use crate::{
    Absent, Clock, Done, Held, Obstacle, Supported, Violation, absent,
    run::block_on,
    store::{Disturbance, StoreHarness},
};

/// Resources of each writer.
const RESOURCES: usize = 6;

/// Kind of the resources of a run.
const KIND: &str = "Chaos";

/// The body of a test: a run as the environment describes it, on a store whose calls have this deadline. A harness that is absent is
/// reported as a skip.
///
/// # Panics
/// If the run fails, or cannot be made though it should.
#[track_caller]
#[expect(clippy::panic, clippy::print_stdout, reason = "it is the body of a test, and prints the figures")]
pub fn test<H, F>(deadline: Duration, start: impl FnOnce() -> F)
where
    H: StoreHarness + 'static,
    F: Future<Output = Result<H, Absent>>,
{
    let plan = Plan::from_environment().unwrap_or_else(|error| panic!("{error}"));
    let ran = block_on(Clock::Real, async {
        let harness: Arc<dyn StoreHarness> = Arc::new(start().await?);
        let ran = run(&harness, deadline, plan, |line| println!("{line}")).await;
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
pub async fn run(
    harness: &Arc<dyn StoreHarness>,
    deadline: Duration,
    plan: Plan,
    mut progress: impl FnMut(&str),
) -> Result<Figures, Broken> {
    let calls = Arc::new(Calls::new());
    let mut figures = Figures::new(plan.seed);
    let ran = rounds(harness, deadline, plan, &calls, &mut figures, &mut progress).await;
    let mut what = calls.wrongs();
    what.extend(ran.err().map(|violation| violation.to_string()));
    if what.is_empty() {
        (figures.calls, figures.faults) = (calls.lines(), calls.faults());
        return Ok(figures);
    }
    Err(Broken { what, log: calls.log(), seed: plan.seed })
}

async fn rounds(
    harness: &Arc<dyn StoreHarness>,
    deadline: Duration,
    plan: Plan,
    calls: &Arc<Calls>,
    figures: &mut Figures,
    progress: &mut impl FnMut(&str),
) -> Result<(), Violation> {
    let began = Instant::now();
    let clients = [harness.store(), harness.another().await?];
    let mut writers = Vec::new();
    for number in 0..WORKERS {
        writers.push(Writer::new(number, plan.seed, deadline, &clients, calls)?);
    }
    let mut faults = Faults { rng: generator(plan.seed, 0), deck: Vec::new() };
    let mut follower = Follower::open(&clients[0]).await?;
    let mut warm = Warm::default();
    let mut round = 0_u64;
    while began.elapsed() < plan.time || round < 3 {
        calls.note(format_args!("round {round} begins, {}", if is_calm(round) { "calm" } else { "with faults" }));
        calls.calm(is_calm(round));
        let until = Instant::now() + plan.round();
        let disturbed = async {
            if !is_calm(round) {
                faults.cause(&**harness, calls, until).await;
            }
        };
        let churned = async { tokio::join!(churn(writers, until), disturbed).0 };
        writers = follower.during(churned).await?;
        calls.calm(false);

        harness.heal().await?;
        let timeout = harness.tuning().timeout;
        follower.agrees(&clients, &mut writers, timeout).await?;
        let wrong = calls.wrongs();
        if !wrong.is_empty() {
            return Err(Violation::harness("see each call end as it must", format!("{} that did not", wrong.len())));
        }
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let descriptors = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        let held = Held::new(None, descriptors, Some(tasks));
        warm.check(round, began.elapsed() < plan.time / 5, held)?;
        for (kind, count) in std::mem::take(&mut follower.counts) {
            *figures.events.entry(kind).or_default() += count;
        }
        for (gap, count) in std::mem::take(&mut follower.gaps) {
            *figures.gaps.entry(gap).or_default() += count;
        }
        figures.round(held);
        progress(&figures.progress(began.elapsed(), is_calm(round)));
        round += 1;
    }
    figures.growth = warm.growth(true)?;
    Ok(())
}

async fn churn(writers: Vec<Writer>, until: Instant) -> Vec<Writer> {
    let mut running = JoinSet::new();
    for mut writer in writers {
        running.spawn(async move {
            writer.work(until).await;
            writer
        });
    }
    let mut done = running.join_all().await;
    done.sort_by_key(|writer| writer.number);
    done
}

/// A possible state of a resource: its body, or absent.
type Body = Option<Vec<u8>>;

/// One writer, and all that its resources may be.
struct Writer {
    number: u64,
    rng: Rng,
    deadline: Duration,
    clients: [Arc<dyn StoreBackend>; 2],
    calls: Arc<Calls>,
    writes: u64,
    resources: Vec<(ResourceRef, BTreeSet<Body>)>,
}

impl Writer {
    fn new(
        number: u64,
        seed: u64,
        deadline: Duration,
        clients: &[Arc<dyn StoreBackend>; 2],
        calls: &Arc<Calls>,
    ) -> Result<Self, Obstacle> {
        let reference = |n| ResourceRef::new("runtide", KIND, Some("chaos"), &format!("w{number}-{n}"));
        let resources = (0..RESOURCES).map(|n| Ok((reference(n)?, BTreeSet::from([None]))));
        Ok(Self {
            number,
            rng: generator(seed, 1 + number),
            deadline,
            clients: clients.clone(),
            calls: Arc::clone(calls),
            writes: 0,
            resources: resources.collect::<runtide_core::Result<_>>().map_err(Obstacle::failed)?,
        })
    }

    async fn work(&mut self, until: Instant) {
        while Instant::now() < until {
            let pause = millis(&mut self.rng, 1..=40);
            let (which, client, what) = (self.rng.usize(..RESOURCES), self.rng.usize(..2), self.rng.u8(..100));
            let hurry = (self.rng.u8(..20) == 0).then(|| millis(&mut self.rng, 1..=20));
            sleep(pause).await;
            let (Some(store), Some((reference, may))) = (self.clients.get(client), self.resources.get_mut(which))
            else {
                continue;
            };
            let store = Arc::clone(store);
            let call =
                |verb| Call { verb, on: format!("{}/{client}", reference.name()), limit: Some(self.deadline), hurry };
            match what {
                0..50 => {
                    self.writes += 1;
                    let text = format!("writer: {}\nwrite: {}\n", self.number, self.writes);
                    let document = Document::yaml(text.clone());
                    let applied = store.apply(reference, document, Precondition::None);
                    let written = Some(text.into_bytes());
                    match self.calls.make(call("apply"), applied).await {
                        Some(_) => settle(may, written),
                        // Its outcome is unknown, or it was refused.
                        None => drop(may.insert(written)),
                    }
                }
                50..65 => match self.calls.make(call("delete"), store.delete(reference, Precondition::None)).await {
                    Some(_) => settle(may, None),
                    None => drop(may.insert(None)),
                },
                65..90 => {
                    if let Some(seen) = self.calls.make(call("get"), store.get(reference, None)).await {
                        let body = seen.map(|resource| resource.document.bytes.to_vec());
                        if !may.contains(&body) {
                            let found = format!("{reference} is {}, and may be {}", shown(&body), all(may));
                            self.calls.wrong(found);
                        }
                    }
                }
                90..97 => {
                    let all = selector();
                    self.calls.make(call("list"), store.list_all(&all, None)).await;
                }
                _ => {
                    let (all, options) = (selector(), StoreWatchOptions::default().with_since(Since::Start));
                    let opened = store.watch(&all, options);
                    if let Some(mut stream) = self.calls.make(call("watch"), opened).await {
                        let first = async {
                            match stream.next().await {
                                Some(event) => event.map(drop),
                                None => Ok(()),
                            }
                        };
                        let call = Call { hurry: Some(Duration::from_millis(100)), ..call("events") };
                        self.calls.make(call, first).await;
                    }
                }
            }
        }
    }
}

/// A write that is done: what came before it is gone. One whose outcome is unknown may still be done after it.
fn settle(may: &mut BTreeSet<Body>, body: Body) {
    if may.len() == 1 {
        may.clear();
    }
    may.insert(body);
}

fn selector() -> Selector {
    Selector::all().with_kind(KIND)
}

fn shown(body: &Body) -> String {
    body.as_ref().map_or_else(|| "absent".to_owned(), |body| format!("'{}'", body.escape_ascii()))
}

fn all(may: &BTreeSet<Body>) -> String {
    may.iter().map(shown).collect::<Vec<_>>().join(" or ")
}

type State = BTreeMap<ResourceRef, Vec<u8>>;

/// A watch from the beginning, and its fold.
struct Follower {
    stream: StoreStream,
    fold: State,
    /// The state after a reset, which its bookmark closes.
    staged: Option<State>,
    counts: BTreeMap<&'static str, u64>,
    gaps: BTreeMap<String, u64>,
    revision: u64,
}

impl Follower {
    async fn open(store: &Arc<dyn StoreBackend>) -> Result<Self, Obstacle> {
        let options = StoreWatchOptions::default().with_since(Since::Start);
        let stream = store.watch(&selector(), options).await.map_err(Obstacle::failed)?;
        Ok(Self {
            stream,
            fold: State::new(),
            staged: None,
            counts: BTreeMap::new(),
            gaps: BTreeMap::new(),
            revision: 0,
        })
    }

    /// Follows the watch while `work` is under way.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Violation> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                step = self.step() => step?,
                done = &mut work => return Ok(done),
            }
        }
    }

    async fn step(&mut self) -> Result<(), Violation> {
        match self.stream.next().await {
            Some(Ok(event)) => self.take(event),
            Some(Err(error)) => Err(Violation::harness("follow the watch", error)),
            None => Err(Violation::harness("follow the watch", "it ended by itself")),
        }
    }

    fn take(&mut self, event: StoreEvent) -> Result<(), Violation> {
        let revision = event.revision().0;
        let is_reset = matches!(event, StoreEvent::Reset { .. });
        if revision < self.revision && self.staged.is_none() && !is_reset {
            let found = format!("revision {revision} after {}", self.revision);
            return Err(Violation::harness("see the changes in commit order", found));
        }
        if self.staged.is_none() {
            self.revision = revision;
        }
        let state = self.staged.as_mut().unwrap_or(&mut self.fold);
        let kind = match event {
            StoreEvent::Added(resource) | StoreEvent::Modified(resource) => {
                state.insert(resource.reference.clone(), resource.document.bytes.to_vec());
                "changed"
            }
            StoreEvent::Deleted { reference, .. } => {
                state.remove(&reference);
                "deleted"
            }
            StoreEvent::Reset { gap, .. } => {
                self.staged = Some(State::new());
                *self.gaps.entry(format!("{gap:?}")).or_default() += 1;
                "reset"
            }
            StoreEvent::Bookmark { .. } => {
                if let Some(staged) = self.staged.take() {
                    (self.fold, self.revision) = (staged, revision);
                }
                "bookmark"
            }
            _ => "other",
        };
        *self.counts.entry(kind).or_default() += 1;
        Ok(())
    }

    /// Waits until the fold, both listings and what the writers know are the same, and lets the writers know it.
    async fn agrees(
        &mut self,
        clients: &[Arc<dyn StoreBackend>; 2],
        writers: &mut [Writer],
        timeout: Duration,
    ) -> Result<(), Violation> {
        let deadline = Instant::now() + timeout;
        loop {
            let listed =
                self.during(async { Ok::<_, Obstacle>([listed(&clients[0]).await?, listed(&clients[1]).await?]) });
            let wrong = match listed.await? {
                Ok([own, other]) => self.differences(&own, &other, writers),
                Err(obstacle) => vec![obstacle.to_string()],
            };
            if wrong.is_empty() {
                break;
            }
            if Instant::now() >= deadline {
                return Err(Violation::harness("see one state in all views", wrong.join("; ")));
            }
            self.during(sleep(Duration::from_millis(100))).await?;
        }
        for (reference, may) in writers.iter_mut().flat_map(|writer| &mut writer.resources) {
            *may = BTreeSet::from([self.fold.get(reference).cloned()]);
        }
        Ok(())
    }

    fn differences(&self, own: &State, other: &State, writers: &[Writer]) -> Vec<String> {
        let mut wrong = Vec::new();
        for (reference, may) in writers.iter().flat_map(|writer| &writer.resources) {
            let is = own.get(reference).cloned();
            if !may.contains(&is) {
                wrong.push(format!("{reference} is {}, and its writer knows of {}", shown(&is), all(may)));
            }
            for (what, view) in [("the fold", &self.fold), ("the other client's listing", other)] {
                let there = view.get(reference).cloned();
                if there != is {
                    wrong.push(format!(
                        "{reference} is {} in the listing, and {} in {what}",
                        shown(&is),
                        shown(&there)
                    ));
                }
            }
        }
        let known = writers.iter().map(|writer| writer.resources.len()).sum::<usize>();
        if own.len().max(other.len()).max(self.fold.len()) > known {
            wrong.push(format!("{} resources are listed, and {known} can be there", own.len()));
        }
        wrong
    }
}

async fn listed(store: &Arc<dyn StoreBackend>) -> Done<State> {
    let page = store.list_all(&selector(), None).await.map_err(Obstacle::failed)?;
    Ok(page.items.iter().map(|one| (one.reference.clone(), one.document.bytes.to_vec())).collect())
}

/// The disturbances of a run, dealt as the faults of a runtime are.
struct Faults {
    rng: Rng,
    deck: Vec<Disturbance>,
}

impl Faults {
    async fn cause(&mut self, h: &dyn StoreHarness, calls: &Calls, until: Instant) {
        while Instant::now() < until {
            if self.deck.is_empty() {
                self.deck = Disturbance::ALL.to_vec();
                self.rng.shuffle(&mut self.deck);
            }
            let Some(disturbance) = self.deck.pop() else { return };
            let (after, lasts) = (millis(&mut self.rng, 100..=900), millis(&mut self.rng, 20..=3_000));
            sleep_until((Instant::now() + after).min(until)).await;
            calls.note(format_args!("disturbance: {disturbance} for {lasts:?}"));
            match h.disturb(disturbance).await {
                Supported::Yes => calls.fault(&disturbance),
                Supported::No(reason) => calls.note(format_args!("not caused: {reason}")),
            }
            sleep(lasts).await;
            let healed = h.heal().await;
            calls.note(format_args!("healed: {}", healed.map_or_else(|error| error.to_string(), |()| "ok".to_owned())));
        }
    }
}
