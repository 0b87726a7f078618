//! S7 and S8: snapshots, whole and corrupt, and restoring them.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use runtide_core::{
    ErrorKind, Gap,
    store::{
        Digest, PageOptions, Precondition, Resource, ResourceRef, Revision, Selector, Since, StoreEvent,
        StoreSnapshotReader, StoreSnapshotSeal, StoreWatchOptions,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinSet,
};

use super::{Hand, Held, Tried, describe, document, if_any, listed_names, reference};
use crate::{
    Verdict,
    store::{
        StoreHarness, StoreLaw, StoreLawResult,
        truth::{State, Truth},
        watcher::{Follower, Watcher, Writers},
    },
    wal::Random,
};

const KEYS: usize = 40;
const ROUND: usize = 96;

/// Size in bytes of the BLAKE3 hash that ends a snapshot.
const SEAL: usize = 32;

/// Offset of the version in a snapshot, after the magic.
const VERSION_AT: usize = 8;

/// A snapshot and its contents.
struct Taken {
    bytes: Vec<u8>,
    seal: StoreSnapshotSeal,
    resources: Vec<Arc<Resource>>,
}

impl Hand {
    /// Takes a snapshot and reads it: its header and its seal must describe it.
    async fn taken(&self) -> Held<Taken> {
        let mut bytes = Vec::new();
        let seal = self.works("take a snapshot", self.store.snapshot(&mut bytes)).await?;
        let mut from = &bytes[..];
        let mut reader = self.works("read a snapshot", StoreSnapshotReader::begin(&mut from)).await?;
        let mut resources = Vec::new();
        while let Some(resource) = self.works("read a snapshot", reader.next()).await? {
            resources.push(resource);
        }
        self.equal("the seal", &reader.seal(), &Some(seal))?;
        self.equal("the count of the seal", &seal.count, &(resources.len() as u64))?;
        self.equal("the revision of the header", &reader.revision(), &seal.revision)?;
        let sealed = bytes.get(..bytes.len().saturating_sub(SEAL)).unwrap_or_default();
        self.equal("the digest of all bytes before it", &Digest::of(sealed), &seal.digest)?;
        Ok(Taken { bytes, seal, resources })
    }

    async fn restore(&self, bytes: &[u8]) -> Held<Revision> {
        let mut from = bytes;
        self.works("restore a snapshot", self.store.restore(&mut from)).await
    }

    /// Asserts that the store has the references and the documents of a snapshot.
    async fn is_as(&self, taken: &Taken) -> Held<(Revision, Vec<Arc<Resource>>)> {
        let (revision, items) = self.list(&Selector::all(), 0).await?;
        let same = items.len() == taken.resources.len()
            && items
                .iter()
                .zip(&taken.resources)
                .all(|(one, other)| one.reference == other.reference && one.document == other.document);
        self.ensure(same, format!("{} resources as in the snapshot", taken.seal.count), listed_names(&items))?;
        Ok((revision, items))
    }
}

/// Snapshots are taken while eight clients write: each must be the state at its revision. Then one is corrupted, in every
/// byte, cut at every length, and lengthened: each is refused, nothing is changed, and no watcher gets an event.
pub(crate) async fn s7_snapshot(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S7, h };
    let hands = [tried.hand(), tried.other_hand().await?];
    let hand = tried.hand();
    let empty = hand.taken().await?;
    hand.equal("the resources of an empty store's snapshot", &empty.resources.len(), &0)?;
    let mut writers = Writers::start(&hands, KEYS, 7);
    let mut snapshots = Vec::new();
    for round in 0..tried.pick(100, 12) {
        writers.allow(ROUND);
        let mut tasks = JoinSet::new();
        for hand in hands.iter().cycle().take(1 + round % 3) {
            let hand = hand.clone();
            let mut random = Random(round as u64);
            tasks.spawn(async move {
                for _ in 0..random.below(ROUND / 4) {
                    tokio::task::yield_now().await;
                }
                hand.taken().await
            });
        }
        while let Some(ended) = tasks.join_next().await {
            snapshots.push(ended.unwrap_or_else(|error| Err(hand.broken("no panic", error)))?);
        }
        writers.rest().await?;
    }
    let truth = hand.holds(Truth::of(writers.done().await?))?;
    for taken in &snapshots {
        hand.holds(truth.listed(&Selector::all(), taken.seal.revision, &taken.resources))?;
    }
    let corrupt = corrupt(tried).await?;
    Ok(Verdict::looked_at(snapshots.len() as u64 + corrupt, "snapshots", Vec::new()))
}

