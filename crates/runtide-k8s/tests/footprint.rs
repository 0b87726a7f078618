//! Bytes that are held for each of 5,000 pods, the time until they are known, and changes in a second, beside kube-runtime's reflector.
//!
//! The test on a real server makes 5,000 pods and takes minutes: `cargo test -p runtide-k8s --test footprint -- --ignored --nocapture`, with
//! `RUNTIDE_TEST_K8S` from the testbed. Times are shown, and not judged: with `--release` they are what a user has.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking, and shows what it measured"
)]
#![cfg(unix)]

#[path = "conformance/server.rs"]
mod server;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use peak_alloc::PeakAlloc;
use runtide_conformance::testbed::Turn;
use runtide_core::{RuntimeBackend, RuntimeEventKind, WatchOptions};
use runtide_k8s::{Access, Config, KubeBackend, Namespaces};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const PODS: usize = 5_000;
const PAGE: usize = 500;
/// Changes after the listing, and the label with their number.
const CHANGES: usize = 20_000;
const CHANGE: &str = "change";
/// Bytes for each pod, at most.
const MOST: usize = 2 << 10;
/// The share of what a reflector holds, at most.
const SHARE: f64 = 0.6;

/// One test at a time: the heap is the whole process's.
static ALONE: Mutex<()> = Mutex::new(());

