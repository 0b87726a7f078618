//! S9: what was acknowledged, or seen by anybody, is there after a power cut.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtide_core::{
    Error, ErrorKind,
    store::{Document, Precondition, Revision, Selector, Since, StoreStats, StoreWatchOptions},
};
use tokio::{
    runtime::Handle,
    sync::{Barrier, Semaphore},
    task::JoinSet,
};

use super::{Broken, Hand, Held, Tried, document, done, give_way, reference};
use crate::{
    Obstacle, Violation,
    store::{
        Kept, ModelDisk, StoreHarness, StoreLaw, StoreLawResult, StoreVerdict,
        truth::{Change, State, Truth},
        watcher::{Watcher, is_outage},
    },
    wal::{Crash, Random},
};

/// How many resources are written to.
const KEYS: usize = 6;

/// How many write at once.
const WRITERS: usize = 8;

/// What was promised up to a mark in a disk's history: the highest revision that a writer, a reader or a watcher was told.
#[derive(Clone, Default)]
struct Promised(Arc<Mutex<Vec<Revision>>>);

impl Promised {
    fn lock(&self) -> MutexGuard<'_, Vec<Revision>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody was told of a revision: from now on it must be there.
    fn tell(&self, disk: &ModelDisk, revision: Revision) {
        let mut told = self.lock();
        if told.last().is_none_or(|last| *last < revision) {
            told.push(revision);
            disk.mark(told.len() as u64);
        }
    }

    fn at(&self, mark: Option<u64>) -> Revision {
        let index = mark.and_then(|mark| usize::try_from(mark).ok()?.checked_sub(1));
        index.and_then(|index| self.lock().get(index).copied()).unwrap_or_default()
    }
}

/// Eight clients write, watchers and readers look on, and there is a restore in the middle, on a disk that knows what each power
/// cut may leave; then the store is opened again, and goes on. It is cut off at every operation of the disk, with subsets of
/// what was not synced. What is left is opened: it must be what was there at one moment, with all that was acknowledged and
/// all that anybody saw; revisions go on to rise; a watch goes on from a place, or is `Expired`; and what is written then
/// survives the next power cut.
///
/// A store that is elsewhere is killed while clients write, again and again.
pub(crate) async fn s9_durable(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S9, h };
    let disk = ModelDisk::new();
    match h.open_on(&disk).await {
        Ok(store) => {
            drop(store);
            let states = power_cuts(tried).await?;
            Ok(Kept::at(states, "crash states", Vec::new()))
        }
        Err(Obstacle::Unsupported(no_disk)) => match kills(tried).await? {
            Ok(kills) => Ok(Kept::at(kills, "acknowledged writes before a death", Vec::new())),
            Err(no_crash) => Ok(StoreVerdict::NotApplicable(format!("{no_disk}; {no_crash}"))),
        },
        Err(obstacle) => Err(Violation::harness("open a store on a disk in memory", obstacle)),
    }
}

/// A store's life on a disk: what happened, and what was promised of it when.
struct Life {
    disk: ModelDisk,
    truth: Truth,
    promised: Promised,
}

async fn power_cuts(tried: Tried<'_>) -> Held<u64> {
    let mut life = Life { disk: ModelDisk::new(), truth: Truth::default(), promised: Promised::default() };
    let rounds = tried.pick(8, 2);
    first(tried, &mut life, rounds).await?;
    second(tried, &mut life).await?;
    let most = tried.pick(24, 6);
    let mut number = 0;
    tokio::task::block_in_place(|| {
        life.disk.crashes(0..usize::MAX, most, 9, |crash| {
            number += 1;
            let survives = survives(tried, &life, crash, number);
            Handle::current().block_on(survives).map_err(|mut broken: Broken| {
                broken.found = format!("{}, {crash}", broken.found);
                broken.after(crash.trail())
            })
        })
    })
}

