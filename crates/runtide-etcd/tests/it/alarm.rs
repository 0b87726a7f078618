//! Clusters in an alarm: what etcd's own client may still do is done through the store, and the rest says why not.

use runtide_core::{
    Error, ErrorKind,
    store::{
        ApplyOutcome, Document, PageOptions, Precondition, ResourceRef, Revision, Selector, Since, StoreBackend,
        StoreEvent, StoreStream, StoreWatchOptions,
    },
};
use runtide_etcd::EtcdStore;

use crate::cluster::{Cluster, Setup, soon};

fn named(name: &str) -> ResourceRef {
    ResourceRef::new("apps", "Deployment", "shop", name).unwrap()
}

fn json() -> Document {
    Document::json("{}")
}

/// Writes three resources, each twice, so that there is a history.
async fn written(store: &EtcdStore) -> Revision {
    let mut last = Revision(0);
    for name in ["a", "b", "c"] {
        for text in ["[]", "{}"] {
            last = store.apply(&named(name), Document::json(text), Precondition::None).await.unwrap().revision;
        }
    }
    last
}

/// Writes until the quota is used up.
async fn fill(store: &EtcdStore) -> Error {
    let large = Document::json(format!("\"{}\"", "x".repeat(200 << 10)));
    for at in 0..200 {
        match store.apply(&named(&format!("large-{at}")), large.clone(), Precondition::None).await {
            Ok(_) => {}
            Err(error) => return error,
        }
    }
    panic!("the quota is not used up");
}

/// The refusal of a write: at once, and certain to have had no effect.
fn refused<T: std::fmt::Debug>(what: &str, result: Result<T, Error>, kind: ErrorKind) {
    let error = result.expect_err(what);
    assert_eq!((error.kind(), error.fact("outcome")), (kind, None), "{what}: {error:?}");
}

async fn next(stream: &mut StoreStream) -> StoreEvent {
    loop {
        match soon("an event", stream.next()).await.expect("it goes on").expect("an event") {
            StoreEvent::Bookmark { .. } | StoreEvent::Reset { .. } => {}
            event => return event,
        }
    }
}

/// Every way to read.
async fn is_read(store: &EtcdStore, after: Revision) {
    assert_eq!(store.get(&named("a"), None).await.unwrap().unwrap().document, json());
    assert!(store.get(&named("absent"), None).await.unwrap().is_none());
    let page = store.list(&Selector::all().with_name("a"), PageOptions::default()).await.unwrap();
    assert_eq!(page.items.len(), 1);
    assert!(store.stats().await.unwrap().revision >= after);
    let mut snapshot = Vec::new();
    store.snapshot(&mut snapshot).await.unwrap();
    assert!(store.maintenance_snapshot(&mut Vec::new()).await.unwrap() > 0);
    let options = StoreWatchOptions::default().with_since(Since::Start);
    let mut stream = store.watch(&Selector::all().with_name("a"), options).await.unwrap();
    assert!(matches!(next(&mut stream).await, StoreEvent::Added(_)));
    assert_eq!(store.delete(&named("absent"), Precondition::None).await.unwrap(), None);
    // An apply of the same, or against a precondition, is answered without a write; also to a client that knows nothing.
    let same = store.apply(&named("a"), json(), Precondition::None).await.unwrap();
    assert_eq!(same.outcome, ApplyOutcome::Unchanged);
    refused("create", store.apply(&named("a"), Document::json("1"), Precondition::Absent).await, ErrorKind::Conflict);
}

