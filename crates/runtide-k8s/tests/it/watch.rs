//! The watch.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtide_core::{
    ErrorKind, ExitStatus, RuntimeBackend, RuntimeEventKind, WatchOptions,
    event::{Cursor, Gap},
    watch::{EventStream, InstanceTable},
};
use runtide_k8s::{KubeBackend, Namespaces};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::scripted::{
    Part, Reply, Request, Server, bookmark, ended, event, is_synced, line, list, names, pod, running, status, until,
};

/// The header by which servers name the cluster, as a side effect.
const CLUSTER: &str = "X-Kubernetes-Pf-Flowschema-Uid: cluster-1\r\n";

/// A server with these pods at version `r10`, whose watches are answered in order, and then stay open.
///
/// The first watch begins once the test says so: a change while the driver lists is no event.
async fn server(pods: Vec<Value>, mut watches: Vec<Reply>) -> (Server, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    if let Some(Reply::Stream(parts)) = watches.first_mut() {
        parts.insert(0, Part::Wait(Arc::clone(&go)));
    }
    let watches = Mutex::new(watches.into_iter());
    (Server::new(move |request| answer(request, &pods, || watches.lock().unwrap().next())).await, go)
}

/// Reads to the end of the resync, and lets the first watch begin.
async fn synced(stream: &mut EventStream, go: &Notify) {
    until(stream, is_synced).await;
    go.notify_one();
}

fn answer(request: &Request, pods: &[Value], next: impl FnOnce() -> Option<Reply>) -> Reply {
    if request.is_watch() {
        return next().unwrap_or_else(|| Reply::events(&[]));
    }
    if request.path == "/api/v1/namespaces/kube-system" {
        return Reply::ok(&json!({"metadata": {"uid": "cluster-1", "name": "kube-system"}}));
    }
    if let Some(name) = request.path.strip_prefix("/api/v1/namespaces/default/pods/") {
        let found = pods.iter().find(|pod| pod["metadata"]["name"] == name);
        return found.map_or_else(|| Reply::refusal(404, "NotFound"), Reply::ok);
    }
    Reply::ok(&list("r10", "", pods))
}

fn versions(server: &Server) -> Vec<String> {
    let watches = server.asked().into_iter().filter(Request::is_watch);
    watches.map(|request| request.query("resourceVersion").unwrap_or_default()).collect()
}

fn bookmarked() -> WatchOptions {
    WatchOptions::default().with_bookmark_every(Some(Duration::from_millis(50)))
}

/// Reads until the stream has a position to resume from.
async fn positioned(stream: &mut EventStream, table: &mut InstanceTable) -> Cursor {
    loop {
        for event in until(stream, |kind| matches!(kind, RuntimeEventKind::Bookmark)).await {
            table.apply(&event);
            if matches!(event.kind, RuntimeEventKind::Bookmark) && event.cursor.native.is_some() {
                return event.cursor.clone();
            }
        }
    }
}

fn is_of(name: &'static str, kind: &'static str) -> impl Fn(&RuntimeEventKind) -> bool {
    move |event| event.name() == kind && event.instance().is_some_and(|instance| instance.name == name)
}

#[tokio::test]
async fn a_pods_life_is_reported_and_its_version_moves_the_token() {
    let events = [
        event("ADDED", pod("a", "r11", "Pending", 0, json!({"waiting": {"reason": "ContainerCreating"}}))),
        event("MODIFIED", pod("a", "r12", "Running", 0, running())),
        event("MODIFIED", pod("a", "r13", "Failed", 0, ended(3))),
        event("DELETED", pod("a", "r14", "Failed", 0, ended(3))),
    ];
    let (server, go) = server(vec![], vec![Reply::events(&events)]).await;
    let backend = server.backend();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    synced(&mut stream, &go).await;
    let seen = until(&mut stream, is_of("a", "removed")).await;
    assert_eq!(names(&seen), ["updated a", "started a", "stopped a", "removed a"]);
    let stopped = seen[2].instance().unwrap();
    assert_eq!(stopped.exit, Some(ExitStatus::code(3)));
    assert!(seen[2].token.as_ref().unwrap().as_str().contains("r13"), "{:?}", seen[2].token);
}

