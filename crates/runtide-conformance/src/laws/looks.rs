//! Listings that fail in part, and events that no backend knows: R13, R14, R20.

use std::time::Duration;

use runtide_core::{Completeness, InstanceId, ListOptions, Listing, RuntimeBackend, WatchOptions};

use super::{accounts_for, backend, need_fault, passing, running, try_fault};
use crate::{Fault, Harness, Law, LawResult, Subscriber, Verdict, Violation, ensure};

async fn list(law: Law, backend: &dyn RuntimeBackend) -> Result<Listing, Violation> {
    let listed = backend.list_instances(ListOptions::default()).await;
    listed.map_err(|error| Violation::of(law, "a listing of every readable item", error.to_string()))
}

/// Breaks the link and waits until the backend has listed again.
async fn list_again(
    h: &dyn Harness,
    law: Law,
    subscriber: &mut Subscriber,
    without: &mut Vec<String>,
) -> Result<(), Violation> {
    if try_fault!(h, Fault::Sever, without) {
        subscriber.read_for(h.timing().quiet.max(h.timing().max_backoff)).await?;
        subscriber.until(h, law, "the watch to be live again", |one| one.checker.is_live()).await?;
    }
    Ok(())
}

fn is_there(subscriber: &Subscriber, law: Law, id: &InstanceId, why: &str) -> Result<(), Violation> {
    if subscriber.get(id).is_some() {
        return Ok(());
    }
    Err(subscriber.violation(law, &format!("'{id}' to stay: {why}"), "that it was removed"))
}

/// **R13 one bad item.** One undecodable item neither blinds the watch nor removes anything, and the listing names it.
pub async fn r13_one_bad_item(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let (first, bad, last) = (running(h, "a").await?, running(h, "b").await?, running(h, "c").await?);
    let backend_before = backend(h).await?;
    let mut subscriber = Subscriber::live(h, &backend_before).await?;
    subscriber.converge(h, Law::R13).await?;

    need_fault!(h, Fault::BadItem(bad.clone()));
    let listed = list(Law::R13, &*backend_before).await?;
    let failures = match &listed.completeness {
        Completeness::Partial(failures) => failures.len(),
        _ => 0,
    };
    ensure!(failures == 1, R13, "a partial listing with one failure", format!("{:?}", listed.completeness));
    for id in [&first, &last] {
        ensure!(
            listed.instances.iter().any(|row| row.id == *id),
            R13,
            "the listing to show the others",
            format!("no {id}")
        );
    }

    list_again(h, Law::R13, &mut subscriber, &mut without).await?;
    is_there(&subscriber, Law::R13, &bad, "it cannot be decoded, which is not absence")?;
    h.stop(&last).await?;
    let stopped = |one: &Subscriber| one.get(&last).is_some_and(|row| !row.state.is_alive());
    subscriber.until(h, Law::R13, "events of the other instances next to a bad item", stopped).await?;
    let fresh = running(h, "d").await?;
    subscriber
        .until(h, Law::R13, "an event of a new instance next to a bad item", |one| one.get(&fresh).is_some())
        .await?;
    if h.dialect().edges {
        let from = subscriber.events.len();
        let passed = passing(h, "e").await?;
        accounts_for(h, Law::R13, &mut subscriber, &passed, from).await?;
    }
    is_there(&subscriber, Law::R13, &bad, "it cannot be decoded, which is not absence")?;

    let backend_after = backend(h).await?;
    let mut late = Subscriber::live(h, &backend_after).await?;
    for id in [&first, &last, &fresh] {
        is_there(&late, Law::R13, id, "only another item is bad")?;
    }
    let named = late.completeness().failures().len();
    ensure!(named == 1, R13, "a resync that is partial, with one failure", format!("{:?}", late.completeness()));
    h.heal().await?;
    list_again(h, Law::R13, &mut subscriber, &mut without).await?;
    becomes_complete(h, Law::R13, &mut late).await?;
    subscriber.converge(h, Law::R13).await?;
    Verdict::kept_without(without)
}

/// Reads until a resync says that everything is there, once the runtime can be read again.
async fn becomes_complete(h: &dyn Harness, law: Law, subscriber: &mut Subscriber) -> Result<(), Violation> {
    let what = "a resync that is complete, once everything can be read";
    subscriber.until(h, law, what, |one| one.completeness().is_complete()).await
}