/// A pod of a deployment as a server shows it, with the fields that its managers own.
fn pod(n: usize) -> Value {
    let name = format!("web-7d9c5b8f64-{n:05}");
    let fields = json!({ "f:metadata": { "f:labels": { "f:app": {}, "f:pod-template-hash": {}, ".": {} }, "f:ownerReferences": {} },
        "f:spec": { "f:containers": { "k:{\"name\":\"main\"}": { "f:image": {}, "f:env": {}, "f:name": {}, "f:ports": {}, "f:resources": {} } } } });
    json!({
        "metadata": {
            "uid": format!("0b5f0a4e-6b0a-4f6e-9d3c-{n:012}"), "name": name, "namespace": "web", "resourceVersion": format!("{}", 1000 + n),
            "creationTimestamp": "2026-11-30T12:00:00Z", "labels": { "app": "web", "tier": "front", "pod-template-hash": "7d9c5b8f64" },
            "annotations": { "prometheus.io/scrape": "true", "prometheus.io/port": "8080" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9c5b8f64", "uid": "6f8e", "controller": true }],
            "managedFields": [
                { "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields },
                { "manager": "kubelet", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields },
            ],
        },
        "spec": {
            "nodeName": format!("node-{}", n % 100), "restartPolicy": "Always", "serviceAccountName": "default",
            "containers": [{ "name": "main", "image": "registry.example.com/web:1.4.2", "ports": [{ "containerPort": 8080, "protocol": "TCP" }],
                "env": [{ "name": "LEVEL", "value": "info" }, { "name": "REGION", "value": "eu-1" }],
                "resources": { "limits": { "cpu": "500m", "memory": "256Mi" }, "requests": { "cpu": "100m", "memory": "128Mi" } },
                "readinessProbe": { "httpGet": { "path": "/ready", "port": 8080 } },
                "volumeMounts": [{ "name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true }] }],
            "volumes": [{ "name": "token", "secret": { "secretName": "default-token-x" } }],
        },
        "status": { "phase": "Running", "podIP": format!("10.{}.{}.7", n / 250, n % 250), "podIPs": [{ "ip": format!("10.{}.{}.7", n / 250, n % 250) }],
            "conditions": [{ "type": "Ready", "status": "True" }, { "type": "PodScheduled", "status": "True" }],
            "containerStatuses": [{ "name": "main", "image": "registry.example.com/web:1.4.2", "imageID": "sha256:0", "ready": true, "started": true,
                "restartCount": 0, "state": { "running": { "startedAt": "2026-11-30T12:00:01Z" } } }] },
    })
}

/// Bytes that are held for each pod, the time until all are known, and the time that the changes after it took.
struct Figures {
    bytes: usize,
    time: Duration,
    changes: Option<Duration>,
}

/// The changes after the listing: their server sends them once it is told, and the last one has this version.
type Changes<'a> = Option<(&'a Notify, &'a str)>;

async fn ours(address: SocketAddr, namespace: &str, after: Changes<'_>) -> Figures {
    let config = Config::new(Access::new(format!("http://{address}"))).with_namespaces(Namespaces::one(namespace));
    let backend = KubeBackend::new(config).unwrap();
    let before = HEAP.current_usage();
    let began = Instant::now();
    let mut events = backend.watch(WatchOptions::default()).await.unwrap();
    let mut pods = 0;
    loop {
        match &events.next().await.unwrap().unwrap().kind {
            RuntimeEventKind::Present(_) => pods += 1,
            RuntimeEventKind::ResyncEnd(_) => break,
            _ => {}
        }
    }
    let time = began.elapsed();
    assert_eq!(pods, PODS);
    let held = || HEAP.current_usage().saturating_sub(before) / PODS;
    // The answers that are read by now are given back as their connections end.
    while held() > MOST && began.elapsed() < Duration::from_secs(120) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let bytes = held();
    let Some((go, last)) = after else { return Figures { bytes, time, changes: None } };
    let began = Instant::now();
    go.notify_one();
    let (mut seen, mut is_over) = (0, false);
    while !is_over {
        if let RuntimeEventKind::Updated { instance, .. } = &events.next().await.unwrap().unwrap().kind {
            seen += 1;
            is_over = instance.labels.as_ref().and_then(|labels| labels.get(CHANGE)) == Some(last);
        }
    }
    assert_eq!(seen, CHANGES, "each change is an event");
    Figures { bytes, time, changes: Some(began.elapsed()) }
}

/// kube-runtime's reflector, with its defaults.
async fn reflector(address: SocketAddr, namespace: &str, after: Changes<'_>) -> Figures {
    let client = kube::Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap();
    let pods: kube::Api<Pod> = kube::Api::namespaced(client, namespace);
    let before = HEAP.current_usage();
    let began = Instant::now();
    let (store, writer) = kube::runtime::reflector::store();
    let stream =
        kube::runtime::reflector(writer, kube::runtime::watcher(pods, kube::runtime::watcher::Config::default()));
    let mut stream = std::pin::pin!(stream);
    while !matches!(stream.next().await.unwrap().unwrap(), kube::runtime::watcher::Event::InitDone) {}
    let time = began.elapsed();
    assert_eq!(store.state().len(), PODS);
    let bytes = HEAP.current_usage().saturating_sub(before) / PODS;
    let Some((go, last)) = after else { return Figures { bytes, time, changes: None } };
    let began = Instant::now();
    go.notify_one();
    loop {
        if let kube::runtime::watcher::Event::Apply(pod) = stream.next().await.unwrap().unwrap()
            && pod.metadata.labels.as_ref().and_then(|labels| labels.get(CHANGE)).is_some_and(|change| change == last)
        {
            break;
        }
    }
    Figures { bytes, time, changes: Some(began.elapsed()) }
}

fn compare(ours: &Figures, reflector: &Figures) {
    let rate = |figures: &Figures| figures.changes.map(|time| CHANGES as f64 / time.as_secs_f64());
    println!(
        "{PODS} pods: {} bytes each and {:?} until they are known; kube-runtime's reflector: {} and {:?}; {:.2} of the bytes, {:.2} of the time",
        ours.bytes,
        ours.time,
        reflector.bytes,
        reflector.time,
        ours.bytes as f64 / reflector.bytes as f64,
        ours.time.as_secs_f64() / reflector.time.as_secs_f64()
    );
    if let (Some(ours), Some(theirs)) = (rate(ours), rate(reflector)) {
        println!("{ours:.0} changes a second; the reflector: {theirs:.0}; {:.2} of it", ours / theirs);
    }
    assert!(ours.bytes <= MOST, "{} bytes for each pod", ours.bytes);
    let share = ours.bytes as f64 / reflector.bytes as f64;
    assert!(share <= SHARE, "{share:.2} of what a reflector holds");
}

/// Pages of the pods; and a watch that sends the changes once it is told, and stays open.
async fn serve(mut stream: TcpStream, go: Arc<Notify>, changes: Arc<Vec<u8>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let path = head.split(' ').nth(1)?;
    if path.contains("watch=") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.ok()?;
        go.notified().await;
        for part in changes.chunks(64 << 10) {
            stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await.ok()?;
            stream.write_all(part).await.ok()?;
            stream.write_all(b"\r\n").await.ok()?;
        }
        return std::future::pending().await;
    }
    let from = path.split("continue=").nth(1).and_then(|rest| rest.split('&').next()?.parse().ok()).unwrap_or(0);
    let next = if from + PAGE < PODS { (from + PAGE).to_string() } else { String::new() };
    let items: Vec<Value> = (from..from + PAGE).map(pod).collect();
    let page = json!({ "kind": "PodList", "apiVersion": "v1", "metadata": { "resourceVersion": "9", "continue": next }, "items": items });
    let page = page.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        page.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(page.as_bytes()).await.ok()
}

/// Each of the pods changed in turn, as a watch sends it.
fn changes() -> Vec<u8> {
    let lines = (0..CHANGES).map(|n| {
        let mut changed = pod(n % PODS);
        (changed["kind"], changed["apiVersion"]) = ("Pod".into(), "v1".into());
        changed["metadata"]["resourceVersion"] = (10_000 + n).to_string().into();
        changed["metadata"]["labels"][CHANGE] = n.to_string().into();
        format!("{}\n", json!({ "type": "MODIFIED", "object": changed }))
    });
    lines.collect::<String>().into_bytes()
}

fn run(work: impl Future<Output = ()>) {
    let _alone = ALONE.lock();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work);
}

#[test]
fn five_thousand_pods_take_two_kibibytes_each_and_less_than_a_reflector() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (go, changes) = (Arc::new(Notify::new()), Arc::new(changes()));
        let told = Arc::clone(&go);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&told), Arc::clone(&changes)));
            }
        });
        let last = (CHANGES - 1).to_string();
        let reflector = reflector(address, "web", Some((&go, &last))).await;
        compare(&ours(address, "web", Some((&go, &last))).await, &reflector);
    });
}

