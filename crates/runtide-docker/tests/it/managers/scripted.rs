//! A daemon that misbehaves on demand: it stalls, breaks off, refuses in the middle, speaks another version.

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, Result, RuntimeBackend, UnixSignal,
    manager::{
        Effect, HealthCheck, HealthTest, InstanceSpec, LogLine, LogOptions, Mount, MountSource, RemoveOptions,
        StopOptions,
    },
};
use tokio::sync::Notify;

use crate::scripted_daemon::{Fake, Reply};

/// Deadline of calls that are never answered.
const STALLED: Duration = Duration::from_millis(500);

const RUNS: &str =
    r#"{"State":{"Status":"running","Running":true,"StartedAt":"2024-01-01T00:00:00.1Z"},"Config":{},"HostConfig":{}}"#;
const RUNS_AGAIN: &str =
    r#"{"State":{"Status":"running","Running":true,"StartedAt":"2024-01-01T00:00:09.1Z"},"Config":{},"HostConfig":{}}"#;
const CREATED: &str = r#"{"State":{"Status":"created","ExitCode":0,"StartedAt":"0001-01-01T00:00:00Z"}}"#;
const ENDED_3: &str = r#"{"State":{"Status":"exited","Running":false,"ExitCode":3,"OOMKilled":false,"StartedAt":"2024-01-01T00:00:00.1Z"}}"#;

fn id() -> InstanceId {
    InstanceId::from("c1")
}

/// Every verb that takes an id, on this one.
async fn every_verb(fake: &Fake, id: &InstanceId) -> Vec<(&'static str, Result<()>)> {
    let verbs = fake.backend.lifecycle().unwrap();
    vec![
        ("start", verbs.start(id).await.map(drop)),
        ("stop", verbs.stop(id, StopOptions::default().with_timeout(Duration::ZERO)).await.map(drop)),
        ("kill", verbs.kill(id, UnixSignal::TERM).await),
        ("restart", verbs.restart(id, StopOptions::default().with_timeout(Duration::ZERO)).await),
        ("pause", verbs.pause(id).await.map(drop)),
        ("unpause", verbs.unpause(id).await.map(drop)),
        ("remove", verbs.remove(id, RemoveOptions::default()).await.map(drop)),
        ("logs", fake.backend.logs().unwrap().logs(id, LogOptions::default()).await.map(drop)),
    ]
}

