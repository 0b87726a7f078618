//! Listings and inspections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtide_core::{
    ErrorKind, InstanceFilter, InstanceId, InstanceState, LabelMatch, ListOptions, Retry, RuntimeBackend, WatchOptions,
};
use runtide_k8s::{KubeBackend, Namespaces};
use serde_json::json;

use crate::scripted::{Reply, Request, Server, ended, is_synced, list, pod, running, until};

fn numbered(from: usize, to: usize) -> Vec<serde_json::Value> {
    (from..to).map(|n| pod(&format!("p{n}"), &format!("v{n}"), "Running", 0, running())).collect()
}

/// Pages of 500 out of so many pods, whose tokens are the number of the next.
fn page(request: &Request, count: usize) -> Reply {
    let from: usize = request.query("continue").map_or(0, |token| token.parse().unwrap());
    let to = (from + 500).min(count);
    let next = if to < count { to.to_string() } else { String::new() };
    Reply::ok(&list("opaque-7", &next, &numbered(from, to)))
}

#[tokio::test]
async fn five_thousand_pods_need_eleven_requests_to_the_end_of_the_resync() {
    let server = Server::new(|request| {
        if request.is_watch() {
            Reply::events(&[])
        } else if request.path.contains("kube-system") {
            Reply::refusal(403, "Forbidden")
        } else {
            page(request, 5_000)
        }
    })
    .await;
    let backend = server.backend();
    let mut events = backend.watch(WatchOptions::default()).await.unwrap();
    let seen = until(&mut events, is_synced).await;
    assert_eq!(seen.len(), 5_002);
    let pods: Vec<_> = server.asked().into_iter().filter(|request| request.path.starts_with("/api/v1/pods")).collect();
    assert_eq!(pods.len(), 11, "{pods:#?}");
    assert!(
        pods[..10]
            .iter()
            .all(|request| request.query("limit").as_deref() == Some("500")
                && request.query("resourceVersion").is_none())
    );
    assert!(pods[10].is_watch() && pods[10].query("resourceVersion").as_deref() == Some("opaque%2D7"));
}

#[tokio::test]
async fn a_listing_whose_next_page_is_lost_begins_again_a_bounded_number_of_times() {
    let (lost, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(2)));
    let (count, left) = (Arc::clone(&lost), Arc::clone(&refused));
    let server = Server::new(move |request| {
        let is_first = request.query("continue").is_none();
        if !is_first && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
            return Reply::refusal(410, "Expired");
        }
        page(request, 600)
    })
    .await;
    let listing = server.backend().list_instances(ListOptions::default()).await.unwrap();
    assert_eq!((listing.instances.len(), listing.is_complete(), lost.load(Ordering::SeqCst)), (600, true, 2));
    refused.store(usize::MAX, Ordering::SeqCst);
    let before = server.asked().len();
    let error = server.backend().list_instances(ListOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), server.asked().len() - before), (ErrorKind::Unavailable, 8), "{error}");
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_is_named_and_hides_no_other() {
    let server = Server::new(|_| {
        let broken = json!({"metadata": {"uid": "uid-broken", "name": ["x"], "namespace": "default"}});
        Reply::ok(&list(
            "7",
            "",
            &[pod("a", "1", "Running", 0, running()), broken, pod("b", "2", "Running", 0, running())],
        ))
    })
    .await;
    let listing = server.backend().list_instances(ListOptions::default()).await.unwrap();
    assert_eq!(listing.instances.len(), 2);
    let failures = listing.completeness.failures();
    assert_eq!((failures.len(), failures[0].context["instance"].as_str()), (1, "uid-broken"), "{failures:?}");
}

#[tokio::test]
async fn a_refusal_is_sent_once_and_keeps_the_pause_that_the_server_asks_for() {
    for (code, headers, kind, retry) in [
        (429, "Retry-After: 7\r\n", ErrorKind::RateLimited, Retry::After(Duration::from_secs(7))),
        (503, "Retry-After: 3\r\n", ErrorKind::Unavailable, Retry::After(Duration::from_secs(3))),
        (504, "", ErrorKind::Unavailable, Retry::Backoff),
        (500, "", ErrorKind::Unavailable, Retry::Backoff),
        (403, "", ErrorKind::PermissionDenied, Retry::Never),
    ] {
        let server =
            Server::new(move |_| Reply::Whole(code, headers, crate::scripted::status(code, "X").to_string())).await;
        let error = server.backend().list_instances(ListOptions::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (kind, retry), "{error}");
        assert!(error.to_string().contains("scripted: X"), "{error}");
        assert_eq!(server.asked().len(), 1, "kube's own retries are off");
    }
}

