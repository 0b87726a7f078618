//! Facts, one by one: R4, R5, R21.

use std::time::Duration;

use runtide_core::{InstanceId, RuntimeEventKind as Kind, UnixSignal, WatchOptions};

use super::{backend, done, running, try_fault};
use crate::{
    Fact, Fault, Happened, Harness, Law, LawResult, Subscriber, Verdict, Violation, compare::exits_agree, ensure,
};

/// The lifecycle facts of one instance by name, as a stream's events would name them.
pub(super) fn facts_of(facts: &[Fact], id: &InstanceId) -> Vec<&'static str> {
    let names = facts.iter().filter(|fact| fact.id == *id).map(|fact| match fact.what {
        Happened::Started { .. } => "started",
        Happened::Stopped { .. } => "stopped",
        Happened::Removed => "removed",
    });
    names.collect()
}

fn is_subsequence(reported: &[&str], facts: &[&str]) -> bool {
    let mut facts = facts.iter();
    reported.iter().all(|one| facts.any(|fact| fact == one))
}

/// Compares a stream's reports of an instance with the facts: all of them where the runtime reports edges, else some of
/// them, in their order. A difference is a violation of `law`.
pub(crate) fn reported_in_order(
    h: &dyn Harness,
    law: Law,
    subscriber: &Subscriber,
    id: &InstanceId,
    from: usize,
    facts: &[Fact],
) -> Result<(), Violation> {
    let reported: Vec<&str> = subscriber.edges_of(id, from).collect();
    let runs = facts.iter().filter(|fact| fact.id == *id).map(|fact| format!("seen from outside: {:?}", fact.what));
    let runs: Vec<_> = runs.collect();
    let facts = facts_of(facts, id);
    let good = if h.dialect().edges { reported == facts } else { is_subsequence(&reported, &facts) };
    if good {
        return Ok(());
    }
    let what = if h.dialect().edges { "each fact of" } else { "in their order, facts of" };
    let expected = format!("{what} {id}: {facts:?}");
    Err(Violation::of(law, &expected, format!("{reported:?}"))
        .after(runs.into_iter().chain(subscriber.lines_of(id, from))))
}

/// **R4 ordered.** Per instance, events come in the order of the facts, as an outside observer saw them.
pub async fn r4_ordered(h: &dyn Harness) -> LawResult {
    let backend = backend(h).await?;
    let mut subscriber = Subscriber::live(h, &backend).await?;
    let from = subscriber.events.len();
    let before = h.facts().await?.len();
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(running(h, name).await?);
    }
    for _ in 0..3 {
        for id in &ids {
            h.stop(id).await?;
        }
        for id in ids.iter().rev() {
            h.start(id).await?;
        }
    }
    for id in &ids {
        h.kill(id, UnixSignal::KILL).await?;
    }
    let Some((gone, _)) = ids.split_first() else { return Verdict::kept() };
    h.remove(gone).await?;
    subscriber.converge(h, Law::R4).await?;
    let facts = h.facts().await?;
    for id in &ids {
        reported_in_order(h, Law::R4, &subscriber, id, from, facts.get(before..).unwrap_or_default())?;
    }
    Verdict::kept()
}

