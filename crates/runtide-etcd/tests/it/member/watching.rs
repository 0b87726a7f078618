//! The events of a watch.

use std::time::Duration;

use runtide_core::{
    ErrorKind, Gap, LabelMatch, SlowConsumer,
    store::{Precondition, Revision, Selector, Since, StoreBackend, StoreEvent, StoreWatchOptions},
};
use runtide_etcd::EtcdStore;

use super::{
    cluster::{Cluster, Setup, soon},
    json, named, next, next_change, shared,
};

fn since(since: Since) -> StoreWatchOptions {
    StoreWatchOptions::default().with_since(since)
}

#[tokio::test]
async fn a_watch_begins_at_the_requested_position() {
    let Some(store) = shared() else { return };
    let mut empty = store.watch(&Selector::all(), since(Since::Start)).await.unwrap();
    assert!(matches!(next(&mut empty).await, StoreEvent::Reset { gap: Gap::Initial, .. }));
    let StoreEvent::Bookmark { revision: nothing } = next(&mut empty).await else { panic!("nothing is there") };

    let a = store.apply(&named("a"), json("1"), Precondition::None).await.unwrap().revision;
    let b = store.apply(&named("b"), json("1"), Precondition::None).await.unwrap().revision;
    let a2 = store.apply(&named("a"), json("2"), Precondition::None).await.unwrap().revision;
    let end = store.delete(&named("b"), Precondition::None).await.unwrap().unwrap();

    let expected = |event: StoreEvent, kind: &str, name: &str, revision: Revision| {
        let found = match &event {
            StoreEvent::Added(_) => "added",
            StoreEvent::Modified(_) => "modified",
            StoreEvent::Deleted { .. } => "deleted",
            _ => "neither",
        };
        assert_eq!((found, event.reference(), event.revision()), (kind, Some(&named(name)), revision), "{event:?}");
    };
    for stream in [&mut empty, &mut store.watch(&Selector::all(), since(Since::After(nothing))).await.unwrap()] {
        expected(next_change(stream).await, "added", "a", a);
        expected(next_change(stream).await, "added", "b", b);
        expected(next_change(stream).await, "modified", "a", a2);
        expected(next_change(stream).await, "deleted", "b", end);
    }
    let mut later = store.watch(&Selector::all(), since(Since::After(b))).await.unwrap();
    expected(next_change(&mut later).await, "modified", "a", a2);
    expected(next_change(&mut later).await, "deleted", "b", end);
    let mut only = store.watch(&Selector::only(&named("b")), since(Since::After(a))).await.unwrap();
    expected(next_change(&mut only).await, "added", "b", b);
    expected(next_change(&mut only).await, "deleted", "b", end);

    let mut start = store.watch(&Selector::all(), since(Since::Start)).await.unwrap();
    let reset = next(&mut start).await;
    assert!(matches!(reset, StoreEvent::Reset { gap: Gap::Initial, revision } if revision >= end));
    expected(next(&mut start).await, "added", "a", a2);
    assert_eq!(next(&mut start).await, StoreEvent::Bookmark { revision: reset.revision() });

    let mut now = store.watch(&Selector::all(), since(Since::Now)).await.unwrap();
    assert!(matches!(next(&mut now).await, StoreEvent::Bookmark { revision } if revision >= end));
    let c = store.apply(&named("c"), json("1"), Precondition::None).await.unwrap().revision;
    for stream in [&mut now, &mut start, &mut later, &mut empty] {
        expected(next_change(stream).await, "added", "c", c);
    }
    // A write of the same bytes emits no event.
    store.apply(&named("c"), json("1"), Precondition::None).await.unwrap();
    let c2 = store.apply(&named("c"), json("2"), Precondition::None).await.unwrap().revision;
    for stream in [&mut now, &mut start, &mut later, &mut empty] {
        expected(next_change(stream).await, "modified", "c", c2);
    }
}

#[tokio::test]
async fn a_position_that_is_not_kept_or_not_reached_has_expired() {
    let Some(cluster) = Cluster::one() else { return };
    let store = cluster.store();
    let first = store.apply(&named("a"), json("1"), Precondition::None).await.unwrap().revision;
    let end = store.delete(&named("a"), Precondition::None).await.unwrap().unwrap();
    let last = store.apply(&named("b"), json("1"), Precondition::None).await.unwrap().revision;
    assert!(store.watch(&Selector::all(), since(Since::After(Revision(0)))).await.is_ok());
    for ahead in [Revision(last.0 + 1), Revision(last.0 + 1000), Revision(u64::MAX)] {
        let error = store.watch(&Selector::all(), since(Since::After(ahead))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Expired, "{error:?}");
    }
    // At the very revision of the delete: etcd forgets it, and would let a watch begin there.
    cluster.raw(0).await.compact(end.0).await.unwrap();
    for gone in [Revision(0), first] {
        let error = store.watch(&Selector::all(), since(Since::After(gone))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Expired, "{error:?}");
    }
    let mut stream = store.watch(&Selector::all(), since(Since::After(end))).await.unwrap();
    assert_eq!(next_change(&mut stream).await.revision(), last);
    assert_eq!(store.stats().await.unwrap().oldest, end);
}

