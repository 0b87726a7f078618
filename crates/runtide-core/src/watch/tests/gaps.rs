//! The end of a link: outages, resuming, gaps.

use std::time::Duration;

use super::world::*;
use crate::{
    error::{Error, ErrorKind},
    event::{Gap, RuntimeEventKind},
    instance::InstanceState as S,
    options::WatchOptions,
    watch::{Evidence, InstanceTable, Opened, SignalBody},
};

fn refused() -> crate::error::Result<Opened> {
    Err(Error::new(ErrorKind::Unavailable, "test.open", "refused"))
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_announced_once_and_ends_in_a_resync() {
    let world = World::default();
    world.change(|w| {
        w.put(instance("a", S::Running));
        w.put(instance("b", S::Running));
    });
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.opens.extend([refused(), refused(), refused(), Ok(Opened::Fresh(Gap::RuntimeRestarted))]);
        w.there.remove("b");
        w.reported.push_back(Reported::Break);
    });
    let seen = briefs(&mut stream, LONG).await;
    let expected =
        ["disconnected broken", "reconnected Lost", "resync_begin RuntimeRestarted", "present a", "resync_end"];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_vanished_in_a_gap_is_one_net_removal() {
    let world = World::default();
    world.change(|w| {
        w.put(instance("a", S::Running));
        w.put(instance("b", S::Running));
    });
    let driver = world.driver();
    let mut table = InstanceTable::default();
    let mut stream = driver.watch(WatchOptions::default()).unwrap();
    for event in until_quiet(&mut stream, QUIET).await {
        table.apply(&event);
    }
    world.change(|w| {
        w.there.remove("b");
        w.put(instance("c", S::Running));
        w.reported.push_back(Reported::Close);
    });
    let mut steps = Vec::new();
    for event in until_quiet(&mut stream, LONG).await {
        steps.extend(table.apply(&event));
    }
    assert_eq!(steps.len(), 2, "{steps:?}");
    assert!(steps.iter().all(|s| s.evidence == Evidence::Net(Gap::Disconnected)));
    assert!(steps.iter().any(|s| s.after.is_none() && s.before.as_ref().unwrap().name == "b"));
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_not_up_yet_is_the_first_item() {
    let world = World::default();
    world.change(|w| w.opens.extend([refused(), refused()]));
    let driver = world.driver();
    let mut stream = driver.watch(WatchOptions::default()).unwrap();
    let seen = briefs(&mut stream, LONG).await;
    assert_eq!(seen, ["disconnected broken", "reconnected Lost", "resync_begin Initial", "resync_end"]);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_link_delivers_the_edges_and_no_resync() {
    let world = World::default();
    world.change(|w| w.put(instance("a", S::Running)));
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| w.start("b"));
    assert_eq!(briefs(&mut stream, QUIET).await, ["started b"]);
    world.change(|w| {
        w.opens.push_back(Ok(Opened::Resumed));
        w.reported.push_back(Reported::Close);
        w.die("a", 1);
        w.start("a");
        w.die("b", 2);
        w.remove("b");
        w.report(SignalBody::CaughtUp);
    });
    let seen = briefs(&mut stream, LONG).await;
    let expected = ["disconnected closed", "reconnected Resumed", "stopped a", "started a", "stopped b", "removed b"];
    assert_eq!(seen[..6], expected);
    assert_eq!(seen[6..], ["caught_up"]);
    assert_eq!(world.lock().resumes[1].as_ref().map(|m| m.as_str().to_owned()), Some("1".into()));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_replay_does_not_report_opens_a_resync() {
    let world = World::default();
    world.change(|w| w.put(instance("a", S::Running)));
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.opens.push_back(Ok(Opened::Resumed));
        w.reported.push_back(Reported::Close);
        w.there.clear();
        w.put(instance("c", S::Running)); // not reported
        w.report(SignalBody::CaughtUp);
    });
    let seen = briefs(&mut stream, LONG).await;
    let expected = [
        "disconnected closed",
        "reconnected Resumed",
        "caught_up",
        "resync_begin Disconnected",
        "present c",
        "resync_end",
    ];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn a_watch_resumes_from_a_stored_cursor() {
    let world = World::default();
    let mut table = InstanceTable::default();
    {
        let driver = world.driver();
        let mut stream = driver.watch(WatchOptions::default()).unwrap();
        world.change(|w| w.start("a"));
        for event in until_quiet(&mut stream, QUIET).await {
            table.apply(&event);
        }
        world.change(|w| w.start("b"));
        for event in until_quiet(&mut stream, QUIET).await {
            table.apply(&event);
        }
        driver.close().await;
        assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(stream.next().await.is_none());
    }
    let from = table.position(&"test".into()).unwrap().0.clone();
    world.change(|w| {
        w.die("a", 4);
        w.report(SignalBody::CaughtUp);
        w.opens.push_back(Ok(Opened::Resumed));
    });
    let driver = world.driver();
    let options = WatchOptions::default().with_from(from).with_known(table.clone());
    let mut stream = driver.watch(options).unwrap();
    let events = until_quiet(&mut stream, QUIET).await;
    let seen: Vec<String> = events.iter().map(|e| brief(e)).collect();
    assert_eq!(seen, ["reconnected Resumed", "stopped a", "caught_up"]);
    for event in &events {
        table.apply(event);
    }
    assert_eq!(table.get(&"test".into(), &"a".into()).unwrap().state, S::Stopped);
    assert_eq!(table.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn stored_rows_do_not_make_an_edge_seem_old() {
    let world = World::default();
    let mut table = InstanceTable::default();
    let driver = world.driver();
    world.change(|w| ["a", "b"].into_iter().for_each(|name| w.put(instance(name, S::Running))));
    let mut stream = driver.watch(WatchOptions::default()).unwrap();
    for event in until_quiet(&mut stream, QUIET).await {
        table.apply(&event);
    }
    world.change(|w| {
        w.there.remove("b"); // it ended in the gap, and cannot be read: the table still has it
        w.partial = true;
        w.report(SignalBody::Lost(crate::event::Gap::Undecodable));
    });
    for event in until_quiet(&mut stream, QUIET * 2).await {
        table.apply(&event);
    }
    driver.close().await;
    let from = table.position(&"test".into()).unwrap().0.clone();
    world.change(|w| {
        w.report_edge("b", S::Running, None);
        w.report_edge("a", S::Paused, None);
        w.report(SignalBody::CaughtUp);
        w.opens.push_back(Ok(Opened::Resumed));
    });
    let driver = world.driver();
    let mut stream = driver.watch(WatchOptions::default().with_from(from).with_known(table)).unwrap();
    let seen = briefs(&mut stream, QUIET).await;
    assert_eq!(seen[..3], ["reconnected Resumed", "started b", "updated a"]);
}

#[tokio::test(start_paused = true)]
async fn without_the_rows_of_the_consumer_a_replay_ends_in_a_resync() {
    let world = World::default();
    let from = {
        let driver = world.driver();
        let mut stream = watch(&driver).await;
        world.change(|w| w.start("a"));
        until_quiet(&mut stream, QUIET).await.pop().unwrap().cursor.clone()
    };
    world.change(|w| {
        w.start("b");
        w.report(SignalBody::CaughtUp);
        w.opens.push_back(Ok(Opened::Resumed));
    });
    let driver = world.driver();
    let mut stream = driver.watch(WatchOptions::default().with_from(from)).unwrap();
    let mut seen = briefs(&mut stream, QUIET * 2).await;
    assert_eq!(seen[..3], ["reconnected Resumed", "started b", "resync_begin Disconnected"]);
    seen.drain(..3);
    seen.sort();
    assert_eq!(seen, ["present a", "present b", "resync_end"]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_history_is_a_resync_against_the_known_rows() {
    let world = World::default();
    world.change(|w| w.put(instance("b", S::Running)));
    let mut known = InstanceTable::default();
    let from = {
        let driver = world.driver();
        let mut stream = driver.watch(WatchOptions::default()).unwrap();
        world.change(|w| w.start("a"));
        let events = until_quiet(&mut stream, QUIET).await;
        for event in &events {
            known.apply(event);
        }
        events.last().unwrap().cursor.clone()
    };
    world.change(|w| {
        w.there.remove("a");
        w.opens.push_back(Ok(Opened::Fresh(Gap::HistoryExpired)));
    });
    let driver = world.driver();
    let mut stream = driver.watch(WatchOptions::default().with_from(from).with_known(known.clone())).unwrap();
    let events = until_quiet(&mut stream, QUIET).await;
    let steps: Vec<_> = events.iter().flat_map(|e| known.apply(e)).collect();
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].evidence, Evidence::Net(Gap::HistoryExpired));
}

#[tokio::test(start_paused = true)]
async fn a_silent_link_is_dead() {
    let world = World { max_silence: Some(Duration::from_secs(20)), ..World::default() };
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(15)).await;
        world.change(|w| w.report(SignalBody::Alive));
    }
    assert_eq!(briefs(&mut stream, Duration::from_millis(1)).await, [""; 0]);
    assert_eq!(world.lock().dials.len(), 1);
    let event = tokio::time::timeout(Duration::from_secs(25), stream.next()).await.unwrap().unwrap().unwrap();
    let RuntimeEventKind::BackendDisconnected { cause: Some(cause) } = &event.kind else { panic!("{event:?}") };
    assert_eq!(cause.kind, ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_flapping_link_is_one_outage_and_calm() {
    let world = World::default();
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    // For an hour the runtime takes the connection and closes it at once.
    let start = tokio::time::Instant::now();
    let mut events = Vec::new();
    while start.elapsed() < Duration::from_secs(3_600) {
        let reported = world.lock().reported.is_empty();
        if reported {
            world.change(|w| w.reported.push_back(Reported::Close));
        }
        events.extend(briefs(&mut stream, Duration::from_millis(100)).await);
    }
    let outages = events.iter().filter(|e| e.starts_with("disconnected")).count();
    assert!(outages <= 5, "{outages} outages: {events:?}");
    let dials = world.lock().dials.iter().filter(|at| **at > start + Duration::from_secs(120)).count();
    assert!((58..=58 * 4).contains(&dials), "{dials} dials in 58 minutes");
    world.change(|w| w.reported.clear());
    let seen = briefs(&mut stream, LONG).await;
    assert_eq!(seen.last().map(String::as_str), Some("resync_end"), "and it comes back: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_denied_list_is_an_outage_and_tried_for_a_day() {
    let world = World::default();
    world.change(|w| w.list_fails = true);
    let driver = world.driver();
    let mut stream = driver.watch(WatchOptions::default()).unwrap();
    let seen = briefs(&mut stream, Duration::from_secs(24 * 3_600)).await;
    assert_eq!(seen, ["disconnected broken"]);
    let dials = world.lock().dials.len();
    assert!((24 * 60..24 * 60 * 10).contains(&dials), "{dials} dials in a day");
    world.change(|w| w.list_fails = false);
    assert_eq!(briefs(&mut stream, LONG).await, ["reconnected Lost", "resync_begin Initial", "resync_end"]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_stream_drops_the_source_and_a_new_watch_starts_over() {
    let world = World::default();
    let driver = world.driver();
    let (one, two) = (watch(&driver).await, watch(&driver).await);
    drop(one);
    tokio::time::sleep(QUIET).await;
    assert_eq!(world.lock().sources, 1);
    drop(two);
    tokio::time::sleep(QUIET).await;
    assert_eq!(world.lock().sources, 0);
    let _three = watch(&driver).await;
    assert_eq!(world.lock().sources, 1);
    drop(driver);
    tokio::time::sleep(QUIET).await;
    assert_eq!(world.lock().sources, 0);
}