#[tokio::test]
async fn hostile_ids_are_refused_before_anything_is_sent() {
    let fake = Fake::new(|_| Reply::ok("{}"));
    for hostile in
        ["", "..", "../images", "a/b", "a?force=1", "a b", "a\0", "a\r\nX: y", "%2e%2e", "é", &"x".repeat(1000)]
    {
        let id = InstanceId::from(hostile);
        for (verb, result) in every_verb(&fake, &id).await {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput, "{verb} of {hostile:?}");
        }
        let error = fake.backend.lifecycle().unwrap().wait(&id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(fake.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn every_verb_ends_within_its_deadline_when_the_daemon_stalls() {
    let inspects = Fake::new(|request| if request.ends_with("/json") { Reply::ok(RUNS) } else { Reply::Stall })
        .with_deadline(STALLED);
    let stalls = Fake::new(|_| Reply::Stall).with_deadline(STALLED);
    for (fake, inspects_answer) in [(&inspects, true), (&stalls, false)] {
        // With the default deadline, two of them would take as long.
        let begun = Instant::now();
        for (verb, result) in every_verb(fake, &id()).await {
            if inspects_answer && verb == "start" {
                continue; // It runs already.
            }
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Timeout, "{verb}");
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        let create = fake.backend.provision().unwrap().create(&InstanceSpec::of_image("i")).await;
        assert_eq!(create.unwrap_err().kind(), ErrorKind::Timeout);
    }
}

type Spoil = fn(&mut InstanceSpec);

#[tokio::test]
async fn a_spec_that_makes_no_sense_is_refused_before_anything_is_sent() {
    let fake = Fake::new(|_| Reply::ok("{}"));
    let wrong: [(&str, Spoil); 5] = [
        ("image", |spec| spec.image = None),
        ("name", |spec| spec.name = Some("../x".to_owned())),
        ("env", |spec| drop(spec.env.insert("A=B".to_owned(), "c".to_owned()))),
        ("mounts", |spec| spec.mounts = vec![Mount::new(MountSource::Tmpfs, "relative")]),
        ("native", |spec| drop(spec.native.insert("no_such_key".to_owned(), "1".to_owned()))),
    ];
    for (field, spoil) in wrong {
        let mut spec = InstanceSpec::of_image("i");
        spoil(&mut spec);
        let error = fake.backend.provision().unwrap().create(&spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{field}");
        assert!(error.fact("field") == Some(field), "{error}");
    }
    assert_eq!(fake.seen(), Vec::<String>::new());
}

fn two_networks() -> InstanceSpec {
    let mut spec = InstanceSpec::of_image("i");
    spec.networks = vec!["n1".into(), "n2".into()];
    spec
}

/// The network that is asked for.
fn network(request: &str) -> Reply {
    let name = request.strip_prefix("GET /networks/").unwrap_or_default();
    Reply::ok(&format!(r#"{{"Id":"{name}","Name":"{name}"}}"#))
}

fn second_network(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Fake {
    Fake::new(move |request| match request {
        request if request.starts_with("GET /networks/") => network(request),
        request if request.starts_with("POST /containers/create") => {
            Reply::Json(201, r#"{"Id":"made1","Warnings":[]}"#.to_owned())
        }
        request if request.starts_with("POST /networks/n2/connect") => reply(),
        request if request.starts_with("DELETE /containers/made1") => Reply::empty(),
        _ => Reply::message(404, "no such thing"),
    })
}

#[tokio::test]
async fn a_creation_that_is_answered_after_the_caller_gave_up_is_undone() {
    let gate = Arc::new(Notify::new());
    let late = gate.clone();
    let fake = Fake::new(move |request| match request {
        request if request.starts_with("POST /containers/create") => {
            let made = || Reply::Json(201, r#"{"Id":"made1","Warnings":[]}"#.to_owned());
            Reply::Late(late.clone(), Box::new(made))
        }
        request if request.starts_with("DELETE /containers/made1") => Reply::empty(),
        _ => Reply::message(404, "no such thing"),
    });
    let spec = InstanceSpec::of_image("i");
    tokio::select! {
        _ = fake.backend.provision().unwrap().create(&spec) => panic!("there is no answer yet"),
        () = fake.sees("POST /containers/create") => {}
    }
    gate.notify_one();
    fake.sees("DELETE /containers/made1?").await;
}

#[tokio::test]
async fn a_followed_log_ends_when_its_backend_is_closed() {
    let fake = Fake::new(|request| match request {
        request if request.contains("/logs?") => Reply::Open(Vec::new()),
        request if request.starts_with("GET /events") || request.contains("/wait?") => Reply::Open(Vec::new()),
        _ => Reply::ok(RUNS),
    });
    let mut log = fake.backend.logs().unwrap().logs(&id(), LogOptions::default().with_follow()).await.unwrap();
    fake.backend.close().await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(60), log.next()).await.expect("it ends").unwrap();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(log.next().await.is_none());
}

#[tokio::test]
async fn readings_may_be_as_far_apart_as_a_caller_says() {
    let fake = Fake::new(|request| match request {
        request if request.contains("/stats?") => Reply::ok(r#"{"read":"2024-01-01T00:00:01Z"}"#),
        request if request.starts_with("GET /events") || request.contains("/wait?") => Reply::Open(Vec::new()),
        _ => Reply::ok(RUNS),
    });
    let mut readings = fake.backend.stats().unwrap().usage_stream(&id(), Duration::MAX).await.unwrap();
    readings.next().await.unwrap().unwrap();
    let next = tokio::time::timeout(Duration::from_millis(200), readings.next()).await;
    assert!(next.is_err(), "{next:?}");
}

#[tokio::test]
async fn an_unfinished_creation_is_undone() {
    let fake = second_network(|| Reply::message(500, "no"));
    let error = fake.backend.provision().unwrap().create(&two_networks()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
    fake.sees("DELETE /containers/made1?").await;

    let stalls = second_network(|| Reply::Stall).with_deadline(Duration::from_secs(10));
    let error = stalls.backend.provision().unwrap().create(&two_networks()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    stalls.sees("DELETE /containers/made1?").await;

    let dropped = second_network(|| Reply::Stall);
    let provision = dropped.backend.provision().unwrap();
    let spec = two_networks();
    tokio::select! {
        _ = provision.create(&spec) => panic!("it cannot be done"),
        () = dropped.sees("POST /networks/n2/connect") => {}
    }
    dropped.sees("DELETE /containers/made1?").await;
}

#[tokio::test]
async fn a_newer_daemon_gets_all_networks_at_once() {
    let fake = Fake::speaking("1.44", |request| match request {
        request if request.starts_with("GET /networks/") => network(request),
        _ => Reply::Json(201, r#"{"Id":"made1","Warnings":[]}"#.to_owned()),
    });
    let made = fake.backend.provision().unwrap().create(&two_networks()).await.unwrap();
    assert_eq!(made.as_str(), "made1");
    assert!(!fake.seen().iter().any(|request| request.contains("/connect")), "{:?}", fake.seen());
}

#[tokio::test]
async fn a_limit_that_the_server_discards_is_unsupported_and_undone() {
    let fake = Fake::new(|request| match request {
        request if request.starts_with("POST /containers/create") => {
            Reply::Json(201, r#"{"Id":"made1","Warnings":["Limitation discarded."]}"#.to_owned())
        }
        request if request.starts_with("GET /containers/made1/json") => Reply::ok(r#"{"HostConfig":{"Memory":0}}"#),
        // A server that does not report what its kernel can do.
        "GET /info" => Reply::ok("{}"),
        _ => Reply::empty(),
    });
    let mut spec = InstanceSpec::of_image("i");
    spec.memory_bytes = NonZeroU64::new(64 << 20);
    let error = fake.backend.provision().unwrap().create(&spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    fake.sees("DELETE /containers/made1?").await;
}

#[tokio::test]
async fn a_limit_that_the_kernel_does_not_have_is_unsupported_before_anything_is_created() {
    let fake = Fake::new(|_| Reply::ok(r#"{"MemoryLimit":false,"CpuCfsQuota":false,"PidsLimit":false}"#));
    let create = async |limit: fn(&mut InstanceSpec)| {
        let mut spec = InstanceSpec::of_image("i");
        limit(&mut spec);
        fake.backend.provision().unwrap().create(&spec).await.unwrap_err()
    };
    for (error, field) in [
        (create(|spec| spec.memory_bytes = NonZeroU64::new(64 << 20)).await, "memory_bytes"),
        (create(|spec| spec.milli_cpus = std::num::NonZeroU32::new(100)).await, "milli_cpus"),
        (create(|spec| spec.pids = std::num::NonZeroU32::new(100)).await, "pids"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.context().contains(&("feature".into(), field.to_owned())), "{error}");
    }
    assert_eq!(fake.seen(), ["GET /info"; 3]);
}

#[tokio::test]
async fn a_field_that_an_older_server_drops_is_unsupported_before_anything_is_created() {
    let check = HealthCheck::new(HealthTest::command(["true"])).with_start_interval(Duration::from_secs(1));
    let spec = InstanceSpec::of_image("i").with_health_check(check);
    let made = |_: &str| Reply::Json(201, r#"{"Id":"made1","Warnings":[]}"#.to_owned());
    let old = Fake::speaking("1.43", made);
    let error = old.backend.provision().unwrap().create(&spec).await.unwrap_err();
    assert_eq!((error.kind(), old.seen()), (ErrorKind::Unsupported, vec![]), "{error}");
    let new = Fake::speaking("1.44", made);
    new.backend.provision().unwrap().create(&spec).await.unwrap();
    assert_eq!(new.seen(), ["POST /containers/create?platform="]);
}

#[tokio::test]
async fn a_stop_with_a_signal_is_one_request_since_1_42() {
    let script = |request: &str| if request.ends_with("/json") { Reply::ok(RUNS) } else { Reply::empty() };
    let fake = Fake::speaking("1.42", script);
    let options = StopOptions::default().with_signal(UnixSignal::USR1).with_timeout(Duration::from_millis(1));
    let effect = fake.backend.lifecycle().unwrap().stop(&id(), options.clone()).await.unwrap();
    assert_eq!(effect, Effect::Changed);
    assert_eq!(fake.seen(), ["GET /containers/c1/json", "POST /containers/c1/stop?signal=10&t=1"]);

    // Only a policy begins another run after a signal that is not the container's own.
    let policy = RUNS.replace(r#""HostConfig":{}"#, r#""HostConfig":{"RestartPolicy":{"Name":"always"}}"#);
    let always = Fake::speaking(
        "1.42",
        move |request| {
            if request.ends_with("/json") { Reply::ok(&policy) } else { Reply::empty() }
        },
    );
    let _ = always.backend.lifecycle().unwrap().stop(&id(), options.clone()).await.unwrap();
    assert_eq!(always.seen()[1..], ["POST /containers/c1/stop?signal=10&t=1", "POST /containers/c1/stop?t=0"]);

    let old = Fake::new(script);
    let _ = old.backend.lifecycle().unwrap().stop(&id(), options).await.unwrap();
    let seen = old.seen();
    assert!(seen.contains(&"POST /containers/c1/kill?signal=10".to_owned()), "{seen:?}");
    assert_eq!(seen.last().unwrap(), "POST /containers/c1/stop?t=0");
}

#[tokio::test]
async fn a_removal_in_progress_is_waited_for() {
    let inspections = AtomicUsize::new(0);
    let fake = Fake::new(move |request| match request {
        request if request.starts_with("DELETE") => {
            Reply::message(409, "removal of container c1 is already in progress")
        }
        _ if inspections.fetch_add(1, Ordering::Relaxed) < 2 => Reply::ok(r#"{"State":{"Status":"removing"}}"#),
        _ => Reply::message(404, "No such container: c1"),
    });
    let removed = fake.backend.lifecycle().unwrap().remove(&id(), RemoveOptions::default()).await;
    assert_eq!(removed.unwrap(), Effect::Unchanged);
}

/// A daemon that answers inspections of the container with these in order, the last one repeatedly, and waits with `reply`.
fn waits(inspections: &'static [&'static str], reply: impl Fn() -> Reply + Send + Sync + 'static) -> Fake {
    let next = AtomicUsize::new(0);
    Fake::new(move |request| {
        if request.contains("/wait") {
            return reply();
        }
        match inspections[next.fetch_add(1, Ordering::Relaxed).min(inspections.len() - 1)] {
            "" => Reply::message(404, "No such container: c1"),
            "down" => Reply::Hangup,
            inspection => Reply::ok(inspection),
        }
    })
}

async fn waited(fake: &Fake) -> Result<Option<ExitStatus>> {
    tokio::time::timeout(Duration::from_secs(60), fake.backend.lifecycle().unwrap().wait(&id())).await.unwrap()
}

#[tokio::test]
async fn a_wait_survives_a_daemon_that_goes_and_comes_back() {
    let three = Some(ExitStatus::code(3).with_oom_killed(false));
    // The connection breaks, the daemon is away for two inspections, and the end is found in the description.
    let fake = waits(&[RUNS, RUNS, "down", "down", RUNS, RUNS, ENDED_3], || Reply::Hangup);
    assert_eq!(waited(&fake).await.unwrap(), three);
    // The wait is cut short by a shutdown, which is not an exit.
    let shutdown = r#"{"StatusCode":-1,"Error":{"Message":"context canceled"}}"#;
    let fake = waits(&[RUNS, RUNS, RUNS, RUNS, ENDED_3], move || Reply::ok(shutdown));
    assert_eq!(waited(&fake).await.unwrap(), three);
}

#[tokio::test]
async fn an_end_that_is_not_reported_is_not_invented() {
    let fake = waits(&[RUNS, RUNS, RUNS_AGAIN], || Reply::Hangup);
    assert_eq!(waited(&fake).await.unwrap(), None, "another run began in the meantime");
    let fake = waits(&[RUNS, RUNS, ""], || Reply::Hangup);
    assert_eq!(waited(&fake).await.unwrap_err().kind(), ErrorKind::NotFound, "gone before its end was seen");
    let fake = waits(&[RUNS, RUNS, ""], || Reply::ok(r#"{"StatusCode":5}"#));
    assert_eq!(waited(&fake).await.unwrap(), Some(ExitStatus::code(5)), "gone, but the end was reported");
    let fake = waits(&[CREATED], || Reply::ok(r#"{"StatusCode":0}"#));
    assert_eq!(waited(&fake).await.unwrap_err().kind(), ErrorKind::Conflict, "it never ran");
}

/// The lines and the error of a stream of these bytes, with this description after it.
async fn followed(bytes: Vec<u8>, whole: bool, after: &'static str) -> (Vec<LogLine>, Option<Error>) {
    let inspections = AtomicUsize::new(0);
    let fake = Fake::new(move |request| match request {
        request if request.contains("/logs") => Reply::Stream { bytes: bytes.clone(), whole },
        _ if inspections.fetch_add(1, Ordering::Relaxed) == 0 => Reply::ok(RUNS),
        _ => Reply::ok(after),
    });
    let mut stream = fake.backend.logs().unwrap().logs(&id(), LogOptions::default().with_follow()).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await {
        match line {
            Ok(line) => lines.push(line),
            Err(error) => {
                assert!(stream.next().await.is_none(), "nothing comes after an error");
                return (lines, Some(error));
            }
        }
    }
    (lines, None)
}

#[tokio::test]
async fn output_that_breaks_off_is_an_error() {
    let frame = b"\x01\0\0\0\0\0\0\x03ab\n";
    let (lines, error) = followed(frame.to_vec(), true, ENDED_3).await;
    assert_eq!((lines.len(), error.is_none()), (1, true), "the end of the run is the end of its output");
    let (lines, error) = followed(frame.to_vec(), false, ENDED_3).await;
    assert_eq!((lines.len(), error.unwrap().kind()), (1, ErrorKind::Unavailable));
    let (lines, error) = followed(frame.to_vec(), true, RUNS).await;
    assert_eq!((lines.len(), error.unwrap().kind()), (1, ErrorKind::Unavailable), "it still runs");
    for whole in [true, false] {
        let (lines, error) = followed(frame[..10].to_vec(), whole, ENDED_3).await;
        assert_eq!(&lines[0].bytes[..], b"ab", "output before the break is not lost");
        assert_eq!(error.unwrap().kind(), ErrorKind::Unavailable);
    }
    let spoken = b"\x03\0\0\0\0\0\0\x12Error grabbing log";
    let (lines, error) = followed(spoken.to_vec(), true, ENDED_3).await;
    assert_eq!((lines.len(), error.unwrap().kind()), (0, ErrorKind::Unexpected));
    let (_, error) = followed(b"no frame at all".to_vec(), true, ENDED_3).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::Protocol);
}
