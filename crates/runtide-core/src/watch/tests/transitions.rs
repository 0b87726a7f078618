//! Steps, and the state of the link: what a subscriber of `transitions()` gets.

use std::{num::NonZeroUsize, time::Duration};

use super::world::*;
use crate::{
    completeness::Completeness,
    error::{Error, ErrorKind, Result},
    event::Gap,
    filter::InstanceFilter,
    instance::InstanceState as S,
    options::WatchOptions,
    watch::{Change, Driver, DriverOptions, Freshness, Opened, SignalBody, TransitionStream},
};

fn open(driver: &Driver, options: &WatchOptions) -> TransitionStream {
    TransitionStream::new(driver.watch(options.clone()).unwrap(), options)
}

fn freshness(changes: &TransitionStream) -> Option<Freshness> {
    changes.table().position(&"test".into()).map(|(_, fresh)| fresh)
}

fn refused() -> Result<Opened> {
    Err(Error::new(ErrorKind::Unavailable, "test.open", "refused"))
}

/// The lines until the stream is quiet for so long.
async fn lines(changes: &mut TransitionStream, quiet: Duration) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(Some(change)) = tokio::time::timeout(quiet, changes.next()).await {
        lines.push(change.unwrap().to_string());
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn a_runtime_without_instances_is_complete_and_empty() {
    let world = World::default();
    let driver = world.driver();
    let mut changes = open(&driver, &WatchOptions::default());
    assert_eq!(freshness(&changes), None);
    assert_eq!(
        changes.next().await.unwrap().unwrap(),
        Change::Synced { gap: Some(Gap::Initial), completeness: Completeness::Complete }
    );
    assert!(changes.table().is_empty());
    assert_eq!(freshness(&changes), Some(Freshness::Live));
    world.change(|w| w.start("a"));
    assert_eq!(lines(&mut changes, QUIET).await, ["+ a is running"]);
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_down_is_offline_at_once_and_complete_once_it_is_back() {
    let world = World::default();
    world.change(|w| w.opens.extend([refused(), refused()]));
    let driver = world.driver();
    let began = tokio::time::Instant::now();
    let mut changes = open(&driver, &WatchOptions::default());
    let first = changes.next().await.unwrap().unwrap();
    assert!(matches!(&first, Change::Offline { cause: Some(cause) } if cause.message == "refused"), "{first:?}");
    assert!(began.elapsed() < Duration::from_millis(10), "no dial is waited for");
    assert_eq!(freshness(&changes), Some(Freshness::Stale));
    let online = changes.next().await.unwrap().unwrap();
    assert_eq!(online.to_string(), "! online: a comparison follows");
    assert_eq!(freshness(&changes), Some(Freshness::Resyncing), "nothing is known yet, so it is not live");
    assert_eq!(lines(&mut changes, LONG).await, ["= complete (the watch begins)"]);
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_fails_is_an_outage_too() {
    let world = World::default();
    world.change(|w| w.list_fails = true);
    let driver = world.driver();
    let mut changes = open(&driver, &WatchOptions::default());
    let first = changes.next().await.unwrap().unwrap();
    assert_eq!(first.to_string(), "! offline: denied");
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_in_its_net_effects_and_synced() {
    let world = World::default();
    world.change(|w| {
        w.put(instance("a", S::Running));
        w.put(instance("b", S::Running));
    });
    let driver = world.driver();
    let mut changes = open(&driver, &WatchOptions::default());
    let seen = lines(&mut changes, QUIET).await;
    assert_eq!(
        seen,
        [
            "+ a is running (by comparison: the watch begins)",
            "+ b is running (by comparison: the watch begins)",
            "= complete (the watch begins)"
        ]
    );
    world.change(|w| {
        w.opens.push_back(Ok(Opened::Fresh(Gap::RuntimeRestarted)));
        w.there.remove("b");
        w.reported.push_back(Reported::Break);
    });
    let seen = lines(&mut changes, LONG).await;
    let expected = [
        "! offline: severed",
        "! online: a comparison follows",
        "- b is gone (by comparison: the runtime was restarted)",
        "= complete (the runtime was restarted)",
    ];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_the_history_covers_is_synced_after_its_steps() {
    let world = World::default();
    world.change(|w| w.put(instance("a", S::Running)));
    let driver = world.driver();
    let mut changes = open(&driver, &WatchOptions::default());
    lines(&mut changes, QUIET).await;
    world.change(|w| {
        w.start("b");
        w.opens.push_back(Ok(Opened::Resumed));
        w.reported.push_back(Reported::Close);
        w.die("b", 1);
        w.report(SignalBody::CaughtUp);
    });
    let seen = lines(&mut changes, LONG).await;
    let expected = [
        "+ b is running",
        "! offline: the runtime closed the stream",
        "! online: the missed steps follow",
        "~ b is stopped",
        "= complete (nothing was missed)",
    ];
    assert_eq!(seen, expected);
    assert_eq!(freshness(&changes), Some(Freshness::Live));
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_lags_gets_net_effects_and_their_reason() {
    let world = World::default();
    let driver = world.driver_with(DriverOptions::default().with_ring(NonZeroUsize::new(16)));
    let mut changes = open(&driver, &WatchOptions::default());
    assert_eq!(lines(&mut changes, QUIET).await, ["= complete (the watch begins)"]);
    for n in 0..100 {
        world.change(|w| w.start(&format!("i{n}")));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seen = lines(&mut changes, QUIET).await;
    let reason = "(by comparison: 100 events came faster than they were read)";
    assert_eq!(seen.len(), 101);
    assert!(seen[..100].iter().all(|line| line.starts_with("+ i") && line.ends_with(reason)), "{seen:?}");
    assert_eq!(seen[100], "= complete (100 events came faster than they were read)");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_goes_on_in_the_ring_learns_the_state_of_the_link_first() {
    let world = World::default();
    let driver = world.driver();
    let mut kept = open(&driver, &WatchOptions::default());
    lines(&mut kept, QUIET).await;
    world.change(|w| w.start("a"));
    lines(&mut kept, QUIET).await;
    let resumed = |kept: &TransitionStream| {
        let position = kept.table().position(&"test".into()).unwrap().0.clone();
        open(&driver, &WatchOptions::default().with_from(position).with_known(kept.table().clone()))
    };
    let mut live = resumed(&kept);
    assert_eq!(freshness(&live), Some(Freshness::Live));
    let nothing_missed = "= complete (nothing was missed)";
    assert_eq!(lines(&mut live, QUIET).await, [nothing_missed]);

    // An outage that is still ahead of the position is reported once.
    let mut behind = resumed(&kept);
    world.change(|w| {
        w.opens.extend((0..1_000).map(|_| refused()));
        w.reported.push_back(Reported::Break);
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut late = resumed(&kept);
    for changes in [&mut behind, &mut late, &mut kept] {
        let seen = lines(changes, Duration::from_secs(1)).await;
        assert_eq!(seen.iter().filter(|line| line.starts_with("! offline")).count(), 1, "{seen:?}");
    }
    // One that began before the position as well.
    let mut down = resumed(&kept);
    assert_eq!(lines(&mut down, Duration::from_secs(1)).await, ["! offline: severed"]);
    assert_eq!(down.table().len(), 1, "the rows are still those that were known");
    world.change(|w| w.opens.clear());
    assert_eq!(lines(&mut down, LONG).await.last().unwrap(), "= complete (the link was down)");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_goes_on_during_a_replay_or_through_a_layer_has_a_first_item() {
    let world = World::default();
    let driver = world.driver();
    let mut kept = open(&driver, &WatchOptions::default());
    lines(&mut kept, QUIET).await;
    world.change(|w| w.start("a"));
    lines(&mut kept, QUIET).await;
    world.change(|w| {
        w.opens.push_back(Ok(Opened::Resumed));
        w.reported.push_back(Reported::Close); // and the replay has no end yet
    });
    let nothing_missed = "= complete (nothing was missed)";
    assert_eq!(lines(&mut kept, QUIET).await.last().unwrap(), "! online: the missed steps follow");
    assert_eq!(freshness(&kept), Some(Freshness::Replaying));
    world.change(|w| w.start("b"));
    assert_eq!(lines(&mut kept, QUIET).await, ["+ b is running"]);
    assert_eq!(freshness(&kept), Some(Freshness::Replaying), "until the replay is through");
    let position = kept.table().position(&"test".into()).unwrap().0.clone();
    let options = WatchOptions::default().with_from(position).with_known(kept.table().clone());
    let mut resumed = open(&driver, &options);
    let mut layered = TransitionStream::new(driver.watch(options.clone()).unwrap().layered(|events| events), &options);
    for changes in [&mut resumed, &mut layered] {
        assert_eq!(freshness(changes), Some(Freshness::Replaying));
        assert_eq!(lines(changes, QUIET).await, [""; 0]);
    }
    let mut behind = open(&driver, &options);
    world.change(|w| w.report(SignalBody::CaughtUp)); // the comparison finds nothing
    let mut late = open(&driver, &options); // the end is ahead of its position
    for changes in [&mut kept, &mut resumed, &mut layered, &mut behind, &mut late] {
        assert_eq!(lines(changes, LONG).await, [nothing_missed]);
        assert_eq!(freshness(changes), Some(Freshness::Live));
    }
    let position = kept.table().position(&"test".into()).unwrap().0.clone();
    let options = WatchOptions::default().with_from(position).with_known(kept.table().clone());
    let mut live = TransitionStream::new(driver.watch(options.clone()).unwrap().layered(|events| events), &options);
    assert_eq!(freshness(&live), Some(Freshness::Live));
    assert_eq!(lines(&mut live, QUIET).await, [nothing_missed]);
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_breaks_off_or_loses_something_is_never_synced_by_itself() {
    let world = World::default();
    let driver = world.driver();
    let mut changes = open(&driver, &WatchOptions::default());
    lines(&mut changes, QUIET).await;
    world.change(|w| w.start("a"));
    lines(&mut changes, QUIET).await;
    let position = changes.table().position(&"test".into()).unwrap().0.clone();
    let options = WatchOptions::default().with_from(position).with_known(changes.table().clone());
    world.change(|w| {
        w.opens.extend([Ok(Opened::Resumed), Ok(Opened::Resumed)]);
        w.reported.push_back(Reported::Close);
    });
    assert_eq!(lines(&mut changes, QUIET).await.last().unwrap(), "! online: the missed steps follow");
    let in_replay = changes.table().position(&"test".into()).unwrap().0.clone();
    let within = WatchOptions::default().with_from(in_replay).with_known(changes.table().clone());
    world.change(|w| {
        w.start("b");
        w.reported.push_back(Reported::Break);
        w.report(SignalBody::Lost(Gap::Undecodable));
    });
    let expected = ["+ b is running", "! offline: severed", "! online: the missed steps follow"];
    let seen = lines(&mut changes, LONG).await;
    assert_eq!(seen[..3], expected);
    assert_eq!(seen[3..], ["= complete (a message could not be read)"]);

    // Positions before the outage, and within the first replay: what the ring has says which of them was synced.
    let mut before = open(&driver, &options);
    assert_eq!(
        lines(&mut before, QUIET).await[..2],
        ["= complete (nothing was missed)", "! offline: the runtime closed the stream"]
    );
    let mut resumed = open(&driver, &within);
    let again = lines(&mut resumed, QUIET).await;
    assert_eq!(again[..3], expected, "no `Synced` before the replay that broke off");
    assert!(again.len() == 4 && again[3].starts_with("= complete ("), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_filter_is_for_the_steps_and_the_table_and_removes_nothing() {
    let world = World::default();
    world.change(|w| {
        w.put(instance("a", S::Running));
        w.put(instance("b", S::Stopped));
    });
    let driver = world.driver();
    let mut all = open(&driver, &WatchOptions::default());
    lines(&mut all, QUIET).await;
    let running = WatchOptions::default().with_filter(InstanceFilter::default().with_states([S::Running]));
    let mut changes = open(&driver, &running);
    assert_eq!(lines(&mut changes, QUIET).await.len(), 2, "a, and that it is complete");
    world.change(|w| w.die("a", 0));
    assert_eq!(lines(&mut changes, QUIET).await, ["~ a is stopped"]);
    assert!(changes.table().is_empty(), "it does not match any more");
    let lost = |w: &mut State| w.report(SignalBody::Lost(Gap::Undecodable));
    world.change(lost);
    assert_eq!(lines(&mut changes, QUIET * 2).await, ["= complete (a message could not be read)"], "a is not gone");

    // A table of all instances as the known one: those that the filter leaves out are not gone either.
    let from = all.table().position(&"test".into()).unwrap().0.clone();
    let mut resumed = open(&driver, &running.with_from(from).with_known(all.table().clone()));
    let seen = lines(&mut resumed, QUIET * 2).await;
    assert!(seen.iter().all(|line| !line.contains("gone")), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_ceases_to_match_in_a_gap_is_not_gone() {
    let world = World::default();
    world.change(|w| {
        for name in ["a", "b", "d"] {
            w.put(instance(name, S::Running));
        }
        w.put(instance("c", S::Stopped));
    });
    let driver = world.driver();
    let running = InstanceFilter::default().with_states([S::Running]);
    let mut changes = open(&driver, &WatchOptions::default().with_filter(running.clone()));
    let mut one = open(&driver, &WatchOptions::default().with_filter(running.with_ids(["a".into()])));
    assert_eq!(lines(&mut changes, QUIET).await.len(), 4, "a, b, d, and that it is complete");
    assert_eq!(lines(&mut one, QUIET).await.len(), 2);
    world.change(|w| {
        w.put(instance("a", S::Stopped));
        w.there.remove("b");
        w.reported.push_back(Reported::Break);
    });
    let expected = [
        "! offline: severed",
        "! online: a comparison follows",
        "- b is gone (by comparison: the link was down)",
        "~ a is stopped (by comparison: the link was down)",
        "= complete (the link was down)",
    ];
    assert_eq!(lines(&mut changes, LONG).await, expected);
    let of_one: Vec<&str> = expected.into_iter().filter(|line| !line.starts_with('-')).collect();
    assert_eq!(lines(&mut one, LONG).await, of_one);
    let names: Vec<&str> = changes.table().iter().map(|row| row.name.as_str()).collect();
    assert_eq!((names, one.table().len()), (vec!["d"], 0));
    world.change(|w| {
        w.remove("c");
        w.start("a");
    });
    assert_eq!(lines(&mut changes, QUIET).await, ["+ a is running"], "it matches again");
}

#[test]
fn an_event_of_the_link_without_a_token_keeps_the_position_that_can_be_resumed() {
    use crate::{
        event::{Cursor, ResumeToken, RuntimeEvent, RuntimeEventKind as Kind},
        watch::InstanceTable,
    };
    let mut table = InstanceTable::default();
    let event = |seq, token: Option<&str>, kind| {
        let cursor = Cursor::new("e".into(), seq, token.map(ResumeToken::new));
        RuntimeEvent::new("test".into(), cursor, std::time::SystemTime::now(), kind)
    };
    table.apply(&event(1, None, Kind::ResyncBegin { gap: Gap::Initial }));
    table.apply(&event(2, Some("t"), Kind::ResyncEnd(Completeness::Complete)));
    table.apply(&event(3, None, Kind::BackendDisconnected { cause: None }));
    let (position, fresh) = table.position(&"test".into()).unwrap();
    assert_eq!((position.seq, position.native.as_ref().map(ResumeToken::as_str)), (2, Some("t")));
    assert_eq!(fresh, Freshness::Stale);
}

#[test]
fn a_name_from_outside_is_one_harmless_line() {
    let mut hostile = instance("a", S::Running);
    hostile.name = "a\x1b[31m\nb".to_owned();
    let step = crate::watch::Transition {
        cursor: crate::event::Cursor::new("e".into(), 1, None),
        before: None,
        after: Some(hostile.into()),
        evidence: crate::watch::Evidence::Reported,
    };
    assert_eq!(step.to_string(), "+ a?[31m?b is running");
    let mut healthy = instance("a", S::Running);
    healthy.health = Some(crate::instance::Health::Healthy);
    let step = crate::watch::Transition {
        before: Some(instance("a", S::Running).into()),
        after: Some(healthy.into()),
        ..step
    };
    assert_eq!(step.to_string(), "~ a is running, changed: health");
}
