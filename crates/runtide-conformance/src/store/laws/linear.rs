//! S12: the results of many concurrent clients, also while the store is disturbed.

mod register;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use runtide_core::{
    Error, ErrorKind,
    store::{
        ApplyOutcome, Document, Precondition, Resource, ResourceRef, Revision, Selector, StoreEvent, StoreWatchOptions,
    },
};
use tokio::{
    sync::{Barrier, watch},
    task::JoinSet,
};

use self::register::{Body, Gave, Op, Register};
use super::{Broken, Hand, Held, Tried, done, reference};
use crate::{
    Supported, Verdict,
    store::{
        Disturbance, StoreHarness, StoreLaw, StoreLawResult,
        linear::{Call, Stuck, linearize},
    },
    wal::Random,
};

/// Number of clients that act at once.
const CLIENTS: usize = 10;

/// Number of resources: few, so that the clients meet.
const KEYS: usize = 4;

/// Number of calls with an unknown outcome after which a client only reads until the store is mended: each doubles the number
/// of orders to try.
const UNKNOWN: usize = 4;

/// Number of calls that a violation shows before and after the failed one.
const SHOWN: usize = 10;

/// A listing of everything, with its time.
#[derive(Debug)]
struct Listing {
    invoked: u64,
    returned: u64,
    revision: u64,
    items: BTreeMap<usize, (Body, u64)>,
}

/// The calls of all clients in one history.
#[derive(Default)]
struct Record {
    /// Number of the first resource. Each history has its own: a write of an earlier one whose outcome is unknown may land late.
    first: usize,
    clock: AtomicU64,
    bodies: AtomicU64,
    calls: Mutex<Vec<(usize, Call<Op>)>>,
    listings: Mutex<Vec<Listing>>,
    /// Writes that had no effect, by what they were told: shown where one had.
    failed: Mutex<Vec<(usize, String)>>,
}

impl Record {
    fn reference(&self, key: usize) -> ResourceRef {
        reference(self.first + key)
    }

