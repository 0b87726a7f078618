//! The store against answers that a real server cannot be made to give on demand.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtide_core::{
    ErrorKind, Gap, Retry,
    store::{
        ApplyOutcome, Document, Precondition, ResourceRef, Revision, Selector, Since, StoreBackend, StoreEvent,
        StoreStream, StoreWatchOptions,
    },
};
use runtide_k8s::{KubeStore, KubeStoreOptions};
use serde_json::{Value, json};

use crate::scripted::{Part, Reply, Request, Server, event, line, status};

fn web() -> ResourceRef {
    ResourceRef::new("", "ConfigMap", "default", "web").unwrap()
}

fn declared(value: &str) -> Document {
    Document::json(json!({"data": {"key": value}}).to_string())
}

/// A map at this version, as an apply of the store made it.
fn map(value: &str, version: u64) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "uid-web", "resourceVersion": version.to_string(), "managedFields":
            [{"manager": "runtide", "operation": "Apply", "time": format!("2026-12-01T00:00:{:02}Z", version % 60)}]},
        "data": {"key": value}
    })
}

fn listed(version: u64, items: &[Value]) -> Reply {
    Reply::ok(&json!({"kind": "ConfigMapList", "metadata": {"resourceVersion": version.to_string()}, "items": items}))
}

/// The server's kinds, which are the same in most tests.
fn discovery(request: &Request) -> Option<Reply> {
    let verbs = ["list", "watch", "patch", "delete"];
    match request.path.as_str() {
        "/apis" => Some(Reply::ok(&json!({"groups": []}))),
        "/api/v1" => Some(Reply::ok(
            &json!({"resources": [{"name": "configmaps", "kind": "ConfigMap", "namespaced": true, "verbs": verbs}]}),
        )),
        _ => None,
    }
}

/// An answer that is lost on its way.
fn lost() -> Reply {
    Reply::Stream(vec![Part::Break])
}

fn is_dry(request: &Request) -> bool {
    request.query("dryRun").is_some()
}

async fn server(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::new(move |request| discovery(request).unwrap_or_else(|| answer(request))).await
}

fn store(server: &Server) -> KubeStore {
    KubeStore::new(server.config(), KubeStoreOptions::default()).unwrap()
}

/// The requests to write, without those that only try it out.
fn writes(server: &Server) -> usize {
    server.asked().iter().filter(|request| request.is("PATCH") && !is_dry(request)).count()
}

#[tokio::test]
async fn an_apply_that_could_not_be_tried_out_is_tried_out_again_and_not_written() {
    let lost_once = AtomicUsize::new(0);
    let server = server(move |request| match () {
        () if !request.is("PATCH") => listed(7, &[map("a", 7)]),
        () if !is_dry(request) => Reply::ok(&map("a", 8)),
        () if lost_once.fetch_add(1, Ordering::SeqCst) == 0 => lost(),
        () => Reply::ok(&map("a", 7)),
    })
    .await;
    let done = store(&server).apply(&web(), declared("a"), Precondition::None).await.unwrap();
    assert_eq!((done.outcome, done.revision, writes(&server)), (ApplyOutcome::Unchanged, Revision(7), 0));
}

