//! The watch over what Podman does differently from Docker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use runtide_core::{
    Change, ErrorKind, ListOptions, RuntimeBackend, RuntimeBackendExt, WatchOptions, capabilities::WatchSupport,
};
use runtide_podman::PodmanBackend;
use tokio::sync::Notify;

use crate::scripted::{PODMAN, Reply, Service, item, message};

/// Tells the service to go on.
fn pair() -> (Arc<Notify>, Arc<Notify>) {
    let say = Arc::new(Notify::new());
    (Arc::clone(&say), say)
}

const FILE: &str = r#"{"host":{"eventLogger":"file"}}"#;

/// The changes up to the first one that satisfies `is_last`, as lines. Once the watch has begun, `say` is notified.
async fn changes(backend: &PodmanBackend, say: &Notify, is_last: impl Fn(&str) -> bool) -> Vec<String> {
    let mut changes = backend.transitions(WatchOptions::default()).await.unwrap();
    let mut lines: Vec<String> = Vec::new();
    let read = async {
        while let Some(change) = changes.next().await {
            let line = change.unwrap().to_string();
            if line.starts_with('=') {
                say.notify_one();
            }
            let done = is_last(&line);
            lines.push(line);
            if done {
                return;
            }
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(60), read).await;
    assert!(read.is_ok(), "it never came: {lines:#?}");
    lines
}

#[tokio::test]
async fn a_service_that_keeps_no_events_is_polled_and_says_so() {
    let lists = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lists);
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(r#"{"host":{"eventLogger":"none"}}"#),
        _ if request.starts_with("GET /containers/json") => {
            let state = if counted.fetch_add(1, Ordering::SeqCst) < 2 { "running" } else { "exited" };
            Reply::ok(format!("[{}]", item("a1", state)))
        }
        other => panic!("{other}"),
    });
    let backend = PodmanBackend::new(service.config().with_poll_interval(Duration::from_millis(10))).unwrap();
    assert_eq!(backend.connect().await.unwrap().capabilities.watch, WatchSupport::Polled);
    let seen = changes(&backend, &Notify::new(), |line| line.contains("stopped")).await;
    assert!(seen.iter().any(|line| line.contains("a1 is running")), "{seen:#?}");
    assert!(service.asked().iter().all(|request| !request.contains("/events")), "{:?}", service.asked());
}

#[tokio::test]
async fn a_head_that_comes_with_the_first_message_delays_no_watch() {
    let service = Service::new(PODMAN, |request| match request {
        "GET /info" => Reply::ok(FILE),
        _ if request.contains("stream=false") => Reply::ok(""),
        _ if request.starts_with("GET /events") => Reply::Silent,
        _ if request.starts_with("GET /containers/json") => Reply::ok(format!("[{}]", item("a1", "running"))),
        other => panic!("{other}"),
    });
    let seen = changes(&service.backend(), &Notify::new(), |line| line.starts_with('=')).await;
    assert!(seen.iter().any(|line| line.contains("a1 is running")), "{seen:#?}");
}

#[tokio::test]
async fn what_happened_before_the_watch_is_no_news_and_what_happens_after_is() {
    let old = message("a1", "start", 100, r#","podId":"""#);
    let history = old.clone();
    let lines = old + &message("a1", "died", 200, r#","podId":"""#);
    let (say, said) = pair();
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(FILE),
        _ if request.contains("stream=false") => Reply::ok(history.clone()),
        _ if request.starts_with("GET /events") => Reply::Open(Arc::clone(&said), lines.clone()),
        _ if request.contains("filters") => Reply::ok(format!("[{}]", item("a1", "exited"))),
        _ if request.starts_with("GET /containers/json") => Reply::ok(format!("[{}]", item("a1", "running"))),
        other => panic!("{other}"),
    });
    let seen = changes(&service.backend(), &say, |line| line.contains("stopped")).await;
    let started = seen.iter().filter(|line| line.contains("running")).count();
    assert_eq!(started, 1, "the start was before the watch: {seen:#?}");
}

