//! The beginning of a watch, and resyncs.

use std::time::Duration;

use tokio::time::Instant;

use super::world::*;
use crate::{
    event::{Gap, RuntimeEventKind},
    instance::{ExitStatus, Incarnation, Instance, InstanceId, InstanceState as S},
    options::WatchOptions,
    watch::{InstanceTable, SignalBody},
};

#[tokio::test(start_paused = true)]
async fn a_watch_begins_with_a_resync_and_goes_on_live() {
    let world = World::default();
    world.change(|w| w.put(instance("a", S::Running)));
    let driver = world.driver();
    let mut stream = driver.watch(WatchOptions::default()).unwrap();
    assert_eq!(briefs(&mut stream, QUIET).await, ["resync_begin Initial", "present a", "resync_end"]);
    world.change(|w| {
        w.start("b");
        w.die("b", 3);
        w.remove("b");
    });
    let events = until_quiet(&mut stream, QUIET).await;
    let briefs: Vec<String> = events.iter().map(|e| brief(e)).collect();
    assert_eq!(briefs, ["started b", "stopped b", "removed b"]);
    assert_eq!(events[1].instance().unwrap().exit, Some(ExitStatus::code(3)));
    assert!(events.iter().all(|e| e.key().is_some()));
    assert_eq!(events[1].cursor.native, events[1].token);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_reported_during_a_resync_is_inspected() {
    let world = World::default();
    world.change(|w| {
        w.put(instance("a", S::Running));
        w.answer_takes = Duration::from_millis(50);
        // After the subscription, before the list is taken: reported, and not in the list as it was.
        w.during_snapshot = Some(Box::new(|w| {
            w.start("b");
            w.die("a", 1);
        }));
    });
    let driver = world.driver();
    let mut stream = driver.watch(WatchOptions::default()).unwrap();
    let events = until_quiet(&mut stream, QUIET).await;
    let briefs: Vec<String> = events.iter().map(|e| brief(e)).collect();
    assert_eq!(briefs.len(), 4, "{briefs:?}");
    assert!(briefs.contains(&"present a".to_owned()) && briefs.contains(&"present b".to_owned()));
    let a = events.iter().filter_map(|e| e.instance()).find(|i| i.name == "a").unwrap();
    assert_eq!((a.state, a.exit), (S::Stopped, Some(ExitStatus::code(1))));
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_arrives_after_the_listing_is_not_delivered_twice() {
    let world = World::default();
    world.change(|w| {
        w.during_snapshot = Some(Box::new(|w| w.put(instance("a", S::Running)))); // it runs, and is not reported yet
    });
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| w.report_edge("a", S::Running, None));
    assert_eq!(briefs(&mut stream, QUIET).await, [""; 0]);
    world.change(|w| w.die("a", 0));
    assert_eq!(briefs(&mut stream, QUIET).await, ["stopped a"]);
}

#[tokio::test(start_paused = true)]
async fn a_partial_list_removes_nothing_and_is_completed_later() {
    let world = World::default();
    world.change(|w| {
        w.put(instance("a", S::Running));
        w.put(instance("b", S::Running));
    });
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.there.remove("b");
        w.partial = true;
        w.report(SignalBody::Lost(Gap::Undecodable));
    });
    let seen = briefs(&mut stream, QUIET * 2).await;
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(seen.contains(&"present b".to_owned()), "absent from a partial list is not absent");
    assert_eq!(seen[3], "resync_end partial");
    world.change(|w| w.partial = false);
    let seen = briefs(&mut stream, Duration::from_secs(30)).await;
    assert_eq!(seen, ["resync_begin PartialListing", "present a", "resync_end"]);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_runtime_wrote_over_is_no_difference() {
    let world = World::default();
    let ended = |code| Instance {
        incarnation: Some(Incarnation::new("1")),
        exit: Some(ExitStatus::code(code)),
        ..instance("a", S::Stopped)
    };
    world.change(|w| w.put(ended(5)));
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.put(ended(0));
        w.partial = true; // so that it is compared again and again
        w.report(SignalBody::Lost(Gap::Undecodable));
    });
    let events = until_quiet(&mut stream, QUIET * 2).await;
    let seen: Vec<String> = events.iter().map(|e| brief(e)).collect();
    assert_eq!(seen, ["resync_begin Undecodable", "present a", "resync_end partial"]);
    assert_eq!(events[1].instance().unwrap().exit, Some(ExitStatus::code(5)), "the run's own end");
    let snapshots = world.lock().snapshots;
    assert_eq!(briefs(&mut stream, LONG).await, [""; 0]);
    assert!(world.lock().snapshots > snapshots + 5, "and it was compared");
    world.change(|w| w.put(instance("b", S::Running)));
    assert_eq!(briefs(&mut stream, QUIET * 10).await.len(), 4, "a real difference is still shown");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_falls_to_nothing_is_read_twice() {
    let world = World::default();
    world.change(|w| w.put(instance("a", S::Running)));
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    let held = world.lock().there.clone();
    world.change(|w| {
        w.there.clear();
        w.snapshots = 0;
        w.report(SignalBody::Lost(Gap::Undecodable));
        w.during_snapshot = None;
    });
    tokio::time::sleep(Duration::from_millis(100)).await; // the first listing was empty
    world.change(|w| w.there = held);
    assert_eq!(briefs(&mut stream, QUIET * 2).await, ["resync_begin Undecodable", "present a", "resync_end"]);
    assert_eq!(world.lock().snapshots, 2);
}

