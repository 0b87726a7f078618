//! Objects that keep pods running: numbers, restarts, and waits for rollouts.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use runtide_core::{Error, ErrorKind};
use runtide_k8s::{KubeBackend, Namespaces, Rollout, ScaleOptions, WorkloadKind, WorkloadRef, Workloads};
use serde_json::{Value, json};

use crate::scripted::{Part, Reply, Request, Server, event, pod, status};

const LIMIT: Duration = Duration::from_secs(60);

fn web() -> WorkloadRef {
    WorkloadRef::new(WorkloadKind::Deployment, "default", "web")
}

/// A deployment that has these of its two pods updated and available, as the controller saw this generation.
fn deployment(version: &str, observed: u32, updated: u32, available: u32) -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "u1", "resourceVersion": version, "generation": 2, "labels": { "tier": "front" } },
        "spec": { "replicas": 2, "selector": { "matchLabels": { "app": "web" } }, "template": {} },
        "status": { "observedGeneration": observed, "replicas": 2, "updatedReplicas": updated, "readyReplicas": available, "availableReplicas": available },
    })
}

fn scale(version: &str, replicas: u32) -> Value {
    json!({ "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": { "name": "web", "namespace": "default", "uid": "u1", "resourceVersion": version }, "spec": { "replicas": replicas }, "status": { "replicas": 2 } })
}

fn page(items: &[Value]) -> Value {
    json!({ "kind": "List", "apiVersion": "apps/v1", "metadata": { "resourceVersion": "9" }, "items": items })
}

fn patches(server: &Server) -> Vec<(String, Value)> {
    let all = server.asked().into_iter().filter(|request| request.is("PATCH"));
    all.map(|request| {
        assert!(request.head.contains("content-type: application/merge-patch+json"), "{}", request.head);
        (request.path, serde_json::from_str(&request.body).unwrap())
    })
    .collect()
}

/// A backend, which has to outlive what is made over it, and its workloads.
fn over(server: &Server) -> (KubeBackend, Workloads) {
    let backend = server.backend();
    let workloads = Workloads::over(&backend);
    (backend, workloads)
}

fn has(error: &Error, key: &str, text: &str) -> bool {
    error.fact(key).is_some_and(|value| value.contains(text))
}

#[tokio::test]
async fn a_scale_is_one_patch_with_the_conditions_that_it_was_given() {
    let server =
        Server::new(|request: &Request| Reply::ok(&scale(if request.is("PATCH") { "12" } else { "11" }, 2))).await;
    let (_backend, workloads) = over(&server);
    let web = web();
    let scaled = |options| workloads.scale(&web, 3, options);
    assert_eq!(scaled(ScaleOptions::default()).await.unwrap(), "12");
    assert_eq!(server.asked().len(), 1);
    scaled(ScaleOptions::default().with_version("7")).await.unwrap();
    scaled(ScaleOptions::default().with_current(Some(2))).await.unwrap();
    let path = "/apis/apps/v1/namespaces/default/deployments/web/scale".to_owned();
    let replicas = json!({ "replicas": 3 });
    let expected = [
        (path.clone(), json!({ "spec": replicas })),
        (path.clone(), json!({ "metadata": { "resourceVersion": "7" }, "spec": replicas })),
        (path, json!({ "metadata": { "resourceVersion": "11" }, "spec": replicas })),
    ];
    assert_eq!(patches(&server), expected);
    // A number or a version that is another one is left alone.
    for options in
        [ScaleOptions::default().with_current(Some(1)), ScaleOptions::default().with_current(Some(2)).with_version("7")]
    {
        let error = scaled(options).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("2 pods, at version 11"), "{error}");
    }
    assert_eq!(patches(&server).len(), 3);
}

#[tokio::test]
async fn a_scale_from_a_number_looks_again_when_only_the_status_has_changed() {
    let count = AtomicUsize::new(0);
    let server =
        Server::new(move |request: &Request| match (count.fetch_add(1, Ordering::SeqCst), request.is("PATCH")) {
            (0, false) => Reply::ok(&scale("11", 2)),
            (1, true) => Reply::refusal(409, "Conflict"),
            (2, false) => Reply::ok(&scale("12", 2)),
            (3, true) => Reply::ok(&scale("13", 3)),
            other => panic!("{other:?}"),
        })
        .await;
    let (_backend, workloads) = over(&server);
    let scaled = workloads.scale(&web(), 3, ScaleOptions::default().with_current(Some(2))).await.unwrap();
    assert_eq!((scaled.as_str(), patches(&server)[1].1["metadata"]["resourceVersion"].as_str()), ("13", Some("12")));
}