#[tokio::test]
async fn a_container_that_holds_a_pod_together_is_no_instance() {
    let pod = r#","podId":"d869db4a3ed9c08f""#;
    let lines = message("b1", "create", 100, pod)
        + &message("b1", "start", 200, pod)
        // Another name than Podman's own, and no word of the pod at its end.
        + &message("c1", "create", 300, pod)
        + &message("c1", "start", 400, pod)
        + &message("b1", "died", 500, r#","podId":"""#)
        + &message("c1", "died", 600, r#","podId":"""#);
    let (say, said) = pair();
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(FILE),
        _ if request.contains("stream=false") => Reply::ok(""),
        _ if request.starts_with("GET /events") => Reply::Open(Arc::clone(&said), lines.clone()),
        "GET /containers/b1/json" => {
            Reply::ok(r#"{"Id":"b1","Name":"b1","IsInfra":true,"State":{"Status":"running"}}"#)
        }
        "GET /containers/c1/json" => Reply::Whole(404, r#"{"message":"no such container"}"#.to_owned()),
        _ if request.starts_with("GET /containers/json") => Reply::ok("[]"),
        other => panic!("{other}"),
    });
    let seen = changes(&service.backend(), &say, |line| line.contains("c1 is stopped")).await;
    assert!(seen.iter().all(|line| !line.contains("b1")), "{seen:#?}");
    let asked = service.asked().iter().filter(|request| *request == "GET /containers/b1/json").count();
    assert_eq!(asked, 1, "once for each container of a pod");
}

#[tokio::test]
async fn a_container_that_cannot_be_inspected_holds_up_no_message() {
    let pod = r#","podId":"d869db4a3ed9c08f""#;
    for body in [Reply::Whole(500, r#"{"message":"broken storage"}"#.to_owned()), Reply::ok("[")] {
        let lines = message("b1", "create", 100, pod)
            + &message("b1", "start", 200, pod)
            + &message("a1", "start", 300, r#","podId":"""#)
            + &message("a1", "died", 400, r#","podId":"""#);
        let (say, said) = pair();
        let service = Service::new(PODMAN, move |request| match request {
            "GET /info" => Reply::ok(FILE),
            _ if request.contains("stream=false") => Reply::ok(""),
            _ if request.starts_with("GET /events") => Reply::Open(Arc::clone(&said), lines.clone()),
            "GET /containers/b1/json" => body.clone(),
            _ if request.starts_with("GET /containers/json") => Reply::ok("[]"),
            _ if request.contains("/json") => Reply::Whole(404, r#"{"message":"no such container"}"#.to_owned()),
            other => panic!("{other}"),
        });
        let seen = changes(&service.backend(), &say, |line| line.contains("a1 is stopped")).await;
        assert!(seen.iter().all(|line| !line.starts_with('!')), "the link is up: {seen:#?}");
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_hides_no_other() {
    let odd = r#"{"Type":"container","Action":7,"Actor":{"ID":"a1"}}"#;
    let lines = format!("{odd}\n{}", message("a1", "start", 200, r#","podId":"""#));
    let (say, said) = pair();
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(FILE),
        _ if request.contains("stream=false") => Reply::ok(""),
        _ if request.starts_with("GET /events") => Reply::Open(Arc::clone(&said), lines.clone()),
        _ if request.starts_with("GET /containers/json") => Reply::ok(format!("[{}]", item("a1", "running"))),
        other => panic!("{other}"),
    });
    changes(&service.backend(), &say, |line| line.contains("a1 is running")).await;
}

#[tokio::test]
async fn a_docker_behind_the_socket_is_named_with_the_crate_for_it() {
    let docker = "Api-Version: 1.41\r\nDocker-Experimental: false\r\nServer: Docker/20.10.24 (linux)\r\n";
    let service = Service::new(docker, |_| Reply::Whole(404, r#"{"message":"page not found"}"#.to_owned()));
    let error = service.backend().list_instances(ListOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("Docker Engine 20.10.24") && error.to_string().contains("runtide-docker"),
        "{error}"
    );
}

#[tokio::test]
async fn a_change_prints_as_one_line() {
    let service = Service::new(PODMAN, |request| match request {
        "GET /info" => Reply::ok(FILE),
        _ if request.contains("stream=false") => Reply::ok(""),
        _ if request.starts_with("GET /events") => Reply::Silent,
        _ => Reply::ok("[]"),
    });
    let backend = service.backend();
    let mut changes = backend.transitions(WatchOptions::default()).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(60), changes.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(first, Change::Synced { .. }), "an empty service is complete at once: {first}");
}
