//! Tests particular to the store in memory; the laws have all that it shares with others.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use runtide_core::{
    ErrorKind, Gap,
    store::{
        ApplyOutcome, Document, LocalStore, PageOptions, PlannedChange, Precondition, ResourceFormat, ResourceRef,
        Revision, Selector, Since, StoreBackend, StoreBackendExt, StoreEvent, StoreStream, StoreWatchOptions,
    },
};
use runtide_memory::{MemoryStore, StoreOptions};

fn named(name: &str) -> ResourceRef {
    ResourceRef::new("apps", "Deployment", "shop", name).unwrap()
}

fn body(n: u64) -> Document {
    Document::json(format!("{{\"n\":{n}}}"))
}

async fn write(store: &MemoryStore, name: &str, n: u64) -> Revision {
    store.apply(&named(name), body(n), Precondition::None).await.unwrap().revision
}

async fn next(stream: &mut StoreStream) -> StoreEvent {
    stream.next().await.unwrap().unwrap()
}

fn small(history: usize) -> MemoryStore {
    MemoryStore::with_options(
        StoreOptions::default().with_history(NonZeroUsize::new(history).unwrap()).with_first(Revision(0)),
    )
}

#[tokio::test]
async fn a_watcher_that_falls_behind_gets_the_exact_number_of_missed_changes() {
    let store = small(4);
    let mut watch = store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    assert_eq!(next(&mut watch).await, StoreEvent::Bookmark { revision: Revision(0) });
    for n in 0..7 {
        write(&store, "web", n).await;
    }
    let reset = next(&mut watch).await;
    assert_eq!(reset, StoreEvent::Reset { gap: Gap::Lagged { dropped: 7 }, revision: Revision(7) });
    assert!(matches!(next(&mut watch).await, StoreEvent::Added(web) if web.document == body(6)));
    assert_eq!(next(&mut watch).await, StoreEvent::Bookmark { revision: Revision(7) });
}

#[tokio::test]
async fn changes_in_other_namespaces_neither_wake_a_watcher_nor_make_it_lag() {
    let store = small(4);
    let shop = Selector::all().with_group("apps").with_kind("Deployment").with_namespace("shop");
    let elsewhere = ResourceRef::new("apps", "Deployment", "farm", "web").unwrap();
    let mut watch = store.watch(&shop, StoreWatchOptions::default()).await.unwrap();
    let mut late = store.watch(&shop, StoreWatchOptions::default()).await.unwrap();
    next(&mut watch).await;
    next(&mut late).await;

    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let poll = |watch: &mut StoreStream| pin!(watch.next()).poll(&mut Context::from_waker(&waker)).map(Option::unwrap);
    assert!(poll(&mut watch).is_pending());
    for n in 0..100 {
        store.apply(&elsewhere, body(n), Precondition::None).await.unwrap();
    }
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    write(&store, "web", 1).await;
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(matches!(poll(&mut watch), Poll::Ready(Ok(StoreEvent::Added(web))) if web.document == body(1)));
    assert!(poll(&mut watch).is_pending());

    // A watcher that does not read loses its position only once the history has dropped an event for it.
    for n in 100..103 {
        store.apply(&elsewhere, body(n), Precondition::None).await.unwrap();
    }
    let mut third = store.watch(&shop, StoreWatchOptions::default()).await.unwrap();
    next(&mut third).await;
    assert!(matches!(poll(&mut late), Poll::Ready(Ok(StoreEvent::Added(web))) if web.document == body(1)));
    write(&store, "web", 2).await;
    for n in 103..107 {
        store.apply(&elsewhere, body(n), Precondition::None).await.unwrap();
    }
    for behind in [&mut watch, &mut late, &mut third] {
        let lagged = poll(behind);
        assert!(matches!(lagged, Poll::Ready(Ok(StoreEvent::Reset { gap: Gap::Lagged { .. }, .. }))), "{lagged:?}");
        assert!(matches!(poll(behind), Poll::Ready(Ok(StoreEvent::Added(web))) if web.document == body(2)));
        assert!(matches!(poll(behind), Poll::Ready(Ok(StoreEvent::Bookmark { .. }))));
        assert!(poll(behind).is_pending());
    }
    drop((late, third));

    // All of them get the reset of a restore.
    let mut snapshot = Vec::new();
    store.snapshot(&mut snapshot).await.unwrap();
    store.restore(&mut &snapshot[..]).await.unwrap();
    let restored = poll(&mut watch);
    assert!(matches!(restored, Poll::Ready(Ok(StoreEvent::Reset { gap: Gap::Restored, .. }))), "{restored:?}");
}