/// **R5 unique.** No `RuntimeEvent::key()` comes twice, though links break, watches resume, and runtimes repeat their reports.
pub async fn r5_unique(h: &dyn Harness) -> LawResult {
    let mut without = Vec::new();
    let id = running(h, "a").await?;
    let backend_value = backend(h).await?;
    let mut subscriber = Subscriber::live(h, &backend_value).await?;
    let (from, before) = (subscriber.events.len(), h.facts().await?.len());
    for _ in 0..4 {
        h.stop(&id).await?;
        subscriber.read_for(h.timing().quiet).await?;
        if !try_fault!(h, Fault::Sever, without) {
            break;
        }
        h.start(&id).await?;
        h.heal().await?;
        subscriber.converge(h, Law::R5).await?;
    }
    if h.dialect().edges && h.dialect().history {
        let keyed = subscriber.events.iter().filter(|event| event.key().is_some()).count();
        ensure!(keyed > 0, R5, "reported edges to have keys", "no key in a whole stream");
    }
    if subscriber.gaps(from).next().is_none() {
        // A repetition without a key is one all the same.
        let facts = h.facts().await?;
        reported_in_order(h, Law::R5, &subscriber, &id, from, facts.get(before..).unwrap_or_default())?;
    }

    // The next process resumes after the last event of this one.
    let Some((position, _)) = subscriber.table.position(backend_value.id()) else {
        return Err(subscriber.violation(Law::R7, "a position to resume from", "none"));
    };
    let position = position.clone();
    let options = WatchOptions::default().with_from(position.clone()).with_known(subscriber.table.clone());
    let checker = subscriber.checker.clone().resumed_after_last(&position);
    drop(subscriber);
    drop(backend_value);
    done("kill", h.kill(&id, UnixSignal::KILL).await, &mut without)?;
    let mut next = Subscriber::open_with(&backend(h).await?, options, checker).await?;
    next.converge(h, Law::R5).await?;
    Verdict::kept_without(without)
}

/// **R21 edges.** Where the runtime reports edges, n instances that run 10 to 50 ms each, created back to back, give n
/// `Started` and n `Stopped` with their exit status. A `SIGHUP` that does not end the instance is not `Stopped`.
pub async fn r21_edges(h: &dyn Harness) -> LawResult {
    let timing = h.timing();
    let backend = backend(h).await?;
    let mut subscriber = Subscriber::live(h, &backend).await?;
    let from = subscriber.events.len();
    let n = h.burst_size();
    let runs = subscriber.during(h.burst(n, Duration::from_millis(10)..=Duration::from_millis(50))).await??;
    if h.dialect().edges {
        // An instance that is gone again is no part of the state that the fold converges to.
        let ended = |one: &Subscriber, id| one.events_of(id, from).any(|event| matches!(event.kind, Kind::Stopped(_)));
        let all = |one: &Subscriber| runs.iter().rev().all(|run| ended(one, &run.id));
        subscriber.until(h, Law::R21, "to hear of the end of each", all).await?;
    }
    subscriber.read_for(timing.quiet).await?;
    subscriber.converge(h, Law::R21).await?;
    if h.dialect().edges {
        ensure!(subscriber.gaps(from).next().is_none(), R21, "no gap while the link is healthy", "a resync");
        for run in &runs {
            let edges: Vec<&str> = subscriber.edges_of(&run.id, from).filter(|edge| *edge != "removed").collect();
            if edges != ["started", "stopped"] {
                let found = format!("{edges:?} in {:?}", subscriber.counts(from));
                return Err(subscriber.violation(Law::R21, &format!("one start and one end of {}", run.id), &found));
            }
            let exit = subscriber.events_of(&run.id, from).find_map(|event| match &event.kind {
                Kind::Stopped(instance) => Some(instance.exit),
                _ => None,
            });
            if !exit.flatten().is_some_and(|exit| exits_agree(exit, run.exit)) {
                let expected = format!("{} to have ended with {:?}", run.id, run.exit);
                return Err(subscriber.violation(Law::R21, &expected, &format!("{exit:?}")));
            }
        }
    }

    let deaf = running(h, "deaf").await?;
    subscriber.converge(h, Law::R21).await?;
    let from = subscriber.events.len();
    let mut without = Vec::new();
    if done("a signal", h.kill(&deaf, UnixSignal::HUP).await, &mut without)?.is_some() {
        subscriber.read_for(timing.quiet).await?;
        subscriber.converge(h, Law::R21).await?;
        let edges: Vec<&str> = subscriber.edges_of(&deaf, from).collect();
        if !edges.is_empty() {
            return Err(subscriber.violation(Law::R21, "nothing of a signal that ends nothing", &format!("{edges:?}")));
        }
    }
    Verdict::kept_without(without)
}
