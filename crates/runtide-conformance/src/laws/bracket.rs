//! The beginning of a stream, and its shape: R1, R2, R3.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use runtide_core::{InstanceFilter, RuntimeEventKind as Kind, WatchOptions};

use super::{PASSED, backend, done, running, try_fault};
use crate::{Change, Fault, Harness, Law, LawResult, Subscriber, Verdict, Violation, Workload, ensure};

/// **R1 bracket.** No instance event precedes the first `ResyncBegin`, except in a watch that resumed without loss;
/// `BackendDisconnected` may. Inside a resync there is only `Present`, and `Present` is nowhere else.
///
/// Watches a runtime that is up, one that is down, late ones, and ones whose link breaks; [`StreamChecker`](crate::StreamChecker)
/// reads each event. Every resync must show the runtime's instances.
pub async fn r1_bracket(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let here = running(h, "here").await?;
    let backend_up = backend(h).await?;
    let mut first = Subscriber::live(h, &backend_up).await?;
    ensure!(
        first.events.iter().any(|event| matches!(&event.kind, Kind::Present(instance) if instance.id == here)),
        R1,
        "the first resync to show the instances that are there",
        "no `Present` of a running instance"
    );

    let later = running(h, "later").await?;
    first.until(h, Law::R1, "an event of an instance that came later", |one| one.get(&later).is_some()).await?;
    let mut late = Subscriber::live(h, &backend_up).await?;
    ensure!(
        late.get(&here).is_some() && late.get(&later).is_some(),
        R1,
        "a late subscriber's resync to show the instances that are there",
        "less"
    );

    for fault in [Fault::Sever, Fault::Refuse] {
        if try_fault!(h, fault, without) {
            h.stop(&later).await?;
            first.read_for(h.timing().quiet).await?;
            h.heal().await?;
            h.start(&later).await?;
            first.converge(h, Law::R1).await?;
            late.converge(h, Law::R1).await?;
        }
    }

    if try_fault!(h, Fault::Refuse, without) {
        let backend_down = backend(h).await?;
        let mut early = Subscriber::open(&backend_down, WatchOptions::default()).await?;
        early.until(h, Law::R1, "the outage as the first item", |one| !one.events.is_empty()).await?;
        ensure!(
            early.events.first().is_some_and(|event| matches!(event.kind, Kind::BackendDisconnected { .. })),
            R1,
            "the outage as the first item of a watch that opens while the runtime is down",
            early.lines().next().unwrap_or_default()
        );
        let mut second = Subscriber::open(&backend_up, WatchOptions::default()).await?;
        second.read_for(h.timing().quiet).await?;
        h.heal().await?;
        for subscriber in [&mut early, &mut second, &mut first, &mut late] {
            subscriber.until_live(h).await?;
            subscriber.converge(h, Law::R1).await?;
        }
    }
    Verdict::kept_without(without)
}

/// **R2 contiguous.** Within one epoch `seq` rises by exactly one, in a filtered stream it rises. A resync has its own epoch,
/// numbered from 1; `ResyncEnd` is numbered in the ring's again. A `Bookmark` repeats the last cursor.
///
/// Watches changes, an outage and quiet times, unfiltered, filtered and late.
pub async fn r2_contiguous(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let timing = h.timing();
    let (watched, other) = (running(h, "watched").await?, running(h, "other").await?);
    let backend = backend(h).await?;
    let mut all = Subscriber::open(&backend, WatchOptions::default().with_bookmark_every(timing.quiet)).await?;
    all.until_live(h).await?;
    let only = InstanceFilter::default().with_ids([watched.clone()]);
    let mut filtered = Subscriber::open(&backend, WatchOptions::default().with_filter(only)).await?;
    filtered.until_live(h).await?;

    for round in 0..3 {
        for id in [&watched, &other] {
            h.stop(id).await?;
            h.start(id).await?;
            done("rename", h.change(id, &Change::Rename(format!("{id}-{round}"))).await, &mut without)?;
        }
        all.read_for(timing.quiet).await?;
        if round == 1 && try_fault!(h, Fault::Sever, without) {
            h.heal().await?;
            all.read_for(timing.quiet).await?;
        }
    }
    without.dedup();
    all.converge(h, Law::R2).await?;
    filtered.read_for(timing.quiet).await?;
    ensure!(
        filtered.events.iter().all(|event| event.instance().is_none_or(|instance| instance.id == watched)),
        R2,
        "a filtered stream to report only instances that pass the filter",
        "an event of another instance"
    );
    all.until(h, Law::R2, "a bookmark on a quiet stream", |one| {
        one.events.last().is_some_and(|event| matches!(event.kind, Kind::Bookmark))
    })
    .await?;
    Subscriber::live(h, &backend).await?.read_for(timing.quiet).await?;
    Verdict::kept_without(without)
}

/// **R3 reliable.** Instances that come, change and go *while the watch opens* are all accounted for: folding the stream
/// gives the runtime's own state. An instance that comes once the watch is live has each of its edges, though it may be gone
/// before anything lists it.
///
/// The runtime changes between each of the backend's steps, with listings that take long, so that a backend that lists first
/// and subscribes second loses the changes in between.
pub async fn r3_reliable(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let listing = if h.timing().is_virtual { Duration::from_secs(2) } else { Duration::from_millis(600) };
    for round in 0..3 {
        let resident = running(h, &format!("resident-{round}")).await?;
        let leaving = running(h, &format!("leaving-{round}")).await?;
        let backend = backend(h).await?;
        if round > 0 {
            let _ = try_fault!(h, Fault::SlowList(listing), without);
        }
        let is_live = AtomicBool::new(false);
        let churn = async {
            let mut came_live = Vec::new();
            for n in 0..8 {
                let live = is_live.load(Ordering::Acquire);
                let id = h.create(&format!("new-{round}-{n}"), &Workload::Idle).await?;
                if live {
                    came_live.push((id.clone(), matches!(n, 5 | 6)));
                }
                tokio::time::sleep(listing / 8).await;
                h.start(&id).await?;
                match n {
                    1 => h.remove(&leaving).await?,
                    3 => h.stop(&resident).await?,
                    5 | 6 => {
                        // A runtime may report the removal of one that runs as a removal alone.
                        h.stop(&id).await?;
                        h.remove(&id).await?;
                    }
                    _ => tokio::time::sleep(listing / 8).await,
                }
            }
            Ok::<_, Violation>(came_live)
        };
        let watching = async {
            let watched = Subscriber::live(h, &backend).await?;
            is_live.store(true, Ordering::Release);
            Ok::<_, Violation>(watched)
        };
        let (watched, churned) = tokio::join!(watching, churn);
        let (mut watched, came_live) = (watched?, churned?);
        let from = watched.events.len();
        h.heal().await?;
        watched.converge(h, Law::R3).await?;
        let resynced = watched.gaps(from).next().is_some();
        for (id, is_gone) in came_live.iter().filter(|_| h.dialect().edges && !resynced) {
            let edges = PASSED.get(..if *is_gone { 3 } else { 1 }).unwrap_or_default();
            let what = format!("{edges:?} of {id}, which came once the watch was live");
            watched.until(h, Law::R3, &what, |one| one.edges_of(id, 0).eq(edges.iter().copied())).await?;
        }
    }
    without.dedup();
    Verdict::kept_without(without)
}
