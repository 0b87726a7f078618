//! Clusters in an alarm: what etcd's own client may still do is done through the store, and the rest says why not.

use std::time::Duration;

use runtide_conformance::proxy::{Action, Rule};
use runtide_core::{
    Error, ErrorKind,
    store::{
        ApplyOutcome, Document, PageOptions, Precondition, ResourceRef, Revision, Selector, Since, StoreBackend,
        StoreEvent, StoreStream, StoreWatchOptions,
    },
};
use runtide_etcd::EtcdStore;

use crate::cluster::{Cluster, Setup, behind_a_proxy, soon};

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

/// Writes until the quota is used up; returns the number of resources too. A member measures its database only from time to time,
/// so that a quick one takes more of them.
async fn fill(store: &EtcdStore) -> (Error, usize) {
    let large = Document::json(format!("\"{}\"", "x".repeat(200 << 10)));
    for at in 0..200 {
        match store.apply(&named(&format!("large-{at}")), large.clone(), Precondition::None).await {
            Ok(_) => {}
            Err(error) => return (error, at),
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
    let (full, large) = fill(&store).await;
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
    for at in 0..large {
        assert!(store.delete(&named(&format!("large-{at}")), Precondition::None).await.unwrap().is_some());
    }

    let now = store.stats().await.unwrap().revision;
    store.compact(now).await.unwrap();
    store.compact(now).await.unwrap();
    store.compact(Revision(1)).await.unwrap();
    refused("compact the future", store.compact(Revision(now.0 + 1_000_000)).await, ErrorKind::Expired);
    assert_eq!(store.stats().await.unwrap().oldest, now);
    etcdctl.must(&["defrag"]).await;
    etcdctl.must(&["alarm", "disarm"]).await;
    let again = store.apply(&named("new"), json(), Precondition::None).await.unwrap();
    assert_eq!(again.outcome, ApplyOutcome::Created);
    // A delete is signed again.
    assert!(store.delete(&named("new"), Precondition::None).await.unwrap().is_some());
}

/// A member that finds space when it takes a write, and none when it applies it, applies it all the same and refuses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_done_as_the_space_ended_is_reported_as_done() {
    const QUOTA: u64 = 600_000;
    const EACH: usize = 24;
    // The member measures its database after each write.
    let quota = QUOTA.to_string();
    let setup = Setup::with(&["--quota-backend-bytes", &quota, "--backend-batch-limit", "1"]);
    let Some(cluster) = Cluster::one_with(setup) else { return };
    let etcdctl = cluster.raw(0).await;
    let stores: Vec<EtcdStore> = (0..4).map(|_| cluster.store()).collect();
    let mut before = Vec::new();
    for at in 0..2 * EACH {
        let name = if at < EACH { format!("changed-{at}") } else { format!("removed-{}", at - EACH) };
        before.push(stores[at % 4].apply(&named(&name), json(), Precondition::None).await.unwrap().revision);
    }
    let some = Document::json(format!("\"{}\"", "x".repeat(4 << 10)));
    while etcdctl.status().await.size + (96 << 10) < QUOTA {
        stores[0].apply(&named("filled"), some.clone(), Precondition::None).await.unwrap();
        stores[0].apply(&named("filled"), json(), Precondition::None).await.unwrap();
    }
    assert!(!etcdctl.must(&["alarm", "list"]).await.contains("NOSPACE"));

    // All of them wait at the member's door, so that it takes many before it applies the first.
    cluster.pause(0);
    let body = Document::json(format!("\"{}\"", "y".repeat(3 << 10)));
    let mut writes = Vec::new();
    let mut deletes = Vec::new();
    for at in 0..EACH {
        let store = stores[at % 4].clone();
        let changed = Precondition::Is(before[at]);
        let made = [Precondition::Absent, Precondition::None][at % 2];
        for (name, precondition) in [(format!("changed-{at}"), changed), (format!("made-{at}"), made)] {
            let (store, body) = (store.clone(), body.clone());
            let write = async move { store.apply(&named(&name), body, precondition).await };
            writes.push(tokio::spawn(write));
        }
        let precondition = [Precondition::Is(before[EACH + at]), Precondition::None][at % 2];
        let delete = async move { store.delete(&named(&format!("removed-{at}")), precondition).await };
        deletes.push(tokio::spawn(delete));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.go_on(0);

    let reader = &stores[0];
    for (at, write) in writes.into_iter().enumerate() {
        let (name, outcome) = match at % 2 {
            0 => (format!("changed-{}", at / 2), ApplyOutcome::Changed),
            _ => (format!("made-{}", at / 2), ApplyOutcome::Created),
        };
        let done = soon("a write", write).await.unwrap();
        let there = reader.get(&named(&name), None).await.unwrap();
        let written = there.filter(|there| there.document == body).map(|there| there.revision);
        match done {
            Ok(applied) => assert_eq!((applied.outcome, Some(applied.revision)), (outcome, written), "{name}"),
            Err(error) => {
                refused(&name, Err::<(), _>(error), ErrorKind::Unavailable);
                assert_eq!(written, None, "{name} was refused, and is there");
            }
        }
    }
    for (at, delete) in deletes.into_iter().enumerate() {
        let removed = soon("a delete", delete).await.unwrap().unwrap();
        assert!(removed.is_some_and(|removed| removed > before[EACH + at]), "removed-{at}: {removed:?}");
        assert!(reader.get(&named(&format!("removed-{at}")), None).await.unwrap().is_none());
    }
    assert!(etcdctl.must(&["alarm", "list"]).await.contains("NOSPACE"));
}

#[tokio::test]
async fn a_compaction_that_is_under_way_is_waited_for() {
    const WRITES: u64 = 40;
    // A member pauses after each revision that it removes.
    let setup = Setup::with(&["--experimental-compaction-batch-limit", "1"]);
    let Some(cluster) = Cluster::one_with(setup) else { return };
    cluster.raw(0).await;
    let (a, b) = (cluster.store(), cluster.store());
    for n in 0..WRITES {
        a.apply(&named("a"), Document::json(n.to_string()), Precondition::None).await.unwrap();
    }
    let now = b.stats().await.unwrap().revision;
    let compact = async |store: &EtcdStore| {
        store.compact(now).await.unwrap();
        cluster.metric("etcd_debugging_mvcc_db_compaction_keys_total ").await
    };
    let (first, second) = tokio::join!(compact(&a), compact(&b));
    assert!(first >= WRITES - 1 && second >= WRITES - 1, "{first} and {second} revisions were removed by then");

    let (proxy, config) = behind_a_proxy(&cluster, 0).await;
    let hasty = EtcdStore::new(config.with_request_timeout(Duration::from_secs(1))).unwrap();
    soon("an answer", async { while hasty.stats().await.is_err() {} }).await;
    proxy.add(Rule::all(Action::Swallow));
    let error = hasty.compact(now).await.unwrap_err();
    assert_eq!((error.kind(), error.fact("outcome")), (ErrorKind::Timeout, Some("unknown")), "{error:?}");
}

#[tokio::test]
async fn a_corrupt_cluster_is_read_and_says_why_it_is_not_written() {
    let Some(cluster) = Cluster::one() else { return };
    let etcdctl = cluster.raw(0).await;
    let store = cluster.store();
    let last = written(&store).await;
    cluster.raise("CORRUPT").await;
    assert!(etcdctl.answer(&["put", "x", "y"]).await.unwrap_err().contains("corrupt cluster"));
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