#[tokio::test]
async fn a_change_that_is_refused_has_the_servers_words_and_one_without_an_answer_says_that_it_may_be_done() {
    let server = Server::new(|_: &Request| Reply::refusal(409, "Conflict")).await;
    let (_backend, workloads) = over(&server);
    let error = workloads.scale(&web(), 3, ScaleOptions::default().with_version("7")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && has(&error, "workload", "Deployment default/web"), "{error}");
    assert!(error.to_string().contains("scripted: Conflict") && error.fact("outcome").is_none(), "{error}");
    let server = Server::new(|_: &Request| Reply::Stream(vec![Part::Break])).await;
    let (_backend, workloads) = over(&server);
    let error = workloads.scale(&web(), 3, ScaleOptions::default()).await.unwrap_err();
    assert!(has(&error, "outcome", "unknown"), "{error}");
    assert_eq!(server.asked().len(), 1, "it is sent once");
}

#[tokio::test]
async fn what_a_kind_does_not_have_is_refused_with_the_reason_before_anything_is_changed() {
    let mut by_hand = deployment("5", 2, 2, 2);
    by_hand["spec"]["updateStrategy"] = json!({ "type": "OnDelete" });
    let server = Server::new(move |request: &Request| {
        Reply::ok(&if request.path.contains('?') { page(std::slice::from_ref(&by_hand)) } else { by_hand.clone() })
    })
    .await;
    let (_backend, workloads) = over(&server);
    let of = |kind| WorkloadRef::new(kind, "default", "web");
    for refused in [
        workloads.scale(&of(WorkloadKind::DaemonSet), 1, ScaleOptions::default()).await.err(),
        workloads.restart(&of(WorkloadKind::ReplicaSet)).await.err(),
        workloads.restart(&of(WorkloadKind::StatefulSet)).await.err(),
        workloads.wait_until_rolled_out(&of(WorkloadKind::DaemonSet), LIMIT).await.err(),
    ] {
        let error = refused.unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.fact("feature").is_some() && error.fact("reason").is_some(), "{error}");
    }
    let error = workloads.scale(&web(), u32::MAX, ScaleOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    for name in ["..", "a/scale", "a?x", ""] {
        let error = workloads.get(&WorkloadRef::new(WorkloadKind::Deployment, "default", name)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert!(patches(&server).is_empty());
}

#[tokio::test]
async fn a_restart_is_a_new_time_in_the_template_of_the_very_object_and_a_paused_one_is_left_alone() {
    let server = Server::new(|_: &Request| Reply::ok(&deployment("5", 2, 2, 2))).await;
    let (_backend, workloads) = over(&server);
    for _ in 0..2 {
        let after = workloads.restart(&web()).await.unwrap();
        assert_eq!((after.uid.as_str(), after.labels.get("tier")), ("u1", Some("front")));
    }
    let times: Vec<String> = patches(&server)
        .into_iter()
        .map(|(path, patch)| {
            assert_eq!(path, "/apis/apps/v1/namespaces/default/deployments/web");
            assert_eq!(patch["metadata"], json!({ "uid": "u1" }));
            let annotations = &patch["spec"]["template"]["metadata"]["annotations"];
            annotations["kubectl.kubernetes.io/restartedAt"].as_str().unwrap().to_owned()
        })
        .collect();
    assert!(times.len() == 2 && times[0] != times[1] && times[0].ends_with('Z'), "{times:?}");

    let mut paused = deployment("5", 2, 2, 2);
    paused["spec"]["paused"] = json!(true);
    let server = Server::new(move |_: &Request| Reply::ok(&paused)).await;
    let (_backend, workloads) = over(&server);
    let error = workloads.restart(&web()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && has(&error, "reason", "DeploymentPaused"), "{error}");
    assert!(patches(&server).is_empty());
}

#[tokio::test]
async fn a_wait_reads_reports_over_a_server_that_goes_away_and_ends_with_the_last_pod() {
    let count = AtomicUsize::new(0);
    let server = Server::new(move |request: &Request| {
        assert!(request.path.contains("fieldSelector=metadata%2Ename%3Dweb"), "{}", request.path);
        let modified = |version, observed, updated, available| {
            event("MODIFIED", deployment(version, observed, updated, available))
        };
        match (count.fetch_add(1, Ordering::SeqCst), request.is_watch()) {
            (0, false) => Reply::ok(&page(&[deployment("5", 1, 2, 2)])),
            (1, true) => {
                assert_eq!(request.query("resourceVersion").as_deref(), Some("9"));
                let Reply::Stream(mut parts) = Reply::events(&[modified("10", 2, 1, 2)]) else { unreachable!() };
                parts.push(Part::Break);
                Reply::Stream(parts)
            }
            (2, _) => Reply::Whole(429, "Retry-After: 1\r\n", "busy".to_owned()),
            // A server that was started again does not know its users' rights at once.
            (3, _) => Reply::refusal(403, "Forbidden"),
            (4, false) => Reply::ok(&page(&[deployment("11", 2, 2, 1)])),
            (5, true) => Reply::Stream(vec![crate::scripted::line(&event("ERROR", status(410, "Expired"))), Part::End]),
            (6, false) => Reply::ok(&page(&[deployment("12", 2, 2, 1)])),
            (7, true) => Reply::events(&[modified("13", 2, 2, 2)]),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let (_backend, workloads) = over(&server);
    let done = workloads.wait_until_rolled_out(&web(), LIMIT).await.unwrap();
    assert_eq!((done.version.as_str(), &done.rollout, done.available), ("13", &Rollout::Complete, Some(2)));
    assert_eq!(server.asked().len(), 8);
}

#[tokio::test]
async fn a_rollout_that_the_cluster_gives_up_has_its_reason_its_quota_and_its_pods() {
    let mut stuck = deployment("5", 2, 1, 1);
    stuck["status"]["conditions"] = json!([
        { "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "ReplicaSet \"web-1\" has timed out progressing." },
        { "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "pods \"web-1-x\" is forbidden: exceeded quota: small" },
    ]);
    let mut waits = pod("web-1-a", "4", "Pending", 0, json!({}));
    waits["status"] = json!({ "phase": "Pending", "conditions": [
        { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available: 2 Insufficient cpu." },
    ]});
    let fine = pod("web-0-a", "3", "Running", 0, crate::scripted::running());
    let server = Server::new(move |request: &Request| {
        Reply::ok(&if request.path.starts_with("/api/v1/namespaces/default/pods?") {
            assert_eq!(request.query("labelSelector").as_deref(), Some("app%3Dweb"));
            page(&[waits.clone(), fine.clone()])
        } else if request.path.contains('?') {
            page(std::slice::from_ref(&stuck))
        } else {
            stuck.clone()
        })
    })
    .await;
    let (_backend, workloads) = over(&server);
    let error = workloads.wait_until_rolled_out(&web(), LIMIT).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.to_string().contains("timed out progressing"), "{error}");
    assert_eq!(error.fact("reason"), Some("ProgressDeadlineExceeded"));
    assert!(has(&error, "obstacles", "FailedCreate: pods \"web-1-x\" is forbidden: exceeded quota"), "{error}");
    assert!(has(&error, "obstacles", "web-1-a: Unschedulable: 0/2 nodes are available"), "{error}");
    assert!(!has(&error, "obstacles", "web-0-a"), "{error}");
    let all = workloads.obstacles(&web()).await.unwrap();
    let words: Vec<_> = all.iter().map(|one| (one.pod.as_deref(), one.reason.as_str())).collect();
    assert_eq!(words, [(None, "ProgressDeadlineExceeded"), (None, "FailedCreate"), (Some("web-1-a"), "Unschedulable")]);
}

#[tokio::test]
async fn a_stateful_set_that_gets_no_pods_has_the_last_event_of_it_after_the_limit() {
    let set = json!({
        "metadata": { "name": "db", "namespace": "default", "uid": "u2", "resourceVersion": "5", "generation": 1 },
        "spec": { "replicas": 1 },
        "status": { "observedGeneration": 1, "replicas": 0 },
    });
    let failed = |at: &str, message: &str| json!({ "reason": "FailedCreate", "message": message, "lastTimestamp": at });
    let server = Server::new(move |request: &Request| {
        if request.is_watch() {
            return Reply::events(&[]);
        }
        Reply::ok(&if request.path.starts_with("/api/v1/namespaces/default/events?") {
            assert!(request.path.contains("involvedObject%2Euid%3Du2"), "{}", request.path);
            page(&[
                failed("2026-12-01T10:00:00Z", "an old word"),
                failed("2026-12-01T11:00:00Z", "exceeded quota: small"),
            ])
        } else {
            page(std::slice::from_ref(&set))
        })
    })
    .await;
    let (_backend, workloads) = over(&server);
    let db = WorkloadRef::new(WorkloadKind::StatefulSet, "default", "db");
    let error = workloads.wait_until_rolled_out(&db, Duration::from_millis(300)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.to_string().contains("0 pods in place of 1"), "{error}");
    assert_eq!(error.fact("reason"), Some("FailedCreate"));
    assert!(
        error.fact("obstacles").is_some_and(|all| all.starts_with("FailedCreate: exceeded quota: small; ")),
        "{error}"
    );
}

#[tokio::test]
async fn a_workload_that_goes_or_comes_back_as_another_is_not_waited_for() {
    for (last, text) in [("DELETED", "u1"), ("MODIFIED", "u9")] {
        let server = Server::new(move |request: &Request| {
            let mut now = deployment("11", 2, 2, 2);
            now["metadata"]["uid"] = json!(text);
            if request.is_watch() {
                Reply::events(&[event(last, now)])
            } else {
                Reply::ok(&page(&[deployment("5", 2, 1, 2)]))
            }
        })
        .await;
        let (_backend, workloads) = over(&server);
        let error = workloads.wait_until_rolled_out(&web(), LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    let server = Server::new(|_: &Request| Reply::ok(&page(&[]))).await;
    let (_backend, workloads) = over(&server);
    let error = workloads.wait_until_rolled_out(&web(), LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    // A server that never answers is the reason of the limit.
    let server = Server::new(|_: &Request| Reply::refusal(503, "ServiceUnavailable")).await;
    let (backend, workloads) = over(&server);
    let error = workloads.wait_until_rolled_out(&web(), Duration::from_millis(300)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && format!("{error:#}").contains("ServiceUnavailable"), "{error:#}");
    drop(backend);
    assert_eq!(workloads.get(&web()).await.unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn a_listing_has_all_pages_and_names_what_it_lacks() {
    let server = Server::new(|request: &Request| {
        let mut first = page(&[deployment("5", 2, 2, 2), json!({ "metadata": { "name": 7 } })]);
        first["metadata"]["continue"] = json!("next");
        if request.path.contains("/namespaces/shut/") {
            return Reply::refusal(403, "Forbidden");
        }
        assert_eq!(request.query("labelSelector").as_deref(), Some("tier%3Dfront"));
        let mut second = deployment("6", 1, 2, 2);
        second["metadata"]["name"] = json!("api");
        Reply::ok(&if request.query("continue").is_some() { page(&[second]) } else { first })
    })
    .await;
    let namespaces = Namespaces::Only(vec!["default".to_owned(), "shut".to_owned()]);
    let backend = KubeBackend::new(server.config().with_namespaces(namespaces)).unwrap();
    let listing = Workloads::over(&backend).list(WorkloadKind::Deployment, Some("tier=front")).await.unwrap();
    let names: Vec<_> = listing.workloads.iter().map(|one| one.reference.to_string()).collect();
    assert_eq!(names, ["Deployment default/api", "Deployment default/web"]);
    let failures = format!("{:?}", listing.completeness.failures());
    assert!(listing.completeness.failures().len() == 2 && failures.contains("shut"), "{failures}");
    let alone = KubeBackend::new(server.config().with_namespaces(Namespaces::one("shut"))).unwrap();
    let error = Workloads::over(&alone).list(WorkloadKind::Deployment, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}
