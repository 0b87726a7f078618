//! Completeness of what a resync shows: of a listing that could not read everything, until one could.

use std::{num::NonZeroUsize, time::Duration};

use super::world::*;
use crate::{
    completeness::Completeness,
    error::ErrorKind,
    event::{Cursor, Gap, RuntimeEventKind},
    instance::InstanceState as S,
    options::{Detail, WatchOptions},
    watch::{Change, Driver, DriverOptions, InstanceTable, Listing, Opened, SignalBody, TransitionStream, first_match},
};

fn partial(world: &World) {
    world.change(|w| {
        w.partial = true;
        w.put(instance("a", S::Running));
    });
}

fn completeness(change: Change) -> Completeness {
    match change {
        Change::Synced { completeness, .. } => completeness,
        other => panic!("{other}"),
    }
}

async fn lines(changes: &mut TransitionStream, quiet: Duration) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(Some(change)) = tokio::time::timeout(quiet, changes.next()).await {
        lines.push(change.unwrap().to_string());
    }
    lines
}

fn open(driver: &Driver, options: &WatchOptions) -> TransitionStream {
    TransitionStream::new(driver.watch(options.clone()).unwrap(), options)
}

#[tokio::test(start_paused = true)]
async fn a_partial_listing_is_marked_until_one_is_complete_though_nothing_differs() {
    let world = World::default();
    partial(&world);
    let driver = world.driver();
    let mut changes = open(&driver, &WatchOptions::default());
    changes.next().await.unwrap().unwrap();
    let synced = changes.next().await.unwrap().unwrap();
    assert_eq!(synced.to_string(), "= partial (the watch begins), not read: no number");
    let known = completeness(synced);
    assert_eq!(known.failures()[0].message, "no number");
    assert_eq!(changes.table().completeness(&"test".into()), &known);
    assert_eq!(lines(&mut changes, LONG).await, [""; 0], "said once");

    // From the cache, as that listing left it.
    let mut late = driver.watch(WatchOptions::default()).unwrap();
    assert_eq!(briefs(&mut late, QUIET).await, ["resync_begin Initial", "present a", "resync_end partial"]);

    world.change(|w| w.partial = false);
    let seen = briefs(&mut late, LONG).await;
    assert_eq!(seen, ["resync_begin PartialListing", "present a", "resync_end"]);
    assert_eq!(lines(&mut changes, LONG).await, ["= complete (a listing was partial)"]);
    assert!(changes.table().completeness(&"test".into()).is_complete());
    let mut last = driver.watch(WatchOptions::default()).unwrap();
    assert_eq!(briefs(&mut last, QUIET).await.last().unwrap(), "resync_end");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_lags_is_told_what_the_rows_lack() {
    let world = World::default();
    partial(&world);
    let driver = world.driver_with(DriverOptions::default().with_ring(NonZeroUsize::new(8)));
    let mut slow = driver.watch(WatchOptions::default()).unwrap();
    assert_eq!(briefs(&mut slow, QUIET).await.last().unwrap(), "resync_end partial");
    for n in 0..20 {
        world.change(|w| w.start(&format!("i{n}")));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seen = briefs(&mut slow, QUIET).await;
    assert!(seen[0].starts_with("resync_begin Lagged"), "{seen:?}");
    assert_eq!(seen.last().unwrap(), "resync_end partial");
}

#[tokio::test(start_paused = true)]
async fn rows_stay_complete_where_the_stream_reports_what_comes() {
    let world = World::default();
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    world.change(|w| {
        w.partial = true;
        w.opens.push_back(Ok(Opened::Resumed));
        w.reported.push_back(Reported::Close);
        w.start("a");
        w.report(SignalBody::CaughtUp); // and the comparison that follows is partial
    });
    let seen = briefs(&mut stream, LONG).await;
    assert_eq!(seen, ["disconnected closed", "reconnected Resumed", "started a", "caught_up"]);
    let mut late = driver.watch(WatchOptions::default()).unwrap();
    assert_eq!(briefs(&mut late, QUIET).await.last().unwrap(), "resync_end");
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_polled_says_that_it_cannot_read_everything_any_more() {
    let world = World { hints_only: true, ..World::default() };
    let driver = world.driver();
    let mut stream = watch(&driver).await;
    let poll = |failures: usize| {
        let failure = crate::error::Failure::new(ErrorKind::PermissionDenied, "test.list", "a namespace was refused");
        world.change(|w| w.report(SignalBody::Full(Listing::new(Vec::new(), vec![failure; failures]))));
    };
    let polled = async |failures: usize| {
        poll(failures);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    polled(1).await;
    polled(0).await;
    assert_eq!(briefs(&mut stream, QUIET).await, [""; 0], "an item that was being written");
    for _ in 0..3 {
        polled(1).await;
    }
    assert_eq!(briefs(&mut stream, QUIET).await, ["resync_begin PartialListing", "resync_end partial"], "once");
    polled(0).await;
    assert_eq!(briefs(&mut stream, QUIET).await, ["resync_begin PartialListing", "resync_end"]);
}

/// The table of a watch that was closed, at its position.
async fn table_of_an_earlier_process(world: &World) -> (Cursor, InstanceTable) {
    let mut table = InstanceTable::default();
    let driver = world.driver();
    let mut stream = driver.watch(WatchOptions::default()).unwrap();
    world.change(|w| w.start("a"));
    for event in until_quiet(&mut stream, QUIET).await {
        table.apply(&event);
    }
    driver.close().await;
    (table.position(&"test".into()).unwrap().0.clone(), table)
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_resumed_brings_its_completeness_along() {
    let older = |table: &InstanceTable| {
        let mut stored = serde_json::to_value(table).unwrap();
        stored.as_object_mut().unwrap().remove("completeness");
        serde_json::from_value(stored).unwrap()
    };
    let resume = [
        (false, false, vec!["= complete (nothing was missed)"]),
        // A table of an earlier version is not known to be complete, and becomes so with the first listing that is.
        (true, false, vec!["= perhaps partial (nothing was missed)", "= complete (a listing was partial)"]),
        (true, true, vec!["= perhaps partial (nothing was missed)"]),
    ];
    for (is_older, partial, expected) in resume {
        let world = World::default();
        let (from, table) = table_of_an_earlier_process(&world).await;
        let table: InstanceTable = if is_older { older(&table) } else { table };
        world.change(|w| {
            w.partial = partial;
            w.report(SignalBody::CaughtUp);
            w.opens.push_back(Ok(Opened::Resumed));
        });
        let driver = world.driver();
        let mut changes = open(&driver, &WatchOptions::default().with_from(from).with_known(table));
        let seen = lines(&mut changes, LONG).await;
        assert_eq!(seen[0], "! online: the missed steps follow");
        assert_eq!(seen[1..], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_takes_absence_from_a_partial_listing_for_unknown() {
    let world = World::default();
    partial(&world);
    let driver = world.driver();
    let _kept = watch_partial(&driver).await;
    let (id, mut why) = ("b".into(), None);
    {
        let stream = driver.watch(WatchOptions::default()).unwrap();
        let waited = first_match(stream, &id, |_| true, &mut why);
        assert!(tokio::time::timeout(QUIET, waited).await.is_err(), "it may be there");
    }
    assert_eq!(why.as_deref(), Some("the listing was partial, and does not show the instance: no number"));
    world.change(|w| w.partial = false);
    let stream = driver.watch(WatchOptions::default()).unwrap();
    let error = first_match(stream, &id, |_| true, &mut why).await.unwrap_err();
    assert_eq!((error.kind(), why), (ErrorKind::NotFound, None));
}

/// Keeps the run alive, so that later subscribers are served from its rows.
async fn watch_partial(driver: &Driver) -> crate::watch::EventStream {
    let mut stream = driver.watch(WatchOptions::default().with_detail(Detail::Summary)).unwrap();
    let events = until_quiet(&mut stream, QUIET).await;
    assert!(matches!(&events.last().unwrap().kind, RuntimeEventKind::ResyncEnd(known) if !known.is_complete()));
    stream
}

#[test]
fn the_text_of_a_failure_is_one_harmless_line() {
    let failure = |text: &str| crate::error::Failure::new(ErrorKind::Protocol, "test.list", text);
    let known = Completeness::Partial(vec![failure("a\x1b[31m\nb"), failure("c")]);
    let synced = Change::Synced { gap: Some(Gap::Initial), completeness: known };
    assert_eq!(synced.to_string(), "= partial (the watch begins), not read: a?[31m?b, and others");
}
