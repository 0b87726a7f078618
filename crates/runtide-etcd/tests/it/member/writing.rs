//! Effects of a write, and its outcome.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use runtide_core::{
    ErrorKind,
    store::{ApplyOutcome, Document, Precondition, Revision, StoreBackend},
};
use runtide_etcd::EtcdStore;

use super::{cluster::Cluster, json, named, shared, shared_config};

#[tokio::test]
async fn a_write_returns_its_outcome_and_its_revision() {
    let Some(store) = shared() else { return };
    let web = named("web");
    assert_eq!(store.get(&web, None).await.unwrap(), None);
    let made = store.apply(&web, json("{}"), Precondition::None).await.unwrap();
    assert_eq!(made.outcome, ApplyOutcome::Created);
    let same = store.apply(&web, json("{}"), Precondition::None).await.unwrap();
    assert_eq!((same.outcome, same.revision), (ApplyOutcome::Unchanged, made.revision));
    let other = store.apply(&web, json("[]"), Precondition::Is(made.revision)).await.unwrap();
    assert_eq!(other.outcome, ApplyOutcome::Changed);
    assert!(other.revision > made.revision);
    let yaml = store.apply(&web, Document::yaml("[]"), Precondition::None).await.unwrap();
    assert_eq!(yaml.outcome, ApplyOutcome::Changed, "the same bytes in another format are something else");
    let got = store.get(&web, None).await.unwrap().unwrap();
    assert_eq!((&got.document, got.revision), (&Document::yaml("[]"), yaml.revision));

    let end = store.delete(&web, Precondition::Is(yaml.revision)).await.unwrap().unwrap();
    assert!(end > yaml.revision);
    assert_eq!(store.delete(&web, Precondition::None).await.unwrap(), None);
    assert_eq!(store.get(&web, None).await.unwrap(), None);
    let again = store.apply(&web, json("{}"), Precondition::Absent).await.unwrap();
    assert_eq!(again.outcome, ApplyOutcome::Created);
    assert!(again.revision > end);
}

#[tokio::test]
async fn another_client_is_not_misled_by_an_earlier_read() {
    let Some(config) = shared_config() else { return };
    let [a, b] = [(), ()].map(|()| EtcdStore::new(config.clone()).unwrap());
    let web = named("web");
    let first = a.apply(&web, json("1"), Precondition::None).await.unwrap();
    assert_eq!(b.apply(&web, json("1"), Precondition::None).await.unwrap().revision, first.revision);
    let second = b.apply(&web, json("2"), Precondition::None).await.unwrap();
    assert_eq!(second.outcome, ApplyOutcome::Changed);
    // `a` last saw 1, and writes it again.
    let third = a.apply(&web, json("1"), Precondition::None).await.unwrap();
    assert_eq!(third.outcome, ApplyOutcome::Changed);
    // `b` last saw 2, and deletes the resource.
    assert!(b.delete(&web, Precondition::None).await.unwrap().unwrap() > third.revision);
    // `a` last saw 1.
    assert_eq!(a.apply(&web, json("1"), Precondition::None).await.unwrap().outcome, ApplyOutcome::Created);
    a.delete(&web, Precondition::None).await.unwrap().unwrap();
    assert_eq!(b.delete(&web, Precondition::None).await.unwrap(), None);
}

