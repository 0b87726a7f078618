//! S6 and S10: watchers that lost their position, and their cost.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use runtide_core::{
    ErrorKind, SlowConsumer,
    store::{Document, ResourceFormat, Revision, Selector, Since, StoreEvent, StoreStream, StoreWatchOptions},
};

use super::{Hand, Held, KIND, Tried, document, done, if_any, reference};
use crate::{
    Obstacle, Supported, Verdict,
    store::{
        Disturbance, Overrun, StoreHarness, StoreLaw, StoreLawResult,
        truth::{Change, Truth},
        watcher::Watcher,
    },
};

/// Selects the resources of the laws, without those that a harness writes to make positions expire.
fn ours() -> Selector {
    Selector::default().with_kind(KIND)
}

fn after(revision: Revision) -> StoreWatchOptions {
    StoreWatchOptions::default().with_since(Since::After(revision))
}

/// Positions that are kept can be resumed from; then they expire, and each older one is `Expired` at once, as are future
/// positions. Watchers that are not polled lose their position, repeatedly, also in the middle of a reset, and get a reset
/// that counts the changes it replaces, or the end if they asked for that.
pub(crate) async fn s6_expired(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S6, h };
    let mut without = Vec::new();
    let mut checked = positions(tried).await?;
    if let Some(overrun) = if_any("make a watcher too slow", h.overrun(), &mut without)? {
        checked += too_slow(tried, overrun).await?;
    }
    checked += outage(tried, &mut without).await?;
    Ok(Verdict::looked_at(checked, "watches", without))
}

/// Positions before and after they expire.
async fn positions(tried: Tried<'_>) -> Held<u64> {
    let hand = tried.hand();
    assert_old_is_refused(&hand, &[future(tried, hand.stats().await?.revision)], "the future").await?;
    let mut changes = Vec::new();
    let mut checked = 1;
    for round in 0..tried.pick(6, 2) {
        let from = changes.len();
        for n in 0..12 {
            changes.push(hand.put_surely(&reference(n), &document(round, n)).await?);
        }
        let truth = hand.holds(Truth::of(changes.clone()))?;
        let positions: Vec<Revision> = changes.iter().skip(from).map(|change| change.revision).collect();
        for position in positions.iter().take(positions.len() - 1) {
            let mut watcher = hand.watch(&ours(), after(*position)).await?;
            watcher.until(truth.revision()).await?;
            watcher.explained(&truth, true)?;
            checked += 1;
        }
        drop(hand.watch(&ours(), after(truth.revision())).await?);
        done("make a position expire", tried.h.expire(truth.revision()).await)?;
        let mut old: Vec<Revision> = changes.iter().map(|change| change.revision).collect();
        old.extend([Revision(0), Revision(1)]);
        assert_old_is_refused(&hand, &old, "a position that is not kept").await?;
        let stats = hand.stats().await?;
        let beyond =
            [future(tried, stats.revision), Revision(u64::MAX), Revision(u64::MAX / 2), Revision(u64::MAX / 2 + 1)];
        assert_old_is_refused(&hand, &beyond, "the future").await?;
        checked += (old.len() + beyond.len()) as u64;
        let reaches = stats.oldest > truth.revision() && stats.oldest <= stats.revision;
        hand.ensure(
            reaches,
            format!("the oldest position to be after {}, and not after {}", truth.revision(), stats.revision),
            stats.oldest,
        )?;
        if tried.h.is_alone() {
            drop(hand.watch(&ours(), after(stats.oldest)).await?);
            let before = Revision(stats.oldest.0.saturating_sub(1));
            assert_old_is_refused(&hand, &[before], "the position before the oldest one").await?;
            checked += 2;
        }
        // The present is a position that a watch can resume from.
        let mut watcher = hand.watch(&ours(), after(hand.list(&ours(), 5).await?.0)).await?;
        let change = hand.put_surely(&reference(0), &document(round, 100)).await?;
        watcher.until(change.revision).await?;
        changes.push(change);
        watcher.explained(&hand.holds(Truth::of(changes.clone()))?, true)?;
    }
    Ok(checked)
}