/// Watches begin while listings are cut: one with its own backend, and one that joins it and is served from its rows. A resync
/// that lacks the instance must say that it is partial.
async fn begin_while_cut(h: &dyn Harness, hidden: &InstanceId) -> Result<[Subscriber; 2], Violation> {
    let backend = backend(h).await?;
    let open = async || -> Result<Subscriber, Violation> {
        let mut begun = Subscriber::open(&backend, WatchOptions::default()).await?;
        // A cut listing may be one that failed: there is an outage then.
        let is_there = |one: &Subscriber| one.checker.is_live() || one.counts(0).contains_key("backend_disconnected");
        begun.until(h, Law::R14, "a resync or an outage", is_there).await?;
        let honest = !begun.completeness().is_complete() || begun.get(hidden).is_some();
        ensure!(honest, R14, "a resync of a listing that was cut to say so", "a resync that calls itself complete");
        Ok(begun)
    };
    Ok([open().await?, open().await?])
}

/// **R14 partial list.** An incomplete or failed listing removes nothing: unknown is not absent. A resync says that its listing
/// was partial, also to a watch that joins another one; once a listing is complete, another resync says so.
pub async fn r14_partial_list(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let timing = h.timing();
    let (first, hidden) = (running(h, "a").await?, running(h, "b").await?);
    let mut tuning = timing.tuning();
    tuning.deadline = Some(timing.deadline);
    let backend = h.backend(&tuning).await?;
    let mut subscriber = Subscriber::live(h, &backend).await?;
    subscriber.converge(h, Law::R14).await?;

    let hiding = [Fault::PartialList(hidden.clone()), Fault::SlowList(timing.deadline.saturating_mul(2)), Fault::Deny];
    for fault in hiding {
        if !try_fault!(h, fault.clone(), without) {
            continue;
        }
        let listed = backend.list_instances(ListOptions::default()).await;
        if let Ok(listed) = &listed {
            let honest = !listed.is_complete() || listed.instances.iter().any(|row| row.id == hidden);
            ensure!(honest, R14, "a listing that is cut to say so", "a listing that calls itself complete");
        }
        let begun = match &fault {
            Fault::PartialList(_) => Some(begin_while_cut(h, &hidden).await?),
            _ => None,
        };
        let _ = try_fault!(h, Fault::Sever, without);
        subscriber.read_for(timing.deadline.saturating_mul(3).max(timing.max_backoff)).await?;
        for id in [&first, &hidden] {
            is_there(
                &subscriber,
                Law::R14,
                id,
                &format!("the listing was incomplete ({fault:?}), which is not absence"),
            )?;
        }
        h.heal().await?;
        subscriber.converge(h, Law::R14).await?;
        for mut late in begun.into_iter().flatten() {
            becomes_complete(h, Law::R14, &mut late).await?;
        }
    }
    // Only of these two: a real runtime may have others, and those may go.
    for id in [&first, &hidden] {
        let edges: Vec<&str> = subscriber.edges_of(id, 0).collect();
        ensure!(!edges.contains(&"removed"), R14, format!("no removal of {id}"), format!("{edges:?}"));
    }

    // A real removal is reported once a complete listing shows it.
    h.remove(&hidden).await?;
    subscriber.converge(h, Law::R14).await?;
    tokio::time::sleep(Duration::from_millis(1)).await;
    Verdict::kept_without(without)
}

/// **R20 unknown events.** An event that we do not know is a hint, never an error: the watch neither ends nor breaks, and
/// later changes are reported.
pub async fn r20_unknown_events(h: &dyn Harness) -> LawResult {
    let id = running(h, "subject").await?;
    let backend = backend(h).await?;
    let mut subscriber = Subscriber::live(h, &backend).await?;
    subscriber.converge(h, Law::R20).await?;
    let from = subscriber.events.len();
    for _ in 0..3 {
        match h.say_unknown(&id).await {
            Ok(()) => {}
            Err(crate::Obstacle::Unsupported(reason)) => return Verdict::not_applicable(reason),
            Err(failed) => return Err(failed.into()),
        }
        subscriber.read_for(h.timing().quiet).await?;
    }
    let counts = subscriber.counts(from);
    ensure!(
        !subscriber.is_finished() && !counts.contains_key("backend_disconnected"),
        R20,
        "the watch to go on after an unknown event",
        format!("{counts:?}, {:?}", subscriber.ended)
    );
    let edges: Vec<&str> = subscriber.edges_of(&id, from).collect();
    ensure!(edges.is_empty(), R20, "no edge of an instance that did not change", format!("{edges:?}"));
    h.stop(&id).await?;
    let stopped = |one: &Subscriber| one.get(&id).is_some_and(|row| !row.state.is_alive());
    subscriber.until(h, Law::R20, "the change that follows an unknown event", stopped).await?;
    subscriber.converge(h, Law::R20).await?;
    Verdict::kept()
}
