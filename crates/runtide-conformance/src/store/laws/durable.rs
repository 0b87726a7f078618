//! S9: every write that was acknowledged, or that a client saw, is there after a power cut.

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
    Obstacle, Verdict, Violation,
    store::{
        ModelDisk, StoreHarness, StoreLaw, StoreLawResult,
        truth::{Change, State, Truth},
        watcher::{Watcher, is_outage},
    },
    wal::{Crash, Random},
};

/// Number of resources that the clients write to.
const KEYS: usize = 6;

/// Number of clients that write at once.
const WRITERS: usize = 8;

/// The promise at each mark in a disk's history: the highest revision that a writer, a reader or a watcher had received.
#[derive(Clone, Default)]
struct Promised(Arc<Mutex<Vec<Revision>>>);

impl Promised {
    fn lock(&self) -> MutexGuard<'_, Vec<Revision>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a client received a revision: every later crash state must have it.
    fn report(&self, disk: &ModelDisk, revision: Revision) {
        let mut revisions = self.lock();
        if revisions.last().is_none_or(|last| *last < revision) {
            revisions.push(revision);
            disk.mark(revisions.len() as u64);
        }
    }

    fn at(&self, mark: Option<u64>) -> Revision {
        let index = mark.and_then(|mark| usize::try_from(mark).ok()?.checked_sub(1));
        index.and_then(|index| self.lock().get(index).copied()).unwrap_or_default()
    }
}

/// Eight clients write, watchers and readers read along, and there is a restore in the middle, on a disk that knows what each
/// power cut may leave; then the store is opened again, and continues. It is cut off at every operation of the disk, with
/// subsets of the writes that were not synced. Each crash state is opened: it must be the store's state at one moment, with
/// every write that was acknowledged or seen; revisions continue to rise; a watch continues from a position, or is `Expired`;
/// and a write made then survives the next power cut.
///
/// A remote store is killed while clients write, repeatedly.
pub(crate) async fn s9_durable(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S9, h };
    let disk = ModelDisk::new();
    match h.open_on(&disk).await {
        Ok(store) => {
            drop(store);
            let states = power_cuts(tried).await?;
            Ok(Verdict::looked_at(states, "crash states", Vec::new()))
        }
        Err(Obstacle::Unsupported(no_disk)) => match kills(tried).await? {
            Ok(kills) => Ok(Verdict::looked_at(kills, "acknowledged writes before a death", Vec::new())),
            Err(no_crash) => Ok(Verdict::NotApplicable(format!("{no_disk}; {no_crash}"))),
        },
        Err(obstacle) => Err(Violation::harness("open a store on a disk in memory", obstacle)),
    }
}

/// A store's history on a disk: the changes, and the promises made about them at each moment.
struct History {
    disk: ModelDisk,
    truth: Truth,
    promised: Promised,
}

