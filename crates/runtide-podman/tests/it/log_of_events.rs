//! The watch over a log of events that is too long to be read in time, or that is replaced under it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtide_core::{RuntimeBackendExt, WatchOptions};
use runtide_podman::PodmanBackend;
use tokio::sync::Notify;

use crate::scripted::{PODMAN, Reply, Service, TIMELESS, item, message};

const JOURNAL: &str = r#"{"host":{"eventLogger":"journald"}}"#;
const FILE: &str = r#"{"host":{"eventLogger":"file"}}"#;

/// No pod.
const ALONE: &str = r#","podId":"""#;

/// A time in which any request is answered, also here, and that a test can wait for.
const DEADLINE: Duration = Duration::from_secs(8);

/// The changes up to the first one that satisfies `is_last`, as lines; `say` is notified whenever the rows are complete.
async fn lines(backend: &PodmanBackend, say: &Notify, is_last: impl Fn(&str) -> bool) -> Vec<String> {
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
    let read = tokio::time::timeout(Duration::from_secs(120), read).await;
    assert!(read.is_ok(), "it never came: {lines:#?}");
    lines
}

#[tokio::test]
async fn a_log_that_cannot_be_read_in_time_delays_no_beginning() {
    let news = message("a1", "died", 200, ALONE);
    let say = Arc::new(Notify::new());
    let said = Arc::clone(&say);
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(JOURNAL),
        _ if request.contains("stream=false") => Reply::Silent,
        _ if request.starts_with("GET /events") => Reply::Open(Arc::clone(&said), news.clone()),
        _ if request.contains("filters") => Reply::ok(format!("[{}]", item("a1", "exited"))),
        _ if request.starts_with("GET /containers/json") => Reply::ok(format!("[{}]", item("a1", "running"))),
        other => panic!("{other}"),
    });
    let backend = PodmanBackend::new(service.config().with_deadline(DEADLINE)).unwrap();
    let seen = lines(&backend, &say, |line| line.contains("stopped")).await;
    assert!(seen.iter().any(|line| line.contains("a1 is running")), "{seen:#?}");
    assert!(seen.iter().all(|line| !line.starts_with('!')), "the link is up: {seen:#?}");
}

/// The message, from the second before the service's time.
fn earlier(message: &str) -> String {
    message.replace("\"timeNano\":1796052116", "\"timeNano\":1796052115")
}

