//! S4 and S5: the events that watchers get while writers run.

use runtide_core::{
    LabelMatch,
    store::{ResourceFormat, Revision, Selector, Since, StoreWatchOptions},
};

use tokio::task::JoinSet;

use super::{Hand, Held, Tried, document, give_way, if_any, reference};
use crate::{
    Supported, Verdict,
    store::{
        Disturbance, StoreHarness, StoreLaw, StoreLawResult,
        truth::Truth,
        watcher::{Follower, Watcher, Writers},
    },
    wal::Random,
};

/// Number of resources that the writers write to.
const KEYS: usize = 24;

/// Writes in one round: fewer than any store keeps for a watcher that reads.
const ROUND: usize = 96;

/// Selectors that match the write that ends a round.
fn selectors() -> Vec<Selector> {
    vec![
        Selector::all(),
        Selector::default().with_kind("Thing").with_namespace("laws"),
        Selector::only(&reference(0)),
        Selector::default().with_label(LabelMatch::is("colour", "red")),
    ]
}

/// `true` unless the selector needs labels and the bodies' labels cannot be read.
fn selectable(selector: &Selector) -> bool {
    selector.labels.is_empty() || document(0, 0).labels().is_ok()
}

/// Eight clients write to the same few resources, round after round, and watchers of every sort read along. Each of them must
/// have received exactly the writes that were acknowledged, in the order of the revisions; and the last event of each resource
/// must be its stored state.
pub(crate) async fn s4_order(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S4, h };
    let hands = [tried.hand(), tried.other_hand().await?];
    let hand = tried.hand();
    let rounds = tried.pick(40, 6);
    let mut followers = Vec::new();
    for (n, selector) in selectors().into_iter().filter(selectable).enumerate() {
        for (since, hand) in [Since::Now, Since::Start].into_iter().zip(&hands) {
            // Half of the watchers ask for another format than the written one.
            let format = (since == Since::Start).then_some(ResourceFormat::Cbor);
            let options = StoreWatchOptions::default().with_since(since).with_format(format);
            let watcher = hand.watch(&selector, options).await?.by(n % 3 * 5 + 1);
            followers.push(Follower::new(watcher, 0, rounds + 1));
        }
    }
    let mut writers = Writers::start(&hands, KEYS, 4);
    let mut marks = Vec::new();
    for round in 1..=rounds {
        writers.allow(ROUND);
        writers.rest().await?;
        marks.push(hand.mark(round).await?);
        for follower in &mut followers {
            follower.at(round).await?;
        }
    }
    let mut truth = hand.holds(Truth::of(writers.done().await?))?;
    // An event that is delivered twice shows between two marks.
    marks.push(hand.mark(rounds + 1).await?);
    hand.holds(truth.add(marks))?;
    let mut received = 0;
    for follower in followers {
        let watcher = follower.done().await?;
        let seen = watcher.explained(&truth, true)?;
        let lost = seen.resets.iter().any(|(gap, _)| *gap != runtide_core::Gap::Initial);
        hand.ensure(!lost, "no watcher that reads to lose its position", format!("{:?}", seen.resets))?;
        received += seen.changes;
    }
    stands(&hand, &truth).await?;
    Ok(Verdict::looked_at(received, "changes told", Vec::new()))
}

/// Asserts that the stored state is the written one.
async fn stands(hand: &Hand, truth: &Truth) -> Held {
    let (_, items) = hand.list(&Selector::all(), 0).await?;
    hand.holds(truth.listed(&Selector::all(), truth.revision(), &items))?;
    let state = truth.at(truth.revision());
    for (reference, resource) in &state {
        hand.shows(reference, Some(&resource.document), resource.revision).await?;
    }
    for n in (0..KEYS).map(reference).filter(|reference| !state.contains_key(reference)) {
        hand.shows(&n, None, Revision(0)).await?;
    }
    Ok(())
}