async fn opened(tried: Tried<'_>, disk: &ModelDisk) -> Held<Hand> {
    let store = done("open the store", tried.h.open_on(disk).await)
        .map_err(|broken| Violation { law: Some(tried.law), ..broken })?;
    Ok(Hand { store, ..tried.hand() })
}

/// Writers, a watcher, and a restore.
async fn first(tried: Tried<'_>, life: &mut Life, rounds: usize) -> Held {
    let hand = opened(tried, &life.disk).await?;
    let looks = Looks { hand: hand.clone(), disk: life.disk.clone(), promised: life.promised.clone() };
    let watcher = hand.watch(&Selector::all(), StoreWatchOptions::default()).await?;
    let told = Told { hand: hand.clone(), looks: looks.clone() };
    let mut looking = JoinSet::new();
    let stop = Arc::new(Semaphore::new(0));
    looking.spawn(looks.clone().watch(watcher, Arc::clone(&stop)));
    looking.spawn(looks.clone().read(Arc::clone(&stop)));
    let mut snapshot = Vec::new();
    for round in 0..rounds {
        let start = Arc::new(Barrier::new(WRITERS));
        let mut tasks = JoinSet::new();
        for writer in 0..WRITERS {
            let (told, start) = (told.clone(), Arc::clone(&start));
            let count = tried.pick(5, 3);
            tasks.spawn(async move {
                start.wait().await;
                told.write(writer, round, count).await
            });
        }
        while let Some(ended) = tasks.join_next().await {
            hand.holds(life.truth.add(ended.unwrap_or_else(|error| Err(hand.broken("no panic", error)))?))?;
        }
        if round == 0 {
            let seal = hand.works("take a snapshot", hand.store.snapshot(&mut snapshot)).await?;
            looks.tell(seal.revision);
        }
        if round + 1 == rounds / 2 + rounds % 2 {
            let mut from = &snapshot[..];
            let revision = hand.works("restore", hand.store.restore(&mut from)).await?;
            looks.tell(revision);
            let items = hand.list(&Selector::all(), 0).await?.1;
            let state: State = items.into_iter().map(|one| (one.reference.clone(), one)).collect();
            hand.holds(life.truth.restore(revision, state))?;
        }
    }
    stop.add_permits(2);
    hand.mark(1).await.and_then(|mark| {
        looks.tell(mark.revision);
        hand.holds(life.truth.add([mark]))
    })?;
    while let Some(ended) = looking.join_next().await {
        ended.unwrap_or_else(|error| Err(hand.broken("no panic", error)))?;
    }
    Ok(())
}

/// Opened again, it goes on.
async fn second(tried: Tried<'_>, life: &mut Life) -> Held {
    let hand = opened(tried, &life.disk).await?;
    let looks = Looks { hand: hand.clone(), disk: life.disk.clone(), promised: life.promised.clone() };
    let (_, items) = hand.list(&Selector::all(), 0).await?;
    hand.holds(life.truth.listed(&Selector::all(), life.truth.revision(), &items))?;
    let told = Told { hand: hand.clone(), looks };
    for writer in 0..2 {
        let changes = told.clone().write(writer, 100, tried.pick(24, 4)).await?;
        hand.holds(life.truth.add(changes))?;
    }
    Ok(())
}

/// Those who look on, and what they saw.
#[derive(Clone)]
struct Looks {
    hand: Hand,
    disk: ModelDisk,
    promised: Promised,
}

impl Looks {
    fn tell(&self, revision: Revision) {
        self.promised.tell(&self.disk, revision);
    }

    async fn watch(self, mut watcher: Watcher, stop: Arc<Semaphore>) -> Held {
        loop {
            watcher.step().await?;
            let revision = watcher.events.last().map(runtide_core::store::StoreEvent::revision);
            self.tell(revision.unwrap_or_default());
            if stop.try_acquire().is_ok() {
                return Ok(());
            }
        }
    }

