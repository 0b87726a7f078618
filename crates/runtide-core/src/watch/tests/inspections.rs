//! Hints and inspections.

use std::time::Duration;

use super::world::*;
use crate::{
    event::RuntimeEventKind,
    instance::{Health, Incarnation, Instance, InstanceState as S},
    options::{Detail, WatchOptions},
    watch::{Edge, Opened, SignalBody},
};

#[tokio::test(start_paused = true)]
async fn hints_for_many_ids_are_resolved_by_one_inspection() {
    let world = World::default();
    world.change(|w| (0..50).for_each(|n| w.put(instance(&format!("i{n}"), S::Running))));
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        for n in 0..50 {
            let name = format!("i{n}");
            w.put(Instance { health: Some(Health::Healthy), ..instance(&name, S::Running) });
            w.report(SignalBody::Hint(name.as_str().into()));
            w.report(SignalBody::Hint(name.as_str().into()));
        }
    });
    let events = until_quiet(&mut stream, QUIET).await;
    assert_eq!(events.len(), 50);
    for event in &events {
        let RuntimeEventKind::Updated { changed, .. } = &event.kind else { panic!("{event:?}") };
        assert_eq!(changed.to_string(), "health");
        assert_eq!(event.key(), None, "an inspection is not a report");
    }
    assert_eq!(world.lock().inspects.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_inspection_that_runs_ahead_of_the_stream_swallows_no_edge() {
    let world = World::default();
    world.change(|w| w.put(instance("a", S::Running)));
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    // It died, started and died again; the stream reports it half a second later.
    world.change(|w| {
        w.put(instance("a", S::Stopped));
        w.report(SignalBody::Hint("a".into()));
    });
    assert_eq!(briefs(&mut stream, Duration::from_millis(500)).await, [""; 0]);
    world.change(|w| {
        w.die("a", 1);
        w.report_edge("a", S::Running, None);
        w.die("a", 2);
    });
    assert_eq!(briefs(&mut stream, QUIET * 10).await, ["stopped a", "started a", "stopped a"]);
}

#[tokio::test(start_paused = true)]
async fn an_inspection_that_no_report_explains_opens_the_stream_again() {
    let world = World::default();
    world.change(|w| {
        w.put(instance("a", S::Running));
        w.put(instance("b", S::Running));
    });
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.put(instance("a", S::Stopped));
        w.there.remove("b");
        w.report(SignalBody::Hint("a".into()));
        w.report(SignalBody::Hint("b".into()));
    });
    // The stream reported nothing: a new one reports the edge of `a` again, and the unreported removal of `b` is a net effect.
    world.change(|w| {
        w.opens.push_back(Ok(Opened::Resumed));
        w.report_on_open.push(("a", S::Stopped));
    });
    let seen = briefs(&mut stream, QUIET * 10).await;
    let expected = [
        "disconnected broken",
        "reconnected Resumed",
        "stopped a",
        "caught_up",
        "resync_begin Disconnected",
        "present a",
        "resync_end",
    ];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn without_edges_in_the_stream_an_inspection_counts_at_once() {
    let world = World { hints_only: true, ..World::default() };
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.put(instance("a", S::Running));
        w.report(SignalBody::Hint("a".into()));
    });
    assert_eq!(briefs(&mut stream, Duration::from_millis(100)).await, ["started a"]);
    world.change(|w| {
        w.there.clear();
        w.report(SignalBody::Hint("a".into()));
    });
    assert_eq!(briefs(&mut stream, Duration::from_millis(100)).await, ["removed a"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_inspection_delays_no_edge() {
    let world = World::default();
    world.change(|w| w.put(instance("a", S::Running)));
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.answer_takes = Duration::from_secs(100);
        w.report(SignalBody::Hint("a".into()));
    });
    tokio::time::sleep(QUIET).await;
    world.change(|w| w.start("b"));
    assert_eq!(briefs(&mut stream, Duration::from_millis(10)).await, ["started b"]);
}

#[tokio::test(start_paused = true)]
async fn full_detail_is_fetched_when_the_first_asks_for_it() {
    let world = World::default();
    world.change(|w| w.put(Instance { restarts: Some(3), ..instance("a", S::Running) }));
    let driver = world.driver();
    let _summary = watch(&driver).await;
    let mut full = driver.watch(WatchOptions::default().with_detail(Detail::Full)).unwrap();
    assert_eq!(briefs(&mut full, QUIET).await, ["resync_begin Initial", "present a", "resync_end"]);
    world.change(|w| w.start("b"));
    let events = until_quiet(&mut full, QUIET).await;
    assert_eq!(events.iter().map(|e| brief(e)).collect::<Vec<_>>(), ["started b", "updated b"]);
    assert_eq!(events[1].instance().unwrap().restarts, Some(0));
}