/// Restores corrupt snapshots of every sort, which must be refused. Returns their number.
async fn corrupt(tried: Tried<'_>) -> Held<u64> {
    let hand = tried.hand();
    for n in 0..KEYS {
        hand.delete(&reference(n), Precondition::None).await?;
    }
    for n in 0..4 {
        hand.put(&reference(n), &document(9, n)).await?;
    }
    let taken = hand.taken().await?;
    hand.put(&reference(1), &document(10, 1)).await?;
    let mark = hand.mark(1).await?;
    let (revision, before) = hand.list(&Selector::all(), 0).await?;
    let options = StoreWatchOptions::default().with_since(Since::After(revision));
    let mut watcher = hand.watch(&Selector::all(), options).await?;
    let mut random = Random(7);
    let stride = tried.pick(1, 5);
    let mut wrong: Vec<(String, Vec<u8>)> = Vec::new();
    for at in (0..taken.bytes.len()).step_by(stride) {
        let mut flipped = taken.bytes.clone();
        if let Some(byte) = flipped.get_mut(at) {
            *byte ^= 1 << random.below(8);
        }
        wrong.push((format!("byte {at} flipped"), flipped));
        wrong.push((format!("cut at {at}"), taken.bytes.get(..at).unwrap_or_default().to_vec()));
    }
    for more in [1, SEAL, taken.bytes.len()] {
        let rest = taken.bytes.get(taken.bytes.len().saturating_sub(more)..).unwrap_or_default();
        wrong.push((format!("with {more} bytes more"), [&taken.bytes[..], rest].concat()));
    }
    wrong.push(("of another sort".to_owned(), vec![b'{'; 4_096]));
    let count = wrong.len() as u64 + 3;
    for (what, bytes) in &wrong {
        let mut from = &bytes[..];
        let refused = hand.ends("restore a corrupt snapshot", hand.store.restore(&mut from)).await?;
        let version = bytes.get(..VERSION_AT) == taken.bytes.get(..VERSION_AT)
            && bytes.get(VERSION_AT..VERSION_AT + 4) != taken.bytes.get(VERSION_AT..VERSION_AT + 4);
        let fine = refused.as_ref().is_err_and(|error| {
            error.kind() == ErrorKind::Corrupt || version && error.kind() == ErrorKind::Unsupported
        });
        hand.ensure(fine, format!("`Corrupt` for a snapshot {what}"), format!("{refused:?}"))?;
        unchanged(tried, what, revision, &before).await?;
    }
    // A later version, with a valid seal.
    let mut later = taken.bytes.get(..taken.bytes.len() - SEAL).unwrap_or_default().to_vec();
    if let Some(version) = later.get_mut(VERSION_AT) {
        *version += 1;
    }
    later.extend(Digest::of(&later).0);
    let mut from = &later[..];
    hand.refused("restore a snapshot of a later version", ErrorKind::Unsupported, hand.store.restore(&mut from))
        .await?;
    // A snapshot that cannot be read to its end, and one that cannot be written.
    let mut breaks = Breaks { bytes: taken.bytes.clone(), at: 0, end: taken.bytes.len() - SEAL - 1 };
    let read = hand.ends("restore", hand.store.restore(&mut breaks)).await?;
    hand.ensure(read.is_err(), "an error for a snapshot that cannot be read to its end", format!("{read:?}"))?;
    let mut full = Full { left: taken.bytes.len() / 2 };
    let written = hand.ends("take a snapshot", hand.store.snapshot(&mut full)).await?;
    hand.ensure(written.is_err(), "an error for a snapshot that cannot be written", format!("{written:?}"))?;
    unchanged(tried, "all of these", revision, &before).await?;
    let mut truth = Truth::default();
    let state: State = before.into_iter().map(|one| (one.reference.clone(), one)).collect();
    hand.holds(truth.restore(mark.revision, state))?;
    for round in [2, 3] {
        hand.holds(truth.add([hand.mark(round).await?]))?;
    }
    watcher.until(truth.revision()).await?;
    let seen = watcher.explained(&truth, true)?;
    hand.ensure(seen.resets.is_empty(), "no reset for a restore that was refused", format!("{:?}", seen.resets))?;
    Ok(count)
}