    /// True for a resource of another history.
    fn is_foreign(&self, named: &ResourceRef) -> bool {
        (0..self.first).any(|other| reference(other) == *named)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn body(&self) -> (Body, Document) {
        let body = self.bodies.fetch_add(1, Ordering::Relaxed) + 1;
        (body, document(body))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn document(body: Body) -> Document {
    Document::json(format!("{{\"body\":{body}}}"))
}

/// The number and the revision of a body; a violation if no client wrote it.
fn read(hand: &Hand, resource: &Resource) -> Held<(Body, u64)> {
    let text = std::str::from_utf8(&resource.document.bytes).ok();
    let body = text.and_then(|text| text.strip_prefix("{\"body\":")?.strip_suffix('}')?.parse().ok());
    let body = body.ok_or_else(|| hand.broken("a body that was written", super::describe(Some(resource))))?;
    Ok((body, resource.revision.0))
}

/// Progress of all clients together.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Number of calls that ends the history.
    goal: usize,
    worked: usize,
    failed: usize,
}

/// Ten clients read and write four resources at once, with and without conditions, and list them; alone, and then with each
/// disturbance that the harness supports. For each resource there must be an order of all calls that explains every result,
/// in which no call comes before one that had ended before it began. Revisions must rise in just that order, over all
/// resources; and a watcher of everything must have received every write.
pub(crate) async fn s12_linearizable(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S12, h };
    let mut without = Vec::new();
    let mut calls = history(tried, None, 1, tried.pick(8_000, 1_000), &mut without).await?;
    for (n, disturbance) in Disturbance::ALL.iter().enumerate() {
        calls += history(tried, Some(*disturbance), 2 + n as u64, tried.pick(4_000, 1_000), &mut without).await?;
    }
    Ok(Verdict::looked_at(calls, "calls", without))
}

/// One history of `calls` calls, in the middle of which the store is disturbed, if it can be. Returns the number of calls.
async fn history(
    tried: Tried<'_>,
    disturbance: Option<Disturbance>,
    seed: u64,
    calls: usize,
    without: &mut Vec<String>,
) -> Held<u64> {
    let hands = [tried.hand(), tried.other_hand().await?];
    let hand = tried.hand();
    let record = Arc::new(Record { first: usize::try_from(seed).unwrap_or(0) * KEYS, ..Record::default() });
    for key in 0..KEYS {
        // An earlier state is not part of the history.
        hand.delete(&record.reference(key), Precondition::None).await?;
    }
    let floor = hand.list(&Selector::all(), 0).await?.0;
    let mut watcher = hand.watch(&Selector::default().with_kind("Thing"), StoreWatchOptions::default()).await?;
    watcher.step().await?;
    let (report, mut progress) = watch::channel(Progress { goal: calls, ..Progress::default() });
    let report = Arc::new(report);
    let over = |progress: &Progress| progress.worked >= progress.goal;
    let mut ended = progress.clone();
    // Without the barrier the first client might be done before the last has begun.
    let start = Arc::new(Barrier::new(CLIENTS));
    let mut tasks = JoinSet::new();
    for (client, hand) in hands.iter().cycle().take(CLIENTS).enumerate() {
        let random = Random(seed.wrapping_mul(7_919).wrapping_add(client as u64));
        let client =
            Client { hand: hand.clone(), record: Arc::clone(&record), random, report: Arc::clone(&report), unknown: 0 };
        let start = Arc::clone(&start);
        tasks.spawn(async move {
            start.wait().await;
            client.run().await
        });
    }
    let follows = async {
        // It reads along, so that it does not lose its position.
        loop {
            tokio::select! {
                biased;
                more = watcher.more() => if let Some(error) = more? { return Err(watcher.broken("a watch to go on", error)); },
                _ = ended.wait_for(over) => return Ok(()),
            }
        }
    };
    let disturbs = async {
        let Some(disturbance) = disturbance else { return Ok(true) };
        hand.ends("begin", progress.wait_for(|progress| progress.worked >= calls / 10)).await?.ok();
        if let Supported::No(reason) = tried.h.disturb(disturbance).await {
            if !without.contains(&reason) {
                without.push(reason);
            }
            report.send_modify(|progress| progress.goal = 0);
            return Ok(false);
        }
        let Progress { worked, failed, .. } = *progress.borrow();
        let enough = |progress: &Progress| {
            // Those that were under way may work yet.
            let is_down = progress.worked <= worked + CLIENTS && progress.failed >= failed + CLIENTS;
            progress.worked >= calls / 2 || progress.failed >= failed + calls / 20 || is_down
        };
        hand.ends("get on, or be refused", progress.wait_for(enough)).await?.ok();
        done("mend what was disturbed", tried.h.heal().await)?;
        Ok(true)
    };
    let acts = async {
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.unwrap_or_else(|error| Err(hand.broken("no panic", error)));
            if ended.is_err() {
                report.send_modify(|progress| progress.goal = 0);
                return ended;
            }
        }
        Ok::<(), Broken>(())
    };
    let (followed, disturbed, acted) =
        tokio::join!(follows, disturbs, hand.ends("see all clients come to the end", acts));
    acted??;
    if !disturbed? {
        return Ok(0);
    }
    // At rest, all clients see the same.
    for hand in &hands {
        for key in 0..KEYS {
            let mut last = Client::last(hand, &record);
            last.get(key).await?;
        }
    }
    let mark = hand.mark(record.first).await?; // a round of its own: an equal mark would be the one of an earlier history
    followed?;
    watcher.until(mark.revision).await?;
    let received = Received::of(&hand, &watcher.events, mark.revision)?;
    explained(&hand, &record, &received, floor.0, disturbance)
}

/// Checks that all recorded calls could have been made one after the other. Returns the number of calls.
fn explained(hand: &Hand, record: &Record, received: &Received, floor: u64, during: Option<Disturbance>) -> Held<u64> {
    let mut calls = std::mem::take(&mut *lock(&record.calls));
    calls.sort_by_key(|(_, call)| call.invoked);
    let listings = std::mem::take(&mut *lock(&record.listings));
    in_order(hand, &calls, &listings, floor)?;
    received.has_all(hand, record, &calls, during)?;
    let mut by_key: BTreeMap<usize, Vec<Call<Op>>> = BTreeMap::new();
    let count = (calls.len() + listings.len()) as u64;
    for (key, call) in calls {
        by_key.entry(key).or_default().push(call);
    }
    for listing in &listings {
        for key in 0..KEYS {
            let op = Op::Get(listing.items.get(&key).copied());
            let call = Call { invoked: listing.invoked, returned: Some(listing.returned), op };
            by_key.entry(key).or_default().push(call);
        }
    }
    for (key, mut calls) in by_key {
        calls.sort_by_key(|call| call.invoked);
        let begin = Register { floor, ..Register::EMPTY };
        linearize(&calls, begin, Register::after)
            .map_err(|stuck| stuck_at(hand, &record.reference(key), &calls, &stuck, during))?;
    }
    Ok(count)
}