fn in_run(name: &str, run: &str) -> Instance {
    Instance { incarnation: Some(Incarnation::new(run)), ..instance(name, S::Running) }
}

/// `a` runs, and its incarnation is not the last one that was reported.
async fn unreported_run(notice: impl FnOnce(&mut State)) -> Vec<std::sync::Arc<crate::event::RuntimeEvent>> {
    let world = World::default();
    world.change(|w| w.lean = true);
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.put(in_run("a", "1"));
        w.report(SignalBody::State(std::sync::Arc::new(in_run("a", "1"))));
    });
    assert_eq!(briefs(&mut stream, QUIET).await, ["started a"]);
    world.change(|w| {
        w.put(in_run("a", "2"));
        w.opens.push_back(Ok(Opened::Resumed));
        w.report_on_open.push(("b", S::Running));
        w.put(instance("b", S::Running));
        notice(w);
    });
    until_quiet(&mut stream, QUIET * 10).await
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_inspected_in_full_detail_if_only_that_shows_the_incarnation() {
    let events = unreported_run(|w| w.report(SignalBody::Hint("a".into()))).await;
    assert_eq!(brief(&events[0]), "disconnected broken", "no report explained it");
    let last = events.iter().rev().filter_map(|e| e.instance()).find(|i| i.name == "a").unwrap();
    assert_eq!(last.incarnation, Some(Incarnation::new("2")));
}

#[tokio::test(start_paused = true)]
async fn a_comparison_inspects_in_full_detail_if_only_that_shows_the_incarnation() {
    let events = unreported_run(|w| w.reported.push_back(Reported::Close)).await;
    let seen: Vec<String> = events.iter().map(|e| brief(e)).collect();
    let expected =
        ["disconnected closed", "reconnected Resumed", "started b", "caught_up", "resync_begin Disconnected"];
    assert_eq!(seen[..5], expected);
    let last = events.iter().rev().filter_map(|e| e.instance()).find(|i| i.name == "a").unwrap();
    assert_eq!(last.incarnation, Some(Incarnation::new("2")));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_only_an_inspection_shows_does_not_make_the_edges_before_it_old() {
    let world = World::default();
    world.change(|w| {
        w.lean = true;
        w.put(in_run("a", "1"));
    });
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    // Another subscriber wants full detail, and the answers are slow.
    world.change(|w| w.answer_takes = Duration::from_millis(500));
    let _close = driver.watch(WatchOptions::default().with_detail(Detail::Full)).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    // An inspection sees the second run before the stream has reported the end of the first one.
    world.change(|w| {
        w.answer_takes = Duration::ZERO;
        w.put(in_run("a", "2"));
        w.report(SignalBody::Hint("a".into()));
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let edge = |run: &str, state| {
        let incarnation = Some(Incarnation::new(run));
        SignalBody::Edge(Edge { id: "a".into(), incarnation, state, exit: None, described: None })
    };
    world.change(|w| {
        w.report(edge("1", S::Stopped));
        w.report(edge("2", S::Running));
    });
    let seen = briefs(&mut stream, QUIET).await;
    assert_eq!(seen[..2], ["stopped a", "started a"]);
}

#[tokio::test(start_paused = true)]
async fn an_edge_without_a_description_is_inspected_and_the_answer_counts() {
    let world = World::default();
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.put(instance("a", S::Running));
        w.report(SignalBody::Edge(Edge {
            id: "a".into(),
            incarnation: None,
            state: S::Running,
            exit: None,
            described: None,
        }));
    });
    assert_eq!(briefs(&mut stream, QUIET * 10).await, ["started a"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_listing_brings_back_no_removed_instance() {
    let world = World { hints_only: true, ..World::default() };
    world.change(|w| w.put(instance("a", S::Running)));
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.report(SignalBody::Hint("a".into()));
        w.opens.push_back(Ok(Opened::Resumed));
        w.reported.push_back(Reported::Close);
        w.report(SignalBody::CaughtUp);
        w.report(SignalBody::Hint("a".into()));
        // Both are requested at once; the inspection of `a` is later, and faster.
        w.answer_takes = Duration::from_millis(500);
        w.during_inspect.push_back(Box::new(|w| {
            w.there.clear();
            w.answer_takes = Duration::ZERO;
        }));
    });
    let seen = briefs(&mut stream, QUIET * 10).await;
    assert_eq!(seen, ["disconnected closed", "reconnected Resumed", "caught_up", "removed a"]);
}