/// A service at which `a1` ran long ago and again once it was listed as stopped; its log comes to an end after that.
fn late_end(headers: &'static str, say: &Arc<Notify>, ended: &Arc<Notify>, is_listed_after: bool) -> Service {
    let log = earlier(&(message("old", "create", 100, ALONE) + &message("old", "remove", 200, ALONE)));
    let log = log + &message("a1", "start", 300, ALONE);
    let (said, ended) = (Arc::clone(say), Arc::clone(ended));
    Service::new(headers, move |request| match request {
        "GET /info" => Reply::ok(JOURNAL),
        _ if request.contains("stream=false") && is_listed_after => {
            // The start is after it.
            Reply::Late(Arc::clone(&ended), 200, log.rsplit_once("{\"Type\"").unwrap().0.to_owned())
        }
        _ if request.contains("stream=false") => Reply::Late(Arc::clone(&ended), 200, log.clone()),
        _ if request.starts_with("GET /events") => Reply::Open(Arc::clone(&said), log.clone()),
        _ if request.contains("filters") => Reply::ok(format!("[{}]", item("a1", "running"))),
        _ if request.starts_with("GET /containers/json") => Reply::ok(format!("[{}]", item("a1", "exited"))),
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn what_happens_after_the_listing_is_news_also_where_the_log_ends_later_and_history_is_none() {
    let (say, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let service = late_end(PODMAN, &say, &ended, false);
    let listed = Arc::clone(&say);
    let both = Notify::new();
    let backend = service.backend();
    let read = lines(&backend, &both, |line| line.contains("a1 is running"));
    let notify = async {
        both.notified().await;
        ended.notify_one();
        listed.notify_one();
    };
    let (seen, ()) = tokio::join!(read, notify);
    assert!(seen.iter().any(|line| line.contains("a1 is stopped")), "it was listed before: {seen:#?}");
    assert!(seen.iter().all(|line| !line.contains("old")), "that was before the watch: {seen:#?}");
    assert!(seen.iter().all(|line| !line.starts_with('!')), "the link is up: {seen:#?}");
}

#[tokio::test]
async fn a_service_without_a_clock_is_watched_from_the_end_of_its_log() {
    let (say, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let service = late_end(TIMELESS, &say, &ended, true);
    let late = async {
        // Later than the end is awaited of a service that tells its time.
        tokio::time::sleep(Duration::from_secs(1)).await;
        ended.notify_one();
    };
    let backend = service.backend();
    let (seen, ()) = tokio::join!(lines(&backend, &say, |line| line.contains("a1 is running")), late);
    assert!(seen.iter().all(|line| !line.contains("old")), "that was before the watch: {seen:#?}");
}

#[tokio::test]
async fn an_inspection_that_does_not_answer_holds_the_messages_no_longer_than_the_stream_may_be_silent() {
    let id = "0123456789abcdef".repeat(4);
    let news = message(&id, "create", 200, r#","podId":"d869db4a3ed9""#);
    let (say, inspect) = (Arc::new(Notify::new()), format!("GET /containers/{id}/json"));
    let (said, created) = (Arc::clone(&say), format!("[{}]", item(&id, "created")));
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(FILE),
        _ if *request == inspect || request.starts_with("GET /pods") => Reply::Silent,
        _ if request.contains("stream=false") => Reply::ok(""),
        _ if request.starts_with("GET /events") => Reply::Open(Arc::clone(&said), news.clone()),
        _ if request.contains("filters") => Reply::ok(created.clone()),
        _ if request.starts_with("GET /containers/json") => Reply::ok("[]"),
        other => panic!("{other}"),
    });
    let backend = PodmanBackend::new(service.config().with_max_silence(Duration::from_secs(12))).unwrap();
    let seen = lines(&backend, &say, |line| line.contains("is created")).await;
    assert!(seen.iter().all(|line| !line.starts_with('!')), "the link is up: {seen:#?}");
}

#[tokio::test]
async fn a_service_without_events_is_listed_more_often_than_it_may_be_silent() {
    let listed = AtomicUsize::new(0);
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(r#"{"host":{"eventLogger":"none"}}"#),
        _ if request.starts_with("GET /containers/json") => {
            let state = if listed.fetch_add(1, Ordering::SeqCst) == 0 { "running" } else { "exited" };
            Reply::ok(format!("[{}]", item("a1", state)))
        }
        other => panic!("{other}"),
    });
    let config = service.config().with_max_silence(Duration::from_secs(10)).with_poll_interval(DEADLINE * 20);
    let backend = PodmanBackend::new(config).unwrap();
    let seen = lines(&backend, &Notify::new(), |line| line.contains("stopped")).await;
    assert!(seen.iter().all(|line| !line.starts_with('!')), "the link is up: {seen:#?}");
}

#[tokio::test]
async fn health_checks_that_follow_one_another_closely_do_not_postpone_the_inspection() {
    let checks = (0..600).map(|n| message("a1", "health_status", 1_000 + n, ALONE)).collect();
    let inspected = Arc::new(Notify::new());
    let asked = Arc::clone(&inspected);
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(FILE),
        _ if request.contains("stream=false") => Reply::ok(""),
        _ if request.starts_with("GET /events") => Reply::Paced(Duration::from_millis(100), Vec::clone(&checks)),
        _ if request.starts_with("GET /containers/json") => {
            if request.contains("filters") {
                asked.notify_one();
            }
            Reply::ok(format!("[{}]", item("a1", "running")))
        }
        other => panic!("{other}"),
    });
    let backend = service.backend();
    let mut changes = backend.transitions(WatchOptions::default()).await.unwrap();
    let reading = async { while changes.next().await.is_some() {} };
    tokio::select! {
        () = inspected.notified() => {}
        () = reading => panic!("the watch ended"),
        () = tokio::time::sleep(Duration::from_secs(45)) => panic!("not inspected, and checked all the time"),
    }
}

#[tokio::test]
async fn a_check_is_inspected_also_where_the_stream_ends_before_its_verdict() {
    let check = message("a1", "health_status", 1_000, ALONE);
    let (inspected, say, opened) = (Arc::new(Notify::new()), Arc::new(Notify::new()), AtomicUsize::new(0));
    let (asked, said) = (Arc::clone(&inspected), Arc::clone(&say));
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(FILE),
        _ if request.contains("stream=false") && opened.load(Ordering::SeqCst) < 2 => Reply::ok(""),
        _ if request.contains("stream=false") => Reply::ok(check.clone()),
        _ if request.starts_with("GET /events") => match opened.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::Ending(Arc::clone(&said), check.clone()),
            _ => Reply::Open(Arc::new(Notify::new()), String::new()),
        },
        _ if request.starts_with("GET /containers/json") => {
            if request.contains("filters") {
                asked.notify_one();
            }
            Reply::ok(format!("[{}]", item("a1", "running")))
        }
        other => panic!("{other}"),
    });
    let backend = service.backend();
    let reading = lines(&backend, &say, |_| false);
    tokio::select! {
        () = inspected.notified() => {}
        seen = reading => panic!("{seen:#?}"),
        () = tokio::time::sleep(Duration::from_secs(45)) => panic!("not inspected: {:?}", service.asked()),
    }
}

