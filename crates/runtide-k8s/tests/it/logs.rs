//! Output, once and followed, over connections that end and runs that follow.

use std::sync::atomic::{AtomicUsize, Ordering};

use runtide_core::{
    ErrorKind, InstanceId, RuntimeBackend,
    manager::{LogOptions, LogStream},
};
use serde_json::{Value, json};

use crate::scripted::{Part, Reply, Request, Server, event, list, pod, running};

/// Lines of one log, as the server stamps them; the second of each, and its text.
fn log(lines: &[(&str, &str)]) -> String {
    let line = |(second, text): &(&str, &str)| format!("2026-12-01T00:00:{second}Z {text}\n");
    lines.iter().map(line).collect::<Vec<_>>().concat()
}

fn ended(code: i32) -> Value {
    crate::scripted::ended(code)
}

fn follows(request: &Request) -> bool {
    request.query("follow").is_some()
}

/// The text of all lines, and the error with which they end.
async fn read(mut stream: LogStream) -> (String, Option<ErrorKind>) {
    let mut text = String::new();
    while let Some(line) = stream.next().await {
        match line {
            Ok(line) => text.push_str(std::str::from_utf8(&line.bytes).unwrap()),
            Err(error) => return (text, Some(error.kind())),
        }
    }
    (text, None)
}

fn chunk(text: String) -> Part {
    Part::Text(text)
}

/// A backend holds its connections, and closing it ends its streams: it lives as long as the test does.
macro_rules! follow {
    ($server:expr, $options:expr) => {{
        let backend = $server.backend();
        let stream = backend.logs().unwrap().logs(&InstanceId::from("uid-a"), $options).await.unwrap();
        read(stream).await
    }};
}

#[tokio::test]
async fn a_follow_that_breaks_goes_on_without_loss_or_repetition() {
    let (follow, look) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let all =
        [("01.5", "one"), ("02.1", "two"), ("02.1", "three"), ("02.05", "four"), ("02.9", "five"), ("03.0", "six")];
    let server = Server::new(move |request| {
        if request.is_log() {
            assert_eq!(request.query("container").as_deref(), Some("main"));
            let number = if follows(request) { follow.fetch_add(1, Ordering::SeqCst) } else { 9 };
            let since = if number == 0 { None } else { Some("2026%2D12%2D01T00%3A00%3A01Z") };
            let since = if number == 9 { Some("2026%2D12%2D01T00%3A00%3A02Z") } else { since };
            assert_eq!(request.query("sinceTime").as_deref(), since, "{number}");
            return match number {
                // It breaks in the middle of a line, ends in good order, and is cut again.
                0 => Reply::Stream(vec![
                    chunk(log(&all[..3])),
                    chunk("2026-12-01T00:00:02.05Z fo".to_owned()),
                    Part::Break,
                ]),
                1 => Reply::Stream(vec![chunk(log(&all[..4])), Part::End]),
                2 => Reply::Stream(vec![chunk(log(&all)), Part::Break]),
                _ => Reply::Stream(vec![chunk(log(&all[1..])), Part::End]),
            };
        }
        let is_over = look.fetch_add(1, Ordering::SeqCst) >= 4;
        let state = if is_over { ended(0) } else { running() };
        Reply::ok(&list("9", "", &[pod("a", "5", if is_over { "Succeeded" } else { "Running" }, 0, state)]))
    })
    .await;
    let (text, error) = follow!(server, LogOptions::default().with_follow());
    assert_eq!((text.as_str(), error), ("one\ntwo\nthree\nfour\nfive\nsix\n", None));
}

#[tokio::test]
async fn a_follow_reads_the_rest_of_a_run_and_then_the_next() {
    let look = AtomicUsize::new(0);
    let (first, second) = ([("01", "a1"), ("02", "a2"), ("02", "a3")], [("02", "b1"), ("05", "b2")]);
    let server = Server::new(move |request| {
        let next = || {
            let mut next = pod("a", "7", "Running", 1, running());
            next["status"]["containerStatuses"][0]["lastState"] = ended(1);
            next
        };
        if request.is_log() {
            let is_previous = request.query("previous").is_some();
            let restarted = look.load(Ordering::SeqCst) > 2;
            return match (is_previous, restarted, follows(request)) {
                (false, false, true) => Reply::Stream(vec![chunk(log(&first[..2])), Part::Break]),
                (true, _, false) => Reply::Stream(vec![chunk(log(&first)), Part::End]),
                (false, true, true) => Reply::Stream(vec![chunk(log(&second)), Part::End]),
                (false, true, false) => Reply::Stream(vec![chunk(log(&second[1..])), Part::End]), // from 04 on
                other => panic!("{other:?}"),
            };
        }
        if request.is_watch() {
            return Reply::events(&[event("MODIFIED", pod("a", "8", "Failed", 1, ended(2)))]);
        }
        let one = match look.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => pod("a", "5", "Running", 0, running()),
            2..=4 => next(),
            _ => pod("a", "8", "Failed", 1, ended(2)),
        };
        Reply::ok(&list("9", "", &[one]))
    })
    .await;
    let (text, error) = follow!(server, LogOptions::default().with_follow());
    assert_eq!((text.as_str(), error), ("a1\na2\na3\nb1\nb2\n", None));
}