/// A revision that does not exist yet, and will not exist before the watch asks for it.
fn future(tried: Tried<'_>, last: Revision) -> Revision {
    Revision(last.0 + if tried.h.is_alone() { 1 } else { 1_000_000 })
}

async fn assert_old_is_refused(hand: &Hand, positions: &[Revision], what: &str) -> Held {
    for selector in [Selector::all(), ours()] {
        for position in positions {
            let doing = format!("watch after {position}, {what}");
            hand.refused(&doing, ErrorKind::Expired, hand.store.watch(&selector, after(*position))).await?;
        }
    }
    Ok(())
}

/// Watchers that lose their position because they are not polled.
async fn too_slow(tried: Tried<'_>, overrun: Overrun) -> Held<u64> {
    let hand = tried.hand();
    let other = tried.other_hand().await?;
    // The earlier resources are part of a reset.
    let state = hand.list(&Selector::all(), 0).await?;
    let mut truth = Truth::default();
    let known = state.1.into_iter().map(|one| (one.reference.clone(), one)).collect();
    hand.holds(truth.restore(state.0, known))?;
    let selectors = [Selector::all(), Selector::only(&reference(0)), ours().with_namespace("laws")];
    let mut open: Vec<(Watcher, SlowConsumer)> = Vec::new();
    for (n, selector) in selectors.iter().cycle().take(6).enumerate() {
        let slow = if n % 3 == 1 { SlowConsumer::Close } else { SlowConsumer::Resync };
        let options = after(state.0).with_slow_consumer(slow);
        let hand = if n % 2 == 0 { &hand } else { &other };
        open.push((hand.watch(selector, options).await?.by(n * 3 + 1), slow));
    }
    let mut checked = 0;
    for round in 1..=tried.pick(6, 3) {
        for n in 0..overrun.changes + 7 {
            let (key, salt) = (usize::try_from(n % 8).unwrap_or(0), usize::try_from(n).unwrap_or(0));
            if n % 50 == 17 {
                let reference = reference(key);
                let gone = hand.delete(&reference, runtide_core::store::Precondition::None).await?;
                hand.holds(truth.add(gone.map(|revision| Change::new(revision, reference, None))))?;
            } else {
                let change = hand.put_surely(&reference(key), &document(round * 1_000, salt)).await?;
                hand.holds(truth.add([change]))?;
            }
        }
        hand.holds(truth.add([hand.mark(round).await?]))?;
        let mut left = Vec::new();
        for (n, (mut watcher, slow)) in open.into_iter().enumerate() {
            checked += 1;
            if slow == SlowConsumer::Close {
                let error = watcher.until_error().await?;
                hand.ensure(
                    error.kind() == ErrorKind::Expired,
                    "`Expired` for a watcher that is too slow and asked for the end",
                    error,
                )?;
                let seen = watcher.explained(&truth, overrun.counted)?;
                hand.ensure(
                    seen.resets.is_empty(),
                    "no reset for a watcher that asked for the end",
                    format!("{:?}", seen.resets),
                )?;
                continue;
            }
            let before = watcher.events.len();
            if n == 0 && round % 2 == 1 {
                // It stops in the middle of a reset, and loses its position there too.
                watcher.count(before + 2).await?;
            } else {
                watcher.until(truth.revision()).await?;
            }
            let seen = watcher.explained(&truth, overrun.counted)?;
            let reset = watcher.events.iter().skip(before).any(|event| matches!(event, StoreEvent::Reset { .. }));
            hand.ensure(
                reset,
                format!("a reset for a watcher that is {} changes behind", overrun.changes),
                format!("{seen:?}"),
            )?;
            left.push((watcher, slow));
        }
        open = left;
    }
    hand.holds(truth.add([hand.mark(100).await?]))?;
    for (mut watcher, _) in open {
        watcher.until(truth.revision()).await?;
        watcher.explained(&truth, overrun.counted)?;
    }
    Ok(checked)
}

