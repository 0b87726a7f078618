//! A watch that is open, and the clients that write at the same time.

use std::sync::Arc;

use runtide_core::{
    Error, ErrorKind,
    store::{
        ApplyOutcome, Document, Precondition, ResourceRef, Revision, Selector, StoreEvent, StoreStream,
        StoreWatchOptions,
    },
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{
    laws::{Hand, Held, document, give_way, reference},
    truth::{Change, Mismatch, Seen, Truth, line},
};
use crate::wal::Random;

/// Number of earlier events that a violation shows.
const SHOWN: usize = 12;

/// The writer's number in a body that ends a round.
const MARKER: usize = 1_000_000;

/// A watch that is open, with all its events.
pub(super) struct Watcher {
    hand: Hand,
    selector: Selector,
    options: StoreWatchOptions,
    stream: StoreStream,
    pub(super) events: Vec<StoreEvent>,
    /// Number of events to fetch at once, if more than one.
    batch: usize,
    in_block: bool,
}

impl Hand {
    pub(super) async fn watch(&self, selector: &Selector, options: StoreWatchOptions) -> Held<Watcher> {
        let doing = format!("watch {:?}", options.since);
        let stream = self.works(&doing, self.store.watch(selector, options.clone())).await?;
        Ok(Watcher {
            hand: self.clone(),
            selector: selector.clone(),
            options,
            stream,
            events: Vec::new(),
            batch: 1,
            in_block: false,
        })
    }

    /// A mismatch with the oracle, as a violation of the law.
    pub(super) fn holds<T>(&self, result: Result<T, Mismatch>) -> Held<T> {
        result.map_err(|Mismatch { expected, found, .. }| self.broken(expected, found))
    }

    /// Writes a body that no other write has, repeatedly while the store cannot be reached: if a write took effect without an
    /// answer, the next one shows it.
    pub(super) async fn put_surely(&self, reference: &ResourceRef, document: &Document) -> Held<Change> {
        let attempts = async {
            loop {
                match self.store.apply(reference, document.clone(), Precondition::None).await {
                    Ok(applied) => return Ok(Change::new(applied.revision, reference.clone(), Some(document.clone()))),
                    Err(error) if is_outage(&error) => tokio::task::yield_now().await,
                    Err(error) => return Err(self.broken(format!("to apply {reference}"), error)),
                }
            }
        };
        self.ends("write in the end", attempts).await?
    }

    /// Writes the resource that ends a round: every selector that laws watch with matches it.
    pub(super) async fn mark(&self, round: usize) -> Held<Change> {
        let (reference, document) = (reference(0), marker(round));
        self.put_surely(&reference, &document).await
    }
}

/// `true` if the error says that the store cannot be reached, so that the same call may work later.
pub(super) fn is_outage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}

fn marker(round: usize) -> Document {
    document(MARKER, round * 2)
}

