//! Stops, removals and waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtide_core::{
    ErrorKind, ExitCause, InstanceId, RuntimeBackend, UnixSignal,
    capabilities::Support,
    manager::{Effect, LogOptions, LogSource, RemoveOptions, StopOptions},
};
use runtide_k8s::{Granularity, KubeBackend};
use serde_json::{Value, json};

use crate::scripted::{Reply, Request, Server, ended, event, list, pod, running};

fn id() -> InstanceId {
    InstanceId::from("uid-a")
}

fn deletes(server: &Server) -> Vec<Value> {
    let all = server.asked().into_iter().filter(|request| request.is("DELETE"));
    all.map(|request| serde_json::from_str(&request.body).unwrap()).collect()
}

fn marked(mut pod: Value) -> Value {
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-30T12:10:00Z");
    pod
}

/// A server with one pod, whose watches report these events and end, once it was deleted.
async fn with_pod(one: Value, after: Vec<Value>) -> Server {
    let deleted = AtomicUsize::new(0);
    Server::new(move |request: &Request| {
        if request.is("DELETE") {
            deleted.store(1, Ordering::SeqCst);
            return Reply::ok(&one);
        }
        match (request.is_watch(), deleted.load(Ordering::SeqCst)) {
            (true, 1) => Reply::events(&after),
            (true, _) => Reply::events(&[]),
            (false, _) => Reply::ok(&list("9", "", std::slice::from_ref(&one))),
        }
    })
    .await
}

#[tokio::test]
async fn a_stop_deletes_the_very_pod_and_ends_with_its_containers() {
    let one = pod("a", "5", "Running", 0, running());
    let still = marked(pod("a", "10", "Running", 0, running()));
    let over = marked(pod("a", "11", "Running", 0, ended(143)));
    let server = with_pod(one, vec![event("MODIFIED", still), event("MODIFIED", over)]).await;
    let backend = server.backend();
    let verbs = backend.lifecycle().unwrap();
    assert_eq!(verbs.stop(&id(), StopOptions::default()).await.unwrap(), Effect::Changed);
    let deletes = deletes(&server);
    assert_eq!(deletes.len(), 1);
    assert_eq!(deletes[0]["preconditions"], json!({"uid": "uid-a"}));
    assert!(deletes[0].get("gracePeriodSeconds").is_none(), "the pod's own");
}

#[tokio::test]
async fn a_stop_without_time_is_no_forced_deletion_and_a_part_of_a_second_is_one_more() {
    for (timeout, seconds) in [(Duration::ZERO, 1), (Duration::from_millis(1500), 2), (Duration::from_secs(7), 7)] {
        let one = pod("a", "5", "Running", 0, running());
        let server = with_pod(one.clone(), vec![event("DELETED", one)]).await;
        let options = StopOptions::default().with_timeout(Some(timeout));
        server.backend().lifecycle().unwrap().stop(&id(), options).await.unwrap();
        assert_eq!(deletes(&server)[0]["gracePeriodSeconds"], seconds);
    }
}

#[tokio::test]
async fn a_pod_that_has_ended_is_stopped_already_and_stays() {
    let server = with_pod(pod("a", "5", "Succeeded", 0, ended(0)), vec![]).await;
    let backend = server.backend();
    let verbs = backend.lifecycle().unwrap();
    assert_eq!(verbs.stop(&id(), StopOptions::default()).await.unwrap(), Effect::Unchanged);
    assert!(deletes(&server).is_empty());
    let absent = verbs.stop(&"uid-b".into(), StopOptions::default()).await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_pod_that_came_back_under_the_name_is_not_touched() {
    let reborn = Arc::new(AtomicUsize::new(0));
    let is_reborn = Arc::clone(&reborn);
    let server = Server::new(move |request| {
        if request.is("DELETE") {
            // As the server refuses a uid that is another's.
            is_reborn.store(1, Ordering::SeqCst);
            return Reply::refusal(409, "Conflict");
        }
        let mut one = pod("a", "5", "Running", 0, running());
        if is_reborn.load(Ordering::SeqCst) == 1 {
            one["metadata"]["uid"] = json!("another");
        }
        Reply::ok(&list("9", "", &[one]))
    })
    .await;
    let backend = server.backend();
    let verbs = backend.lifecycle().unwrap();
    let removed = verbs.remove(&id(), RemoveOptions::default().with_kill()).await.unwrap();
    assert_eq!((removed, deletes(&server).len()), (Effect::Unchanged, 1));
    assert_eq!(verbs.stop(&id(), StopOptions::default()).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(deletes(&server).len(), 1);
}

#[tokio::test]
async fn a_removal_of_a_running_pod_needs_leave_and_one_of_another_only_that_state() {
    let server = with_pod(pod("a", "5", "Running", 0, running()), vec![]).await;
    let backend = server.backend();
    let error = backend.lifecycle().unwrap().remove(&id(), RemoveOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), deletes(&server).len()), (ErrorKind::Conflict, 0));
    let waits = pod("a", "5", "Pending", 0, json!({"waiting": {"reason": "ImagePullBackOff"}}));
    let server = with_pod(waits.clone(), vec![event("DELETED", waits)]).await;
    let backend = server.backend();
    let removed = backend.lifecycle().unwrap().remove(&id(), RemoveOptions::default()).await.unwrap();
    assert_eq!(removed, Effect::Changed);
    let only = &deletes(&server)[0]["preconditions"];
    assert_eq!(only, &json!({"uid": "uid-a", "resourceVersion": "5"}), "it may have started in between");
}