#[test]
#[ignore = "it makes 5,000 pods on a real server, which takes minutes"]
fn five_thousand_pods_of_a_real_server_take_two_kibibytes_each() {
    run(async {
        let kubeconfig = std::env::var_os("RUNTIDE_TEST_K8S").expect("RUNTIDE_TEST_K8S: cargo xtask testbed up k8s");
        let _turn = Turn::on("k8s").await.unwrap();
        let server = server::Server::of(Path::new(&kubeconfig)).unwrap();
        let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let namespace = format!("many{:x}", nanos & 0xff_ffff_ffff);
        server.make_namespace(&namespace, json!({})).await.unwrap();
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let (server, pods) = (&server, &pods);
        let create = |n: usize| async move {
            let container = json!({ "name": "main", "image": "registry.example.com/web:1.4.2",
                "env": [{ "name": "LEVEL", "value": "info" }, { "name": "REGION", "value": "eu-1" }],
                "ports": [{ "containerPort": 8080 }], "readinessProbe": { "httpGet": { "path": "/ready", "port": 8080 } } });
            let body = json!({
                "metadata": { "name": format!("web-{n:05}"), "labels": { "app": "web", "tier": "front" } },
                "spec": { "schedulerName": "absent", "automountServiceAccountToken": false, "containers": [container] },
            });
            loop {
                match server.try_ask("POST", pods, &body).await {
                    Ok((200..=299 | 409, _)) => return,
                    // The namespace has no account yet, or the server is busy.
                    _ => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        };
        stream::iter(0..PODS).for_each_concurrent(16, create).await;
        let reflector = reflector(server.address, &namespace, None).await;
        compare(&ours(server.address, &namespace, None).await, &reflector);
        // The server's own limit is less than it takes for all of them: each try removes some.
        while server.try_ask("DELETE", pods, &json!({ "gracePeriodSeconds": 0 })).await.unwrap().0 == 504 {}
        server.ask("DELETE", &format!("/api/v1/namespaces/{namespace}"), &Value::Null).await.unwrap();
    });
}