/// While eight clients write, listings are made repeatedly, in pages, and a watch is opened after each; and watches from the
/// start, and from now on. Each listing must show one revision, and each watch must continue just where it began.
pub(crate) async fn s5_seamless(h: &dyn StoreHarness) -> StoreLawResult {
    let tried = Tried { law: StoreLaw::S5, h };
    let hands = [tried.hand(), tried.other_hand().await?];
    let hand = tried.hand();
    let rounds = tried.pick(150, 12);
    let mut writers = Writers::start(&hands, KEYS, 5);
    let (mut followers, mut listings, mut marks) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        writers.allow(ROUND);
        let mut tasks = JoinSet::new();
        for (n, selector) in selectors().into_iter().filter(selectable).enumerate() {
            let hand = hands.get(n % 2).unwrap_or(&hand).clone();
            tasks.spawn(async move { open(&hand, selector, n, round).await });
        }
        let mut opened = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            let (listing, watcher) = ended.unwrap_or_else(|error| Err(hand.broken("no panic", error)))?;
            listings.extend(listing);
            opened.push(Follower::new(watcher, round - 1, round + 1));
        }
        writers.rest().await?;
        marks.push(hand.mark(round).await?);
        for follower in &mut opened {
            follower.at(round).await?;
        }
        followers.extend(opened);
    }
    marks.push(hand.mark(rounds + 1).await?);
    let mut truth = hand.holds(Truth::of(writers.done().await?))?;
    hand.holds(truth.add(marks))?;
    for (selector, revision, items) in &listings {
        hand.holds(truth.listed(selector, *revision, items))?;
    }
    let mut opened = 0;
    for follower in followers {
        follower.done().await?.explained(&truth, true)?;
        opened += 1;
    }
    let mut without = Vec::new();
    severed(tried, truth, rounds + 2, &mut without).await?;
    Ok(Verdict::looked_at(opened, "watches", without))
}

/// Opens a watch in the midst of the round's writes: after a listing, from the start, or from now on.
async fn open(hand: &Hand, selector: Selector, n: usize, round: usize) -> Held<(Option<Listing>, Watcher)> {
    let mut random = Random((round * 8 + n) as u64);
    for _ in 0..random.below(ROUND / 4) {
        tokio::task::yield_now().await;
    }
    let (listing, since) = match n {
        0 | 1 => {
            let listing = listed(hand, &selector, round).await?;
            let at = listing.1;
            give_way(&mut random).await;
            (Some(listing), Since::After(at))
        }
        2 => (None, Since::Start),
        _ => (None, Since::Now),
    };
    let watcher = hand.watch(&selector, StoreWatchOptions::default().with_since(since)).await?;
    Ok((listing, watcher))
}

type Listing = (Selector, Revision, Vec<std::sync::Arc<runtide_core::store::Resource>>);

/// A listing in pages of all sizes. If its revision expires before its last page was read, it is repeated.
async fn listed(hand: &Hand, selector: &Selector, round: usize) -> Held<Listing> {
    const ATTEMPTS: usize = 20;
    for attempt in 0..ATTEMPTS {
        let limit = u32::try_from((round + attempt * 3) % 9).unwrap_or(0);
        match hand.listed(selector, limit, None).await? {
            Ok((revision, items)) => return Ok((selector.clone(), revision, items)),
            Err(error) if error.kind() == runtide_core::ErrorKind::Expired => {}
            Err(error) => return Err(hand.broken("to list", error)),
        }
    }
    Err(hand.broken("a listing of a few pages to come to its end", format!("it expired {ATTEMPTS} times")))
}

/// Links break under watches that are open, and writes continue.
async fn severed(tried: Tried<'_>, mut truth: Truth, first: usize, without: &mut Vec<String>) -> Held {
    let hand = tried.hand();
    let mut watchers: Vec<Watcher> = Vec::new();
    for selector in selectors().into_iter().filter(selectable) {
        watchers.push(hand.watch(&selector, StoreWatchOptions::default()).await?);
    }
    for round in first..first + tried.pick(10, 3) {
        for n in 0..20 {
            if n % 7 == 3 {
                let severed = match tried.h.disturb(Disturbance::Sever).await {
                    Supported::Yes => Ok(()),
                    Supported::No(reason) => Err(crate::Obstacle::Unsupported(reason)),
                };
                if if_any("break links", severed, without)?.is_none() {
                    return Ok(());
                }
            }
            let change = hand.put_surely(&reference(n), &document(round, n)).await?;
            hand.holds(truth.add([change]))?;
        }
        let mark = hand.put_surely(&reference(0), &document(round * 2, 1_000)).await?;
        hand.holds(truth.add([mark]))?;
        for watcher in &mut watchers {
            watcher.until(truth.revision()).await?;
        }
    }
    super::done("mend links", tried.h.heal().await)?;
    for watcher in watchers {
        watcher.explained(&truth, true)?;
    }
    Ok(())
}