#[tokio::test]
async fn a_run_that_no_report_showed_running_is_reported_all_the_same() {
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let mut looping = pod("b", "r13", "Running", 1, waiting);
    looping["status"]["containerStatuses"][0]["lastState"] = ended(4);
    let mut again = pod("b", "r14", "Running", 2, running());
    again["status"]["containerStatuses"][0]["lastState"] = ended(5);
    let mut third = pod("b", "r15", "Running", 3, running());
    third["status"]["containerStatuses"][0]["lastState"] = ended(6);
    let events = [
        event("ADDED", pod("a", "r11", "Pending", 0, json!({}))),
        event("MODIFIED", pod("a", "r12", "Succeeded", 0, ended(0))),
        event("MODIFIED", looping),
        event("MODIFIED", again),
        event("MODIFIED", third),
        event("ADDED", pod("z", "r16", "Running", 0, running())),
    ];
    let (server, go) = server(vec![pod("b", "r9", "Running", 0, running())], vec![Reply::events(&events)]).await;
    let backend = server.backend();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    synced(&mut stream, &go).await;
    let seen = until(&mut stream, is_of("z", "started")).await;
    assert_eq!(
        names(&seen),
        [
            "updated a",
            "started a",
            "stopped a", // a short run
            "stopped b",
            "started b",
            "stopped b", // the end of run 0, and all of run 1
            "started b",
            "stopped b",
            "started b", // runs 2 and 3
            "started z",
        ]
    );
    let exits: Vec<_> = seen
        .iter()
        .filter(|event| event.kind.name() == "stopped")
        .map(|event| event.instance().unwrap().exit)
        .collect();
    assert_eq!(exits, [Some(ExitStatus::code(0)), None, Some(ExitStatus::code(4)), Some(ExitStatus::code(6))]);
    let keys: Vec<_> = seen.iter().filter_map(|event| event.key()).collect();
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(keys.len(), distinct.len());
}

#[tokio::test]
async fn bookmarks_move_the_token_and_the_next_watch_begins_there() {
    let end = Arc::new(Notify::new());
    let parts = vec![line(&bookmark("opaque/20")), Part::Wait(Arc::clone(&end)), Part::End];
    let after = event("ADDED", pod("a", "r30", "Running", 0, running()));
    let (server, go) = server(vec![], vec![Reply::Stream(parts), Reply::events(&[after])]).await;
    let backend = KubeBackend::new(server.config().with_max_silence(Duration::from_secs(2))).unwrap();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    synced(&mut stream, &go).await;
    // The server ends the watch after the second that it was asked for.
    tokio::time::sleep(Duration::from_secs(1)).await;
    end.notify_one();
    let seen = until(&mut stream, is_of("a", "started")).await;
    assert_eq!(names(&seen), ["started a"], "the end of a watch is no outage");
    assert_eq!(versions(&server), ["r10", "opaque%2F20"]);
    let first = server.asked().into_iter().find(Request::is_watch).unwrap();
    assert_eq!(first.query("timeoutSeconds").as_deref(), Some("1"));
    assert_eq!(first.query("allowWatchBookmarks").as_deref(), Some("true"));
}

#[tokio::test]
async fn a_watch_resumes_in_another_process_with_the_edges_themselves() {
    let server = Arc::new(Mutex::new(None::<Vec<Value>>));
    let missed = Arc::clone(&server);
    let scripted = Server::new(move |request| {
        let pods = [pod("a", "r9", "Running", 0, running())];
        let mut reply = answer(request, &pods, || {
            let missed = missed.lock().unwrap().clone();
            missed.map(|events| Reply::events(&events))
        });
        if let (Reply::Stream(parts), true) = (&reply, request.is_watch()) {
            reply = Reply::Stream(parts.clone());
        }
        reply
    })
    .await;
    let backend = scripted.backend();
    let mut stream = backend.watch(bookmarked()).await.unwrap();
    let mut table = InstanceTable::default();
    let cursor = positioned(&mut stream, &mut table).await;
    drop(stream);
    *server.lock().unwrap() = Some(vec![
        event("MODIFIED", pod("a", "r11", "Failed", 0, ended(3))),
        event("DELETED", pod("a", "r12", "Failed", 0, ended(3))),
        event("ADDED", pod("b", "r13", "Running", 0, running())),
        bookmark("r20"),
    ]);
    let again = scripted.backend();
    let options = WatchOptions::default().with_from(cursor).with_known(table);
    let mut stream = again.watch(options).await.unwrap();
    let seen = until(&mut stream, |kind| matches!(kind, RuntimeEventKind::CaughtUp)).await;
    assert_eq!(names(&seen), ["backend_reconnected", "stopped a", "removed a", "started b", "caught_up"]);
    assert_eq!(versions(&scripted), ["r10", "r10"]);
}

