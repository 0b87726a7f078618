//! Gets, lists, counts, snapshots.

use std::{num::NonZeroU32, sync::Arc};

use runtide_core::{
    ErrorKind, Gap,
    store::{
        PageOptions, PageToken, Precondition, ResourceRef, Revision, Selector, Since, StoreBackend, StoreEvent,
        StoreSnapshotReader, StoreWatchOptions,
    },
};
use runtide_etcd::EtcdStore;

use super::{
    cluster::{Cluster, soon},
    json, named, next, next_change, shared, shared_config,
};

fn of_kind(kind: &str, namespace: Option<&str>, name: &str) -> ResourceRef {
    ResourceRef::new("apps", kind, namespace, name).unwrap()
}

async fn all(store: &EtcdStore, selector: &Selector, limit: u32) -> (Vec<String>, Vec<Revision>) {
    let mut options = PageOptions::default().with_limit(NonZeroU32::new(limit));
    let (mut names, mut revisions) = (Vec::new(), Vec::new());
    loop {
        let page = store.list(selector, options.clone()).await.unwrap();
        names.extend(page.items.iter().map(|item| item.reference.to_string()));
        revisions.push(page.revision);
        let Some(next) = page.next else { return (names, revisions) };
        options = options.with_after(Some(next));
    }
}