#[tokio::test]
async fn an_apply_that_cannot_be_tried_out_is_sent_and_its_own_answer_counts() {
    let server = server(|request| match () {
        () if !request.is("PATCH") => listed(7, &[map("a", 7)]),
        () if is_dry(request) => Reply::refusal(400, "BadRequest"),
        () => Reply::ok(&map("b", 8)),
    })
    .await;
    let done = store(&server).apply(&web(), declared("b"), Precondition::None).await.unwrap();
    assert_eq!((done.outcome, done.revision, writes(&server)), (ApplyOutcome::Changed, Revision(8), 1));
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_is_found_in_the_history_and_not_sent_twice() {
    let server = server(|request| {
        if request.is("PATCH") {
            lost()
        } else if request.is_watch() {
            Reply::events(&[event("ADDED", map("a", 9))])
        } else {
            listed(8, &[])
        }
    })
    .await;
    let done = store(&server).apply(&web(), declared("a"), Precondition::None).await.unwrap();
    assert_eq!((done.outcome, done.revision, writes(&server)), (ApplyOutcome::Created, Revision(9), 1));
}

#[tokio::test]
async fn a_create_of_which_the_history_has_nothing_has_an_unknown_outcome() {
    let server = server(|request| {
        if request.is("PATCH") {
            lost()
        } else if request.is_watch() {
            Reply::Stream(vec![Part::End])
        } else {
            listed(8, &[])
        }
    })
    .await;
    let error = store(&server).apply(&web(), declared("a"), Precondition::None).await.unwrap_err();
    assert_eq!((error.kind(), error.fact("outcome")), (ErrorKind::Timeout, Some("unknown")), "{error}");
    assert_eq!(writes(&server), 1);
}

#[tokio::test]
async fn a_replacement_without_an_answer_is_sent_again_on_the_same_condition() {
    let sent = AtomicUsize::new(0);
    let server = server(move |request| match () {
        () if !request.is("PATCH") => listed(7, &[map("a", 7)]),
        () if is_dry(request) => Reply::ok(&map("b", 7)),
        () if sent.fetch_add(1, Ordering::SeqCst) == 0 => lost(),
        () => Reply::ok(&map("b", 8)),
    })
    .await;
    let done = store(&server).apply(&web(), declared("b"), Precondition::None).await.unwrap();
    assert_eq!((done.outcome, done.revision), (ApplyOutcome::Changed, Revision(8)));
    let bodies: Vec<Value> = server
        .asked()
        .iter()
        .filter(|request| request.is("PATCH") && !is_dry(request))
        .map(|request| serde_json::from_str(&request.body).unwrap())
        .collect();
    assert_eq!(bodies.len(), 2);
    for body in bodies {
        assert_eq!((&body["metadata"]["resourceVersion"], &body["metadata"]["uid"]), (&json!("7"), &json!("uid-web")));
    }
}

/// A server whose first write is lost, and landed or not: the map was at 7, then at 8 as the watch shows it, and is at 9 now.
async fn lost_write(first_change: Value) -> Server {
    let sent = AtomicUsize::new(0);
    server(move |request| match (request.is("PATCH"), is_dry(request)) {
        (true, true) => Reply::ok(&map("x", 7)),
        (true, false) if sent.fetch_add(1, Ordering::SeqCst) == 0 => lost(),
        (true, false) => Reply::ok(&map("b", 10)),
        _ if request.is_watch() => Reply::events(&[event("MODIFIED", first_change.clone())]),
        _ if sent.load(Ordering::SeqCst) == 0 => listed(7, &[map("a", 7)]),
        _ => listed(9, &[map("c", 9)]),
    })
    .await
}

#[tokio::test]
async fn a_lost_replacement_is_found_below_a_later_one_also_within_one_second() {
    // The server leaves out what is empty, and its notes have seconds.
    let document = Document::json(r#"{"metadata":{"labels":{}},"data":{"key":"b"}}"#);
    let mut landed = map("b", 8);
    for time in [map("b", 8), map("a", 7)] {
        landed["metadata"]["managedFields"] = time["metadata"]["managedFields"].clone();
        let server = lost_write(landed.clone()).await;
        let done = store(&server).apply(&web(), document.clone(), Precondition::None).await.unwrap();
        assert_eq!((done.outcome, done.revision, writes(&server)), (ApplyOutcome::Changed, Revision(8), 1));
    }
}

#[tokio::test]
async fn a_lost_replacement_is_sent_again_only_if_another_manager_was_first() {
    let mut foreign = map("c", 8);
    foreign["metadata"]["managedFields"] = map("a", 7)["metadata"]["managedFields"].clone();
    let note = json!({"manager": "kubectl", "operation": "Update", "time": "2026-12-01T00:00:08Z"});
    foreign["metadata"]["managedFields"].as_array_mut().unwrap().push(note);
    let server = lost_write(foreign).await;
    let done = store(&server).apply(&web(), declared("b"), Precondition::None).await.unwrap();
    assert_eq!((done.outcome, done.revision, writes(&server)), (ApplyOutcome::Changed, Revision(10), 2));

    // Of the same manager, and not as it was sent: the server may have written it in another form.
    let mut same_second = map("c", 8);
    same_second["metadata"]["managedFields"] = map("a", 7)["metadata"]["managedFields"].clone();
    for unclear in [same_second, map("c", 8)] {
        let server = lost_write(unclear).await;
        let error = store(&server).apply(&web(), declared("b"), Precondition::None).await.unwrap_err();
        assert_eq!((error.fact("outcome"), writes(&server)), (Some("unknown"), 1), "{error}");
    }
}

#[tokio::test]
async fn a_delete_without_an_answer_removes_no_later_object_of_the_name() {
    // The first one is gone, and another has its name when the server is asked again.
    let sent = Arc::new(AtomicUsize::new(0));
    let deletes = Arc::clone(&sent);
    let server = server(move |request| match () {
        () if request.is("DELETE") => {
            deletes.fetch_add(1, Ordering::SeqCst);
            lost()
        }
        () if deletes.load(Ordering::SeqCst) == 0 => listed(7, &[map("a", 7)]),
        () => {
            let mut other = map("b", 9);
            other["metadata"]["uid"] = "uid-other".into();
            listed(9, &[other])
        }
    })
    .await;
    let error = store(&server).delete(&web(), Precondition::None).await.unwrap_err();
    assert_eq!((error.fact("outcome"), sent.load(Ordering::SeqCst)), (Some("unknown"), 1), "{error}");
}

#[tokio::test]
async fn each_refusal_of_a_document_has_its_kind_and_the_servers_words_and_is_sent_once() {
    for (code, reason, message, kind) in [
        (
            403,
            "Forbidden",
            "exceeded quota: small, requested: configmaps=1, used: 1, limited: 1",
            ErrorKind::PermissionDenied,
        ),
        (403, "", "admission webhook \"policy.example.com\" denied the request: no", ErrorKind::PermissionDenied),
        (500, "InternalError", "failed calling webhook \"policy.example.com\": no endpoints", ErrorKind::Unavailable),
        (
            422,
            "Invalid",
            "ConfigMap \"web\" is invalid: data: field is immutable when `immutable` is set",
            ErrorKind::InvalidInput,
        ),
        (413, "RequestEntityTooLarge", "limit is 3145728", ErrorKind::InvalidInput),
        (500, "", "etcdserver: request is too large", ErrorKind::InvalidInput),
        (404, "NotFound", "namespaces \"default\" not found", ErrorKind::NotFound),
        (401, "Unauthorized", "Unauthorized", ErrorKind::Unauthenticated),
    ] {
        let server = server(move |request| match () {
            () if request.is("PATCH") => {
                let mut refusal = status(code, reason);
                refusal["message"] = message.into();
                Reply::Whole(code, "", refusal.to_string())
            }
            () => listed(8, &[]),
        })
        .await;
        let error = store(&server).apply(&web(), declared("a"), Precondition::None).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(message) && error.fact("outcome").is_none(), "{error}");
        assert_eq!(writes(&server), 1, "{message}");
    }
}

#[tokio::test]
async fn fields_of_other_managers_are_named_and_force_takes_them() {
    let server = server(|request| match () {
        () if !request.is("PATCH") => listed(7, &[map("a", 7)]),
        () if request.query("force").as_deref() == Some("true") => Reply::ok(&map("b", 8)),
        () => {
            let mut refusal = status(409, "Conflict");
            refusal["details"] = json!({"causes": [
                {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl\" using v1", "field": ".data.key"}]});
            Reply::Whole(409, "", refusal.to_string())
        }
    })
    .await;
    let store = store(&server);
    let error = store.apply(&web(), declared("b"), Precondition::None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let fields = error.fact("fields").unwrap();
    assert!(fields.contains(".data.key") && fields.contains("kubectl"), "{fields}");
    let done = store.apply_by_force(&web(), declared("b"), Precondition::None).await.unwrap();
    assert_eq!((done.outcome, done.revision), (ApplyOutcome::Changed, Revision(8)));
}

#[tokio::test]
async fn the_pause_of_a_busy_server_is_kept_and_one_beyond_the_deadline_is_told() {
    let busy = AtomicUsize::new(0);
    let patient = server(move |request| match () {
        () if !request.is("PATCH") => listed(8, &[]),
        () if busy.fetch_add(1, Ordering::SeqCst) == 0 => {
            Reply::Whole(429, "Retry-After: 1\r\n", status(429, "TooManyRequests").to_string())
        }
        () => Reply::Whole(201, "", map("a", 9).to_string()),
    })
    .await;
    let begun = std::time::Instant::now();
    let done = store(&patient).apply(&web(), declared("a"), Precondition::None).await.unwrap();
    assert_eq!((done.outcome, writes(&patient)), (ApplyOutcome::Created, 2));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let refusing = server(|request| match () {
        () if request.is("PATCH") => {
            Reply::Whole(429, "Retry-After: 900\r\n", status(429, "TooManyRequests").to_string())
        }
        () => listed(8, &[]),
    })
    .await;
    let error = store(&refusing).apply(&web(), declared("a"), Precondition::None).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::RateLimited, Retry::After(Duration::from_secs(600))));
    assert_eq!(writes(&refusing), 1);
}