#[tokio::test]
async fn one_namespace_of_several_without_the_right_makes_the_listing_partial() {
    let server = Server::new(|request| {
        if request.path.contains("/namespaces/shut/") {
            Reply::refusal(403, "Forbidden")
        } else {
            Reply::ok(&list("7", "", &numbered(0, 2)))
        }
    })
    .await;
    let names = |names: &[&str]| Namespaces::Only(names.iter().map(|&name| name.to_owned()).collect());
    let both = KubeBackend::new(server.config().with_namespaces(names(&["open", "shut"]))).unwrap();
    let listing = both.list_instances(ListOptions::default()).await.unwrap();
    assert_eq!((listing.instances.len(), listing.is_complete()), (2, false));
    assert_eq!(listing.completeness.failures()[0].context["namespace"], "shut");
    let shut = KubeBackend::new(server.config().with_namespaces(names(&["shut"]))).unwrap();
    assert_eq!(shut.list_instances(ListOptions::default()).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn selectors_and_filters_are_the_servers_work() {
    let server = Server::new(|_| Reply::ok(&list("7", "", &[pod("a", "1", "Running", 0, running())]))).await;
    let backend =
        KubeBackend::new(server.config().with_label_selector("tier in (a,b)").with_field_selector("spec.nodeName=n1"))
            .unwrap();
    let filter = InstanceFilter::default().with_label(LabelMatch::is("app", "web"));
    let listing = backend.list_instances(ListOptions::default().with_filter(filter)).await.unwrap();
    assert!(listing.instances.is_empty(), "a server that ignores the selector is not believed");
    let asked = server.asked().remove(0);
    assert_eq!(asked.query("labelSelector").as_deref(), Some("tier%20in%20%28a%2Cb%29%2Capp%3Dweb"));
    assert_eq!(asked.query("fieldSelector").as_deref(), Some("spec%2EnodeName%3Dn1"));
}

#[tokio::test]
async fn an_inspection_finds_a_pod_by_its_uid_and_another_of_its_name_is_not_it() {
    let reborn = Arc::new(AtomicUsize::new(0));
    let is_reborn = Arc::clone(&reborn);
    let server = Server::new(move |request| {
        let mut one = pod("a", "1", "Failed", 0, ended(3));
        match (request.path.as_str(), is_reborn.load(Ordering::SeqCst)) {
            ("/api/v1/namespaces/default/pods/a", 0) => Reply::ok(&one),
            ("/api/v1/namespaces/default/pods/a", 1) => {
                one["metadata"]["uid"] = json!("another");
                Reply::ok(&one)
            }
            ("/api/v1/namespaces/default/pods/a", 2) => Reply::refusal(404, "NotFound"),
            ("/api/v1/namespaces/default/pods/a", _) => Reply::Whole(404, "", "<html>a proxy's page</html>".to_owned()),
            _ => Reply::ok(&list("7", "", &[one])),
        }
    })
    .await;
    let backend = server.backend();
    let id = InstanceId::from("uid-a");
    assert_eq!(backend.inspect(&id).await.unwrap().state, InstanceState::Failed, "found by a listing");
    assert_eq!(backend.inspect(&id).await.unwrap().state, InstanceState::Failed, "found by its name");
    assert_eq!(server.asked().len(), 2);
    for kind in [ErrorKind::NotFound, ErrorKind::NotFound] {
        reborn.fetch_add(1, Ordering::SeqCst);
        assert_eq!(backend.inspect(&id).await.unwrap_err().kind(), kind);
    }
    reborn.store(3, Ordering::SeqCst);
    let error = backend.inspect(&id).await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.context().iter().any(|(key, _)| key == "status"), "{error}");
    for hostile in ["no-such-uid", "../../x", "", "a/b/c", "a\nb\0", &"x".repeat(65_536)] {
        assert_eq!(
            backend.inspect(&InstanceId::from(hostile)).await.unwrap_err().kind(),
            ErrorKind::NotFound,
            "{hostile:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_no_kubernetes_is_told_apart() {
    let server = Server::new(|_| Reply::Whole(200, "", "<html>hello</html>".to_owned())).await;
    assert_eq!(server.backend().connect().await.unwrap_err().kind(), ErrorKind::Protocol);
    let server = Server::new(|_| Reply::ok(&json!({"major": "1", "minor": "33", "gitVersion": "v1.33.1"}))).await;
    let backend = server.backend();
    assert!(
        backend.capabilities().verbs().all(|(_, support)| *support == runtide_core::capabilities::Support::Unknown)
    );
    let info = backend.connect().await.unwrap();
    assert_eq!(info.version, "v1.33.1");
    assert!(
        backend.capabilities().verbs().all(|(_, support)| *support != runtide_core::capabilities::Support::Unknown)
    );
}