#[tokio::test]
async fn a_selection_is_the_same_however_it_is_cut() {
    let Some(store) = shared() else { return };
    let mut references = Vec::new();
    for kind in ["A", "AB", "B"] {
        for namespace in [None, Some("x"), Some("xy")] {
            for name in ["n", "n1", "n:1"] {
                references.push(of_kind(kind, namespace, name));
            }
        }
    }
    references.push(ResourceRef::new("", "A", None, "n").unwrap());
    references.push(ResourceRef::new("apps.x", "A", "x", "n").unwrap());
    for reference in &references {
        store.apply(reference, json("{}"), Precondition::None).await.unwrap();
    }
    references.sort();
    for selector in [
        Selector::all(),
        Selector::all().with_group("apps"),
        Selector::all().with_group(""),
        Selector::all().with_group("apps").with_kind("A"),
        Selector::all().with_group("apps").with_kind("A").with_namespace("x"),
        Selector::all().with_group("apps").with_kind("A").with_namespace(""),
        Selector::all().with_kind("A"),
        Selector::all().with_name("n"),
        Selector::only(&references[4]),
        Selector::all().with_group("nobody"),
        Selector::all().with_group("apps/A"),
    ] {
        let expected: Vec<String> =
            references.iter().filter(|one| selector.names(one)).map(ToString::to_string).collect();
        for limit in [1, 2, 5, 1000] {
            let (names, revisions) = all(&store, &selector, limit).await;
            assert_eq!(names, expected, "{selector:?} by {limit}");
            assert!(revisions.windows(2).all(|two| two[0] == two[1]), "{revisions:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_are_paged_at_one_revision_while_others_write() {
    const COUNT: usize = 10_000;
    let Some(config) = shared_config() else { return };
    let store = Arc::new(EtcdStore::new(config.clone()).unwrap());
    // By way of a snapshot, which is quicker than one by one.
    let mut bytes = Vec::new();
    let mut writer = runtide_core::store::StoreSnapshotWriter::begin(&mut bytes, Revision(1), COUNT as u64);
    for n in 0..COUNT {
        let resource = runtide_core::store::Resource::new(named(&format!("n{n:05}")), json("{\"a\":1}"), Revision(1));
        writer.put(&resource).await.unwrap();
    }
    writer.seal().await.unwrap();
    store.restore(&mut &bytes[..]).await.unwrap();
    assert_eq!(store.stats().await.unwrap().resource_count, COUNT as u64);

    let first = store.list(&Selector::all(), PageOptions::default()).await.unwrap();
    assert_eq!(first.items.len(), 1000);
    for n in (0..COUNT).step_by(500) {
        store.delete(&named(&format!("n{n:05}")), Precondition::None).await.unwrap().unwrap();
        store.apply(&named(&format!("m{n:05}")), json("{}"), Precondition::None).await.unwrap();
    }
    let mut names: Vec<String> = first.items.iter().map(|item| item.reference.name().to_owned()).collect();
    let mut after = first.next;
    // Another client goes on where this one was.
    let other = EtcdStore::new(config).unwrap();
    while let Some(token) = after.take() {
        let page = other.list(&Selector::all(), PageOptions::default().with_after(Some(token))).await.unwrap();
        assert_eq!(page.revision, first.revision);
        names.extend(page.items.iter().map(|item| item.reference.name().to_owned()));
        after = page.next;
    }
    assert!(names.into_iter().eq((0..COUNT).map(|n| format!("n{n:05}"))));
}

#[tokio::test]
async fn a_token_that_is_not_this_stores_is_refused() {
    let Some(store) = shared() else { return };
    let other = shared().unwrap();
    let two = PageOptions::default().with_limit(NonZeroU32::new(1));
    for store in [&store, &other] {
        for name in ["a", "b"] {
            store.apply(&named(name), json("{}"), Precondition::None).await.unwrap();
        }
    }
    let foreign = other.list(&Selector::all(), two.clone()).await.unwrap().next.unwrap();
    let own = store.list(&Selector::all(), two.clone()).await.unwrap().next.unwrap();
    let ahead = own.as_str().replacen("etcd1:", "etcd1:9", 1);
    for token in [foreign, PageToken::from("nonsense"), PageToken::from(""), PageToken::from(ahead)] {
        let error = store.list(&Selector::all(), two.clone().with_after(Some(token.clone()))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{token}: {error:?}");
    }
    assert!(store.list(&Selector::all(), two.with_after(Some(own))).await.is_ok());
}

#[tokio::test]
async fn a_listing_that_is_compacted_under_way_has_expired() {
    let Some(cluster) = Cluster::one() else { return };
    let store = cluster.store();
    for name in ["a", "b", "c"] {
        store.apply(&named(name), json("{}"), Precondition::None).await.unwrap();
    }
    let page = store.list(&Selector::all(), PageOptions::default().with_limit(NonZeroU32::new(1))).await.unwrap();
    assert_eq!(store.stats().await.unwrap().oldest, Revision(1), "nothing was compacted yet");
    let last = store.apply(&named("a"), json("[]"), Precondition::None).await.unwrap().revision;
    cluster.raw(0).await.compact(last.0).await.unwrap();
    let error = store.list(&Selector::all(), PageOptions::default().with_after(page.next)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Expired, "{error:?}");
    assert_eq!(store.stats().await.unwrap().oldest, last);
    assert_eq!(store.stats().await.unwrap().oldest, last, "and it is remembered");
}

#[tokio::test]
async fn a_snapshot_is_restored_by_another_store_and_every_watcher_is_reset() {
    let Some(from) = shared() else { return };
    let to = shared().unwrap();
    for n in 0..250 {
        from.apply(&named(&format!("n{n:03}")), json(&n.to_string()), Precondition::None).await.unwrap();
    }
    let mut bytes = Vec::new();
    let seal = from.snapshot(&mut bytes).await.unwrap();
    assert_eq!((seal.count, seal.revision), (250, from.stats().await.unwrap().revision.min(seal.revision)));
    let mut source = &bytes[..];
    let mut reader = StoreSnapshotReader::begin(&mut source).await.unwrap();
    while reader.next().await.unwrap().is_some() {}
    assert_eq!(reader.seal(), Some(seal));

    let before = to.apply(&named("old"), json("{}"), Precondition::None).await.unwrap().revision;
    let mut stream = to.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    assert!(matches!(next(&mut stream).await, StoreEvent::Bookmark { .. }));
    let restored = to.restore(&mut &bytes[..]).await.unwrap();
    assert!(restored > before);
    let reset = next_change(&mut stream).await;
    assert_eq!(reset, StoreEvent::Reset { gap: Gap::Restored, revision: restored });
    for n in 0..250 {
        let StoreEvent::Added(resource) = next(&mut stream).await else { panic!("{n} is missing") };
        assert_eq!((resource.reference.name(), &resource.document), (&*format!("n{n:03}"), &json(&n.to_string())));
        assert!(before < resource.revision && resource.revision <= restored, "every one is written again");
    }
    assert_eq!(next(&mut stream).await, StoreEvent::Bookmark { revision: restored });
    let after = to.apply(&named("n000"), json("new"), Precondition::None).await.unwrap();
    let StoreEvent::Modified(resource) = next_change(&mut stream).await else { panic!("the stream goes on") };
    assert_eq!(resource.revision, after.revision);
    assert_eq!(to.get(&named("old"), None).await.unwrap(), None);
    assert_eq!(to.stats().await.unwrap().resource_count, 250);

    // A position before the restore has expired, and the oldest one is that of the restore.
    assert_eq!(to.stats().await.unwrap().oldest, restored);
    let options = |after: Revision| StoreWatchOptions::default().with_since(Since::After(after));
    let error = to.watch(&Selector::all(), options(before)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Expired, "{error:?}");
    let mut late = to.watch(&Selector::all(), options(restored)).await.unwrap();
    assert_eq!(next_change(&mut late).await.revision(), after.revision);
}

#[tokio::test]
async fn a_restore_into_a_store_that_was_never_written_resets_watchers_as_well() {
    let Some(from) = shared() else { return };
    from.apply(&named("a"), json("{}"), Precondition::None).await.unwrap();
    let mut bytes = Vec::new();
    from.snapshot(&mut bytes).await.unwrap();
    let to = shared().unwrap();
    let mut stream = to.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    let restored = to.restore(&mut &bytes[..]).await.unwrap();
    assert_eq!(next_change(&mut stream).await, StoreEvent::Reset { gap: Gap::Restored, revision: restored });
    assert!(matches!(next(&mut stream).await, StoreEvent::Added(_)));
    assert_eq!(next(&mut stream).await, StoreEvent::Bookmark { revision: restored });
}

#[tokio::test]
async fn a_corrupt_snapshot_changes_nothing_and_leaves_nothing() {
    let Some(cluster) = Cluster::one() else { return };
    let store = cluster.store();
    for n in 0..300 {
        store.apply(&named(&format!("n{n:03}")), json("{\"some\":\"body\"}"), Precondition::None).await.unwrap();
    }
    let mut bytes = Vec::new();
    store.snapshot(&mut bytes).await.unwrap();
    let mut stream = store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    assert!(matches!(next(&mut stream).await, StoreEvent::Bookmark { .. }));
    let keys = async || cluster.raw(0).await.keys().await;
    let there = keys().await;
    let flipped = |at: usize| {
        let mut corrupt = bytes.clone();
        corrupt[at] ^= 1;
        corrupt
    };
    for corrupt in [
        bytes[..bytes.len() - 1].to_vec(),
        bytes[..bytes.len() / 2].to_vec(),
        flipped(bytes.len() - 40),
        flipped(bytes.len() / 2),
        flipped(0),
        Vec::new(),
        [&bytes[..], b"x"].concat(),
    ] {
        let error = store.restore(&mut &corrupt[..]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert_eq!(keys().await, there);
    }
    let last = store.apply(&named("n000"), json("[]"), Precondition::None).await.unwrap().revision;
    assert_eq!(next_change(&mut stream).await.revision(), last, "the watcher heard of nothing");

    // The remains of a restore that died half-way are removed by the next.
    let raw = cluster.raw(0).await;
    raw.put("/runtide/data/00dead/apps/Deployment/shop/x", "x").await;
    raw.put("/runtide/restoring/00dead", "").await;
    store.restore(&mut &bytes[..]).await.unwrap();
    let left = keys().await;
    assert_eq!(left.len(), there.len(), "{left:?}");
    assert!(!left.iter().any(|key| key.contains("dead")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restores_at_once_leave_one_of_them_whole() {
    let Some(config) = shared_config() else { return };
    let store = Arc::new(EtcdStore::new(config).unwrap());
    let mut snapshots = Vec::new();
    for body in ["1", "2", "3"] {
        let mut bytes = Vec::new();
        let mut writer = runtide_core::store::StoreSnapshotWriter::begin(&mut bytes, Revision(1), 500);
        for n in 0..500 {
            let resource = runtide_core::store::Resource::new(named(&format!("n{n:03}")), json(body), Revision(1));
            writer.put(&resource).await.unwrap();
        }
        writer.seal().await.unwrap();
        snapshots.push(bytes);
    }
    let restores: Vec<_> = snapshots
        .into_iter()
        .map(|bytes| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.restore(&mut &bytes[..]).await })
        })
        .collect();
    let mut done = 0;
    for restore in restores {
        match restore.await.unwrap() {
            Ok(_) => done += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
        }
    }
    assert!(done >= 1);
    let page = store.list(&Selector::all(), PageOptions::default()).await.unwrap();
    assert_eq!(page.items.len(), 500);
    assert!(page.items.iter().all(|item| item.document == page.items[0].document), "of one of them, all");
}

#[tokio::test]
async fn a_snapshot_larger_than_the_buffer_is_all_there_or_not_at_all() {
    let Some(cluster) = Cluster::one() else { return };
    let store = cluster.store();
    let body = |n: usize| json(&format!("\"{}{n:02}\"", "x".repeat(1 << 20)));
    let mut bytes = Vec::new();
    let mut writer = runtide_core::store::StoreSnapshotWriter::begin(&mut bytes, Revision(1), 20);
    for n in 0..20 {
        writer
            .put(&runtide_core::store::Resource::new(named(&format!("n{n:02}")), body(n), Revision(1)))
            .await
            .unwrap();
    }
    writer.seal().await.unwrap();
    let before = store.apply(&named("old"), json("{}"), Precondition::None).await.unwrap().revision;
    let options = StoreWatchOptions::default().with_since(Since::After(before));
    let mut stream = store.watch(&Selector::all(), options).await.unwrap();
    let mut corrupt = bytes.clone();
    let last = corrupt.len() - 1;
    corrupt[last] ^= 1;
    assert_eq!(store.restore(&mut &corrupt[..]).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let keys = cluster.raw(0).await.keys().await;
    assert_eq!(keys.len(), 2, "the pointer and what was there: {keys:?}");
    let next = store.apply(&named("old"), json("[]"), Precondition::Is(before)).await.unwrap().revision;
    assert_eq!(next_change(&mut stream).await.revision(), next);

    let restored = store.restore(&mut &bytes[..]).await.unwrap();
    assert_eq!(next_change(&mut stream).await, StoreEvent::Reset { gap: Gap::Restored, revision: restored });
    for n in 0..20 {
        let StoreEvent::Added(resource) = super::next(&mut stream).await else { panic!("{n} is missing") };
        assert_eq!(resource.document, body(n));
    }
    let mut again = Vec::new();
    assert_eq!(store.snapshot(&mut again).await.unwrap().count, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_set_back_to_a_backup_is_followed_there() {
    let Some(mut cluster) = Cluster::one() else { return };
    let store = cluster.store();
    let first = store.apply(&named("a"), json("1"), Precondition::None).await.unwrap().revision;
    let backup = cluster.folder().join("backup.db");
    let mut file = tokio::fs::File::create(&backup).await.unwrap();
    store.maintenance_snapshot(&mut file).await.unwrap();
    let mut bytes = Vec::new();
    store.snapshot(&mut bytes).await.unwrap();
    // Another generation, which the backup does not have.
    store.restore(&mut &bytes[..]).await.unwrap();
    let lost = store.apply(&named("a"), json("2"), Precondition::None).await.unwrap().revision;
    let options = StoreWatchOptions::default().with_since(Since::After(lost));
    let mut stream = store.watch(&Selector::all(), options.clone()).await.unwrap();
    tokio::task::block_in_place(|| cluster.set_back(&backup));
    let got = store.get(&named("a"), None).await.unwrap().unwrap();
    assert_eq!((got.revision, &got.document), (first, &json("1")));
    let reset = next_change(&mut stream).await;
    assert!(matches!(reset, StoreEvent::Reset { gap: Gap::HistoryExpired, .. }), "{reset:?}");
    assert!(matches!(next(&mut stream).await, StoreEvent::Added(resource) if resource.revision == first));
    let error = store.watch(&Selector::all(), options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Expired, "{error:?}");
    let again = store.apply(&named("a"), json("3"), Precondition::Is(first)).await.unwrap().revision;
    assert_eq!(next_change(&mut stream).await.revision(), again);
}

#[tokio::test]
async fn etcds_own_snapshot_is_one_that_etcdctl_takes() {
    let Some(cluster) = Cluster::one() else { return };
    let store = cluster.store();
    store.apply(&named("a"), json("{}"), Precondition::None).await.unwrap();
    let path = cluster.folder().join("snapshot.db");
    let mut file = tokio::fs::File::create(&path).await.unwrap();
    let size = store.maintenance_snapshot(&mut file).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
    let status = tokio::process::Command::new("etcdctl")
        .args(["snapshot", "restore", path.to_str().unwrap(), "--data-dir"])
        .arg(cluster.folder().join("restored"))
        .env("ETCDCTL_API", "3")
        .output();
    let status = soon("etcdctl", status).await.unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
}