/// Asserts that the resources are those of before; and the revision, unless others write to the server at the same time.
async fn unchanged(tried: Tried<'_>, what: &str, revision: Revision, before: &[Arc<Resource>]) -> Held {
    let hand = tried.hand();
    let (now, items) = hand.list(&Selector::all(), 0).await?;
    let same = (now == revision || !tried.h.is_alone()) && items == before;
    let shown = |items: &[Arc<Resource>]| items.iter().map(|one| describe(Some(one))).collect::<Vec<_>>().join("; ");
    hand.ensure(
        same,
        format!("nothing changed by a snapshot {what}: revision {revision}, {}", shown(before)),
        format!("revision {now}, {}", shown(&items)),
    )
}

/// Gives bytes up to an offset, and then an error.
struct Breaks {
    bytes: Vec<u8>,
    at: usize,
    end: usize,
}

impl AsyncRead for Breaks {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let end = self.end.min(self.at + into.remaining().min(64));
        if end == self.at {
            return Poll::Ready(Err(std::io::Error::other("the link broke")));
        }
        into.put_slice(self.bytes.get(self.at..end).unwrap_or_default());
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

/// Accepts some bytes, and then fails as a full disk does.
struct Full {
    left: usize,
}

impl AsyncWrite for Full {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let taken = bytes.len().min(self.left);
        self.left -= taken;
        if taken == 0 { Poll::Ready(Err(std::io::ErrorKind::StorageFull.into())) } else { Poll::Ready(Ok(taken)) }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Snapshots are restored, in a quiet store and while eight clients write, list and watch: every listing shows the state before
/// or the one after, every watcher gets a reset, revisions rise, and a position from before the restore is `Expired`.
pub(crate) async fn s8_restore(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S8, h };
    let mut without = Vec::new();
    let mut checked = quiet(tried).await?;
    checked += elsewhere(tried, &mut without).await?;
    checked += busy(tried).await?;
    Ok(Verdict::looked_at(checked, "listings and watches", without))
}

async fn quiet(tried: Tried<'_>) -> Held<u64> {
    let hand = tried.hand();
    let other = tried.other_hand().await?;
    let empty = hand.taken().await?;
    for n in 0..12 {
        hand.put(&reference(n), &document(1, n)).await?;
    }
    let taken = hand.taken().await?;
    let mut checked = 0;
    for round in 0..4 {
        hand.delete(&reference(2), Precondition::None).await?;
        for n in 8..16 {
            hand.put(&reference(n), &document(2 + round, n)).await?;
        }
        // Its document is as in the snapshot, its revision is not.
        hand.put(&reference(3), &document(3, 3)).await?;
        hand.put(&reference(3), &document(1, 3)).await?;
        let mark = hand.mark(round).await?;
        let (before, items) = hand.list(&Selector::all(), 0).await?;
        let next = hand
            .works(
                "list",
                hand.store.list(&Selector::all(), PageOptions::default().with_limit(std::num::NonZeroU32::new(3))),
            )
            .await?
            .next;
        let mut watchers = Vec::new();
        let third = Selector::only(&reference(3));
        for (n, selector) in [Selector::all(), third, Selector::default().with_kind("Nothing")].into_iter().enumerate()
        {
            let since = if n == 1 { Since::Now } else { Since::After(before) };
            let hand = if n == 2 { &other } else { &hand };
            watchers.push(hand.watch(&selector, StoreWatchOptions::default().with_since(since)).await?);
        }
        let chosen = if round == 2 { &empty } else { &taken };
        let revision = hand.restore(&chosen.bytes).await?;
        hand.ensure(revision > before, format!("the revision of a restore to be after {before}"), revision)?;
        let (now, restored) = hand.is_as(chosen).await?;
        other.is_as(chosen).await?;
        hand.ensure(now >= revision, format!("a listing at {revision} or later"), now)?;
        for one in &restored {
            let renewed = one.revision > before && one.revision <= revision;
            hand.ensure(renewed, format!("a revision after {before} and up to {revision}"), describe(Some(one)))?;
        }
        let mut truth = Truth::default();
        let state = |items: Vec<Arc<Resource>>| items.into_iter().map(|one| (one.reference.clone(), one)).collect();
        hand.holds(truth.restore(before, state(items.clone())))?;
        hand.holds(truth.restore(revision, state(restored.clone())))?;
        for watcher in &mut watchers {
            reset(&hand, watcher, revision).await?;
            watcher.explained(&truth, true)?;
        }
        checked += 2 + watchers.len() as u64;
        old_positions(&hand, &[before, mark.revision, taken.seal.revision], revision, &items).await?;
        // The pages of a listing from before the restore continue to show the old state, or end.
        if let Some(next) = next {
            let options = PageOptions::default().with_after(Some(next));
            match hand.ends("list on", hand.store.list(&Selector::all(), options)).await? {
                Ok(page) => {
                    let same = page.revision == before && items.get(3..).is_some_and(|rest| rest == page.items);
                    hand.ensure(same, "a page of before the restore", listed_names(&page.items))?;
                }
                Err(error) => hand.equal("the error for a page of before", &error.kind(), &ErrorKind::Expired)?,
            }
        }
        // The watchers continue.
        hand.holds(truth.add([hand.put_surely(&reference(3), &document(90 + round, 3)).await?]))?;
        for watcher in watchers.iter_mut().take(2) {
            watcher.until(truth.revision()).await?;
            watcher.explained(&truth, true)?;
        }
        checked += 2;
    }
    Ok(checked)
}

/// Waits for the reset of a restore, and its bookmark.
async fn reset(hand: &Hand, watcher: &mut Watcher, revision: Revision) -> Held {
    watcher.until(revision).await?;
    let restored = watcher
        .events
        .iter()
        .any(|event| matches!(event, StoreEvent::Reset { gap: Gap::Restored, revision: at } if *at >= revision));
    hand.ensure(
        restored,
        "a reset that says `Restored`",
        format!("{:?}", watcher.events.last().map(StoreEvent::revision)),
    )
}

/// Asserts that a position, or a condition, from before a restore is refused after it.
async fn old_positions(hand: &Hand, positions: &[Revision], revision: Revision, before: &[Arc<Resource>]) -> Held {
    for position in positions {
        let options = StoreWatchOptions::default().with_since(Since::After(*position));
        let all = Selector::all();
        let doing = format!("watch after {position}, from before a restore");
        hand.refused(&doing, ErrorKind::Expired, hand.store.watch(&all, options)).await?;
    }
    let options = StoreWatchOptions::default().with_since(Since::After(revision));
    drop(hand.watch(&Selector::all(), options).await?);
    for one in before {
        let precondition = Precondition::Is(one.revision);
        let call = hand.store.apply(&one.reference, document(99, 0), precondition);
        hand.refused("apply with a revision from before a restore", ErrorKind::Conflict, call).await?;
        let call = hand.store.delete(&one.reference, precondition);
        hand.refused("delete with a revision from before a restore", ErrorKind::Conflict, call).await?;
    }
    Ok(())
}

/// A snapshot of one store is restored in another.
async fn elsewhere(tried: Tried<'_>, without: &mut Vec<String>) -> Held<u64> {
    let hand = tried.hand();
    for n in 0..10 {
        hand.put(&reference(n), &document(40, n)).await?;
    }
    let taken = hand.taken().await?;
    let Some(store) = if_any("make another store", tried.h.foreign().await, without)? else { return Ok(0) };
    let foreign = Hand { store, ..hand };
    let first = foreign.put(&reference(1), &document(41, 1)).await?.revision;
    let mut watcher = foreign.watch(&Selector::all(), StoreWatchOptions::default()).await?;
    watcher.step().await?;
    let revision = foreign.restore(&taken.bytes).await?;
    foreign.ensure(revision > first, format!("the revision of a restore to be after {first}"), revision)?;
    foreign.is_as(&taken).await?;
    reset(&foreign, &mut watcher, revision).await?;
    let next = foreign.put(&reference(1), &document(42, 1)).await?.revision;
    foreign.ensure(next > revision, format!("revisions to rise after {revision}"), next)?;
    Ok(2)
}

/// Snapshots are restored while other clients write, list and watch.
async fn busy(tried: Tried<'_>) -> Held<u64> {
    let hands = [tried.hand(), tried.other_hand().await?];
    let hand = tried.hand();
    let (begun, items) = hand.list(&Selector::all(), 0).await?;
    let mut truth = Truth::default();
    hand.holds(truth.restore(begun, items.into_iter().map(|one| (one.reference.clone(), one)).collect()))?;
    let rounds = tried.pick(30, 5);
    let mut followers = Vec::new();
    for hand in &hands {
        let options = StoreWatchOptions::default().with_since(Since::After(begun));
        // The rounds continue the numbers of the earlier ones.
        followers.push(Follower::new(hand.watch(&Selector::all(), options).await?, 1_000, 1_000 + rounds + 1));
    }
    let mut writers = Writers::start(&hands, KEYS, 8);
    let (mut listings, mut marks, mut restores) = (Vec::new(), Vec::new(), Vec::new());
    // Each restore brings back the state of a round before.
    let mut next = hand.taken().await?;
    for round in 1..=rounds {
        writers.allow(ROUND);
        let taken = std::mem::replace(&mut next, hand.taken().await?);
        let mut tasks = JoinSet::new();
        for (n, hand) in hands.iter().cycle().take(4).enumerate() {
            let hand = hand.clone();
            let limit = if n % 2 == 0 { 0 } else { 5 };
            tasks.spawn(async move {
                let mut listed = Vec::new();
                for _ in 0..6 {
                    match hand.listed(&Selector::all(), limit, None).await? {
                        Ok(listing) => listed.push(listing),
                        Err(error) => hand.equal("the error of a listing", &error.kind(), &ErrorKind::Expired)?,
                    }
                    tokio::task::yield_now().await;
                }
                Ok(listed)
            });
        }
        let restoring = tokio::spawn({
            let (hand, bytes) = (hand.clone(), taken.bytes.clone());
            async move {
                for _ in 0..round % 5 * 5 {
                    tokio::task::yield_now().await;
                }
                hand.restore(&bytes).await
            }
        });
        let revision = restoring.await.unwrap_or_else(|error| Err(hand.broken("no panic", error)))?;
        restores.push((revision, taken));
        while let Some(ended) = tasks.join_next().await {
            listings.extend(ended.unwrap_or_else(|error| Err(hand.broken("no panic", error)))?);
        }
        writers.rest().await?;
        marks.push(hand.mark(1_000 + round).await?);
        for follower in &mut followers {
            follower.at(1_000 + round).await?;
        }
    }
    marks.push(hand.mark(1_000 + rounds + 1).await?);
    let mut watchers = Vec::new();
    for follower in followers {
        watchers.push(follower.done().await?);
    }
    hand.holds(truth.add(writers.done().await?))?;
    hand.holds(truth.add(marks))?;
    let mut before = begun;
    for (revision, taken) in restores {
        let mut seen = renewed(&watchers, &listings, revision);
        seen.retain(|_, at| *at > before && *at <= revision);
        let state = taken.resources.iter().map(|one| {
            let at = seen.get(&one.reference).copied().unwrap_or(revision);
            (one.reference.clone(), Arc::new(Resource::new(one.reference.clone(), one.document.clone(), at)))
        });
        hand.holds(truth.restore(revision, state.collect()))?;
        before = revision;
    }
    for (revision, items) in &listings {
        hand.holds(truth.listed(&Selector::all(), *revision, items))?;
    }
    for watcher in &watchers {
        watcher.explained(&truth, false)?;
    }
    let (revision, items) = hand.list(&Selector::all(), 0).await?;
    hand.holds(truth.listed(&Selector::all(), revision, &items))?;
    Ok((listings.len() + watchers.len()) as u64)
}

/// The revision that a restore gave each resource, which the store chooses: from the watchers' reset, and from later listings
/// that show resources that were not written since.
fn renewed(
    watchers: &[Watcher],
    listings: &[(Revision, Vec<Arc<Resource>>)],
    restored: Revision,
) -> BTreeMap<ResourceRef, Revision> {
    let mut shown: Vec<&Arc<Resource>> = Vec::new();
    for watcher in watchers {
        let mut within = false;
        for event in &watcher.events {
            match event {
                StoreEvent::Reset { revision, .. } => within = *revision == restored,
                StoreEvent::Added(resource) if within => shown.push(resource),
                _ => within = false,
            }
        }
    }
    let later = listings.iter().filter(|(revision, _)| *revision >= restored).flat_map(|(_, items)| items);
    shown.extend(later.filter(|one| one.revision <= restored));
    shown.into_iter().map(|one| (one.reference.clone(), one.revision)).collect()
}
