//! Bytes that are held for each of 5,000 pods, and the time until they are known, beside the pods as k8s-openapi's type has them: a
//! reflector of kube's holds these.
//!
//! The test on a real server makes 5,000 pods and takes minutes: `cargo test -p runtide-k8s --test footprint -- --ignored --nocapture`, with
//! `RUNTIDE_TEST_K8S` from the testbed.
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
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::{List, api::core::v1::Pod};
use peak_alloc::PeakAlloc;
use runtide_conformance::testbed::Turn;
use runtide_core::{RuntimeBackend, RuntimeEventKind, WatchOptions};
use runtide_k8s::{Access, Config, KubeBackend, Namespaces};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const PODS: usize = 5_000;
const PAGE: usize = 500;
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

/// The body of one answer to a GET, on a connection of its own.
async fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    answer.split_off(head + 4)
}

/// Bytes that are held for each pod, and the time until all are known.
struct Figures {
    bytes: usize,
    time: Duration,
}

async fn ours(address: SocketAddr, namespace: &str) -> Figures {
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
    Figures { bytes: held(), time }
}

/// Each pod whole, by its name: the contents of a reflector's store.
async fn whole(address: SocketAddr, namespace: &str) -> Figures {
    let before = HEAP.current_usage();
    let began = Instant::now();
    let mut all: HashMap<(String, String), Arc<Pod>> = HashMap::new();
    let mut next = String::new();
    loop {
        let body = get(address, &format!("/api/v1/namespaces/{namespace}/pods?limit={PAGE}&continue={next}")).await;
        let page: List<Pod> = serde_json::from_slice(&body).unwrap();
        drop(body);
        for pod in page.items {
            let key = (pod.metadata.namespace.clone().unwrap(), pod.metadata.name.clone().unwrap());
            all.insert(key, Arc::new(pod));
        }
        next = page.metadata.continue_.unwrap_or_default();
        if next.is_empty() {
            break;
        }
    }
    let time = began.elapsed();
    assert_eq!(all.len(), PODS);
    Figures { bytes: HEAP.current_usage().saturating_sub(before) / PODS, time }
}

fn compare(ours: &Figures, whole: &Figures) {
    println!(
        "{PODS} pods: {} bytes each and {:?} until they are known; whole pods: {} bytes each and {:?}",
        ours.bytes, ours.time, whole.bytes, whole.time
    );
    assert!(ours.bytes <= MOST, "{} bytes for each pod", ours.bytes);
    let share = ours.bytes as f64 / whole.bytes as f64;
    assert!(share <= SHARE, "{share:.2} of what a reflector holds");
}

/// Pages of the pods, and a watch that stays open.
async fn serve(mut stream: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let path = head.split(' ').nth(1)?;
    if path.contains("watch=1") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.ok()?;
        return std::future::pending().await;
    }
    let from = path.split("continue=").nth(1).and_then(|token| token.parse().ok()).unwrap_or(0);
    let next = if from + PAGE < PODS { (from + PAGE).to_string() } else { String::new() };
    let items: Vec<Value> = (from..from + PAGE).map(pod).collect();
    let page = json!({ "metadata": { "resourceVersion": "9", "continue": next }, "items": items }).to_string();
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", page.len());
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(page.as_bytes()).await.ok()
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
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        let whole = whole(address, "web").await;
        compare(&ours(address, "web").await, &whole);
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
        let whole = whole(server.address, &namespace).await;
        compare(&ours(server.address, &namespace).await, &whole);
        // The server's own limit is less than it takes for all of them: each try removes some.
        while server.try_ask("DELETE", pods, &json!({ "gracePeriodSeconds": 0 })).await.unwrap().0 == 504 {}
        server.ask("DELETE", &format!("/api/v1/namespaces/{namespace}"), &Value::Null).await.unwrap();
    });
}