fn disturbed_by(during: Option<Disturbance>) -> String {
    during.map_or_else(String::new, |during| format!(", with {during}"))
}

fn stuck_at(
    hand: &Hand,
    resource: &ResourceRef,
    calls: &[Call<Op>],
    stuck: &Stuck,
    during: Option<Disturbance>,
) -> Broken {
    let disturbed = disturbed_by(during);
    let expected =
        format!("an order of the {} calls on {resource} that explains what they gave{disturbed}", calls.len());
    let call = |at: usize| calls.get(at).map_or_else(String::new, |call| format!("{at}: {call:?}"));
    let found = format!("none: after {} of them, no position fits {}", stuck.explained, call(stuck.at));
    let shown = stuck.at.saturating_sub(SHOWN)..stuck.at + SHOWN / 2;
    hand.broken(expected, found).after(shown.map(call))
}

/// One client of the store.
struct Client {
    hand: Hand,
    record: Arc<Record>,
    random: Random,
    report: Arc<watch::Sender<Progress>>,
    /// Number of its calls with an unknown outcome.
    unknown: usize,
}

/// The outcome of a call.
enum Ended<T> {
    Done(T),
    Conflict(Option<u64>),
    /// The call may have had its effect.
    Unknown,
    /// The call had no effect.
    Failed,
}

impl Client {
    fn last(hand: &Hand, record: &Arc<Record>) -> Self {
        let report = Arc::new(watch::channel(Progress::default()).0);
        Self { hand: hand.clone(), record: Arc::clone(record), random: Random(0), report, unknown: 0 }
    }

    async fn run(mut self) -> Held {
        let mut seen: HashMap<usize, u64> = HashMap::new();
        loop {
            let Progress { goal, worked, .. } = *self.report.borrow();
            if worked >= goal {
                return Ok(());
            }
            let key = self.random.below(KEYS);
            let choice = self.random.below(20);
            let worked = match choice {
                _ if self.unknown >= UNKNOWN && choice < 14 => self.read(key, &mut seen).await?,
                0..=4 => self.apply(key, Precondition::None).await?,
                5..=8 => {
                    // Its known revision may be old; every second time it reads first.
                    if choice.is_multiple_of(2) {
                        self.read(key, &mut seen).await?;
                    }
                    let known = seen.get(&key).map_or(Precondition::Absent, |known| Precondition::Is(Revision(*known)));
                    self.apply(key, known).await?
                }
                9 => self.apply(key, Precondition::Absent).await?,
                10 => self.delete(key, Precondition::None).await?,
                11 => {
                    let known = seen.get(&key).map_or(Precondition::None, |known| Precondition::Is(Revision(*known)));
                    self.delete(key, known).await?
                }
                12 => self.again(key).await?,
                13 => self.list().await?,
                _ => self.read(key, &mut seen).await?,
            };
            self.report.send_modify(|progress| {
                if worked {
                    progress.worked += 1;
                } else {
                    progress.failed += 1;
                }
            });
            super::give_way(&mut self.random).await;
        }
    }

    async fn read(&mut self, key: usize, seen: &mut HashMap<usize, u64>) -> Held<bool> {
        let Some(found) = self.get(key).await? else { return Ok(false) };
        match found {
            Some((_, revision)) => drop(seen.insert(key, revision)),
            None => drop(seen.remove(&key)),
        }
        Ok(true)
    }

    fn add_call(&self, key: usize, invoked: u64, op: Op, known: bool) {
        let returned = known.then(|| self.record.tick());
        lock(&self.record.calls).push((key, Call { invoked, returned, op }));
    }

    fn add_failure<T>(&self, key: usize, invoked: u64, result: &runtide_core::Result<T>) {
        if let Err(error) = result {
            lock(&self.record.failed).push((key, format!("from {invoked}: {error}")));
        }
    }

