//! The exit code of a run whose end was missed: only the log of events has it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use runtide_core::{ErrorKind, ExitStatus, InstanceId, RuntimeBackend};
use runtide_podman::PodmanBackend;
use tokio::sync::Notify;

use crate::scripted::{PODMAN, Reply, Service, message};

const RUNNING: &str =
    r#"{"Id":"a1","Name":"a1","State":{"Status":"running","Running":true,"StartedAt":"2026-11-30T15:21:56Z"}}"#;

/// A service whose container is gone after the first inspection. Its stream of events brings nothing, and its log this.
fn service(log: &str) -> Service {
    let (log, inspected) = (log.to_owned(), AtomicUsize::new(0));
    Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(r#"{"host":{"eventLogger":"file"}}"#),
        "GET /containers/a1/json" if inspected.fetch_add(1, Ordering::SeqCst) == 0 => Reply::ok(RUNNING),
        "GET /containers/a1/json" => Reply::Whole(404, r#"{"message":"no such container"}"#.to_owned()),
        _ if request.contains("stream=false") => Reply::ok(log.clone()),
        _ if request.starts_with("GET /events") => Reply::Silent,
        other => panic!("{other}"),
    })
}

async fn wait(service: &Service) -> runtide_core::Result<Option<ExitStatus>> {
    let backend = PodmanBackend::new(service.config()).unwrap();
    let id = InstanceId::from("a1");
    let wait = backend.lifecycle().unwrap().wait(&id);
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("a wait without an end")
}

#[tokio::test]
async fn the_log_has_the_exit_of_a_container_that_is_gone() {
    let log = message("a1", "start", 100, "") + &message("a1", "died", 200, "") + &message("a1", "remove", 300, "");
    assert_eq!(wait(&service(&log)).await.unwrap(), Some(ExitStatus::code(3)));
}

#[tokio::test]
async fn a_log_without_the_end_of_a_container_that_is_gone_is_read_once_and_not_waited_for() {
    let service = service("");
    let error = wait(&service).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let read = service.asked().iter().filter(|request| request.contains("stream=false")).count();
    assert_eq!(read, 1, "{:?}", service.asked());
}

#[tokio::test]
async fn a_stream_of_events_that_ends_at_once_is_opened_again_ever_more_rarely() {
    const OVER: &str = r#"{"Id":"a1","Name":"a1","State":{"Status":"exited","ExitCode":3,"StartedAt":"2026-11-30T15:21:56Z","FinishedAt":"2026-11-30T15:22:56Z"}}"#;
    let inspected = AtomicUsize::new(0);
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(r#"{"host":{"eventLogger":"file"}}"#),
        "GET /containers/a1/json" if inspected.fetch_add(1, Ordering::SeqCst) < 6 => Reply::ok(RUNNING),
        "GET /containers/a1/json" => Reply::ok(OVER),
        _ if request.starts_with("GET /events") => Reply::ok(""),
        other => panic!("{other}"),
    });
    let begun = Instant::now();
    assert_eq!(wait(&service).await.unwrap().map(|exit| exit.end), Some(ExitStatus::code(3).end));
    assert!(begun.elapsed() >= Duration::from_millis(50 + 100 + 200 + 400 + 800), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_stream_of_events_that_is_refused_late_is_the_error_of_the_wait() {
    let (late, inspected) = (Arc::new(Notify::new()), AtomicUsize::new(0));
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(r#"{"host":{"eventLogger":"file"}}"#),
        "GET /containers/a1/json" => {
            // The second one is behind the subscription.
            if inspected.fetch_add(1, Ordering::SeqCst) > 0 {
                late.notify_one();
            }
            Reply::ok(RUNNING)
        }
        _ if request.starts_with("GET /events") => {
            Reply::Late(Arc::clone(&late), 500, r#"{"message":"the log is broken"}"#.to_owned())
        }
        other => panic!("{other}"),
    });
    let error = wait(&service).await.unwrap_err();
    assert!(error.to_string().contains("the log is broken"), "{error}");
}