/// A watcher that does not read while the store writes more than can wait, and forgets it.
async fn outrun(store: &EtcdStore, cluster: &Cluster) {
    for n in 0..40 {
        let body = format!("\"{}\"", "x".repeat(1 << 20));
        store
            .apply(&named(&format!("n{}", n % 4)), json(&format!("{body}{}", " ".repeat(n))), Precondition::None)
            .await
            .unwrap();
    }
    let last = store.stats().await.unwrap().revision;
    cluster.raw(0).await.compact(last.0).await.unwrap();
}

#[tokio::test]
async fn a_watcher_that_is_too_slow_for_the_history_starts_over_or_is_closed() {
    let Some(cluster) = Cluster::one() else { return };
    let store = cluster.store();
    let mut stays = store.watch(&Selector::all(), since(Since::Now)).await.unwrap();
    let closing = StoreWatchOptions::default().with_slow_consumer(SlowConsumer::Close);
    let mut closed = store.watch(&Selector::all(), closing).await.unwrap();
    outrun(&store, &cluster).await;
    let mut delivered = 0;
    let error = loop {
        match soon("its end", closed.next()).await {
            Some(Ok(event)) => delivered += usize::from(event.reference().is_some()),
            Some(Err(error)) => break error,
            None => panic!("it ends with an error"),
        }
    };
    assert_eq!(error.kind(), ErrorKind::Expired);
    assert!(delivered < 40, "it was not slow");
    assert!(soon("the end", closed.next()).await.is_none());

    let mut last = Revision(0);
    let reset = loop {
        match next(&mut stays).await {
            StoreEvent::Reset { gap, revision } => {
                assert_eq!(gap, Gap::HistoryExpired);
                break revision;
            }
            event => {
                assert!(event.revision() >= last);
                last = event.revision();
            }
        }
    };
    assert!(reset > last);
    for n in 0..4 {
        let StoreEvent::Added(resource) = next(&mut stays).await else { panic!("what is there") };
        assert_eq!(resource.reference, named(&format!("n{n}")));
    }
    assert_eq!(next(&mut stays).await, StoreEvent::Bookmark { revision: reset });
    let after = store.apply(&named("a"), json("1"), Precondition::None).await.unwrap().revision;
    assert_eq!(next_change(&mut stays).await.revision(), after);
}

#[tokio::test]
async fn a_watcher_that_is_slow_gets_all_as_long_as_the_history_lasts() {
    let Some(store) = shared() else { return };
    let mut stream = store.watch(&Selector::all(), since(Since::Now)).await.unwrap();
    let mut revisions = Vec::new();
    for n in 0..3000 {
        revisions.push(store.apply(&named("a"), json(&n.to_string()), Precondition::None).await.unwrap().revision);
    }
    for revision in revisions {
        assert_eq!(next_change(&mut stream).await.revision(), revision);
    }
}

#[tokio::test]
async fn a_quiet_watch_is_marked_as_time_goes_on() {
    let setup = Setup::with(&["--experimental-watch-progress-notify-interval", "200ms"]);
    let Some(cluster) = Cluster::one_with(setup) else { return };
    let config = cluster.config().with_bookmark_interval(Duration::from_millis(100));
    let store = EtcdStore::new(config).unwrap();
    let elsewhere = EtcdStore::new(cluster.config().with_prefix("/elsewhere/")).unwrap();
    store.apply(&named("a"), json("1"), Precondition::None).await.unwrap();
    let mut quiet = store.watch(&Selector::all(), since(Since::Now)).await.unwrap();
    let mut filtered = store.watch(&Selector::only(&named("nobody")), since(Since::Now)).await.unwrap();
    for stream in [&mut quiet, &mut filtered] {
        assert!(matches!(next(stream).await, StoreEvent::Bookmark { .. }));
    }
    let last = elsewhere.apply(&named("a"), json("1"), Precondition::None).await.unwrap().revision;
    for stream in [&mut quiet, &mut filtered] {
        loop {
            let StoreEvent::Bookmark { revision } = next(stream).await else { panic!("nothing happened here") };
            if revision >= last {
                break;
            }
        }
    }
    // A watch can resume at the position of the bookmark.
    cluster.raw(0).await.compact(last.0).await.unwrap();
    let mut on = store.watch(&Selector::all(), since(Since::After(last))).await.unwrap();
    let a = store.apply(&named("a"), json("2"), Precondition::None).await.unwrap().revision;
    assert_eq!(next_change(&mut on).await.revision(), a);
}