    /// Reads the resource. Returns its state if the call worked.
    async fn get(&mut self, key: usize) -> Held<Option<Option<(Body, u64)>>> {
        let reference = self.record.reference(key);
        let invoked = self.record.tick();
        let got = self.hand.ends("get", self.hand.store.get(&reference, None)).await?;
        match self.ended(got)? {
            Ended::Done(found) => {
                let found = found.map(|found| read(&self.hand, &found)).transpose()?;
                self.add_call(key, invoked, Op::Get(found), true);
                Ok(Some(found))
            }
            Ended::Conflict(_) => Err(self.hand.broken("a get not to meet a conflict", "one")),
            Ended::Unknown | Ended::Failed => Ok(None),
        }
    }

    async fn apply(&mut self, key: usize, precondition: Precondition) -> Held<bool> {
        let (body, document) = self.record.body();
        self.write(key, body, document, precondition).await
    }

    /// Writes the stored body again, if no other client changes it in between.
    async fn again(&mut self, key: usize) -> Held<bool> {
        let Some(found) = self.get(key).await? else { return Ok(false) };
        let Some((body, _)) = found else { return Ok(true) };
        self.write(key, body, document(body), Precondition::None).await
    }

    async fn write(&mut self, key: usize, body: Body, document: Document, precondition: Precondition) -> Held<bool> {
        let reference = self.record.reference(key);
        let invoked = self.record.tick();
        let call = self.hand.store.apply(&reference, document, precondition);
        let applied = self.hand.ends("apply", call).await?;
        self.add_failure(key, invoked, &applied);
        let gave = match self.ended(applied)? {
            Ended::Done(applied) => Gave::Done((applied.outcome, applied.revision.0)),
            Ended::Conflict(actual) => Gave::Conflict(actual),
            Ended::Unknown => Gave::Unknown,
            Ended::Failed => return Ok(false),
        };
        let known = !matches!(gave, Gave::Unknown);
        self.add_call(key, invoked, Op::Apply(body, precondition, gave), known);
        Ok(known)
    }

    async fn delete(&mut self, key: usize, precondition: Precondition) -> Held<bool> {
        let reference = self.record.reference(key);
        let invoked = self.record.tick();
        let gone = self.hand.ends("delete", self.hand.store.delete(&reference, precondition)).await?;
        self.add_failure(key, invoked, &gone);
        let gave = match self.ended(gone)? {
            Ended::Done(gone) => Gave::Done(gone.map(|revision| revision.0)),
            Ended::Conflict(actual) => Gave::Conflict(actual),
            Ended::Unknown => Gave::Unknown,
            Ended::Failed => return Ok(false),
        };
        let known = !matches!(gave, Gave::Unknown);
        self.add_call(key, invoked, Op::Delete(precondition, gave), known);
        Ok(known)
    }

    async fn list(&mut self) -> Held<bool> {
        let invoked = self.record.tick();
        let selector = Selector::default().with_kind("Thing");
        let listed = self.hand.listed(&selector, 0, None).await?;
        let Ended::Done((revision, items)) = self.ended(listed)? else { return Ok(false) };
        let returned = self.record.tick();
        let mut shown = BTreeMap::new();
        for item in items.iter().filter(|item| !self.record.is_foreign(&item.reference)) {
            let key = (0..KEYS).find(|key| item.reference == self.record.reference(*key));
            let key = key.ok_or_else(|| self.hand.broken("only resources that were written", &item.reference))?;
            shown.insert(key, read(&self.hand, item)?);
        }
        lock(&self.record.listings).push(Listing { invoked, returned, revision: revision.0, items: shown });
        Ok(true)
    }

    fn ended<T>(&mut self, result: runtide_core::Result<T>) -> Held<Ended<T>> {
        let error = match result {
            Ok(value) => return Ok(Ended::Done(value)),
            Err(error) => error,
        };
        let unknown = |error: &Error| {
            error.kind() == ErrorKind::Timeout
                || error.context().iter().any(|(key, value)| *key == "outcome" && value == "unknown")
        };
        let said = |error: &Error| {
            let revision = error.context().iter().find(|(key, _)| *key == "revision")?.1.clone();
            if revision == "absent" { Some(None) } else { Some(Some(revision.parse().ok()?)) }
        };
        match error.kind() {
            ErrorKind::Conflict => match said(&error) {
                Some(actual) => Ok(Ended::Conflict(actual)),
                None => Err(self.hand.broken("a conflict to have the actual revision", error)),
            },
            _ if unknown(&error) => {
                self.unknown += 1;
                Ok(Ended::Unknown)
            }
            ErrorKind::Unavailable | ErrorKind::RateLimited => Ok(Ended::Failed),
            _ => Err(self.hand.broken("an answer, or none", error)),
        }
    }
}