impl Watcher {
    /// Fetches `batch` events at once.
    pub(super) fn by(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    /// Waits for events. Returns the error that ends the stream, if that comes instead.
    pub(super) async fn more(&mut self) -> Held<Option<Error>> {
        let known = self.events.len();
        let hand = self.hand.clone();
        let ended = if self.batch > 1 {
            let got = hand.ends("receive more events", self.stream.next_batch(&mut self.events, self.batch)).await?;
            got.map(|got| got.map(drop))
        } else {
            let got = hand.ends("receive more events", self.stream.next()).await?;
            got.map(|got| got.map(|event| self.events.push(event)))
        };
        for event in self.events.iter().skip(known) {
            match event {
                StoreEvent::Reset { .. } => self.in_block = true,
                StoreEvent::Bookmark { .. } => self.in_block = false,
                _ => {}
            }
        }
        match ended {
            Some(Ok(())) if self.events.len() > known => Ok(None),
            Some(Ok(())) => Err(self.broken("a batch to have an event", "an empty one")),
            Some(Err(error)) => Ok(Some(error)),
            None => Err(self.broken("a watch to go on, or to end with an error", "its end")),
        }
    }

    /// Waits for one event, or a batch.
    pub(super) async fn step(&mut self) -> Held {
        match self.more().await? {
            None => Ok(()),
            Some(error) => Err(self.broken("a watch to go on", error)),
        }
    }

    /// Waits until it has `events` events in all.
    pub(super) async fn count(&mut self, events: usize) -> Held {
        while self.events.len() < events {
            self.step().await?;
        }
        Ok(())
    }

    /// Waits until it has everything up to a revision.
    pub(super) async fn until(&mut self, revision: Revision) -> Held {
        while self.in_block || self.events.last().is_none_or(|event| event.revision() < revision) {
            self.step().await?;
        }
        Ok(())
    }

    /// Waits for the last error, and the end of the stream after it.
    pub(super) async fn until_error(&mut self) -> Held<Error> {
        let error = loop {
            if let Some(error) = self.more().await? {
                break error;
            }
        };
        let hand = self.hand.clone();
        match hand.ends("receive the end", self.stream.next()).await? {
            None => Ok(error),
            Some(more) => Err(self.broken("the end after an error", format!("{more:?}"))),
        }
    }

    pub(super) fn broken(&self, expected: impl Into<String>, found: impl std::fmt::Display) -> super::laws::Broken {
        let trail = self.trail(self.events.len());
        self.hand.broken(expected, found).after(trail)
    }

    fn trail(&self, end: usize) -> Vec<String> {
        let from = end.saturating_sub(SHOWN);
        let begin = format!("a watch {:?} of {:?}", self.options.since, self.selector);
        let shown = self.events.iter().enumerate().take(end).skip(from);
        std::iter::once(begin).chain(shown.map(|(at, event)| format!("{at}: {}", line(event)))).collect()
    }

    /// Checks its events against the history, up to its position. Returns the part that it saw.
    pub(super) fn explained(&self, truth: &Truth, counted: bool) -> Held<Seen> {
        truth.explain(&self.selector, &self.options, counted, &self.events).map_err(|broken| {
            let trail = self.trail(broken.at.unwrap_or(self.events.len()));
            self.hand.broken(broken.expected, broken.found).after(trail)
        })
    }
}

/// A watcher that reads in its own task, up to the end of a round.
pub(super) struct Follower {
    marked: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<Held<Watcher>>,
    hand: Hand,
}

impl Follower {
    /// Reads from now on, and stops at the end of round `last`.
    pub(super) fn new(mut watcher: Watcher, first: usize, last: usize) -> Self {
        let (report, marked) = watch::channel(first);
        let hand = watcher.hand.clone();
        let task = tokio::spawn(async move {
            let mut seen = first;
            while seen < last || watcher.in_block {
                let known = watcher.events.len();
                watcher.step().await?;
                seen = watcher.last_round(known, seen);
                report.send_replace(seen);
            }
            Ok(watcher)
        });
        Self { marked, task, hand }
    }

    /// Waits until it has read up to the end of a round, or stopped.
    pub(super) async fn at(&mut self, round: usize) -> Held {
        let marked = &mut self.marked;
        // The join of a watcher that stopped too early gives the reason.
        self.hand
            .ends("see every watcher keep up", marked.wait_for(|marked| *marked >= round))
            .await?
            .map(drop)
            .or(Ok(()))
    }

    pub(super) async fn done(self) -> Held<Watcher> {
        let hand = self.hand;
        let ended = hand.ends("see a watcher come to the end", self.task).await?;
        ended.unwrap_or_else(|error| Err(hand.broken("no panic", error)))
    }
}

impl Watcher {
    /// The last round whose end it received.
    fn last_round(&self, from: usize, known: usize) -> usize {
        let number = |event: &StoreEvent| match event {
            StoreEvent::Added(resource) | StoreEvent::Modified(resource) => round_of(resource.written()),
            _ => None,
        };
        self.events.iter().skip(from).filter_map(number).fold(known, usize::max)
    }
}

/// The round that a body ends.
fn round_of(document: &Document) -> Option<usize> {
    let text = std::str::from_utf8(&document.bytes).ok()?;
    let (_, number) = text.split_once(&format!("\"writer\":{MARKER},\"n\":"))?;
    let number: usize = number.trim_end_matches('}').parse().ok()?;
    Some(number / 2)
}

/// Clients that write at once, as many changes as they have permits.
pub(super) struct Writers {
    permits: Arc<Semaphore>,
    finished: watch::Receiver<u64>,
    allowed: u64,
    tasks: JoinSet<Held<Vec<Change>>>,
    hand: Hand,
}

/// Number of clients that write at once.
pub(super) const WRITERS: usize = 8;

impl Writers {
    /// The clients write to the same `keys` resources, with the same choices for the same seed.
    pub(super) fn start(hands: &[Hand], keys: usize, seed: u64) -> Self {
        let permits = Arc::new(Semaphore::new(0));
        let (report, finished) = watch::channel(0);
        let report = Arc::new(report);
        let mut tasks = JoinSet::new();
        for (writer, hand) in hands.iter().cycle().take(WRITERS).enumerate() {
            let (hand, permits, report) = (hand.clone(), Arc::clone(&permits), Arc::clone(&report));
            let mut random = Random(seed.wrapping_mul(1_000).wrapping_add(writer as u64));
            tasks.spawn(async move {
                let mut changes: Vec<Change> = Vec::new();
                let mut n = 0;
                while let Ok(permit) = permits.acquire().await {
                    permit.forget();
                    n += 1;
                    let change = write(&hand, writer, n, keys, &mut random).await?;
                    if let (Some(last), Some(next)) = (changes.last(), &change) {
                        let rises = next.revision > last.revision;
                        hand.ensure(rises, format!("a revision after {}", last.revision), next.revision)?;
                    }
                    changes.extend(change);
                    report.send_modify(|done| *done += 1);
                    give_way(&mut random).await;
                }
                Ok(changes)
            });
        }
        let hand = hands.first().cloned();
        let hand = hand.unwrap_or_else(|| unreachable!("there is a hand"));
        Self { permits, finished, allowed: 0, tasks, hand }
    }