#[tokio::test]
async fn a_position_that_cannot_be_looked_up_in_time_costs_the_history_and_not_the_watch() {
    let first = message("a1", "start", 100, ALONE);
    let say = Arc::new(Notify::new());
    let (said, opened) = (Arc::clone(&say), AtomicUsize::new(0));
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(JOURNAL),
        _ if request.contains("stream=false") => match opened.load(Ordering::SeqCst) {
            1 => Reply::ok(first.clone()),
            _ => Reply::Silent,
        },
        _ if request.starts_with("GET /events") => match opened.fetch_add(1, Ordering::SeqCst) {
            // It ends once the watch has begun.
            0 => Reply::Ending(Arc::clone(&said), String::new()),
            _ => Reply::Silent,
        },
        _ if request.starts_with("GET /containers/json") => Reply::ok(format!("[{}]", item("a1", "running"))),
        other => panic!("{other}"),
    });
    let backend = PodmanBackend::new(service.config().with_deadline(DEADLINE)).unwrap();
    let mut completions = 0;
    let counted = std::cell::RefCell::new(&mut completions);
    let seen = lines(&backend, &say, |line| {
        let mut counted = counted.borrow_mut();
        **counted += usize::from(line.starts_with('='));
        **counted == 2
    })
    .await;
    let last = seen.last().unwrap();
    assert!(last.contains("history"), "a resync, with its reason: {seen:#?}");
}

#[tokio::test]
async fn a_silent_stream_is_kept_where_the_log_cannot_be_read_in_time() {
    let first = message("a1", "start", 100, ALONE);
    let news = message("a1", "died", 200, ALONE);
    let (say, listed) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (said, counted, opened) = (Arc::clone(&say), Arc::clone(&listed), AtomicUsize::new(0));
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(JOURNAL),
        _ if request.contains("stream=false") => match opened.load(Ordering::SeqCst) {
            1 => Reply::ok(first.clone()),
            _ => Reply::Silent,
        },
        _ if request.starts_with("GET /events") => match opened.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::Open(Arc::clone(&said), first.clone() + &news),
            _ => Reply::Silent,
        },
        _ if request.contains("filters") => Reply::ok(format!("[{}]", item("a1", "exited"))),
        _ if request.starts_with("GET /containers/json") => {
            // The second listing proves the stream.
            if counted.fetch_add(1, Ordering::SeqCst) == 1 {
                said.notify_one();
            }
            Reply::ok(format!("[{}]", item("a1", "running")))
        }
        other => panic!("{other}"),
    });
    let config = service.config().with_deadline(DEADLINE).with_max_silence(Duration::from_secs(20));
    let backend = PodmanBackend::new(config).unwrap();
    let seen = lines(&backend, &Notify::new(), |line| line.contains("stopped")).await;
    assert!(listed.load(Ordering::SeqCst) >= 2, "{:?}", service.asked());
    assert!(seen.iter().all(|line| !line.starts_with('!')), "the link is up: {seen:#?}");
}

