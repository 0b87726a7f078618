//! Resource usage, on a real daemon and on one whose answers are written here.

use std::time::{Duration, SystemTime};

use runtide_core::{
    ErrorKind, InstanceId, RuntimeBackend,
    manager::{RemoveOptions, StopOptions, Usage, UsageStream},
};

use super::bench::Bench;
use crate::scripted_daemon::{Fake, Reply};

/// Longest time for anything here.
const LIMIT: Duration = Duration::from_secs(120);

async fn next(readings: &mut UsageStream) -> Option<runtide_core::Result<Usage>> {
    tokio::time::timeout(LIMIT, readings.next()).await.expect("a reading or an end")
}

#[tokio::test]
async fn a_reading_agrees_with_the_daemons_own_numbers() {
    let Some(bench) = Bench::new("stats").await else { return };
    let mut spec =
        bench.spec("a", "head -c 20000000 /dev/zero > /tmp/f; cat /tmp/f > /dev/null; echo ready; sleep 600");
    spec.memory_bytes = std::num::NonZeroU64::new(64 << 20);
    let id = bench.run_spec(&spec).await;
    bench.says(&id, "ready").await;
    let before = bench.json("GET", &format!("/containers/{id}/stats?stream=false"), "");
    let usage = bench.stats().usage(&id).await.unwrap();
    let after = bench.json("GET", &format!("/containers/{id}/stats?stream=false"), "");
    let cpu = |sample: &serde_json::Value| sample["cpu_stats"]["cpu_usage"]["total_usage"].as_u64().unwrap();
    let nanos = u64::try_from(usage.cpu.unwrap().as_nanos()).unwrap();
    assert!((cpu(&before)..=cpu(&after)).contains(&nanos), "{usage:?}");
    // As `docker stats` counts it: without the cache of files that is not in use.
    let in_use = |sample: &serde_json::Value| {
        let memory = &sample["memory_stats"];
        let counter = |name: &str| memory["stats"][name].as_u64();
        let inactive = counter("total_inactive_file").or_else(|| counter("inactive_file")).unwrap_or(0);
        memory["usage"].as_u64().map(|usage| usage - inactive)
    };
    if let Some(expected) = in_use(&after) {
        let got = usage.memory_bytes.unwrap();
        assert!(got.abs_diff(expected) < 4 << 20, "{got} and {expected}");
        assert!(got < 20_000_000, "the file's cache does not count: {got}");
        assert_eq!(usage.memory_limit, Some(64 << 20));
    }
    assert_eq!(usage.pids, after["pids_stats"]["current"].as_u64());
    assert!(usage.received_bytes.is_some() && usage.sent_bytes.is_some(), "{usage:?}");
    assert!(usage.at.duration_since(SystemTime::UNIX_EPOCH).is_ok());
}