#[tokio::test]
async fn an_unknown_kind_is_asked_for_once_more_and_then_named() {
    let server = server(|_| Reply::refusal(404, "NotFound")).await;
    let reference = ResourceRef::new("shop.example.com", "Basket", "default", "web").unwrap();
    let error = store(&server).get(&reference, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("Basket") && error.to_string().contains("shop.example.com"), "{error}");
    assert_eq!(server.asked().len(), 2);
    let core = ResourceRef::new("", "Basket", "default", "web").unwrap();
    let error = store(&server).apply(&core, declared("a"), Precondition::None).await.unwrap_err();
    assert_eq!((error.kind(), writes(&server)), (ErrorKind::NotFound, 0), "{error}");
}

#[tokio::test]
async fn a_path_that_a_starting_server_does_not_have_is_no_answer_about_an_object() {
    let nothing = || Reply::Whole(404, "", "404 page not found\n".to_owned());
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tried);
    let starting = server(move |request| match () {
        () if request.is("PATCH") && !is_dry(request) && counted.fetch_add(1, Ordering::SeqCst) < 2 => nothing(),
        () if request.is("PATCH") => Reply::ok(&map("a", 9)),
        // It is ready as it is tried for the second time.
        () if request.path == "/readyz" && counted.load(Ordering::SeqCst) < 2 => Reply::refusal(500, "InternalError"),
        () if request.path == "/readyz" => Reply::ok(&json!("ok")),
        () => listed(8, &[]),
    })
    .await;
    let done = store(&starting).apply(&web(), declared("a"), Precondition::None).await;
    assert!(done.is_ok(), "{done:?}");
    assert_eq!(writes(&starting), 3);

    let gone = server(move |request| match () {
        () if request.is("PATCH") => nothing(),
        () if request.path == "/readyz" => Reply::ok(&json!("ok")),
        () => listed(8, &[]),
    })
    .await;
    let error = store(&gone).apply(&web(), declared("a"), Precondition::None).await.unwrap_err();
    assert_eq!((error.kind(), writes(&gone)), (ErrorKind::NotFound, 2), "{error}");
}