/// An outage that is longer than the store's history.
async fn outage(tried: Tried<'_>, without: &mut Vec<String>) -> Held<u64> {
    let hand = tried.hand();
    let other = tried.other_hand().await?;
    let state = hand.list(&ours(), 0).await?;
    let mut truth = Truth::default();
    let known = state.1.into_iter().map(|one| (one.reference.clone(), one)).collect();
    hand.holds(truth.restore(state.0, known))?;
    let mut watcher = hand.watch(&ours(), after(state.0)).await?;
    let mut closes = hand.watch(&ours(), after(state.0).with_slow_consumer(SlowConsumer::Close)).await?;
    let cut = match tried.h.disturb(Disturbance::CutOff).await {
        Supported::Yes => Ok(()),
        Supported::No(reason) => Err(Obstacle::Unsupported(reason)),
    };
    if if_any("cut all links", cut, without)?.is_none() {
        return Ok(0);
    }
    for n in 0..30 {
        hand.holds(truth.add([other.put_surely(&reference(n % 8), &document(70, n)).await?]))?;
    }
    done("make a position expire", tried.h.expire(truth.revision()).await)?;
    done("mend links", tried.h.heal().await)?;
    hand.holds(truth.add([other.put_surely(&reference(0), &document(71, 0)).await?]))?;
    watcher.until(truth.revision()).await?;
    let seen = watcher.explained(&truth, true)?;
    hand.ensure(!seen.resets.is_empty(), "a reset after an outage that was too long", format!("{seen:?}"))?;
    // A watcher that asked for the end may get either: it was not too slow, and yet its position is lost.
    if let Some(error) = closes.more().await? {
        hand.ensure(error.kind() == ErrorKind::Expired, "`Expired` as the end", error)?;
    } else {
        closes.until(truth.revision()).await?;
    }
    closes.explained(&truth, true)?;
    Ok(2)
}

/// A body that counts its copies in memory.
struct Counted {
    bytes: Vec<u8>,
    alive: Arc<AtomicU64>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Size in bytes of a body whose copies are counted.
const BODY: usize = 1 << 10;

/// Number of changes after which the watcher that reads must have received all of them.
const PACE: u64 = 64;

/// Writes many bodies, checks that a watcher that reads receives all of them, and counts the bodies in memory.
struct Flood<'a> {
    tried: Tried<'a>,
    hand: Hand,
    reader: StoreStream,
    alive: Arc<AtomicU64>,
    written: u64,
    /// Number of bytes allocated before it began.
    base: usize,
}

impl Flood<'_> {
    async fn write(&mut self, changes: u64) -> Held {
        let mut revisions = Vec::new();
        for n in 1..=changes {
            self.written += 1;
            let mut bytes = format!("{{\"written\":{}}}", self.written).into_bytes();
            bytes.resize(BODY, b' ');
            self.alive.fetch_add(1, Ordering::Relaxed);
            let counted = Counted { bytes, alive: Arc::clone(&self.alive) };
            let document = Document::new(ResourceFormat::Json, Bytes::from_owner(counted));
            let reference = reference(usize::try_from(self.written % 4).unwrap_or(0));
            revisions.push(self.hand.put(&reference, &document).await?.revision);
            if n % PACE == 0 || n == changes {
                for revision in revisions.drain(..) {
                    self.receive(revision).await?;
                }
            }
        }
        Ok(())
    }

    /// Reads one change, and drops it.
    async fn receive(&mut self, revision: Revision) -> Held {
        loop {
            let next =
                self.hand.ends("receive a change, next to watchers that are not polled", self.reader.next()).await?;
            match next {
                Some(Ok(StoreEvent::Bookmark { .. })) => {}
                Some(Ok(StoreEvent::Added(one) | StoreEvent::Modified(one))) if one.revision == revision => {
                    return Ok(());
                }
                other => return Err(self.hand.broken(format!("the change at {revision}"), format!("{other:?}"))),
            }
        }
    }

    /// Number of bodies in memory, in the store or for it: as the allocator counts, or else as the bodies themselves do.
    fn held(&self) -> u64 {
        match self.tried.h.meter() {
            Some(meter) => (meter.reset().saturating_sub(self.base) / BODY) as u64,
            None => self.alive.load(Ordering::Relaxed),
        }
    }
}