/// Asserts that revisions rise in the order of time, over all resources, and that listings show the stored state.
fn in_order(hand: &Hand, calls: &[(usize, Call<Op>)], listings: &[Listing], floor: u64) -> Held {
    let mut writes: Vec<(u64, usize, &Call<Op>)> = Vec::new();
    for (key, call) in calls {
        writes.extend(written(&call.op).map(|revision| (revision, *key, call)));
    }
    writes.sort_by_key(|(revision, ..)| *revision);
    let mut latest_invoked: Option<&(u64, usize, &Call<Op>)> = None;
    for pair in writes.windows(2) {
        if let [(one, ..), (other, ..)] = pair {
            hand.ensure(one < other, "each write to have its own revision", format!("{pair:?}"))?;
        }
    }
    // A write with a lower revision must not have begun after one with a higher revision had ended.
    for write in &writes {
        let ended = write.2.returned.unwrap_or(u64::MAX);
        if let Some(earlier) = latest_invoked.filter(|earlier| earlier.2.invoked > ended) {
            let expected = format!("revision {} to be before {}, as it ended before that began", write.0, earlier.0);
            return Err(hand.broken(expected, format!("{write:?} and {earlier:?}")));
        }
        if latest_invoked.is_none_or(|latest| latest.2.invoked < write.2.invoked) {
            latest_invoked = Some(write);
        }
    }
    let lowest = writes.first().map_or(u64::MAX, |(revision, ..)| *revision);
    hand.ensure(lowest > floor, format!("revisions after {floor}"), lowest)?;
    let mut by_key: BTreeMap<usize, Vec<(u64, &Call<Op>)>> = BTreeMap::new();
    for (revision, key, call) in &writes {
        by_key.entry(*key).or_default().push((*revision, call));
    }
    let unknown: BTreeSet<usize> =
        calls.iter().filter(|(_, call)| call.returned.is_none()).map(|(key, _)| *key).collect();
    let mut ended: Vec<(u64, u64)> = writes.iter().filter_map(|(at, _, call)| Some((call.returned?, *at))).collect();
    ended.sort_unstable();
    // The highest revision of all writes that had ended by each time.
    let highest: Vec<(u64, u64)> = ended
        .into_iter()
        .scan(0, |highest, (returned, revision)| {
            *highest = revision.max(*highest);
            Some((returned, *highest))
        })
        .collect();
    for listing in listings {
        let before = highest.partition_point(|(returned, _)| *returned < listing.invoked);
        let least = before.checked_sub(1).and_then(|last| highest.get(last)).map_or(0, |(_, revision)| *revision);
        let current = listing.revision >= least;
        hand.ensure(
            current,
            format!("a listing of the writes that ended before it began, at {least} or later"),
            format!("{listing:?}"),
        )?;
        for key in 0..KEYS {
            let of_key = by_key.get(&key).map(Vec::as_slice).unwrap_or_default();
            let until = of_key.partition_point(|(revision, _)| *revision <= listing.revision);
            let write = until.checked_sub(1).and_then(|last| of_key.get(last));
            let shown = listing.items.get(&key);
            let fine = match write {
                // A write with an unknown outcome may have replaced or removed it.
                _ if unknown.contains(&key) => shown.is_none_or(|(_, revision)| *revision <= listing.revision),
                Some((revision, Call { op: Op::Apply(body, ..), .. })) => shown == Some(&(*body, *revision)),
                _ => shown.is_none(),
            };
            hand.ensure(fine, format!("the listing to have {write:?}"), format!("{shown:?} in {listing:?}"))?;
        }
    }
    Ok(())
}

/// The revision of a write.
fn written(op: &Op) -> Option<u64> {
    match op {
        Op::Apply(_, _, Gave::Done((ApplyOutcome::Created | ApplyOutcome::Changed, revision)))
        | Op::Delete(_, Gave::Done(Some(revision))) => Some(*revision),
        _ => None,
    }
}