/// The end of what a new file has of the old one, as Podman 4.5 and later write it.
fn rotated(nanos: u32) -> String {
    format!(
        r#"{{"Type":"system","Action":"log-rotation","Actor":{{"ID":"","Attributes":{{"name":"/events.log","io.podman.event.rotate":"end"}}}},"timeNano":1796052116{nanos:09}}}"#
    ) + "\n"
}

#[tokio::test]
async fn a_log_that_is_replaced_under_the_stream_is_read_again_from_the_last_message() {
    let before = message("a1", "start", 100, ALONE);
    // Written just before the file was replaced, and not read from it any more.
    let skipped = message("a1", "died", 200, ALONE);
    let end = rotated(300);
    let whole = before.clone() + &skipped + &end;
    let say = Arc::new(Notify::new());
    let (said, opened) = (Arc::clone(&say), AtomicUsize::new(0));
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(FILE),
        _ if request.contains("stream=false") => match opened.load(Ordering::SeqCst) {
            1 => Reply::ok(before.clone()),
            _ => Reply::ok(whole.clone()),
        },
        _ if request.starts_with("GET /events") && opened.fetch_add(1, Ordering::SeqCst) == 0 => {
            Reply::Open(Arc::clone(&said), before.clone() + &end)
        }
        _ if request.starts_with("GET /events") => {
            let now = Arc::new(Notify::new());
            now.notify_one();
            Reply::Open(now, whole.clone() + &message("a2", "create", 400, ALONE))
        }
        _ if request.contains("filters") => Reply::ok(format!("[{}]", item("a1", "exited"))),
        _ if request.starts_with("GET /containers/json") => Reply::ok(format!("[{}]", item("a1", "running"))),
        other => panic!("{other}"),
    });
    let seen = lines(&service.backend(), &say, |line| line.contains("a2")).await;
    assert!(seen.iter().any(|line| line.contains("a1 is stopped")), "{seen:#?}");
    assert!(seen.iter().all(|line| !line.starts_with('!')), "no gap: {seen:#?}");
    assert_eq!(seen.iter().filter(|line| line.starts_with('=')).count(), 1, "no resync: {seen:#?}");
    let opened = service.asked().iter().filter(|one| one.contains("/events") && !one.contains("stream=false")).count();
    assert_eq!(opened, 2, "once for each rotation: {:?}", service.asked());
}

#[tokio::test]
async fn a_stream_that_repeats_the_log_repeats_no_event() {
    let old = message("a1", "start", 100, ALONE) + &message("a1", "died", 200, ALONE);
    // Of a file that was replaced before, so that Podman takes the copy to end here.
    let lines = old.clone() + &message("a2", "create", 300, ALONE) + &old + &message("a3", "create", 400, ALONE);
    let say = Arc::new(Notify::new());
    let said = Arc::clone(&say);
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(FILE),
        _ if request.contains("stream=false") => Reply::ok(""),
        _ if request.starts_with("GET /events") => Reply::Open(Arc::clone(&said), lines.clone()),
        _ if request.starts_with("GET /containers/json") => Reply::ok("[]"),
        other => panic!("{other}"),
    });
    let seen = lines_of(&service, &say).await;
    let ends = seen.iter().filter(|line| line.contains("a1 is stopped")).count();
    assert_eq!(ends, 1, "{seen:#?}");
}

async fn lines_of(service: &Service, say: &Notify) -> Vec<String> {
    lines(&service.backend(), say, |line| line.contains("a3 is")).await
}