#[tokio::test]
async fn a_follow_that_missed_a_whole_run_says_so() {
    let look = AtomicUsize::new(0);
    let server = Server::new(move |request| {
        if request.is_log() {
            return Reply::Stream(vec![chunk(log(&[("01", "one")])), Part::Break]);
        }
        let runs = if look.fetch_add(1, Ordering::SeqCst) < 2 { 0 } else { 2 };
        Reply::ok(&list("9", "", &[pod("a", "5", "Running", runs, running())]))
    })
    .await;
    let (text, error) = follow!(server, LogOptions::default().with_follow());
    assert_eq!((text.as_str(), error), ("one\n", Some(ErrorKind::Unexpected)));
}

#[tokio::test]
async fn a_follow_of_a_pod_that_is_gone_ends_and_says_so_if_its_end_was_not_read() {
    for (last, expected) in [(Part::End, None), (Part::Break, Some(ErrorKind::NotFound))] {
        let look = AtomicUsize::new(0);
        let server = Server::new(move |request| {
            if request.is_log() {
                return Reply::Stream(vec![chunk(log(&[("01", "one")])), last.clone()]);
            }
            let there = look.fetch_add(1, Ordering::SeqCst) < 2;
            let all = if there { vec![pod("a", "5", "Running", 0, running())] } else { Vec::new() };
            Reply::ok(&list("9", "", &all))
        })
        .await;
        let (text, error) = follow!(server, LogOptions::default().with_follow());
        assert_eq!((text.as_str(), error), ("one\n", expected));
    }
}

#[tokio::test]
async fn output_that_is_read_once_breaks_off_with_an_error_and_the_nodes_words_are_no_output() {
    for (parts, expected) in [
        (vec![chunk(log(&[("01", "one")])), Part::Break], ("one\n", Some(ErrorKind::Unavailable))),
        (
            vec![chunk("unable to retrieve container logs for containerd://x".to_owned()), Part::End],
            ("", Some(ErrorKind::NotFound)),
        ),
        (vec![chunk(log(&[("01", "one"), ("02.7", "two"), ("03", "three")])), Part::End], ("two\n", None)),
    ] {
        let is_last = expected.0 == "two\n";
        let server = Server::new(move |request| {
            if request.is_log() {
                return Reply::Stream(parts.clone());
            }
            Reply::ok(&list("9", "", &[pod("a", "5", "Running", 0, running())]))
        })
        .await;
        let mut options = LogOptions::default();
        if is_last {
            let second = |text: &str| {
                std::time::SystemTime::from(format!("2026-12-01T00:00:{text}Z").parse::<jiff::Timestamp>().unwrap())
            };
            options = options.with_since(Some(second("02.6"))).with_until(Some(second("03")));
        }
        let (text, error) = follow!(server, options);
        assert_eq!((text.as_str(), error), expected);
    }
}

#[tokio::test]
async fn a_pod_that_has_not_begun_has_written_nothing_and_there_is_no_earlier_run() {
    let server = Server::new(|request| {
        if request.is_log() {
            return Reply::refusal(400, "BadRequest");
        }
        let waits = json!({"waiting": {"reason": "ContainerCreating"}});
        Reply::ok(&list("9", "", &[pod("a", "5", "Pending", 0, waits)]))
    })
    .await;
    assert_eq!(follow!(server, LogOptions::default()), (String::new(), None));
    assert!(!server.asked().iter().any(Request::is_log));
    let backend = server.backend();
    let of_previous = backend.logs_of_previous_run(&"uid-a".into(), LogOptions::default()).await.unwrap_err();
    assert_eq!(of_previous.kind(), ErrorKind::NotFound);
    let followed =
        backend.logs_of_previous_run(&"uid-a".into(), LogOptions::default().with_follow()).await.unwrap_err();
    assert_eq!(followed.kind(), ErrorKind::InvalidInput);
}