/// How many watches the member has.
async fn watches(cluster: &Cluster) -> u64 {
    cluster.metric("etcd_debugging_mvcc_watcher_total ").await
}

#[tokio::test]
async fn a_watch_by_labels_reports_resources_that_enter_and_that_leave() {
    let Some(store) = shared() else { return };
    let labelled = |colour: &str, n: u32| {
        json(&format!("{{\"kind\":\"Thing\",\"metadata\":{{\"labels\":{{\"colour\":\"{colour}\"}}}},\"n\":{n}}}"))
    };
    let red = Selector::all().with_label(LabelMatch::is("colour", "red"));
    let mut stream = store.watch(&red, since(Since::Now)).await.unwrap();
    next(&mut stream).await;
    let write = async |name: &str, colour: &str, n: u32| {
        store.apply(&named(name), labelled(colour, n), Precondition::None).await.unwrap().revision
    };
    let a = write("a", "red", 1).await;
    write("b", "blue", 1).await;
    let b = write("b", "red", 2).await;
    let a2 = write("a", "red", 2).await;
    let a3 = write("a", "blue", 3).await;
    write("a", "blue", 4).await;
    store.delete(&named("a"), Precondition::None).await.unwrap();
    let b2 = store.delete(&named("b"), Precondition::None).await.unwrap().unwrap();
    let mut delivered = Vec::new();
    while delivered.len() < 5 {
        let event = next_change(&mut stream).await;
        let what = match &event {
            StoreEvent::Added(_) => "added",
            StoreEvent::Modified(_) => "modified",
            StoreEvent::Deleted { .. } => "deleted",
            other => panic!("{other:?}"),
        };
        delivered.push((what, event.reference().unwrap().name().to_owned(), event.revision()));
    }
    let expected =
        [("added", "a", a), ("added", "b", b), ("modified", "a", a2), ("deleted", "a", a3), ("deleted", "b", b2)];
    assert!(delivered.iter().map(|(what, name, at)| (*what, name.as_str(), *at)).eq(expected), "{delivered:?}");
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_a_watch_less() {
    let Some(cluster) = Cluster::one() else { return };
    let store = cluster.store();
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = store.watch(&Selector::all(), since(Since::Now)).await.unwrap();
        next(&mut stream).await;
        streams.push(stream);
    }
    let wanted = async |count: u64| {
        while watches(&cluster).await != count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(store.stats().await.unwrap().subscriber_count, 8);
    soon("eight watches", wanted(8)).await;
    streams.truncate(3);
    assert_eq!(store.stats().await.unwrap().subscriber_count, 3);
    soon("three watches", wanted(3)).await;
    drop(streams);
    soon("no watch", wanted(0)).await;
}

#[tokio::test]
async fn a_store_from_which_everything_was_removed_begins_again() {
    let Some(cluster) = Cluster::one() else { return };
    let store = cluster.store();
    let other = cluster.store();
    store.apply(&named("a"), json("1"), Precondition::None).await.unwrap();
    other.apply(&named("b"), json("1"), Precondition::None).await.unwrap();
    let mut stream = store.watch(&Selector::all(), since(Since::Now)).await.unwrap();
    next(&mut stream).await;
    cluster.raw(0).await.must(&["del", "/runtide/", "--prefix"]).await;
    for name in ["a", "b"] {
        let event = next_change(&mut stream).await;
        assert!(matches!(&event, StoreEvent::Deleted { reference, .. } if *reference == named(name)), "{event:?}");
    }
    assert_eq!(store.get(&named("a"), None).await.unwrap(), None);
    let a = store.apply(&named("a"), json("1"), Precondition::Absent).await.unwrap().revision;
    let b = other.apply(&named("b"), json("1"), Precondition::None).await.unwrap().revision;
    for revision in [a, b] {
        assert_eq!(next_change(&mut stream).await.revision(), revision);
    }
}

#[tokio::test]
async fn foreign_data_in_our_keys_is_reported_and_not_guessed_at() {
    let Some(cluster) = Cluster::one() else { return };
    let store = cluster.store();
    store.apply(&named("a"), json("1"), Precondition::None).await.unwrap();
    let mut stream = store.watch(&Selector::all(), since(Since::Now)).await.unwrap();
    next(&mut stream).await;
    let raw = cluster.raw(0).await;
    let generation = raw.value("/runtide/generation").await;
    raw.put(&format!("/runtide/data/{generation}/apps/Deployment/shop/b"), "x").await;
    for error in [
        store.get(&named("b"), None).await.unwrap_err(),
        store.list(&Selector::all(), runtide_core::store::PageOptions::default()).await.unwrap_err(),
        soon("its end", stream.next()).await.unwrap().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(error.to_string().contains("shop/b"));
    }
    assert!(store.get(&named("a"), None).await.unwrap().is_some());
}
