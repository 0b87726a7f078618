//! Resource usage, on a real Podman and on a service whose answers are written here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use runtide_core::{
    ErrorKind, InstanceId, RuntimeBackend,
    manager::{RemoveOptions, StopOptions, Usage, UsageStream},
};
use tokio::sync::Notify;

use crate::{
    bench::Bench,
    exec::{LIMIT, argv, waited},
    scripted::{PODMAN, Reply, Service},
};

async fn next(readings: &mut UsageStream) -> Option<runtide_core::Result<Usage>> {
    tokio::time::timeout(LIMIT, readings.next()).await.expect("a reading or an end")
}

#[tokio::test]
async fn a_reading_agrees_with_the_services_own_numbers() {
    let Some(bench) = Bench::new("stats").await else { return };
    let mut spec =
        bench.spec("a", "head -c 20000000 /dev/zero > /tmp/f; cat /tmp/f > /dev/null; echo ready; sleep 600");
    spec.memory_bytes = std::num::NonZeroU64::new(64 << 20);
    let id = bench.provision().create(&spec).await.unwrap();
    bench.lifecycle().start(&id).await.unwrap();
    bench.says(&id, "ready").await;
    let sample = || bench.json(&format!("/containers/stats?stream=false&containers={id}"))["Stats"][0].clone();
    let before = sample();
    let usage = bench.stats().usage(&id).await.unwrap();
    let after = sample();
    let number = |sample: &serde_json::Value, key: &str| sample[key].as_u64().unwrap();
    let nanos = u64::try_from(usage.cpu.expect("the first reading has it").as_nanos()).unwrap();
    assert!((number(&before, "CPUNano")..=number(&after, "CPUNano")).contains(&nanos) && nanos > 0, "{usage:?}");
    if let Some(memory) = usage.memory_bytes {
        assert!(memory.abs_diff(number(&after, "MemUsage")) < 4 << 20, "{memory} and {after}");
        assert_eq!(usage.memory_limit, Some(64 << 20));
    }
    assert_eq!(usage.pids.unwrap_or(0), number(&after, "PIDs"));
    assert!(usage.at.duration_since(SystemTime::UNIX_EPOCH).is_ok());
    assert!(usage.read_bytes != Some(0) && usage.written_bytes != Some(0) && usage.memory_bytes != Some(0));
}

