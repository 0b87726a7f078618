//! Usage, as a node or the metrics API reports it.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime},
};

use runtide_core::{ErrorKind, InstanceId, RuntimeBackend, manager::Usage};
use runtide_k8s::{Granularity, KubeBackend};
use serde_json::{Value, json};

use crate::scripted::{Reply, Request, Server, ended, list, pod, running};

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

fn at(text: &str) -> SystemTime {
    text.parse::<jiff::Timestamp>().unwrap().into()
}

/// A running pod on a node, with a sidecar.
fn placed() -> Value {
    let mut one = pod("a", "5", "Running", 0, running());
    one["spec"]["nodeName"] = json!("n1.example");
    one
}

fn measured(name: &str, at: &str, cpu: u64, memory: u64, available: Value) -> Value {
    json!({ "name": name, "startTime": "2026-11-30T12:00:00Z",
        "cpu": { "time": at, "usageNanoCores": 5, "usageCoreNanoSeconds": cpu },
        "memory": { "time": at, "usageBytes": 9_999_999, "workingSetBytes": memory, "availableBytes": available } })
}

/// A node's summary. What it says of the pod as a whole is 0.
fn summary(uid: &str, containers: &[Value]) -> Value {
    let network = json!({ "name": "eth0", "rxBytes": 90, "txBytes": 80,
        "interfaces": [{ "name": "eth0", "rxBytes": 90, "txBytes": 80 }, { "name": "net1", "rxBytes": 5, "txBytes": 6 }] });
    json!({ "node": {}, "pods": [
        { "podRef": { "name": "other", "namespace": "default", "uid": "other" }, "containers": null },
        { "podRef": { "name": "a", "namespace": "default", "uid": uid }, "containers": containers, "network": network,
            "cpu": { "usageCoreNanoSeconds": 0 }, "memory": { "workingSetBytes": 0 }, "process_stats": { "process_count": 0 } },
    ] })
}

