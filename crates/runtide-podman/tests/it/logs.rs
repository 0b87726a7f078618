//! Follows of a log over outages, on a real Podman.

use std::time::Duration;

use runtide_conformance::{
    proxy::{Action, Rule},
    report,
    testbed::Testbed,
};
use runtide_core::{
    ErrorKind, InstanceId, RuntimeBackend,
    manager::{LogLine, LogManager, LogOptions, LogSource, RemoveOptions},
};

use crate::bench::Bench;

/// Two outputs, some lines of which are equal and follow one another, and the last of which is long.
const TALK: &str = "n=0; while [ $n -lt 300 ]; do n=$((n+1)); echo out $((n/3)); [ $((n%2)) = 0 ] || echo err $n >&2; sleep 0.01; done; \
    head -c 20000 /dev/zero | tr '\\0' x; echo; echo last";

fn text(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| std::str::from_utf8(&line.bytes).unwrap().trim_end()).collect()
}

/// Follows to the end; `meanwhile` is called after each 50 lines. What came must be what is stored, each line once.
async fn followed_whole(
    bench: &Bench,
    logs: &dyn LogManager,
    id: &InstanceId,
    options: LogOptions,
    mut meanwhile: impl AsyncFnMut(),
) {
    let mut stream = logs.logs(id, options.clone().with_follow()).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) =
        tokio::time::timeout(Duration::from_secs(120), stream.next()).await.expect("it does not hang")
    {
        lines.push(line.unwrap());
        if lines.len().is_multiple_of(50) {
            meanwhile().await;
        }
    }
    let mut stored = Vec::new();
    let mut stream = bench.logs().logs(id, options).await.unwrap();
    while let Some(line) = stream.next().await {
        stored.push(line.unwrap());
    }
    assert_eq!(text(&lines), text(&stored));
    assert!(lines.len() > 150 && text(&lines).ends_with(&["last"]), "{}", lines.len());
    assert_eq!(lines, stored);
}

#[tokio::test]
async fn a_follow_goes_on_behind_its_last_line_when_its_connection_is_cut() {
    let Some(bench) = Bench::new("log-cut").await else { return };
    let (proxy, backend) = bench.behind_a_proxy().await;
    let mut cuts = 0;
    for (name, sources) in [("a", vec![]), ("b", vec![LogSource::Stdout])] {
        let id = bench.run(name, TALK).await;
        let options = LogOptions::default().with_sources(sources).with_timestamps();
        let cut = async || {
            proxy.sever();
            cuts += 1;
        };
        followed_whole(&bench, backend.logs().unwrap(), &id, options, cut).await;
    }
    assert!(cuts >= 6, "{cuts}");
    bench.clear().await;
}

#[tokio::test]
async fn a_follow_goes_on_when_the_service_is_killed_and_started_again() {
    let Some(testbed) = Testbed::of("podman") else {
        return report::skip("managers", "podman", "RUNTIDE_TESTBED is not set");
    };
    let Some(bench) = Bench::alone("log-killed").await else { return };
    let id = bench.run("a", TALK).await;
    let mut restarts = 0;
    let restart = async || {
        if restarts < 2 {
            testbed.run(&["kill"]).await.unwrap();
            testbed.run(&["start"]).await.unwrap();
            restarts += 1;
        }
    };
    followed_whole(&bench, bench.logs(), &id, LogOptions::default(), restart).await;
    assert_eq!(restarts, 2);
    bench.clear().await;
}

#[tokio::test]
async fn a_follow_whose_container_goes_during_an_outage_ends_with_an_error() {
    let Some(bench) = Bench::new("log-gone").await else { return };
    let (proxy, backend) = bench.behind_a_proxy().await;
    let id = bench.run("a", "echo up; sleep 600").await;
    let mut stream = backend.logs().unwrap().logs(&id, LogOptions::default().with_follow()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().bytes, "up\n");
    proxy.add(Rule::on("/", Action::Cut(0)));
    proxy.sever();
    let (next, ()) = tokio::join!(stream.next(), async {
        let _ = bench.lifecycle().remove(&id, RemoveOptions::default().with_kill()).await.unwrap();
        proxy.heal();
    });
    let error = next.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(stream.next().await.is_none());
    bench.clear().await;
}