async fn power_cuts(tried: Tried<'_>) -> Held<u64> {
    let mut history = History { disk: ModelDisk::new(), truth: Truth::default(), promised: Promised::default() };
    let rounds = tried.pick(8, 2);
    first(tried, &mut history, rounds).await?;
    second(tried, &mut history).await?;
    let most = tried.pick(24, 6);
    let mut number = 0;
    tokio::task::block_in_place(|| {
        history.disk.crashes(0..usize::MAX, most, 9, |crash| {
            number += 1;
            let survives = survives(tried, &history, crash, number);
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
async fn first(tried: Tried<'_>, history: &mut History, rounds: usize) -> Held {
    let hand = opened(tried, &history.disk).await?;
    let reader = Reader { hand: hand.clone(), disk: history.disk.clone(), promised: history.promised.clone() };
    let watcher = hand.watch(&Selector::all(), StoreWatchOptions::default()).await?;
    let client = Writer { hand: hand.clone(), reader: reader.clone() };
    let mut reading = JoinSet::new();
    let stop = Arc::new(Semaphore::new(0));
    reading.spawn(reader.clone().watch(watcher, Arc::clone(&stop)));
    reading.spawn(reader.clone().read(Arc::clone(&stop)));
    let mut snapshot = Vec::new();
    for round in 0..rounds {
        let start = Arc::new(Barrier::new(WRITERS));
        let mut tasks = JoinSet::new();
        for writer in 0..WRITERS {
            let (client, start) = (client.clone(), Arc::clone(&start));
            let count = tried.pick(5, 3);
            tasks.spawn(async move {
                start.wait().await;
                client.write(writer, round, count).await
            });
        }
        while let Some(ended) = tasks.join_next().await {
            hand.holds(history.truth.add(ended.unwrap_or_else(|error| Err(hand.broken("no panic", error)))?))?;
        }
        if round == 0 {
            let seal = hand.works("take a snapshot", hand.store.snapshot(&mut snapshot)).await?;
            reader.report(seal.revision);
        }
        if round + 1 == rounds / 2 + rounds % 2 {
            let mut from = &snapshot[..];
            let revision = hand.works("restore", hand.store.restore(&mut from)).await?;
            reader.report(revision);
            let items = hand.list(&Selector::all(), 0).await?.1;
            let state: State = items.into_iter().map(|one| (one.reference.clone(), one)).collect();
            hand.holds(history.truth.restore(revision, state))?;
        }
    }
    stop.add_permits(2);
    hand.mark(1).await.and_then(|mark| {
        reader.report(mark.revision);
        hand.holds(history.truth.add([mark]))
    })?;
    while let Some(ended) = reading.join_next().await {
        ended.unwrap_or_else(|error| Err(hand.broken("no panic", error)))?;
    }
    Ok(())
}

/// The store is opened again, and continues.
async fn second(tried: Tried<'_>, history: &mut History) -> Held {
    let hand = opened(tried, &history.disk).await?;
    let reader = Reader { hand: hand.clone(), disk: history.disk.clone(), promised: history.promised.clone() };
    let (_, items) = hand.list(&Selector::all(), 0).await?;
    hand.holds(history.truth.listed(&Selector::all(), history.truth.revision(), &items))?;
    let client = Writer { hand: hand.clone(), reader };
    for writer in 0..2 {
        let changes = client.clone().write(writer, 100, tried.pick(24, 4)).await?;
        hand.holds(history.truth.add(changes))?;
    }
    Ok(())
}

/// The clients that only read, and report each revision that they saw.
#[derive(Clone)]
struct Reader {
    hand: Hand,
    disk: ModelDisk,
    promised: Promised,
}

impl Reader {
    fn report(&self, revision: Revision) {
        self.promised.report(&self.disk, revision);
    }

    async fn watch(self, mut watcher: Watcher, stop: Arc<Semaphore>) -> Held {
        loop {
            watcher.step().await?;
            let revision = watcher.events.last().map(runtide_core::store::StoreEvent::revision);
            self.report(revision.unwrap_or_default());
            if stop.try_acquire().is_ok() {
                return Ok(());
            }
        }
    }

    async fn read(self, stop: Arc<Semaphore>) -> Held {
        let mut random = Random(90);
        while stop.try_acquire().is_err() {
            if let Some(found) = self.hand.get(&reference(random.below(KEYS))).await? {
                self.report(found.revision);
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// A writer, which reports each revision that it received.
#[derive(Clone)]
struct Writer {
    hand: Hand,
    reader: Reader,
}

impl Writer {
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
                self.reader.report(change.revision);
                changes.push(change);
            }
            give_way(&mut random).await;
        }
        Ok(changes)
    }
}

/// Opens a crash state, and checks it.
async fn survives(tried: Tried<'_>, history: &History, crash: &Crash<'_>, number: u64) -> Held {
    let promised = history.promised.at(crash.mark);
    let hand = opened(tried, &crash.disk).await?;
    let (listed, items) = hand.list(&Selector::all(), 0).await?;
    let there: State = items.into_iter().map(|one| (one.reference.clone(), one)).collect();
    hand.ensure(listed >= promised, format!("the store at revision {promised} or later"), listed)?;
    let Some((moment, mut truth)) = history.truth.up_to(promised, listed, &there) else {
        let shown = there.values().map(|one| super::describe(Some(one))).collect::<Vec<_>>().join("; ");
        let expected = format!("the state of one moment between revisions {promised} and {listed}");
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
    let mut watchers = positions(&hand, stats, promised, number).await?;
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

/// Watches from earlier positions: the oldest that the store claims to keep, and the last that a client received. Each
/// continues if the store claims to reach back that far, or else is `Expired`.
async fn positions(hand: &Hand, stats: StoreStats, promised: Revision, number: u64) -> Held<Vec<Watcher>> {
    let mut open = Vec::new();
    let before = Revision(stats.oldest.0.saturating_sub(1 + number % 3));
    for position in [stats.oldest, promised, before] {
        let options = StoreWatchOptions::default().with_since(Since::After(position));
        if position >= stats.oldest && position <= stats.revision {
            open.push(hand.watch(&Selector::all(), options).await?);
        } else {
            let all = Selector::all();
            hand.refused(&format!("watch after {position}"), ErrorKind::Expired, hand.store.watch(&all, options))
                .await?;
        }
    }
    Ok(open)
}

/// The store is killed while clients write. Returns the number of acknowledged writes, or the reason why it cannot be killed.
async fn kills(tried: Tried<'_>) -> Held<Result<u64, String>> {
    let mut acknowledged = 0;
    for round in 0..tried.pick(10, 3) {
        let hand = tried.hand();
        let (progress, mut begun) = tokio::sync::watch::channel(0_usize);
        let progress = Arc::new(progress);
        let mut tasks = JoinSet::new();
        for writer in 0..WRITERS {
            let (hand, progress) = (hand.clone(), Arc::clone(&progress));
            tasks.spawn(async move { until_death(&hand, writer, round, &progress).await });
        }
        hand.ends("see writes", begun.wait_for(|writes| *writes >= 40)).await?.ok();
        match tried.h.crash().await {
            Ok(()) => {}
            Err(Obstacle::Unsupported(reason)) if round == 0 => return Ok(Err(reason)),
            Err(obstacle) => return Err(Violation::harness("kill the store", obstacle)),
        }
        progress.send_replace(usize::MAX);
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

/// The writes of one client until the store died.
struct Wrote {
    writer: usize,
    acknowledged: u64,
    last: Option<(Revision, Document)>,
    /// The last write if its outcome is unknown.
    doubt: Option<Document>,
}

impl Wrote {
    /// Asserts that the last acknowledged write is there, or the one after it. Returns its revision.
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
        let expected = format!("the last write of client {}: {:?}, or {:?}", self.writer, self.last, self.doubt);
        hand.ensure(fine, expected, format!("{found:?}"))?;
        Ok(found.map_or(Revision(0), |(revision, _)| revision))
    }
}

async fn until_death(
    hand: &Hand,
    writer: usize,
    round: usize,
    progress: &tokio::sync::watch::Sender<usize>,
) -> Held<Wrote> {
    let mut wrote = Wrote { writer, acknowledged: 0, last: None, doubt: None };
    let own = reference(writer);
    for n in 0.. {
        if *progress.borrow() == usize::MAX {
            break;
        }
        let body = document(writer, round * 1_000_000 + n);
        let call = hand.store.apply(&own, body.clone(), Precondition::None);
        match hand.ends("apply", call).await? {
            Ok(applied) => {
                wrote.acknowledged += 1;
                wrote.last = Some((applied.revision, body));
                progress.send_modify(|writes| *writes = writes.saturating_add(1));
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
