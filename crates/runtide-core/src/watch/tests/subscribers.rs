//! Subscribers: slow, filtered, resumed.

use std::{num::NonZeroUsize, time::Duration};

use super::world::*;
use crate::{
    error::ErrorKind,
    event::{Gap, RuntimeEventKind},
    filter::InstanceFilter,
    instance::InstanceState as S,
    options::{SlowConsumer, WatchOptions},
    watch::{DriverOptions, InstanceTable, SignalBody},
};

fn small_ring() -> DriverOptions {
    DriverOptions::default().with_ring(NonZeroUsize::new(16))
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_loses_its_position_visibly_and_delays_no_other() {
    let world = World::default();
    let driver = world.driver_with(small_ring());
    let (mut slow, mut fast) = (watch(&driver).await, watch(&driver).await);
    for n in 0..200 {
        world.change(|w| w.start(&format!("i{n}")));
        assert_eq!(briefs(&mut fast, Duration::from_millis(1)).await, [format!("started i{n}")]);
    }
    let events = until_quiet(&mut slow, QUIET).await;
    assert!(
        matches!(events[0].kind, RuntimeEventKind::ResyncBegin { gap: Gap::Lagged { dropped: 200 } }),
        "{:?}",
        events[0]
    );
    assert_eq!(events.len(), 202);
    world.change(|w| w.die("i7", 0));
    assert_eq!(briefs(&mut slow, QUIET).await, ["stopped i7"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_delivered_before_more_is_asked_about_it() {
    let world = World::default();
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.start("a");
        w.report(SignalBody::Hint("a".into()));
    });
    assert_eq!(brief(&stream.next().await.unwrap().unwrap()), "started a");
    assert!(world.lock().inspects.is_empty(), "the subscriber, on the same thread, waited for a request");
    until_quiet(&mut stream, QUIET).await;
    assert_eq!(world.lock().inspects.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_with_close_is_closed() {
    let world = World::default();
    let driver = world.driver_with(small_ring());
    let _other = watch(&driver).await;
    let mut slow = driver.watch(WatchOptions::default().with_slow_consumer(SlowConsumer::Close)).unwrap();
    assert_eq!(briefs(&mut slow, QUIET).await.len(), 2);
    world.change(|w| (0..100).for_each(|n| w.start(&format!("i{n}"))));
    tokio::time::sleep(QUIET).await;
    assert_eq!(slow.next().await.unwrap().unwrap_err().kind(), ErrorKind::Expired);
    assert!(slow.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_leaves_the_filter_is_delivered_once_more() {
    let world = World::default();
    world.change(|w| {
        w.put(instance("a", S::Running));
        w.put(instance("b", S::Stopped));
    });
    let driver = world.driver();
    let filter = InstanceFilter::default().with_states([S::Running]);
    let mut stream = driver.watch(WatchOptions::default().with_filter(filter)).unwrap();
    let mut seen = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(QUIET, stream.next()).await {
        seen.push(brief(&event.unwrap()));
    }
    assert_eq!(seen, ["resync_begin Initial", "present a", "resync_end"]);
    world.change(|w| {
        w.die("a", 0);
        w.remove("a");
        w.remove("b");
    });
    seen.clear();
    while let Ok(Some(event)) = tokio::time::timeout(QUIET, stream.next()).await {
        seen.push(brief(&event.unwrap()));
    }
    assert_eq!(seen, ["stopped a"]);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_comes_during_an_outage_gets_it_first() {
    let world = World::default();
    world.change(|w| w.put(instance("a", S::Running)));
    let driver = world.driver();
    let _first = watch(&driver).await;
    world.change(|w| {
        w.opens.extend((0..5).map(|_| Err(crate::error::Error::new(ErrorKind::Unavailable, "test.open", "refused"))));
        w.reported.push_back(Reported::Break);
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut late = driver.watch(WatchOptions::default()).unwrap();
    let seen = briefs(&mut late, LONG).await;
    let expected = ["disconnected broken", "reconnected Lost", "resync_begin Disconnected", "present a", "resync_end"];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_in_the_ring_resumes_and_a_foreign_one_does_not() {
    let world = World::default();
    let driver = world.driver();
    let mut first = watch(&driver).await;
    world.change(|w| ["a", "b", "c"].into_iter().for_each(|name| w.start(name)));
    let events = until_quiet(&mut first, QUIET).await;
    let mut resumed = driver.watch(WatchOptions::default().with_from(events[0].cursor.clone())).unwrap();
    assert_eq!(until_quiet(&mut resumed, QUIET).await, events[1..]);

    let mut foreign = events[0].cursor.clone();
    foreign.epoch = "elsewhere".into();
    let mut stream = driver.watch(WatchOptions::default().with_from(foreign)).unwrap();
    assert_eq!(briefs(&mut stream, QUIET).await[0], "resync_begin ForeignCursor");

    let mut future = events[0].cursor.clone();
    future.seq += 1_000;
    let mut stream = driver.watch(WatchOptions::default().with_from(future)).unwrap();
    assert_eq!(briefs(&mut stream, QUIET).await[0], "resync_begin ForeignCursor");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_repeat_the_cursor_on_a_quiet_stream() {
    let world = World::default();
    let driver = world.driver();
    let options = WatchOptions::default().with_bookmark_every(Duration::from_secs(10));
    let mut stream = driver.watch(options).unwrap();
    let mut table = InstanceTable::default();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let event = stream.next().await.unwrap().unwrap();
        table.apply(&event);
        seen.push(event);
    }
    check_order(&seen);
    let briefs: Vec<String> = seen.iter().map(|e| brief(e)).collect();
    assert_eq!(briefs, ["resync_begin Initial", "resync_end", "bookmark", "bookmark", "bookmark"]);
    assert_eq!(table.position(&"test".into()).unwrap().0, &seen[1].cursor);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_all_events_at_hand() {
    let world = World::default();
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| (0..1_000).for_each(|n| w.start(&format!("i{n}"))));
    let mut events = Vec::new();
    while events.len() < 1_000 {
        let room = 300;
        let got = stream.next_batch(&mut events, room).await.unwrap().unwrap();
        assert!((1..=room).contains(&got));
    }
    check_order(&events);
}

#[tokio::test(start_paused = true)]
async fn durations_without_an_end_are_options_like_any_other() {
    let world = World { max_silence: Some(Duration::MAX), ..World::default() };
    let driver = world.driver();
    let mut stream = driver.watch(WatchOptions::default().with_bookmark_every(Duration::MAX)).unwrap();
    let seen = briefs(&mut stream, Duration::from_secs(1)).await;
    assert_eq!(seen, ["resync_begin Initial", "resync_end"]);
    world.change(|w| w.start("a"));
    assert_eq!(briefs(&mut stream, Duration::from_secs(1)).await, ["started a"]);
}