/// The next events up to this one.
async fn until(events: &mut StoreStream, is_it: impl Fn(&StoreEvent) -> bool) -> Vec<StoreEvent> {
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(120), events.next()).await;
        let event = next.unwrap_or_else(|_| panic!("no such event after {seen:#?}")).expect("the end").unwrap();
        let done = is_it(&event);
        seen.push(event);
        if done {
            return seen;
        }
    }
}

fn is_bookmark(event: &StoreEvent) -> bool {
    matches!(event, StoreEvent::Bookmark { .. })
}

fn names(events: &[StoreEvent]) -> Vec<String> {
    let name = |event: &StoreEvent| match event {
        StoreEvent::Reset { gap, revision } => format!("reset {gap:?} {}", revision.0),
        StoreEvent::Added(resource) => format!("added {}", resource.revision.0),
        StoreEvent::Modified(resource) => format!("modified {}", resource.revision.0),
        StoreEvent::Deleted { revision, .. } => format!("deleted {}", revision.0),
        other => format!("bookmark {}", other.revision().0),
    };
    events.iter().map(name).collect()
}

async fn watch(store: &KubeStore) -> StoreStream {
    let selector = Selector::default().with_kind("ConfigMap").with_group("");
    store.watch(&selector, StoreWatchOptions::default().with_since(Since::Start)).await.unwrap()
}

/// A server whose watches after the n-th are answered in turn, and which has one map, at a version that rises with each listing.
async fn watched(watches: Vec<Reply>) -> (Server, Arc<Mutex<Vec<String>>>) {
    let (turn, versions) = (AtomicUsize::new(0), Arc::new(Mutex::new(Vec::new())));
    let (since, listings) = (Arc::clone(&versions), AtomicUsize::new(0));
    let server = server(move |request| {
        if request.is_watch() {
            since.lock().unwrap().push(request.query("resourceVersion").unwrap());
            let reply = watches.get(turn.fetch_add(1, Ordering::SeqCst));
            return reply.cloned().unwrap_or(Reply::Stream(Vec::new()));
        }
        let version = 10 * (1 + listings.fetch_add(1, Ordering::SeqCst)) as u64;
        listed(version, &[map("a", version)])
    })
    .await;
    (server, versions)
}