/// Counts its wake-ups.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn pages_show_the_store_as_it_was_at_the_first() {
    let store = small(100);
    for name in ["a", "b", "c", "d", "e"] {
        write(&store, name, 1).await;
    }
    let two = PageOptions::default().with_limit(NonZeroU32::new(2));
    let first = store.list(&Selector::all(), two.clone()).await.unwrap();
    store.delete(&named("c"), Precondition::None).await.unwrap();
    write(&store, "d", 2).await;
    write(&store, "bb", 1).await;
    write(&store, "c", 9).await;
    let (mut names, mut page) = (Vec::new(), first.clone());
    loop {
        assert_eq!(page.revision, first.revision);
        names.extend(page.items.iter().map(|item| (item.reference.name().to_owned(), item.document == body(1))));
        let Some(next) = page.next else { break };
        page = store.list(&Selector::all(), two.clone().with_after(next)).await.unwrap();
    }
    let names: Vec<_> = names.iter().map(|(name, same)| (name.as_str(), *same)).collect();
    assert_eq!(names, [("a", true), ("b", true), ("c", true), ("d", true), ("e", true)]);
    let all = store.list_all(&Selector::all(), None).await.unwrap();
    assert_eq!((all.items.len(), all.next), (6, None));
    for n in 0..200 {
        write(&store, "x", n).await;
    }
    let late = store.list(&Selector::all(), two.with_after(first.next)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Expired);
}

#[tokio::test]
async fn a_position_of_an_earlier_run_is_expired() {
    let place = write(&MemoryStore::new(), "web", 1).await;
    let store = MemoryStore::new();
    write(&store, "web", 1).await;
    let options = StoreWatchOptions::default().with_since(Since::After(place));
    assert_eq!(store.watch(&Selector::all(), options).await.unwrap_err().kind(), ErrorKind::Expired);
}

#[tokio::test]
async fn a_prepared_write_counts_and_is_not_seen() {
    let store = small(10);
    let made = store.prepare(&named("web"), Some(body(1)), Precondition::Absent).unwrap();
    assert_eq!((made.change, made.revision), (PlannedChange::Create, Revision(1)));
    assert_eq!(
        store.prepare(&named("web"), Some(body(2)), Precondition::Absent).unwrap_err().kind(),
        ErrorKind::Conflict
    );
    let changed = store.prepare(&named("web"), Some(body(2)), Precondition::Is(Revision(1))).unwrap();
    assert_eq!(store.prepare(&named("web"), Some(body(2)), Precondition::None).unwrap().change, PlannedChange::Nothing);
    assert!(store.get(&named("web"), None).await.unwrap().is_none());
    let mixed = store.apply(&named("other"), body(1), Precondition::None).await.unwrap_err();
    assert_eq!(mixed.kind(), ErrorKind::Conflict, "it would be shown before an earlier decision");
    store.forget(changed);
    store.publish(vec![made]);
    assert_eq!(store.get(&named("web"), None).await.unwrap().unwrap().document, body(1));
    let applied = store.apply(&named("web"), body(1), Precondition::None).await.unwrap();
    assert_eq!((applied.outcome, applied.revision), (ApplyOutcome::Unchanged, Revision(1)));
}

#[tokio::test]
async fn namespaces_that_are_empty_leave_nothing_behind() {
    let store = small(10);
    for n in 0..100 {
        let name = ResourceRef::new("", "Pod", format!("ns{n}").as_str(), "web").unwrap();
        store.apply(&name, body(1), Precondition::None).await.unwrap();
        store.delete(&name, Precondition::None).await.unwrap();
        assert_eq!(store.delete(&name, Precondition::None).await.unwrap(), None);
        store.apply(&name, body(1), Precondition::Is(Revision(1))).await.unwrap_err();
    }
    assert!(!format!("{store:?}").contains("/Pod/ns50/"), "but for the history, which has ten writes");
    assert_eq!(store.stats().await.unwrap().resource_count, 0);
}

#[tokio::test]
async fn watchers_in_another_format_share_the_converted_resource() {
    let store = small(1_000);
    let options = StoreWatchOptions::default().with_format(Some(ResourceFormat::Cbor));
    let none = Selector::default().with_name("absent");
    let mut idle = store.watch(&none, options.clone()).await.unwrap();
    let mut watches = [
        store.watch(&Selector::all(), options.clone()).await.unwrap(),
        store.watch(&Selector::all(), options).await.unwrap(),
    ];
    let mut shown = Vec::new();
    write(&store, "web", 1).await;
    for watch in &mut watches {
        assert!(matches!(next(watch).await, StoreEvent::Bookmark { .. }));
        let StoreEvent::Added(web) = next(watch).await else { panic!("it was added") };
        shown.push(web);
    }
    assert!(shown[0].document.format == ResourceFormat::Cbor && std::sync::Arc::ptr_eq(&shown[0], &shown[1]));
    for n in 0..10_000 {
        write(&store, "web", n).await;
    }
    next(&mut idle).await;
    write(&store, "absent", 1).await;
    let event = loop {
        match next(&mut idle).await {
            StoreEvent::Reset { gap: Gap::Lagged { .. }, .. } | StoreEvent::Bookmark { .. } => {}
            other => break other,
        }
    };
    assert!(matches!(event, StoreEvent::Added(one) if one.reference == named("absent")));
}