    async fn read(self, stop: Arc<Semaphore>) -> Held {
        let mut random = Random(90);
        while stop.try_acquire().is_err() {
            if let Some(found) = self.hand.get(&reference(random.below(KEYS))).await? {
                self.tell(found.revision);
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// Those who write, and what they were told.
#[derive(Clone)]
struct Told {
    hand: Hand,
    looks: Looks,
}

impl Told {
    async fn write(self, writer: usize, round: usize, count: usize) -> Held<Vec<Change>> {
        let mut random = Random((round * 16 + writer) as u64);
        let mut changes = Vec::new();
        for n in 0..count {
            let reference = reference(random.below(KEYS));
            let change = if random.below(5) == 0 {
                let gone = self.hand.delete(&reference, Precondition::None).await?;
                gone.map(|revision| Change::new(revision, reference, None))
            } else {
                // Some bodies are longer than a sector.
                let mut body = document(writer, round * 100 + n);
                if random.below(4) == 0 {
                    body.bytes = [&body.bytes[..], &vec![b' '; 700]].concat().into();
                }
                let applied = self.hand.put(&reference, &body).await?;
                Some(Change::new(applied.revision, reference, Some(body)))
            };
            if let Some(change) = change {
                self.looks.tell(change.revision);
                changes.push(change);
            }
            give_way(&mut random).await;
        }
        Ok(changes)
    }
}

/// What a power cut left is opened.
async fn survives(tried: Tried<'_>, life: &Life, crash: &Crash<'_>, number: u64) -> Held {
    let promised = life.promised.at(crash.mark);
    let hand = opened(tried, &crash.disk).await?;
    let (listed, items) = hand.list(&Selector::all(), 0).await?;
    let there: State = items.into_iter().map(|one| (one.reference.clone(), one)).collect();
    hand.ensure(listed >= promised, format!("the store at revision {promised} or later"), listed)?;
    let Some((moment, mut truth)) = life.truth.up_to(promised, listed, &there) else {
        let shown = there.values().map(|one| super::told(Some(one))).collect::<Vec<_>>().join("; ");
        let expected = format!("what was there at one moment, between revisions {promised} and {listed}");
        return Err(hand.broken(expected, shown));
    };
    for (reference, resource) in &there {
        hand.shows(reference, Some(&resource.document), resource.revision).await?;
    }
    let stats = hand.stats().await?;
    hand.equal("the count of resources", &stats.resource_count, &(there.len() as u64))?;
    hand.ensure(
        listed >= moment && stats.revision >= moment,
        format!("the store at revision {moment} or later"),
        listed,
    )?;
    let mut watchers = places(&hand, stats, promised, number).await?;
    let last = [promised, moment, listed, stats.revision].into_iter().max().unwrap_or_default();
    let (key, body) = (reference(usize::try_from(number).unwrap_or(0) % KEYS), document(500, 1));
    let next = hand.put(&key, &body).await?;
    hand.ensure(next.revision > last, format!("revisions to rise after {last}"), next.revision)?;
    hand.holds(truth.add([Change::new(next.revision, key.clone(), Some(body.clone()))]))?;
    for watcher in &mut watchers {
        watcher.until(next.revision).await?;
        watcher.explained(&truth, false)?;
    }
    // The power goes again, right after the acknowledgement.
    let again = crash.disk.crash();
    drop((watchers, hand));
    let hand = opened(tried, &again).await?;
    hand.shows(&key, Some(&body), next.revision).await?;
    let (_, items) = hand.list(&Selector::all(), 0).await?;
    hand.holds(truth.listed(&Selector::all(), next.revision, &items))
}

/// Watches from places of before: the oldest that is said to be kept, and the last that anybody was told. Each goes on, if the
/// store says that it reaches back so far, or is expired.
async fn places(hand: &Hand, stats: StoreStats, promised: Revision, number: u64) -> Held<Vec<Watcher>> {
    let mut open = Vec::new();
    let before = Revision(stats.oldest.0.saturating_sub(1 + number % 3));
    for place in [stats.oldest, promised, before] {
        let options = StoreWatchOptions::default().with_since(Since::After(place));
        if place >= stats.oldest && place <= stats.revision {
            open.push(hand.watch(&Selector::all(), options).await?);
        } else {
            let all = Selector::all();
            hand.refused(&format!("watch after {place}"), ErrorKind::Expired, hand.store.watch(&all, options)).await?;
        }
    }
    Ok(open)
}

/// The store is killed while clients write; how many writes had been acknowledged, or why it cannot be killed.
async fn kills(tried: Tried<'_>) -> Held<Result<u64, String>> {
    let mut acknowledged = 0;
    for round in 0..tried.pick(10, 3) {
        let hand = tried.hand();
        let (tell, mut begun) = tokio::sync::watch::channel(0_usize);
        let tell = Arc::new(tell);
        let mut tasks = JoinSet::new();
        for writer in 0..WRITERS {
            let (hand, tell) = (hand.clone(), Arc::clone(&tell));
            tasks.spawn(async move { until_death(&hand, writer, round, &tell).await });
        }
        hand.ends("see writes", begun.wait_for(|writes| *writes >= 40)).await?.ok();
        match tried.h.crash().await {
            Ok(()) => {}
            Err(Obstacle::Unsupported(reason)) if round == 0 => return Ok(Err(reason)),
            Err(obstacle) => return Err(Violation::harness("kill the store", obstacle)),
        }
        tell.send_replace(usize::MAX);
        let hand = tried.hand();
        let mut last = Revision(0);
        while let Some(ended) = hand.ends("see writers end", tasks.join_next()).await? {
            let wrote = ended.unwrap_or_else(|error| Err(hand.broken("no panic", error)))?;
            acknowledged += wrote.acknowledged;
            last = last.max(wrote.still_there(&hand).await?);
        }
        let next = hand.put(&reference(100), &document(600, round)).await?;
        hand.ensure(next.revision > last, format!("revisions to rise after {last}"), next.revision)?;
    }
    Ok(Ok(acknowledged))
}

/// What one client wrote until the store died.
struct Wrote {
    writer: usize,
    acknowledged: u64,
    last: Option<(Revision, Document)>,
    /// What it was not told the outcome of.
    doubt: Option<Document>,
}

impl Wrote {
    /// The last write that was acknowledged is there, or the one after it; its revision.
    async fn still_there(&self, hand: &Hand) -> Held<Revision> {
        let found = hand.get(&reference(self.writer)).await?;
        let found = found.map(|found| (found.revision, found.document.clone()));
        let fine = match &found {
            found if *found == self.last => true,
            Some((revision, document)) => {
                let later = self.last.as_ref().is_none_or(|(last, _)| last < revision);
                later && self.doubt.as_ref() == Some(document)
            }
            None => self.last.is_none(),
        };
        let expected = format!("what client {} was told of: {:?}, or {:?}", self.writer, self.last, self.doubt);
        hand.ensure(fine, expected, format!("{found:?}"))?;
        Ok(found.map_or(Revision(0), |(revision, _)| revision))
    }
}

async fn until_death(
    hand: &Hand,
    writer: usize,
    round: usize,
    tell: &tokio::sync::watch::Sender<usize>,
) -> Held<Wrote> {
    let mut wrote = Wrote { writer, acknowledged: 0, last: None, doubt: None };
    let own = reference(writer);
    for n in 0.. {
        if *tell.borrow() == usize::MAX {
            break;
        }
        let body = document(writer, round * 1_000_000 + n);
        let call = hand.store.apply(&own, body.clone(), Precondition::None);
        match hand.ends("apply", call).await? {
            Ok(applied) => {
                wrote.acknowledged += 1;
                wrote.last = Some((applied.revision, body));
                tell.send_modify(|writes| *writes = writes.saturating_add(1));
            }
            Err(error) if is_outage(&error) || is_closed(&error) => {
                wrote.doubt = Some(body);
                break;
            }
            Err(error) => return Err(hand.broken("to apply", error)),
        }
    }
    Ok(wrote)
}

fn is_closed(error: &Error) -> bool {
    error.kind() == ErrorKind::Cancelled
}