#[tokio::test]
async fn bytes_received_and_sent_are_those_that_the_container_counts_itself() {
    let Some(bench) = Bench::new("stats-net").await else { return };
    let id = bench.run("a", "sleep 600").await;
    let Some(gateway) =
        bench.json(&format!("/containers/{id}/json"))["NetworkSettings"]["Gateway"].as_str().map(str::to_owned)
    else {
        return;
    };
    // Pings are answered: one way they are longer. What nothing answers was sent all the same.
    let script =
        format!("ping -c 2 -W 1 -s 1000 {gateway}; for n in 1 2 3; do echo x | nc -w 1 {gateway} 9; done; true");
    let session = bench.exec().exec(&id, argv(&["sh", "-c", &script])).await.unwrap();
    waited(&session).await;
    let count = async || {
        let session = bench.exec().exec(&id, argv(&["cat", "/proc/net/dev"])).await.unwrap();
        let said = crate::exec::all(session.output).await.unwrap();
        let line = said["Stdout"].lines().find(|line| line.contains("eth0")).unwrap().to_owned();
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        (numbers[0], numbers[8])
    };
    // Nothing else comes or goes between two equal counts.
    for _ in 0..100 {
        let before = count().await;
        let usage = bench.stats().usage(&id).await.unwrap();
        if before == count().await && before.0 != before.1 {
            assert_eq!((usage.received_bytes, usage.sent_bytes), (Some(before.0), Some(before.1)));
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the network never rests");
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
    bench.lifecycle().start(&id).await.unwrap();
    let zero = bench.stats().usage_stream(&id, Duration::ZERO).await.err().unwrap();
    assert_eq!(zero.kind(), ErrorKind::InvalidInput);
    bench.lifecycle().pause(&id).await.unwrap();
    assert!(bench.stats().usage(&id).await.unwrap().cpu.is_some(), "a paused one has its usage");
    bench.lifecycle().unpause(&id).await.unwrap();
}

#[tokio::test]
async fn readings_end_with_the_run_and_not_with_the_next_tick() {
    let Some(bench) = Bench::new("stats-end").await else { return };
    for how in ["ends", "restarts", "goes"] {
        let id = bench.run(how, "trap 'exit 0' TERM; while :; do sleep 0.1; done").await;
        let mut readings = bench.stats().usage_stream(&id, Duration::from_millis(300)).await.unwrap();
        let (first, second) =
            (next(&mut readings).await.unwrap().unwrap(), next(&mut readings).await.unwrap().unwrap());
        assert!(second.at > first.at && second.cpu >= first.cpu && first.cpu.is_some(), "{first:?} {second:?}");
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

#[tokio::test]
async fn a_stream_has_one_connection_for_the_end_and_one_for_its_readings() {
    let Some(bench) = Bench::new("stats-links").await else { return };
    let (proxy, backend) = bench.behind_a_proxy().await;
    let id = bench.run("a", "sleep 600").await;
    let mut readings = backend.stats().unwrap().usage_stream(&id, Duration::from_millis(50)).await.unwrap();
    for _ in 0..20 {
        next(&mut readings).await.unwrap().unwrap();
    }
    // A connection that the service has closed may be counted for a moment longer.
    let closed = async {
        while proxy.live() > 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), closed).await.expect("one connection for all readings");
}

const RUNS: &str = r#"{"Id":"c1","State":{"Status":"running","StartedAt":"2024-01-01T00:00:00.1Z"},"Config":{},"HostConfig":{"NetworkMode":"bridge"}}"#;
const EMPTY: &str = r#"{"Error":null,"Stats":[{"ContainerID":"c1","CPUNano":0,"SystemNano":0}]}"#;
const LOGGED: &str = r#"{"host":{"eventLogger":"file"}}"#;

#[tokio::test]
async fn an_empty_reading_of_what_runs_and_garbage_are_errors_and_no_zeros() {
    for (answer, kind) in [
        (EMPTY, ErrorKind::Unexpected),
        (r#"{"Error":{},"Stats":null}"#, ErrorKind::Unexpected),
        ("{}", ErrorKind::Protocol),
        (r#"{"Error":null,"Stats":[]}"#, ErrorKind::Protocol),
        ("[]", ErrorKind::Protocol),
        ("{\"Stats\":", ErrorKind::Protocol),
    ] {
        let service =
            Service::new(PODMAN, move |request| Reply::ok(if request.contains("/stats") { answer } else { RUNS }));
        let error = service.backend().stats().unwrap().usage(&"c1".into()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer}: {error}");
    }
    let rootless = Service::new(PODMAN, |request| {
        let only = r#"{"cause":"x","message":"container stats resource only available for cgroup v2","response":409}"#;
        if request.contains("/stats") { Reply::Whole(409, only.to_owned()) } else { Reply::ok(RUNS) }
    });
    let error = rootless.backend().stats().unwrap().usage(&"c1".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let hostile = rootless.backend().stats().unwrap().usage(&"../c1".into()).await.unwrap_err();
    assert_eq!(hostile.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_stream_that_meets_a_failure_ends_with_it() {
    let (readings, silent) = (AtomicUsize::new(0), Arc::new(Notify::new()));
    let service = Service::new(PODMAN, move |request| {
        if request.contains("/events") {
            Reply::Open(Arc::clone(&silent), String::new())
        } else if request.contains("/stats") {
            match readings.fetch_add(1, Ordering::SeqCst) {
                0 => Reply::ok(r#"{"Error":null,"Stats":[{"SystemNano":5,"PIDs":1}]}"#),
                _ => Reply::Whole(500, r#"{"message":"broken"}"#.to_owned()),
            }
        } else {
            Reply::ok(if request == "GET /info" { LOGGED } else { RUNS })
        }
    });
    let backend = service.backend();
    let mut readings = backend.stats().unwrap().usage_stream(&"c1".into(), Duration::from_millis(10)).await.unwrap();
    assert_eq!(next(&mut readings).await.unwrap().unwrap().pids, Some(1));
    assert_eq!(next(&mut readings).await.unwrap().unwrap_err().kind(), ErrorKind::Unexpected);
    assert!(next(&mut readings).await.is_none(), "nothing survives it in silence");
}