#[tokio::test]
async fn a_failed_precondition_names_the_actual_revision() {
    let Some(store) = shared() else { return };
    let web = named("web");
    let revision = |error: runtide_core::Error| {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        error.context().iter().find(|(key, _)| *key == "revision").expect("the revision").1.clone()
    };
    for gone in [Revision(0), Revision(7), Revision(u64::MAX)] {
        let error = store.apply(&web, json("{}"), Precondition::Is(gone)).await.unwrap_err();
        assert_eq!(revision(error), "absent");
        assert_eq!(revision(store.delete(&web, Precondition::Is(gone)).await.unwrap_err()), "absent");
    }
    let made = store.apply(&web, json("{}"), Precondition::Absent).await.unwrap().revision;
    for precondition in [Precondition::Absent, Precondition::Is(Revision(0)), Precondition::Is(Revision(u64::MAX))] {
        let error = store.apply(&web, json("[]"), precondition).await.unwrap_err();
        assert_eq!(revision(error), made.to_string());
        assert_eq!(revision(store.delete(&web, precondition).await.unwrap_err()), made.to_string());
    }
    assert_eq!(store.get(&web, None).await.unwrap().unwrap().revision, made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_compare_and_set_one_wins() {
    let Some(config) = shared_config() else { return };
    let clients: Vec<_> = (0..4).map(|_| Arc::new(EtcdStore::new(config.clone()).unwrap())).collect();
    let web = named("web");
    let mut last = None;
    for round in 0..20 {
        let writers: Vec<_> = (0..16)
            .map(|n| {
                let (store, web) = (Arc::clone(&clients[n % 4]), web.clone());
                let precondition = last.map_or(Precondition::Absent, Precondition::Is);
                // Half of them write the same bytes: that makes them no less rivals.
                let body = json(&format!("{{\"round\":{round},\"by\":{}}}", n / 2));
                tokio::spawn(async move { store.apply(&web, body, precondition).await })
            })
            .collect();
        let mut won = Vec::new();
        let mut refused = Vec::new();
        for writer in writers {
            match writer.await.unwrap() {
                Ok(applied) => won.push(applied),
                Err(error) => refused.push(error),
            }
        }
        assert_eq!(won.len(), 1, "round {round}: {won:?}");
        last = Some(won[0].revision);
        for error in refused {
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert!(error.fact("revision") == Some(&won[0].revision.to_string()), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_one_resource_all_come_through() {
    let Some(config) = shared_config() else { return };
    let store = Arc::new(EtcdStore::new(config).unwrap());
    let web = named("web");
    let writers: Vec<_> = (0..32)
        .map(|n| {
            let (store, web) = (Arc::clone(&store), web.clone());
            tokio::spawn(async move { store.apply(&web, json(&n.to_string()), Precondition::None).await })
        })
        .collect();
    let mut revisions = Vec::new();
    for writer in writers {
        revisions.push(writer.await.unwrap().unwrap().revision);
    }
    revisions.sort();
    revisions.dedup();
    assert_eq!(revisions.len(), 32);
    assert_eq!(store.get(&web, None).await.unwrap().unwrap().revision, revisions[31]);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_the_limit() {
    let Some(config) = shared_config() else { return };
    let most = config.largest_document();
    let store = EtcdStore::new(config.clone()).unwrap();
    let long = runtide_core::store::ResourceRef::new(
        &"g".repeat(253),
        &"K".repeat(63),
        "n".repeat(253).as_str(),
        &"n".repeat(255),
    )
    .unwrap();
    for web in [named("web"), long] {
        store.apply(&web, Document::json(vec![b' '; most]), Precondition::None).await.unwrap();
        store.apply(&web, Document::json(vec![b'1'; most]), Precondition::None).await.unwrap();
        let error = store.apply(&web, Document::json(vec![b' '; most + 1]), Precondition::None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.fact("limit") == Some(&most.to_string()), "{error}");
        assert_eq!(store.get(&web, None).await.unwrap().unwrap().document.bytes.len(), most);
    }

    // A client with a higher limit than the member's gets the member's refusal.
    let store = EtcdStore::new(config.with_max_request_bytes(32usize << 20)).unwrap();
    for size in [(3 << 19) + 1, 4 << 20] {
        let error = store.apply(&named("b"), Document::json(vec![b' '; size]), Precondition::None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    }
}

#[tokio::test]
async fn a_member_that_takes_more_is_given_more() {
    let setup = crate::cluster::Setup::with(&["--max-request-bytes", "12582912"]);
    let Some(cluster) = Cluster::one_with(setup) else { return };
    let store = EtcdStore::new(cluster.config().with_max_request_bytes(12usize << 20)).unwrap();
    let body = Document::json(vec![b' '; Document::MAX_BYTES]);
    store.apply(&named("web"), body.clone(), Precondition::None).await.unwrap();
    assert_eq!(store.get(&named("web"), None).await.unwrap().unwrap().document, body);
    for n in 0..12 {
        store.apply(&named(&format!("w{n}")), body.clone(), Precondition::None).await.unwrap();
    }
    // More than one answer can carry.
    let page =
        store.list(&runtide_core::store::Selector::all(), runtide_core::store::PageOptions::default()).await.unwrap();
    assert!(!page.items.is_empty() && page.next.is_some());
}

/// Time for which a call waits for a member before it sends the request again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Result of the call, which must make this number of requests; more, if the member stood still.
async fn costs<T>(cluster: &Cluster, requests: u64, call: impl Future<Output = runtide_core::Result<T>>) -> T {
    let counted =
        "grpc_server_started_total{grpc_method=\"Txn\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} ";
    let before = cluster.metric(counted).await;
    let begin = Instant::now();
    let given = call.await.unwrap();
    let stood_still = begin.elapsed() >= PATIENCE;
    let made = cluster.metric(counted).await - before;
    assert!(made == requests || stood_still && made > requests, "{made} requests instead of {requests}");
    given
}

#[tokio::test]
async fn a_call_makes_as_many_requests_as_the_documentation_says() {
    let Some(c) = Cluster::one() else { return };
    c.raw(0).await;
    let (a, b, web, none) = (c.store(), c.store(), named("web"), Precondition::None);
    // The first call of a client finds out which generation is live.
    costs(&c, 1 + 1, a.apply(&web, json("1"), none)).await;
    costs(&c, 1, a.apply(&named("x"), json("1"), Precondition::Absent)).await;
    costs(&c, 1, a.apply(&web, json("2"), none)).await;
    costs(&c, 1, a.apply(&web, json("2"), none)).await;
    let seen = costs(&c, 1, a.get(&web, None)).await.unwrap().revision;
    costs(&c, 1, a.apply(&web, json("3"), Precondition::Is(seen))).await;
    let seen = costs(&c, 1 + 1, b.get(&web, None)).await.unwrap().revision;
    costs(&c, 1, b.apply(&web, json("4"), Precondition::Is(seen))).await;
    costs(&c, 2, a.apply(&web, json("5"), none)).await;
    costs(&c, 1 + 2, c.store().apply(&web, json("6"), none)).await;
    let at = b.list(&runtide_core::store::Selector::all(), runtide_core::store::PageOptions::default()).await.unwrap();
    // A listing is not remembered: what is compared first is read.
    costs(&c, 2, b.apply(&web, json("7"), Precondition::Is(at.items[0].revision))).await;
    costs(&c, 1, b.delete(&web, none)).await;
    costs(&c, 1, b.delete(&web, none)).await;
    a.apply(&web, json("8"), none).await.unwrap();
    costs(&c, 2, b.delete(&web, none)).await;
    costs(&c, 2, a.stats()).await;
}