#[tokio::test]
async fn a_watch_that_breaks_in_the_middle_of_a_line_goes_on_after_the_last_whole_one() {
    let torn = event("MODIFIED", map("c", 13)).to_string();
    let first = Reply::Stream(vec![
        line(&event("MODIFIED", map("b", 12))),
        Part::Text(torn[..torn.len() / 2].to_owned()),
        Part::Break,
    ]);
    let second = Reply::events(&[event("MODIFIED", map("c", 13)), event("DELETED", map("c", 14))]);
    let (server, since) = watched(vec![first, second]).await;
    let mut events = watch(&store(&server)).await;
    let seen = until(&mut events, |event| matches!(event, StoreEvent::Deleted { .. })).await;
    assert_eq!(
        names(&seen),
        ["reset Initial 10", "added 10", "bookmark 10", "modified 12", "modified 13", "deleted 14"]
    );
    assert_eq!(*since.lock().unwrap(), ["10", "12"]);
}

#[tokio::test]
async fn a_history_that_is_gone_in_either_form_is_one_reset() {
    let gone = Reply::refusal(410, "Expired");
    let ended = Reply::events(&[event("ERROR", status(410, "Gone"))]);
    for reply in [gone, ended] {
        let (server, _) = watched(vec![reply]).await;
        let mut events = watch(&store(&server)).await;
        until(&mut events, is_bookmark).await;
        assert_eq!(
            names(&until(&mut events, is_bookmark).await),
            ["reset HistoryExpired 20", "added 20", "bookmark 20"]
        );
    }
}

#[tokio::test]
async fn a_line_that_cannot_be_read_is_a_reset_and_an_object_without_a_name_is_not() {
    let nameless = json!({"metadata": {"name": 7, "resourceVersion": "11"}});
    let first = Reply::Stream(vec![line(&event("MODIFIED", nameless)), Part::Text("no JSON\n".to_owned())]);
    let (server, _) = watched(vec![first]).await;
    let mut events = watch(&store(&server)).await;
    until(&mut events, is_bookmark).await;
    let seen = until(&mut events, |event| is_bookmark(event) && event.revision() == Revision(20)).await;
    let seen = names(&seen);
    assert_eq!(
        seen[seen.len() - 3..],
        [format!("reset {:?} 20", Gap::Undecodable), "added 20".to_owned(), "bookmark 20".to_owned()]
    );
}

#[tokio::test]
async fn a_kind_that_goes_under_a_watch_leaves_nothing_and_comes_back() {
    // The kind is there, then gone with its objects, then there again.
    let phase = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&phase);
    let server = Server::new(move |request| {
        let is_there = now.load(Ordering::SeqCst) != 1;
        let missing = || Reply::refusal(404, "NotFound");
        match request.path.as_str() {
            "/apis/example.com" if is_there => {
                Reply::ok(&json!({"name": "example.com", "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}}))
            }
            "/apis/example.com/v1" if is_there => Reply::ok(
                &json!({"resources": [{"name": "baskets", "kind": "Basket", "namespaced": true, "verbs": ["list", "watch"]}]}),
            ),
            "/api/v1" => Reply::ok(&json!({"resources": [
                {"name": "namespaces", "kind": "Namespace", "namespaced": false, "verbs": ["list", "watch"]}]})),
            path if path.starts_with("/api/v1/namespaces") => {
                Reply::ok(&json!({"metadata": {"resourceVersion": "25"}, "items": []}))
            }
            _ if !is_there => missing(),
            _ if request.is_watch() && now.load(Ordering::SeqCst) == 0 => {
                // The definition is removed: the server ends the watch, and serves the path no longer.
                now.store(1, Ordering::SeqCst);
                Reply::Stream(vec![line(&event("DELETED", map("a", 12))), Part::End])
            }
            _ if request.is_watch() => Reply::Stream(Vec::new()),
            _ => Reply::ok(&json!({"metadata": {"resourceVersion": "30"}, "items": [map("a", 30)]})),
        }
    })
    .await;
    let store = store(&server);
    let selector = Selector::default().with_kind("Basket").with_group("example.com");
    let mut events = store.watch(&selector, StoreWatchOptions::default().with_since(Since::Start)).await.unwrap();
    let seen = until(&mut events, |event| matches!(event, StoreEvent::Deleted { .. })).await;
    assert_eq!(names(&seen), ["reset Initial 30", "added 30", "bookmark 30", "deleted 12"]);
    let seen = until(&mut events, is_bookmark).await;
    assert_eq!(names(&seen), ["reset Disconnected 25", "bookmark 25"]);
    phase.store(2, Ordering::SeqCst);
    let seen = until(&mut events, is_bookmark).await;
    assert_eq!(names(&seen), ["reset Disconnected 30", "added 30", "bookmark 30"]);
}