    /// Permits `writes` more writes.
    pub(super) fn allow(&mut self, writes: usize) {
        self.allowed += writes as u64;
        self.permits.add_permits(writes);
    }

    /// Waits until all permitted writes are done.
    pub(super) async fn rest(&mut self) -> Held {
        let allowed = self.allowed;
        let all = self.finished.wait_for(|done| *done >= allowed);
        tokio::select! {
            done = self.hand.ends("see all writes end", all) => done.map(drop),
            Some(ended) = self.tasks.join_next() => {
                ended.unwrap_or_else(|error| Err(self.hand.broken("no panic", error)))?;
                Err(self.hand.broken("writers to go on", "one that stopped"))
            }
        }
    }

    /// Waits for the clients to end. Returns their changes.
    pub(super) async fn done(mut self) -> Held<Vec<Change>> {
        self.rest().await?;
        self.permits.close();
        let mut changes = Vec::new();
        while let Some(ended) = self.hand.ends("see writers end", self.tasks.join_next()).await? {
            changes.extend(ended.unwrap_or_else(|error| Err(self.hand.broken("no panic", error)))?);
        }
        Ok(changes)
    }
}

/// One write, chosen at random. Returns its change, if it made one.
async fn write(hand: &Hand, writer: usize, n: usize, keys: usize, random: &mut Random) -> Held<Option<Change>> {
    let reference = reference(random.below(keys));
    let document = document(writer, n);
    match random.below(10) {
        0 => deleted(&reference, hand.delete(&reference, Precondition::None).await?),
        choice @ 1..=3 => {
            let found = hand.get(&reference).await?;
            let precondition = found.as_ref().map_or(Precondition::Absent, |found| Precondition::Is(found.revision));
            match (choice, found) {
                // The stored document again.
                (1, Some(found)) => applied(hand, &reference, &found.document, Precondition::None).await,
                (2, Some(_)) => match hand.store.delete(&reference, precondition).await {
                    Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
                    gone => deleted(&reference, gone.map_err(|error| hand.broken("to delete", error))?),
                },
                _ => applied(hand, &reference, &document, precondition).await,
            }
        }
        _ => applied(hand, &reference, &document, Precondition::None).await,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the arm of a match whose others fail")]
fn deleted(reference: &ResourceRef, revision: Option<Revision>) -> Held<Option<Change>> {
    Ok(revision.map(|revision| Change::new(revision, reference.clone(), None)))
}

async fn applied(
    hand: &Hand,
    reference: &ResourceRef,
    document: &Document,
    precondition: Precondition,
) -> Held<Option<Change>> {
    let call = hand.store.apply(reference, document.clone(), precondition);
    match hand.ends("apply", call).await? {
        Ok(applied) if applied.outcome == ApplyOutcome::Unchanged => Ok(None),
        Ok(applied) => Ok(Some(Change::new(applied.revision, reference.clone(), Some(document.clone())))),
        Err(error) if error.kind() == ErrorKind::Conflict && precondition != Precondition::None => Ok(None),
        Err(error) => Err(hand.broken("to apply", error)),
    }
}