#[tokio::test]
async fn a_cluster_without_space_is_read_and_cleared() {
    let setup = Setup::with(&["--quota-backend-bytes", "1500000"]);
    let Some(cluster) = Cluster::one_with(setup) else { return };
    let etcdctl = cluster.raw(0).await;
    let store = cluster.store();
    let last = written(&store).await;
    let full = fill(&store).await;
    assert_eq!(full.kind(), ErrorKind::Unavailable, "{full:?}");
    assert!(full.message().contains("space exceeded"), "{full}");
    assert!(etcdctl.must(&["alarm", "list"]).await.contains("NOSPACE"));
    is_read(&cluster.store(), last).await;
    is_read(&store, last).await;
    refused("apply", store.apply(&named("a"), Document::json("1"), Precondition::None).await, ErrorKind::Unavailable);
    refused("create", store.apply(&named("new"), json(), Precondition::None).await, ErrorKind::Unavailable);

    let mut stream = store
        .watch(&Selector::all().with_name("b"), StoreWatchOptions::default().with_since(Since::Start))
        .await
        .unwrap();
    assert!(matches!(next(&mut stream).await, StoreEvent::Added(_)));
    let at = store.get(&named("b"), None).await.unwrap().unwrap().revision;
    let early = Precondition::Is(Revision(at.0 - 1));
    refused("delete", store.delete(&named("b"), early).await, ErrorKind::Conflict);
    let deleted = cluster.store().delete(&named("b"), Precondition::Is(at)).await.unwrap().unwrap();
    assert!(matches!(next(&mut stream).await, StoreEvent::Deleted { revision, .. } if revision == deleted));
    assert!(store.delete(&named("c"), Precondition::None).await.unwrap().is_some());
    assert!(store.get(&named("c"), None).await.unwrap().is_none());
    for at in 0..20 {
        store.delete(&named(&format!("large-{at}")), Precondition::None).await.unwrap();
    }

    let now = store.stats().await.unwrap().revision;
    store.compact(now).await.unwrap();
    store.compact(now).await.unwrap();
    store.compact(Revision(1)).await.unwrap();
    refused("compact the future", store.compact(Revision(now.0 + 1_000_000)).await, ErrorKind::Expired);
    assert_eq!(store.stats().await.unwrap().oldest, now);
    // A compaction whose first answer was late may still be at work: its second answer is that it was asked for.
    let again = soon("space", async {
        loop {
            etcdctl.must(&["defrag"]).await;
            etcdctl.must(&["alarm", "disarm"]).await;
            match store.apply(&named("new"), json(), Precondition::None).await {
                Err(full) if full.message().contains("space exceeded") => {}
                done => break done.unwrap(),
            }
        }
    })
    .await;
    assert_eq!(again.outcome, ApplyOutcome::Created);
    // A delete is signed again.
    assert!(store.delete(&named("new"), Precondition::None).await.unwrap().is_some());
}

#[tokio::test]
async fn a_corrupt_cluster_is_read_and_says_why_it_is_not_written() {
    let Some(cluster) = Cluster::one() else { return };
    let etcdctl = cluster.raw(0).await;
    let store = cluster.store();
    let last = written(&store).await;
    cluster.raise("CORRUPT").await;
    assert!(etcdctl.run(&["put", "x", "y"]).await.unwrap_err().contains("corrupt cluster"));
    is_read(&cluster.store(), last).await;
    is_read(&store, last).await;
    refused("apply", store.apply(&named("a"), Document::json("1"), Precondition::None).await, ErrorKind::Corrupt);
    refused("create", store.apply(&named("new"), json(), Precondition::None).await, ErrorKind::Corrupt);
    refused("delete", store.delete(&named("a"), Precondition::None).await, ErrorKind::Corrupt);
    refused("compact", store.compact(last).await, ErrorKind::Corrupt);
    let mut snapshot = Vec::new();
    store.snapshot(&mut snapshot).await.unwrap();
    refused("restore", store.restore(&mut &snapshot[..]).await, ErrorKind::Corrupt);
    etcdctl.must(&["alarm", "disarm"]).await;
    assert!(store.delete(&named("a"), Precondition::None).await.unwrap().is_some());
}

/// The alarm of one member is the cluster's, and etcd's own tools end it: nothing is left over in the client.
#[tokio::test]
async fn an_alarm_that_ends_leaves_nothing_behind() {
    let Some(cluster) = Cluster::one() else { return };
    let etcdctl = cluster.raw(0).await;
    let store = cluster.store();
    written(&store).await;
    for alarm in ["NOSPACE", "CORRUPT", "NOSPACE"] {
        cluster.raise(alarm).await;
        let kind = if alarm == "CORRUPT" { ErrorKind::Corrupt } else { ErrorKind::Unavailable };
        refused("apply", store.apply(&named("a"), Document::json("1"), Precondition::None).await, kind);
        etcdctl.must(&["alarm", "disarm"]).await;
        let unchanged = store.apply(&named("a"), json(), Precondition::None).await.unwrap();
        assert_eq!(unchanged.outcome, ApplyOutcome::Unchanged);
        store.apply(&named("a"), Document::json("[1]"), Precondition::None).await.unwrap();
        store.apply(&named("a"), json(), Precondition::None).await.unwrap();
    }
}