/// A server with one pod, that answers requests for figures with these.
async fn with(one: Value, figures: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Server {
    Server::new(move |request: &Request| match request.path.split('?').next().unwrap() {
        path if path.contains("/nodes/") || path.starts_with("/apis/") => figures(path),
        _ if request.is_watch() => Reply::events(&[]),
        _ => Reply::ok(&list("9", "", std::slice::from_ref(&one))),
    })
    .await
}

async fn usage(backend: &KubeBackend, id: &str) -> runtide_core::Result<Usage> {
    backend.stats().unwrap().usage(&InstanceId::from(id)).await
}

#[tokio::test]
async fn the_figures_of_a_pod_are_the_sums_of_its_containers_and_of_nothing_that_means_another_thing() {
    let server = with(placed(), |path| {
        assert_eq!(path, "/api/v1/nodes/n1.example/proxy/stats/summary");
        let main = measured("main", "2026-11-30T12:05:00Z", 1_500_000_000, 1000, json!(5000));
        Reply::ok(&summary("uid-a", &[main, measured("side", "2026-11-30T12:05:01Z", 500_000_000, 20, json!(80))]))
    })
    .await;
    let mut expected = Usage::new(at("2026-11-30T12:05:00Z"));
    (expected.cpu, expected.memory_bytes) = (Some(Duration::from_secs(2)), Some(1020));
    expected.memory_limit = Some(6100);
    (expected.received_bytes, expected.sent_bytes) = (Some(95), Some(86));
    assert_eq!(usage(&server.backend(), "uid-a").await.unwrap(), expected);

    let containers = KubeBackend::new(server.config().with_granularity(Granularity::Container)).unwrap();
    let mut expected = Usage::new(at("2026-11-30T12:05:00Z"));
    (expected.cpu, expected.memory_bytes) = (Some(Duration::from_millis(1500)), Some(1000));
    expected.memory_limit = Some(6000);
    assert_eq!(usage(&containers, "uid-a/main").await.unwrap(), expected, "the network is the pod's");
}

#[tokio::test]
async fn what_is_not_counted_is_absent_and_a_network_of_the_node_is_not_the_pods() {
    let mut one = placed();
    one["spec"]["hostNetwork"] = json!(true);
    one["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "of-the-node" });
    let server = with(one, |_| {
        let mut main = measured("main", "2026-11-30T12:05:00Z", 0, 1000, Value::Null);
        main["cpu"]["usageCoreNanoSeconds"] = Value::Null;
        Reply::ok(&summary("of-the-node", &[main]))
    })
    .await;
    let mut expected = Usage::new(at("2026-11-30T12:05:00Z"));
    expected.memory_bytes = Some(1000);
    assert_eq!(usage(&server.backend(), "uid-a").await.unwrap(), expected);
}

#[tokio::test]
async fn a_reading_of_the_run_before_is_none_of_this_one() {
    for old in [
        summary("uid-a", &[measured("main", "2026-11-30T12:00:00Z", 7, 7, Value::Null)]),
        summary("uid-a", &[measured("side", "2026-11-30T12:05:00Z", 7, 7, Value::Null)]),
        summary("another", &[measured("main", "2026-11-30T12:05:00Z", 7, 7, Value::Null)]),
        json!({ "pods": null }),
    ] {
        let server = with(placed(), move |_| Reply::ok(&old)).await;
        assert_eq!(usage(&server.backend(), "uid-a").await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn the_metrics_api_has_memory_and_its_rate_of_cpu_is_no_total() {
    let server = with(placed(), |path| {
        if path.contains("/nodes/") {
            return Reply::refusal(403, "Forbidden");
        }
        assert_eq!(path, format!("{METRICS}/namespaces/default/pods/a"));
        Reply::ok(&json!({ "kind": "PodMetrics", "timestamp": "2026-11-30T12:05:00Z", "window": "30s", "containers": [
            { "name": "main", "usage": { "cpu": "250m", "memory": "2Mi" } },
            { "name": "side", "usage": { "cpu": "1n", "memory": "1Ki" } },
        ] }))
    })
    .await;
    let mut expected = Usage::new(at("2026-11-30T12:05:00Z"));
    expected.memory_bytes = Some((2 << 20) + 1024);
    assert_eq!(usage(&server.backend(), "uid-a").await.unwrap(), expected);
}

#[tokio::test]
async fn a_cluster_without_any_figures_says_so_and_one_that_has_none_yet_is_asked_again() {
    for (is_served, kind) in [(false, ErrorKind::Unsupported), (true, ErrorKind::Unavailable)] {
        let server = with(placed(), move |path| match path {
            METRICS if is_served => Reply::ok(&json!({ "kind": "APIResourceList" })),
            _ if path.contains("/nodes/") => Reply::refusal(403, "Forbidden"),
            _ => Reply::refusal(404, "NotFound"),
        })
        .await;
        let error = usage(&server.backend(), "uid-a").await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let broken = with(placed(), |_| Reply::Whole(200, "", "[".to_owned())).await;
    assert_eq!(usage(&broken.backend(), "uid-a").await.unwrap_err().kind(), ErrorKind::Protocol);
    let over = with(pod("a", "5", "Succeeded", 0, ended(0)), |_| panic!("nothing to measure")).await;
    assert_eq!(usage(&over.backend(), "uid-a").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(usage(&over.backend(), "uid-b").await.unwrap_err().kind(), ErrorKind::NotFound);
    let mut elsewhere = placed();
    elsewhere["spec"]["nodeName"] = json!("n1/../../secrets");
    let lies = with(elsewhere, |path| panic!("{path}")).await;
    assert_eq!(usage(&lies.backend(), "uid-a").await.unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn a_stream_of_readings_ends_with_its_run_and_waits_for_the_first() {
    let reads = AtomicU32::new(0);
    let restarted = std::sync::Arc::new(AtomicU32::new(0));
    let is_restarted = std::sync::Arc::clone(&restarted);
    let server = Server::new(move |request: &Request| {
        if request.path.contains("/nodes/") {
            let n = reads.fetch_add(1, Ordering::SeqCst);
            // The first is of the run before.
            let time = if n == 0 { "2026-11-30T12:00:00Z" } else { "2026-11-30T12:05:00Z" };
            return Reply::ok(&summary("uid-a", &[measured("main", time, u64::from(n), 1000, Value::Null)]));
        }
        let mut one = placed();
        one["status"]["containerStatuses"][0]["restartCount"] = json!(is_restarted.load(Ordering::SeqCst));
        if request.is_watch() { Reply::events(&[]) } else { Reply::ok(&list("9", "", &[one])) }
    })
    .await;
    let backend = server.backend();
    let stats = backend.stats().unwrap();
    let zero = stats.usage_stream(&"uid-a".into(), Duration::ZERO).await.unwrap_err();
    assert_eq!(zero.kind(), ErrorKind::InvalidInput);
    let mut stream = stats.usage_stream(&"uid-a".into(), Duration::from_millis(20)).await.unwrap();
    for n in 1..4 {
        let next = tokio::time::timeout(Duration::from_secs(60), stream.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(next.cpu, Some(Duration::from_nanos(n)));
    }
    restarted.store(1, Ordering::SeqCst);
    let last = async { while stream.next().await.transpose().unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), last).await.unwrap();
}