#[tokio::test]
async fn a_history_that_is_gone_is_a_resync_in_either_form_and_no_outage() {
    let gone = status(410, "Expired");
    let in_stream = Reply::events(&[event("ERROR", gone.clone())]);
    let (server, go) = server(vec![pod("a", "r9", "Running", 0, running())], vec![in_stream]).await;
    let backend = server.backend();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    synced(&mut stream, &go).await;
    let seen = until(&mut stream, is_synced).await;
    assert_eq!(names(&seen), ["resync_begin", "present a", "resync_end"]);
    assert!(matches!(seen[0].kind, RuntimeEventKind::ResyncBegin { gap: Gap::HistoryExpired }), "{:?}", seen[0]);

    // As the answer to the watch that follows a listing: the listing was too old.
    let (server, _) = crate::watch::server(vec![], vec![Reply::Whole(410, "", gone.to_string())]).await;
    let backend = server.backend();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    let seen = until(&mut stream, is_synced).await;
    assert_eq!(names(&seen), ["resync_begin", "resync_end"]);
    assert_eq!(versions(&server), ["r10", "r10"]);
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_is_inspected_and_the_stream_goes_on() {
    let mut broken = pod("a", "r11", "Running", 0, running());
    broken["spec"]["containers"] = json!("none");
    let events = [
        event("MODIFIED", broken),
        event("LATER", json!({"metadata": {"uid": "uid-a"}})),
        event("ADDED", pod("b", "r12", "Running", 0, running())),
    ];
    let mut parts: Vec<_> = events.iter().map(line).collect();
    parts.insert(0, Part::Text("\n".to_owned()));
    let (server, go) = server(vec![pod("a", "r9", "Running", 0, running())], vec![Reply::Stream(parts)]).await;
    let backend = server.backend();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    synced(&mut stream, &go).await;
    let seen = until(&mut stream, is_of("b", "started")).await;
    assert_eq!(names(&seen), ["started b"]);
    while !server.asked().iter().any(|request| request.path == "/api/v1/namespaces/default/pods/a") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_line_that_is_no_event_is_a_resync() {
    let parts = vec![Part::Text("{\"type\":\"ADDED\",\n".to_owned())];
    let (server, go) = server(vec![pod("a", "r9", "Running", 0, running())], vec![Reply::Stream(parts)]).await;
    let backend = server.backend();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    synced(&mut stream, &go).await;
    let seen = until(&mut stream, is_synced).await;
    assert!(matches!(seen[0].kind, RuntimeEventKind::ResyncBegin { gap: Gap::Undecodable }), "{:?}", seen[0]);
}

#[tokio::test]
async fn a_torn_line_comes_again_with_the_next_watch() {
    let whole = event("ADDED", pod("a", "r11", "Running", 0, running())).to_string();
    let torn = vec![Part::Text(whole[..whole.len() / 2].to_owned()), Part::End];
    let again = Reply::Stream(vec![Part::Text(format!("{whole}\n")), line(&bookmark("r12"))]);
    let (server, go) = server(vec![], vec![Reply::Stream(torn), again]).await;
    let backend = server.backend();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    synced(&mut stream, &go).await;
    let seen = until(&mut stream, is_of("a", "started")).await;
    assert!(names(&seen).contains(&"backend_disconnected".to_owned()), "an end long before its time is an outage");
    assert_eq!(versions(&server)[..2], ["r10", "r10"]);
}

#[tokio::test]
async fn a_cluster_that_was_installed_again_is_not_resumed_from() {
    let number = Arc::new(AtomicUsize::new(1));
    let cluster = Arc::clone(&number);
    let server = Server::new(move |request| {
        let now = cluster.load(Ordering::SeqCst);
        if request.path == "/api/v1/namespaces/kube-system" {
            return Reply::ok(&json!({"metadata": {"uid": format!("cluster-{now}")}}));
        }
        if request.is_watch() {
            return if now == 1 {
                Reply::Stream(vec![line(&bookmark("r11")), Part::Wait(Arc::new(Notify::new()))])
            } else {
                Reply::events(&[])
            };
        }
        Reply::ok(&list("r10", "", &[]))
    })
    .await;
    let backend = server.backend();
    let mut stream = backend.watch(bookmarked()).await.unwrap();
    let cursor = positioned(&mut stream, &mut InstanceTable::default()).await;
    drop(stream);
    number.store(2, Ordering::SeqCst);
    let backend = server.backend();
    let mut stream = backend.watch(WatchOptions::default().with_from(cursor)).await.unwrap();
    let seen = until(&mut stream, is_synced).await;
    let begin = seen.iter().find(|event| event.kind.name() == "resync_begin").unwrap();
    assert!(matches!(begin.kind, RuntimeEventKind::ResyncBegin { gap: Gap::RuntimeRestarted }), "{begin:?}");
}

#[tokio::test]
async fn a_server_that_has_just_started_is_asked_again_of_which_cluster_it_is() {
    // It schedules no requests yet, and so names no object by which it does; or has yet to read the rights of its users.
    for by_schema in [true, false] {
        let restarted = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&restarted);
        let server = Server::new(move |request| {
            let is_starting = || asked.load(Ordering::SeqCst) > 0 && asked.fetch_add(1, Ordering::SeqCst) < 3;
            if request.is_watch() {
                return Reply::Stream(vec![line(&bookmark("r11")), Part::Wait(Arc::new(Notify::new()))]);
            }
            if request.path == "/api/v1/namespaces/kube-system" {
                return if is_starting() {
                    Reply::refusal(403, "Forbidden")
                } else {
                    Reply::ok(&json!({"metadata": {"uid": "cluster-1"}}))
                };
            }
            let headers = if !by_schema || is_starting() { "" } else { CLUSTER };
            Reply::Whole(200, headers, list("r10", "", &[]).to_string())
        })
        .await;
        let backend = server.backend();
        let mut stream = backend.watch(bookmarked()).await.unwrap();
        let cursor = positioned(&mut stream, &mut InstanceTable::default()).await;
        drop(stream);
        restarted.store(1, Ordering::SeqCst);
        let backend = server.backend();
        let options = WatchOptions::default().with_from(cursor).with_known(InstanceTable::default());
        let mut stream = backend.watch(options).await.unwrap();
        let seen = until(&mut stream, |kind| matches!(kind, RuntimeEventKind::CaughtUp) || is_synced(kind)).await;
        assert_eq!(names(&seen), ["backend_reconnected", "caught_up"], "{by_schema}");
        assert!(restarted.load(Ordering::SeqCst) > 3);
    }
}

#[tokio::test]
async fn a_namespace_whose_right_is_withdrawn_is_partial_and_removes_nothing() {
    let withdraw = Arc::new(Notify::new());
    let wait = Arc::clone(&withdraw);
    let is_shut = Arc::new(AtomicUsize::new(0));
    let shut = Arc::clone(&is_shut);
    let server = Server::new(move |request| {
        let is_b = request.path.contains("/namespaces/b/");
        if is_b && shut.load(Ordering::SeqCst) > 0 {
            return Reply::refusal(403, "Forbidden");
        }
        if request.is_watch() {
            let parts = if is_b {
                vec![Part::Wait(Arc::clone(&wait)), line(&event("ERROR", status(403, "Forbidden")))]
            } else {
                vec![]
            };
            return Reply::Stream(parts);
        }
        let name = if is_b { "of-b" } else { "of-a" };
        Reply::Whole(200, CLUSTER, list("r10", "", &[pod(name, "r9", "Running", 0, running())]).to_string())
    })
    .await;
    let both = Namespaces::Only(vec!["a".to_owned(), "b".to_owned()]);
    let backend = KubeBackend::new(server.config().with_namespaces(both)).unwrap();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    let seen = until(&mut stream, is_synced).await;
    let mut shown = names(&seen);
    shown.sort();
    assert_eq!(shown, ["present of-a", "present of-b", "resync_begin", "resync_end"], "one resync for both");
    is_shut.store(1, Ordering::SeqCst);
    withdraw.notify_one();
    let seen = until(&mut stream, is_synced).await;
    assert!(
        !names(&seen).iter().any(|name| name.starts_with("removed") || name == "backend_disconnected"),
        "{:?}",
        names(&seen)
    );
    let RuntimeEventKind::ResyncEnd(completeness) = &seen.last().unwrap().kind else { unreachable!() };
    let failure = &completeness.failures()[0];
    assert_eq!((failure.kind, failure.context["namespace"].as_str()), (ErrorKind::PermissionDenied, "b"));
}

#[tokio::test]
async fn a_right_that_is_missing_from_the_beginning_is_the_streams_reason() {
    let server = Server::new(|_| Reply::refusal(403, "Forbidden")).await;
    let backend = server.backend();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    let seen = until(&mut stream, |kind| matches!(kind, RuntimeEventKind::BackendDisconnected { .. })).await;
    let RuntimeEventKind::BackendDisconnected { cause } = &seen[0].kind else { panic!("{seen:?}") };
    let cause = cause.as_ref().unwrap();
    assert!(cause.kind == ErrorKind::PermissionDenied && cause.message.contains("scripted: Forbidden"), "{cause:?}");
}

#[tokio::test]
async fn a_force_deletion_is_a_removal() {
    let mut deleting = pod("a", "r11", "Running", 0, running());
    deleting["metadata"]["deletionTimestamp"] = json!("2026-11-30T12:01:00Z");
    let events = [event("MODIFIED", deleting.clone()), event("DELETED", deleting)];
    let (server, go) = server(vec![pod("a", "r9", "Running", 0, running())], vec![Reply::events(&events)]).await;
    let backend = server.backend();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    synced(&mut stream, &go).await;
    let seen = until(&mut stream, is_of("a", "removed")).await;
    assert_eq!(names(&seen), ["updated a", "removed a"]);
}