#[tokio::test]
async fn a_container_that_makes_every_listing_fail_is_inspected_and_hides_no_other() {
    let bad = "0123456789abcdef".repeat(4);
    let refused = format!(
        r#"{{"cause":"no such file or directory","message":"joining network namespace of container {bad}: failed to Statfs","response":500}}"#
    );
    let inspected = format!("GET /containers/{bad}/json");
    let body = format!(r#"{{"Id":"{bad}","Name":"lost","State":{{"Status":"running"}}}}"#);
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(FILE),
        _ if request.contains("stream=false") => Reply::ok(""),
        _ if request.starts_with("GET /events") => Reply::Silent,
        _ if *request == inspected => Reply::ok(body.clone()),
        // By the pattern for ids that begin otherwise.
        _ if request.contains("filters") && request.contains("%5E0%5B%5E1%5D") => {
            Reply::ok(format!("[{}]", item("a1", "running")))
        }
        _ if request.starts_with("GET /containers/json") => Reply::Whole(500, refused.clone()),
        other => panic!("{other}"),
    });
    let seen = lines(&service.backend(), &Notify::new(), |line| line.starts_with('=')).await;
    for name in ["lost", "a1"] {
        assert!(seen.iter().any(|line| line.contains(&format!("{name} is running"))), "{seen:#?}");
    }
}

#[tokio::test]
async fn a_proof_shows_its_listing_once_the_stream_has_reported_what_is_in_it() {
    let first = message("a1", "start", 100, ALONE);
    let news = message("a1", "died", 200, ALONE);
    let (counted, all) = (AtomicUsize::new(0), first.clone() + &news);
    // The first stream brings nothing any more, and the second one is slow: slower than a contradiction is doubted.
    let service = Service::new(PODMAN, move |request| match request {
        "GET /info" => Reply::ok(FILE),
        _ if request.contains("stream=false") => {
            Reply::ok(if counted.load(Ordering::SeqCst) > 1 { all.clone() } else { first.clone() })
        }
        _ if request.starts_with("GET /events") => match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::Paced(Duration::ZERO, Vec::new()),
            _ => Reply::Paced(Duration::from_millis(2_500), vec![first.clone(), news.clone()]),
        },
        _ if request.starts_with("GET /containers/json") => {
            let state = if counted.load(Ordering::SeqCst) > 1 { "exited" } else { "running" };
            Reply::ok(format!("[{}]", item("a1", state)))
        }
        other => panic!("{other}"),
    });
    let config = service.config().with_deadline(DEADLINE * 10).with_max_silence(Duration::from_secs(20));
    let seen = lines(&PodmanBackend::new(config).unwrap(), &Notify::new(), |line| line.contains("stopped")).await;
    let end = seen.last().unwrap();
    assert!(!end.contains("comparison"), "the service reports it: {seen:#?}");
    assert_eq!(seen.iter().filter(|line| line.starts_with('=')).count(), 1, "no listing contradicts: {seen:#?}");
}

#[tokio::test]
async fn an_unreadable_message_costs_one_resync_and_not_one_for_each_proof_of_the_stream() {
    const PROOFS: usize = 5;
    for is_first in [false, true] {
        let before = if is_first { String::new() } else { message("a1", "start", 100, ALONE) };
        let unreadable = r#"{"Type":"container","Action":7,"timeNano":1796052116000000150}"#.to_owned() + "\n";
        let news = message("a1", "died", 200, ALONE);
        let (history, opened) = (before.clone(), AtomicUsize::new(0));
        let service = Service::new(PODMAN, move |request| match request {
            "GET /info" => Reply::ok(FILE),
            _ if request.contains("stream=false") => Reply::ok(history.clone()),
            _ if request.starts_with("GET /events") => {
                let mut lines = vec![before.clone(), unreadable.clone()];
                lines.retain(|line| !line.is_empty());
                if opened.fetch_add(1, Ordering::SeqCst) >= PROOFS {
                    lines.push(news.clone());
                }
                Reply::Paced(Duration::from_millis(10), lines)
            }
            _ if request.starts_with("GET /containers/json") => Reply::ok(format!("[{}]", item("a1", "running"))),
            other => panic!("{other}"),
        });
        let config = service.config().with_max_silence(Duration::from_secs(5));
        let backend = PodmanBackend::new(config).unwrap();
        let seen = lines(&backend, &Notify::new(), |line| line.contains("stopped")).await;
        let resyncs = seen.iter().filter(|line| line.starts_with('=')).count();
        assert!(resyncs <= 2, "the beginning, and one for the message: {seen:#?}");
    }
}
