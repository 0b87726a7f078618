//! A store in memory behind the log: the state that a restart keeps. That a crash loses nothing is in the laws.

use std::{
    num::{NonZeroU32, NonZeroU64},
    path::Path,
    sync::Arc,
};

use runtide_core::{
    ErrorKind, Gap,
    store::{
        ApplyOutcome, Document, PageOptions, Precondition, Resource, ResourceRef, Revision, Selector, Since,
        StoreBackend, StoreEvent, StoreWatchOptions,
    },
    wal::{RecordKind, Retention, Wal, WalOptions, WalPurpose, salvage},
};
use runtide_journal::{JournalOptions, JournaledStore};
use runtide_memory::MemoryStore;

type Store = JournaledStore<MemoryStore>;

fn named(name: &str) -> ResourceRef {
    ResourceRef::new("apps", "Deployment", "shop", name).unwrap()
}

fn body(n: u64) -> Document {
    Document::json(format!("{{\"n\":{n}}}"))
}

fn often() -> JournalOptions {
    let small = WalOptions::default().with_segment_bytes(NonZeroU64::new(8 << 10));
    JournalOptions::default().with_wal(small).with_checkpoint_every(NonZeroU64::new(16))
}

fn open(dir: &Path, options: JournalOptions) -> Store {
    JournaledStore::open(dir, MemoryStore::new(), options).unwrap()
}

async fn write(store: &Store, name: &str, n: u64) -> Revision {
    store.apply(&named(name), body(n), Precondition::None).await.unwrap().revision
}

async fn all(store: &Store) -> Vec<Arc<Resource>> {
    store.list(&Selector::all(), PageOptions::default()).await.unwrap().items
}

#[tokio::test]
async fn acknowledged_writes_are_there_again_with_their_revisions() {
    let dir = tempfile::tempdir().unwrap();
    for options in [JournalOptions::default(), often()] {
        let store = open(dir.path(), options.clone());
        for n in 0..100_u64 {
            write(&store, &format!("web{}", n % 7), n).await;
            if n % 10 == 9 {
                store.delete(&named("web3"), Precondition::None).await.unwrap();
            }
        }
        let (before, stats) = (all(&store).await, store.stats().await.unwrap());
        drop(store);
        let store = open(dir.path(), options);
        assert_eq!(all(&store).await, before);
        assert_eq!(store.stats().await.unwrap().revision, stats.revision);
        let again = store.apply(&before[1].reference, before[1].document.clone(), Precondition::None).await.unwrap();
        assert_eq!((again.outcome, again.revision), (ApplyOutcome::Unchanged, before[1].revision));
        assert!(write(&store, "new", stats.revision.0).await > stats.revision);
    }
}

#[tokio::test]
async fn a_watch_resumes_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), JournalOptions::default());
    write(&store, "a", 1).await;
    let place = write(&store, "b", 1).await;
    write(&store, "c", 1).await;
    store.delete(&named("a"), Precondition::None).await.unwrap();
    drop(store);
    let store = open(dir.path(), JournalOptions::default());
    let options = StoreWatchOptions::default().with_since(Since::After(place));
    let mut watch = store.watch(&Selector::all(), options).await.unwrap();
    assert!(matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Added(c) if c.reference == named("c")));
    assert!(
        matches!(watch.next().await.unwrap().unwrap(), StoreEvent::Deleted { reference, .. } if reference == named("a"))
    );
}

#[tokio::test]
async fn the_log_has_the_history_of_a_resource_and_retention_bounds_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), often().with_retention(Retention::default()));
    let first = write(&store, "web", 0).await;
    let gone = store.delete(&named("web"), Precondition::None).await.unwrap().unwrap();
    let third = write(&store, "web", 2).await;
    assert_eq!(store.at(&named("web"), first).await.unwrap().unwrap().document, body(0));
    assert_eq!(store.at(&named("web"), gone).await.unwrap(), None);
    let mut history = store.history(&named("web")).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = history.next().await {
        events.push(event.unwrap().revision());
    }
    assert_eq!(events, [first, gone, third]);
    for n in 0..2_000 {
        write(&store, "other", n).await;
    }
    assert_eq!(store.at(&named("web"), first).await.unwrap_err().kind(), ErrorKind::Expired);
    let now = store.stats().await.unwrap().revision;
    assert_eq!(store.at(&named("web"), now).await.unwrap().unwrap().revision, third);
    let later = store.at(&named("web"), Revision(now.0 + 1)).await.unwrap_err();
    assert_eq!(later.kind(), ErrorKind::Expired);
    let mut history = store.history(&named("web")).await.unwrap();
    let begin = history.next().await.unwrap().unwrap();
    assert!(matches!(begin, StoreEvent::Added(web) if web.revision == third), "the log begins with it");
    drop(store);
    assert_eq!(open(dir.path(), often()).at(&named("web"), now).await.unwrap().unwrap().revision, third);
}