/// Watchers that are not polled hold no more after many changes than after a few, delay neither writers nor another watcher, and
/// are forgotten the moment they are dropped, as are a thousand more, and watches that were given up before they were open.
pub(crate) async fn s10_bounded(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S10, h };
    let hand = tried.hand();
    let mut without = Vec::new();
    let baseline = hand.stats().await?.subscriber_count;
    let mut stalled = Vec::new();
    for n in 0..12 {
        let since = if n % 2 == 0 { Since::Now } else { Since::Start };
        let slow = if n % 3 == 0 { SlowConsumer::Close } else { SlowConsumer::Resync };
        let options = StoreWatchOptions::default().with_since(since).with_slow_consumer(slow);
        let mut watcher = hand.watch(&Selector::all(), options).await?;
        // A watch of an empty store begins with a bookmark, or with a reset and its bookmark.
        watcher.count(if since == Since::Now { n % 2 } else { n % 3 }).await?;
        stalled.push(watcher);
    }
    let open = hand.stats().await?.subscriber_count;
    hand.equal("the count of subscribers", &open, &(baseline + 12))?;
    let mut checked = bounded(tried, &mut without).await?;
    for (left, watcher) in (0..stalled.len() as u64).rev().zip(stalled) {
        drop(watcher);
        let count = hand.stats().await?.subscriber_count;
        hand.equal("the count of subscribers right after one was dropped", &count, &(baseline + left))?;
        checked += 1;
    }
    for n in 0..tried.pick(1_000, 100) {
        let since = if n % 2 == 0 { Since::Now } else { Since::Start };
        let mut watcher = hand.watch(&Selector::all(), StoreWatchOptions::default().with_since(since)).await?;
        if n % 3 == 0 {
            watcher.step().await?;
        }
        drop(watcher);
        // Given up before it is open, if it takes any time to open.
        let _ =
            tokio::time::timeout(std::time::Duration::ZERO, hand.store.watch(&ours(), StoreWatchOptions::default()))
                .await;
        let count = hand.stats().await?.subscriber_count;
        hand.equal("the count of subscribers right after they were dropped", &count, &baseline)?;
        checked += 2;
    }
    Ok(Verdict::looked_at(checked, "watches and bodies", without))
}

/// Compares the bodies in memory after many changes and after many more. Returns the number of bodies written.
async fn bounded(tried: Tried<'_>, without: &mut Vec<String>) -> Held<u64> {
    let hand = tried.hand();
    let Some(overrun) = if_any("make a watcher too slow", tried.h.overrun(), without)? else { return Ok(0) };
    let base = tried.h.meter().map_or(0, crate::wal::Meter::reset);
    let reader = hand.works("watch", hand.store.watch(&Selector::all(), StoreWatchOptions::default())).await?;
    let mut flood = Flood { tried, hand: hand.clone(), reader, alive: Arc::default(), written: 0, base };
    flood.write(overrun.changes * 2).await?;
    let first = flood.held();
    if first == 0 {
        without.push("bodies are copied, and nothing counts the copies".to_owned());
    }
    flood.write(overrun.changes * tried.pick(10, 4)).await?;
    let then = flood.held();
    let most = first + overrun.changes / 2 + 64;
    hand.ensure(
        then <= most,
        format!("at most {most} bodies to be held after {} writes, as there were {first} before", flood.written),
        then,
    )?;
    Ok(flood.written)
}