#[tokio::test]
async fn what_does_not_run_is_not_measured() {
    let Some(bench) = Bench::new("stats-state").await else { return };
    let id = bench.create("a", "sleep 600").await;
    for error in [
        bench.stats().usage(&id).await.unwrap_err(),
        bench.stats().usage_stream(&id, Duration::from_secs(1)).await.err().unwrap(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    let absent = InstanceId::from("runtide-absent");
    assert_eq!(bench.stats().usage(&absent).await.unwrap_err().kind(), ErrorKind::NotFound);
    let _ = bench.lifecycle().start(&id).await.unwrap();
    let zero = bench.stats().usage_stream(&id, Duration::ZERO).await.err().unwrap();
    assert_eq!(zero.kind(), ErrorKind::InvalidInput);
    let _ = bench.lifecycle().pause(&id).await.unwrap();
    assert!(bench.stats().usage(&id).await.unwrap().pids.is_some(), "a paused one has its usage");
    let _ = bench.lifecycle().unpause(&id).await.unwrap();
}

#[tokio::test]
async fn readings_end_with_the_run_and_not_with_the_next_tick() {
    let Some(bench) = Bench::new("stats-end").await else { return };
    for how in ["ends", "restarts", "goes"] {
        let id = bench.run(how, "trap 'exit 0' TERM; while :; do sleep 0.1; done").await;
        let mut readings = bench.stats().usage_stream(&id, Duration::from_millis(300)).await.unwrap();
        let (first, second) =
            (next(&mut readings).await.unwrap().unwrap(), next(&mut readings).await.unwrap().unwrap());
        assert!(second.at > first.at && second.cpu >= first.cpu, "{first:?} {second:?}");
        match how {
            "ends" => drop(bench.lifecycle().stop(&id, StopOptions::default()).await.unwrap()),
            "restarts" => bench.lifecycle().restart(&id, StopOptions::default()).await.unwrap(),
            _ => drop(bench.lifecycle().remove(&id, RemoveOptions::default().with_kill()).await.unwrap()),
        }
        while let Some(reading) = next(&mut readings).await {
            assert!(reading.is_ok(), "{how}: {reading:?}");
        }
    }
    let id = bench.run("rare", "trap 'exit 0' TERM; while :; do sleep 0.1; done").await;
    let mut readings = bench.stats().usage_stream(&id, Duration::from_secs(3600)).await.unwrap();
    next(&mut readings).await.unwrap().unwrap();
    let (end, stopped) = tokio::join!(next(&mut readings), bench.lifecycle().stop(&id, StopOptions::default()));
    assert!(end.is_none() && stopped.is_ok(), "it does not take an hour");
}

const RUNS: &str =
    r#"{"State":{"Status":"running","Running":true,"StartedAt":"2024-01-01T00:00:00.1Z"},"Config":{},"HostConfig":{}}"#;
const EMPTY: &str = r#"{"read":"0001-01-01T00:00:00Z","name":"/a","id":"c1","cpu_stats":{},"memory_stats":{}}"#;

#[tokio::test]
async fn an_empty_reading_of_what_runs_and_garbage_are_errors_and_no_zeros() {
    for (answer, kind) in [
        (EMPTY, ErrorKind::Unexpected),
        ("{}", ErrorKind::Protocol),
        ("[]", ErrorKind::Protocol),
        ("{\"read\":", ErrorKind::Protocol),
    ] {
        let fake =
            Fake::new(move |request| if request.contains("/stats") { Reply::ok(answer) } else { Reply::ok(RUNS) });
        let error = fake.backend.stats().unwrap().usage(&"c1".into()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer}: {error}");
    }
    let stalls = Fake::new(|_| Reply::Stall).with_deadline(Duration::from_millis(300));
    assert_eq!(stalls.backend.stats().unwrap().usage(&"c1".into()).await.unwrap_err().kind(), ErrorKind::Timeout);
    let hostile = stalls.backend.stats().unwrap().usage(&"../c1".into()).await.unwrap_err();
    assert_eq!(hostile.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_stream_that_meets_a_failure_ends_with_it() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let readings = AtomicUsize::new(0);
    let fake = Fake::new(move |request| {
        if request.contains("/wait") {
            Reply::Open(Vec::new())
        } else if request.contains("/stats") {
            match readings.fetch_add(1, Ordering::SeqCst) {
                0 => Reply::ok(r#"{"read":"2024-01-01T00:00:00Z","pids_stats":{"current":1}}"#),
                _ => Reply::message(500, "broken"),
            }
        } else {
            Reply::ok(RUNS)
        }
    });
    let stats = fake.backend.stats().unwrap();
    let mut readings = stats.usage_stream(&"c1".into(), Duration::from_millis(10)).await.unwrap();
    assert_eq!(next(&mut readings).await.unwrap().unwrap().pids, Some(1));
    assert_eq!(next(&mut readings).await.unwrap().unwrap_err().kind(), ErrorKind::Unexpected);
    assert!(next(&mut readings).await.is_none(), "nothing survives it in silence");
}