#[tokio::test]
async fn a_restore_is_in_the_log_and_so_are_its_removals() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), often());
    for n in 0..40 {
        write(&store, &format!("web{n}"), n).await;
    }
    let mut snapshot = Vec::new();
    let seal = store.snapshot(&mut snapshot).await.unwrap();
    write(&store, "late", 1).await;
    write(&store, "web5", 77).await;
    let mut watch = store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    watch.next().await.unwrap().unwrap();
    let revision = store.restore(&mut &snapshot[..]).await.unwrap();
    assert!(revision > seal.revision);
    assert_eq!(watch.next().await.unwrap().unwrap(), StoreEvent::Reset { gap: Gap::Restored, revision });
    let before = all(&store).await;
    assert_eq!(before.len(), 40);
    assert!(before.iter().all(|one| one.revision == revision));
    let after = write(&store, "web5", 78).await;
    drop(store);
    let store = open(dir.path(), often());
    assert_eq!(store.get(&named("late"), None).await.unwrap(), None);
    assert_eq!(store.get(&named("web5"), None).await.unwrap().unwrap().revision, after);
    let mut history = store.history(&named("late")).await.unwrap();
    let mut last = None;
    while let Some(event) = history.next().await {
        last = Some(event.unwrap());
    }
    assert_eq!(last, Some(StoreEvent::Deleted { reference: named("late"), revision }));
    // A snapshot that is corrupt changes nothing.
    snapshot[100] ^= 1;
    let before = all(&store).await;
    assert_eq!(store.restore(&mut &snapshot[..]).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(all(&store).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_the_log_and_one_of_them_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), often());
    let first = write(&store, "web", 0).await;
    let writers: Vec<_> = (1..=32_u64)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                write(&store, &format!("own{n}"), n).await;
                store.apply(&named("web"), body(n), Precondition::Is(first)).await.map_err(|error| error.kind())
            })
        })
        .collect();
    let mut won = Vec::new();
    for writer in writers {
        match writer.await.unwrap() {
            Ok(applied) => won.push(applied.revision),
            Err(kind) => assert_eq!(kind, ErrorKind::Conflict),
        }
    }
    assert_eq!(won.len(), 1);
    let before = all(&store).await;
    assert_eq!(before.len(), 33);
    drop(store);
    assert_eq!(all(&open(dir.path(), often())).await, before);
}

#[tokio::test]
async fn pages_and_closing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), often());
    for n in 0..10 {
        write(&store, &format!("web{n}"), n).await;
    }
    let page = store.list(&Selector::all(), PageOptions::default().with_limit(NonZeroU32::new(4))).await.unwrap();
    assert_eq!(page.items.len(), 4);
    assert_eq!(JournaledStore::open(dir.path(), MemoryStore::new(), often()).unwrap_err().kind(), ErrorKind::Conflict);
    store.close().unwrap();
    let late = store.apply(&named("web"), body(1), Precondition::None).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Cancelled);
    assert_eq!(all(&store).await.len(), 10, "reading goes on");
    assert_eq!(all(&open(dir.path(), often())).await.len(), 10);
}

#[tokio::test]
async fn the_store_belongs_to_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let inner = MemoryStore::new();
    inner.apply(&named("before"), body(1), Precondition::None).await.unwrap();
    let mut snapshot = Vec::new();
    inner.snapshot(&mut snapshot).await.unwrap();
    let store = JournaledStore::open(dir.path(), inner.clone(), often()).unwrap();
    assert!(all(&store).await.is_empty(), "it would not be there after the next opening");
    let past_it = inner.apply(&named("web"), body(1), Precondition::None).await.unwrap_err();
    assert_eq!(past_it.kind(), ErrorKind::Conflict);
    assert_eq!(inner.delete(&named("web"), Precondition::None).await.unwrap(), None, "that would change nothing");
    assert_eq!(inner.restore(&mut &snapshot[..]).await.unwrap_err().kind(), ErrorKind::Conflict);
    write(&store, "web", 1).await;
    assert!(inner.get(&named("web"), None).await.unwrap().is_some());
}

#[tokio::test]
async fn another_program_cannot_lock_a_store_out() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, mended) = (dir.path().join("store"), dir.path().join("mended"));
    let store = open(&folder, often());
    for n in 0..40 {
        write(&store, &format!("web{}", n % 7), n).await;
    }
    let before = all(&store).await;
    drop(store);
    let error = Wal::open(&folder, WalOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.message().contains("belongs to a store"), "{error}");
    assert_eq!(all(&open(&folder, often())).await, before);
    // As an older version let any program do it: the store is locked out, and salvage brings it back.
    let wal = Wal::open(&folder, WalOptions::default().with_purpose(WalPurpose::Store)).unwrap();
    wal.append_blocking(RecordKind(2), b"foreign").unwrap();
    wal.close().unwrap();
    let error = JournaledStore::open(&folder, MemoryStore::new(), often()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.message().contains("salvage"), "{error}");
    let report = salvage(&folder, &mended).unwrap();
    assert_eq!((report.foreign, report.lost.len()), (1, 0));
    let store = open(&mended, often());
    assert_eq!(all(&store).await, before);
    write(&store, "new", 1).await;
}