#[tokio::test]
async fn a_removal_that_a_finalizer_holds_names_it() {
    let mut held = marked(pod("a", "5", "Failed", 0, ended(1)));
    held["metadata"]["finalizers"] = json!(["example.com/backup"]);
    let server = with_pod(held, vec![]).await;
    let config = server.config().with_deadline(Duration::from_millis(300));
    let backend = KubeBackend::new(config).unwrap();
    let error = backend.lifecycle().unwrap().remove(&id(), RemoveOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("example.com/backup"), "{error}");
}

#[tokio::test]
async fn a_wait_has_the_exit_of_its_own_run_and_never_that_of_another() {
    // The server folds changes: the end of the run is seen only in the next one, and that of a run which was hidden not at all.
    for (restarts, exit) in [(1, Some(ExitCause::Code(3))), (2, None)] {
        let mut next = pod("a", "11", "Running", restarts, running());
        next["status"]["containerStatuses"][0]["lastState"] = ended(3);
        let server = Server::new(move |request| {
            if request.is_watch() {
                return Reply::events(&[event("MODIFIED", next.clone())]);
            }
            Reply::ok(&list("9", "", &[pod("a", "5", "Running", 0, running())]))
        })
        .await;
        let waited = server.backend().lifecycle().unwrap().wait(&id()).await.unwrap();
        assert_eq!(waited.map(|exit| exit.end), exit);
    }
}

#[tokio::test]
async fn a_wait_outlasts_a_server_that_is_away_and_the_last_report_has_the_end() {
    let count = AtomicUsize::new(0);
    let server = Server::new(move |request| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let last = marked(pod("a", "12", "Failed", 0, ended(9)));
        match (number, request.is_watch()) {
            (0 | 1 | 5, false) => Reply::ok(&list("9", "", &[pod("a", "5", "Running", 0, running())])),
            (2 | 3, _) => Reply::refusal(503, "ServiceUnavailable"),
            (4, _) => Reply::Whole(429, "Retry-After: 1\r\n", "busy".to_owned()),
            (_, true) => Reply::events(&[event("DELETED", last)]),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let waited = server.backend().lifecycle().unwrap().wait(&id()).await.unwrap();
    assert_eq!(waited.map(|exit| exit.end), Some(ExitCause::Code(9)));
}

#[tokio::test]
async fn what_kubernetes_has_not_is_refused_with_the_reason_before_anything_is_sent() {
    let server = with_pod(pod("a", "5", "Running", 0, running()), vec![]).await;
    let backend = server.backend();
    let (verbs, logs) = (backend.lifecycle().unwrap(), backend.logs().unwrap());
    let signal = StopOptions::default().with_signal(UnixSignal::INT);
    let stderr = LogOptions::default().with_sources([LogSource::Stderr]);
    let containers = KubeBackend::new(server.config().with_granularity(Granularity::Container)).unwrap();
    let of_container = containers.lifecycle().unwrap();
    for refused in [
        verbs.start(&id()).await.err(),
        verbs.stop(&id(), signal).await.err(),
        verbs.kill(&id(), UnixSignal::TERM).await.err(),
        verbs.restart(&id(), StopOptions::default()).await.err(),
        verbs.pause(&id()).await.err(),
        verbs.unpause(&id()).await.err(),
        verbs.rename(&id(), "b").await.err(),
        logs.logs(&id(), stderr).await.err(),
        of_container.stop(&"uid-a/main".into(), StopOptions::default()).await.err(),
        of_container.remove(&"uid-a/main".into(), RemoveOptions::default()).await.err(),
    ] {
        let error = refused.unwrap();
        let has = |key: &str| error.context().iter().any(|(known, _)| known == key);
        assert!(error.kind() == ErrorKind::Unsupported && has("feature") && has("reason"), "{error}");
    }
    assert!(server.asked().is_empty());
    containers.list_instances(runtide_core::ListOptions::default()).await.unwrap();
    containers.connect().await.unwrap_err();
    assert!(matches!(containers.capabilities().lifecycle_stop, Support::No { .. } | Support::Unknown));
}