#[tokio::test(start_paused = true)]
async fn a_later_subscriber_gets_its_own_resync() {
    let world = World::default();
    let driver = world.driver();
    let mut first = watch(&driver).await;
    world.change(|w| w.start("a"));
    assert_eq!(briefs(&mut first, QUIET).await, ["started a"]);
    let mut second = driver.watch(WatchOptions::default()).unwrap();
    assert_eq!(briefs(&mut second, QUIET).await, ["resync_begin Initial", "present a", "resync_end"]);
    world.change(|w| w.die("a", 0));
    let (one, other) = (until_quiet(&mut first, QUIET).await, until_quiet(&mut second, QUIET).await);
    assert_eq!(one, other, "the very same events");
    assert_eq!(world.lock().dials.len(), 1, "and one connection");
}

#[tokio::test(start_paused = true)]
async fn lost_messages_give_one_resync_at_a_time() {
    let world = World::default();
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    let mut steps = Vec::new();
    for step in 0..107 {
        world.change(|w| w.report(SignalBody::Lost(Gap::Undecodable)));
        let events = until_quiet(&mut stream, Duration::from_millis(47)).await;
        steps.extend(events.iter().filter(|e| matches!(e.kind, RuntimeEventKind::ResyncEnd(_))).map(|_| step));
    }
    assert!((4..=6).contains(&steps.len()), "resyncs in five seconds: {steps:?}");
    assert!(steps.windows(2).all(|pair| pair[1] - pair[0] >= 19), "a second apart: {steps:?}");
    let last = briefs(&mut stream, QUIET * 3).await;
    assert_eq!(last.last().map(String::as_str), Some("resync_end"), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_gap_during_a_listing_is_covered_by_the_next_one_alone() {
    let world = World::default();
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    tokio::time::sleep(QUIET).await;
    world.change(|w| {
        w.answer_takes = Duration::from_millis(700); // as under load
        w.report(SignalBody::Lost(Gap::Undecodable));
    });
    assert_eq!(briefs(&mut stream, Duration::from_millis(600)).await, [""; 0]);
    world.change(|w| w.report(SignalBody::Lost(Gap::Undecodable)));
    let seen = briefs(&mut stream, QUIET * 3).await;
    assert_eq!(seen, ["resync_begin Undecodable", "resync_end"], "one for both");
}

#[tokio::test(start_paused = true)]
async fn an_inspection_waits_for_the_stream_as_the_listing_does() {
    let world = World::default();
    world.change(|w| {
        w.during_snapshot = Some(Box::new(|w| w.start("a")));
        w.during_inspect.push_back(Box::new(|w| w.die("a", 1))); // seen at once, reported at once, and read a moment later
    });
    let driver = world.driver();
    let mut stream = driver.watch(WatchOptions::default()).unwrap();
    let events = until_quiet(&mut stream, QUIET).await;
    assert_eq!(
        events.iter().map(|e| brief(e)).collect::<Vec<_>>(),
        ["resync_begin Initial", "present a", "resync_end"]
    );
    assert_eq!(events[1].instance().unwrap().state, S::Stopped);
    let cursor = events[2].cursor.native.as_ref().map(|token| token.as_str().to_owned());
    assert_eq!(cursor.as_deref(), Some("2"), "the rows are older than the token at which the history goes on");
}

#[tokio::test(start_paused = true)]
async fn an_id_that_a_failed_inspection_left_open_is_not_taken_from_ahead_of_the_stream() {
    let world = World::default();
    world.change(|w| {
        w.inspects_fail = 1;
        w.during_snapshot = Some(Box::new(|w| w.start("a")));
        w.during_inspect.push_back(Box::new(|_| {}));
        w.during_inspect.push_back(Box::new(|w| drop(w.there.remove("a"))));
    });
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    assert_eq!(world.lock().inspects.len(), 2, "and seen to be gone");
    world.change(|w| {
        w.report_edge("a", S::Stopped, Some(ExitStatus::code(1)));
        w.report(SignalBody::Gone("a".into()));
    });
    assert_eq!(briefs(&mut stream, QUIET * 10).await, ["stopped a", "removed a"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_before_a_loss_is_not_waited_for() {
    let world = World::default();
    world.change(|w| {
        w.put(instance("a", S::Running));
        w.answer_takes = Duration::from_millis(500);
    });
    let driver = world.driver();
    let mut stream = driver.watch(WatchOptions::default()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.change(|w| {
        w.put(instance("a", S::Stopped));
        w.report(SignalBody::Lost(Gap::Undecodable));
    });
    let events = until_quiet(&mut stream, QUIET * 2).await;
    assert_eq!(
        events.iter().map(|e| brief(e)).collect::<Vec<_>>(),
        ["resync_begin Initial", "present a", "resync_end"]
    );
    assert_eq!(events[1].instance().unwrap().state, S::Stopped);
}

#[tokio::test(start_paused = true)]
async fn an_edge_of_an_instance_that_the_listing_could_not_read_is_delivered() {
    let world = World::default();
    world.change(|w| {
        w.put(instance("a", S::Running));
        w.put(instance("b", S::Running));
    });
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.there.remove("b"); // it ended in the gap, and cannot be read
        w.partial = true;
        w.report(SignalBody::Lost(Gap::Undecodable));
    });
    briefs(&mut stream, QUIET * 2).await;
    world.change(|w| w.report_edge("b", S::Running, None));
    assert_eq!(briefs(&mut stream, QUIET).await, ["started b"], "it is not known to run already");
    world.change(|w| w.report_edge("b", S::Running, None));
    assert_eq!(briefs(&mut stream, QUIET).await, [""; 0], "and now it is");
}

#[tokio::test(start_paused = true)]
async fn losses_that_come_faster_than_a_listing_takes_starve_no_resync() {
    for first in [true, false] {
        let world = World::default();
        world.change(|w| w.answer_takes = Duration::from_millis(500));
        let driver = world.driver();
        let mut stream = driver.watch(WatchOptions::default()).unwrap();
        if !first {
            until_quiet(&mut stream, QUIET).await;
        }
        let began = Instant::now();
        let mut ends = Vec::new();
        for n in 0..600 {
            world.change(|w| {
                w.put(instance(&format!("i{n}"), S::Running)); // and the stream does not report it
                w.report(SignalBody::Lost(Gap::Undecodable));
            });
            let events = until_quiet(&mut stream, Duration::from_millis(100)).await;
            ends.extend(
                events.iter().filter(|e| matches!(e.kind, RuntimeEventKind::ResyncEnd(_))).map(|_| began.elapsed()),
            );
        }
        let longest = ends.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap();
        assert!(ends[0] < Duration::from_secs(4) && longest < Duration::from_secs(4), "{:?}, {longest:?}", ends[0]);
        let mut table = InstanceTable::default();
        for event in until_quiet(&mut stream, QUIET * 4).await {
            table.apply(&event);
        }
        assert_eq!(table.len(), 600, "the last loss is covered as well");
        assert!(table.completeness(&"test".into()).is_complete());
    }
}

/// Changes of each instance: the number of a change, and the token of the first report that lies behind it.
type Changes = std::collections::BTreeMap<InstanceId, Vec<(u32, u64)>>;

/// Changes, some of which are reported and some of which are lost, while listings take as long as they like.
async fn a_history_of_losses(seed: u64) -> Result<usize, String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::default();
    let driver = world.driver();
    let mut stream = driver.watch(WatchOptions::default()).unwrap();
    let (mut table, mut changes, mut resyncs, mut number) = (InstanceTable::default(), Changes::new(), 0, 0_u32);
    for _ in 0..120 {
        let name = format!("i{}", rng.u8(0..4));
        let lost = rng.u8(0..3) == 0;
        if rng.u8(0..3) > 0 {
            number += 1;
            let row = Instance { restarts: Some(number), ..instance(&name, S::Running) };
            world.change(|w| {
                w.put(row.clone());
                w.report(if lost { SignalBody::Lost(Gap::Undecodable) } else { SignalBody::State(row.into()) });
                changes.entry(InstanceId::from(name.as_str())).or_default().push((number, w.token));
            });
        }
        world.change(|w| w.answer_takes = Duration::from_millis(rng.u64(0..900)));
        for event in until_quiet(&mut stream, Duration::from_millis(rng.u64(1..400))).await {
            table.apply(&event);
            if !matches!(event.kind, RuntimeEventKind::ResyncEnd(_)) {
                continue;
            }
            resyncs += 1;
            let token: u64 = event.cursor.native.as_ref().map_or(0, |token| token.as_str().parse().unwrap());
            for (id, changes) in &changes {
                let owed = changes.iter().filter(|(_, at)| *at <= token).map(|(number, _)| *number).max();
                let shown = table.get(&"test".into(), id).and_then(|row| row.restarts);
                if shown < owed {
                    return Err(format!("{id}: a resync at token {token} shows {shown:?}, and not {owed:?}"));
                }
            }
        }
    }
    for event in until_quiet(&mut stream, QUIET * 10).await {
        table.apply(&event);
    }
    let expected: Vec<_> = world.lock().there.values().map(|row| (row.id.clone(), row.restarts)).collect();
    let held: Vec<_> = table.iter().map(|row| (row.id.clone(), row.restarts)).collect();
    if held == expected { Ok(resyncs) } else { Err(format!("{held:?} and not {expected:?}")) }
}

#[tokio::test(start_paused = true)]
async fn a_position_never_lies_behind_a_loss_that_its_rows_do_not_have() {
    let mut resyncs = 0;
    for seed in 0..500 {
        resyncs += a_history_of_losses(seed).await.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
    assert!(resyncs > 1_000, "{resyncs}");
}