/// The changes that a watcher of everything received.
struct Received {
    /// The ranges that a reset replaced: the position before it, and its revision.
    resets: Vec<(u64, u64)>,
    /// By revision: the resource, and its body if it was not removed.
    changes: BTreeMap<u64, (ResourceRef, Option<Body>)>,
}

impl Received {
    fn of(hand: &Hand, events: &[StoreEvent], end: Revision) -> Held<Self> {
        let mut received = Self { resets: Vec::new(), changes: BTreeMap::new() };
        let mut block = false;
        let mut position = 0;
        for event in events {
            match event {
                // Also one from after the end: its watcher may have been away until then.
                StoreEvent::Reset { revision, .. } => {
                    received.resets.push((position, revision.0));
                    block = true;
                    position = revision.0;
                }
                _ if event.revision() >= end => break,
                StoreEvent::Bookmark { .. } => block = false,
                _ if block => {}
                event => {
                    let revision = event.revision().0;
                    hand.ensure(
                        revision > position,
                        format!("a change after {position}"),
                        crate::store::truth::line(event),
                    )?;
                    position = revision;
                    let body = match event {
                        StoreEvent::Added(one) | StoreEvent::Modified(one) => Some(read(hand, one)?.0),
                        _ => None,
                    };
                    if let Some(reference) = event.reference() {
                        received.changes.insert(revision, (reference.clone(), body));
                    }
                }
            }
        }
        Ok(received)
    }

    /// The reports of a resource around a revision, and the resets.
    fn around(&self, resource: &ResourceRef, revision: u64) -> String {
        let of_it = |range: &(u64, &Option<Body>)| format!("{} {:?}", range.0, range.1);
        let changes = self.changes.iter().filter(|(_, (named, _))| named == resource);
        let mut near: Vec<_> = changes.map(|(at, (_, body))| (*at, body)).collect();
        near.sort_by_key(|(at, _)| at.abs_diff(revision));
        near.truncate(SHOWN / 2);
        let near: Vec<_> = near.iter().map(of_it).collect();
        format!("of the resource: {}; resets: {:?}", near.join(", "), self.resets)
    }

    /// Asserts that the watcher received every acknowledged write, and no write that no client made.
    fn has_all(&self, hand: &Hand, record: &Record, calls: &[(usize, Call<Op>)], during: Option<Disturbance>) -> Held {
        let disturbed = disturbed_by(during);
        let mut unknown: Vec<(usize, Option<Body>)> = Vec::new();
        let mut received = self.changes.clone();
        for (key, call) in calls {
            let body = match call.op {
                Op::Apply(body, ..) => Some(body),
                _ => None,
            };
            if matches!(call.op, Op::Apply(_, _, Gave::Unknown) | Op::Delete(_, Gave::Unknown)) {
                unknown.push((*key, body));
            }
            let Some(revision) = written(&call.op) else { continue };
            let reset = self.resets.iter().any(|(from, to)| *from < revision && revision <= *to);
            let found = received.remove(&revision);
            let fine = found.as_ref().map_or(reset, |found| *found == (record.reference(*key), body));
            if !fine {
                let missing = format!("{found:?}; {}", self.around(&record.reference(*key), revision));
                return Err(hand.broken(format!("a watcher to receive {call:?}{disturbed}"), missing));
            }
        }
        for (revision, (named, body)) in received.into_iter().filter(|(_, (named, _))| !record.is_foreign(named)) {
            let fine = unknown.iter().any(|(key, wrote)| record.reference(*key) == named && *wrote == body);
            let expected = format!("a watcher to receive writes only{disturbed}");
            let wrote = |(key, call): &&(usize, Call<Op>)| match call.op {
                Op::Apply(wrote, ..) => Some(wrote) == body,
                Op::Delete(..) => body.is_none() && record.reference(*key) == named,
                Op::Get(_) => false,
            };
            let told: Vec<_> = calls.iter().filter(wrote).map(|(_, call)| call).collect();
            let failed = lock(&record.failed);
            let failed: Vec<_> = failed.iter().filter(|(key, _)| record.reference(*key) == named).collect();
            let found = || {
                let around = self.around(&named, revision);
                format!("{named} at {revision}, body {body:?}, of {told:?}; {around}; failed: {failed:#?}")
            };
            let found = if fine { String::new() } else { found() };
            hand.ensure(fine, expected, found)?;
        }
        Ok(())
    }
}
