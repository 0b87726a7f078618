//! Pods that are created, changed and deleted while the API server is killed, its history dropped, and connections cut and stalled: the
//! backend's stream beside kube-runtime's watcher, each behind a proxy of its own with the same faults, folded the same way.
//!
//! `RUNTIDE_TEST_K8S` is the kubeconfig of the administrator, and `RUNTIDE_TESTBED` the tool that kills the server. The run in
//! `cargo xtask test` has 150 pods and one kill; a long one has as many as `RUNTIDE_CHURN_PODS` and `RUNTIDE_CHURN_KILLS` say.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and shows what it counted"
)]
#![cfg(unix)]

#[path = "conformance/server.rs"]
mod server;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use runtide_conformance::{
    proxy::{Action, Endpoint, Proxy, Rule},
    report,
    testbed::{Testbed, Turn},
};
use runtide_core::{RuntimeBackend, RuntimeEventKind as Kind, WatchOptions};
use runtide_k8s::{Access, Config, KubeBackend, Namespaces};
use serde_json::{Value, json};

use self::server::Server;

/// Writers at a time.
const WRITERS: usize = 8;
/// Time after the last write in which both folds must equal the list.
const SETTLES: Duration = Duration::from_secs(120);
/// Label with the number of a change.
const SEQ: &str = "seq";

/// A change of a pod, in the order in which each pod has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    Started,
    Seq(u32),
    Ended,
    Removed,
}

/// Every pod's changes; only those with an even number are removed.
fn changes(is_removed: bool) -> Vec<Fact> {
    let mut changes = vec![Fact::Started, Fact::Seq(1), Fact::Seq(2), Fact::Ended, Fact::Seq(3)];
    changes.extend(is_removed.then_some(Fact::Removed));
    changes
}

/// The state of a pod as a watcher shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    seq: u32,
    has_started: bool,
    has_ended: bool,
}

/// A stream, folded: the rows, and each change with its place in the stream.
#[derive(Debug, Default)]
struct Fold {
    rows: BTreeMap<String, Row>,
    seen: BTreeMap<String, Vec<(u64, Fact)>>,
    /// Rows that the resync under way has shown.
    shown: Option<BTreeSet<String>>,
    /// Places at which resyncs began.
    gaps: Vec<u64>,
    place: u64,
}

impl Fold {
    fn add(&mut self, name: &str, fact: Fact) {
        self.seen.entry(name.to_owned()).or_default().push((self.place, fact));
    }

    fn row(&mut self, name: &str, row: Row) {
        self.place += 1;
        if let Some(shown) = &mut self.shown {
            shown.insert(name.to_owned());
        }
        let before = self.rows.insert(name.to_owned(), row).unwrap_or_default();
        let changed = [
            (row.has_started && !before.has_started && !row.has_ended).then_some(Fact::Started),
            (row.seq != before.seq && row.seq < 3).then_some(Fact::Seq(row.seq)),
            (row.has_ended && !before.has_ended).then_some(Fact::Ended),
            (row.seq != before.seq && row.seq == 3).then_some(Fact::Seq(3)),
        ];
        changed.into_iter().flatten().for_each(|fact| self.add(name, fact));
    }

    fn removed(&mut self, name: &str) {
        self.place += 1;
        if self.rows.remove(name).is_some() {
            self.add(name, Fact::Removed);
        }
    }

    fn begin(&mut self) {
        self.place += 1;
        self.gaps.push(self.place);
        self.shown = Some(BTreeSet::new());
    }

    fn end(&mut self) {
        let Some(shown) = self.shown.take() else { return };
        let gone: Vec<_> = self.rows.keys().filter(|name| !shown.contains(*name)).cloned().collect();
        for name in gone {
            self.removed(&name);
        }
    }

    /// Number of changes of all pods that it never showed.
    fn lost(&self, all: &BTreeMap<String, bool>) -> usize {
        let lost = |(name, is_removed): (&String, &bool)| {
            let seen: BTreeSet<_> = self.seen.get(name).into_iter().flatten().map(|(_, fact)| *fact).collect();
            changes(*is_removed).iter().filter(|fact| !seen.contains(fact)).count()
        };
        all.iter().map(lost).sum()
    }

    /// Differences from a stream that shows every change once and in order, but for those around a resync.
    fn faults(&self, all: &BTreeMap<String, bool>) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, is_removed) in all {
            let seen = self.seen.get(name).map(Vec::as_slice).unwrap_or_default();
            let expected = changes(*is_removed);
            let (mut next, mut last, mut before) = (0, 0, 0);
            for (place, fact) in seen {
                // One row may show several changes at once.
                if *place != last {
                    before = last;
                }
                let Some(skipped) = expected[next..].iter().position(|one| one == fact) else {
                    faults.push(format!("{name}: {fact:?} twice, or too late: {seen:?}"));
                    break;
                };
                let has_gap = self.gaps.iter().any(|gap| (before..=*place).contains(gap));
                if skipped > 0 && !has_gap {
                    faults.push(format!("{name}: no {:?}: {seen:?}", &expected[next..next + skipped]));
                }
                (next, last) = (next + skipped + 1, *place);
            }
        }
        faults
    }
}

fn text<'a>(pod: &'a Value, path: &str) -> &'a str {
    pod.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn row_of(labels: Option<&str>, has_started: bool, has_ended: bool) -> Row {
    Row { seq: labels.and_then(|seq| seq.parse().ok()).unwrap_or(0), has_started, has_ended }
}

/// The row of a pod as k8s-openapi has it.
fn row_of_pod(pod: &Pod) -> Row {
    let state = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first()?.state.clone());
    let (has_started, has_ended) = state.map_or((false, false), |state| {
        (state.running.is_some() || state.terminated.is_some(), state.terminated.is_some())
    });
    let seq = pod.metadata.labels.as_ref().and_then(|labels| labels.get(SEQ));
    row_of(seq.map(String::as_str), has_started, has_ended)
}

/// A server with a namespace for one run.
struct Cluster {
    server: Server,
    namespace: String,
    written: AtomicUsize,
}

impl Cluster {
    fn pods(&self) -> String {
        format!("/api/v1/namespaces/{}/pods", self.namespace)
    }

    /// Writes until the server took it. Each write has the same effect when it is sent twice.
    async fn write(&self, method: &str, path: &str, body: &Value) {
        let begun = Instant::now();
        loop {
            match self.server.try_ask(method, path, body).await {
                Ok((200..=299, _)) => break,
                Ok((409, _)) if method == "POST" => break,
                Ok((404, _)) if method == "DELETE" => break,
                // It is away, has just made the namespace, or is busy.
                refused => {
                    assert!(begun.elapsed() < Duration::from_secs(300), "{method} {path}: {refused:?}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    async fn live(&self, name: &str, is_removed: bool) {
        let path = format!("{}/{name}", self.pods());
        let pod = json!({ "metadata": { "name": name, "labels": { SEQ: "0" } }, "spec": {
            "schedulerName": "absent", "automountServiceAccountToken": false, "restartPolicy": "Never",
            "containers": [{ "name": "main", "image": "busybox:1" }] } });
        self.write("POST", &self.pods(), &pod).await;
        let begun = "2026-12-01T00:00:01Z";
        let status = |phase: &str, state: Value| {
            json!({ "status": { "phase": phase, "startTime": begun, "containerStatuses": [{ "name": "main", "image": "busybox:1",
                "imageID": "", "restartCount": 0, "ready": false, "state": state }] } })
        };
        let ended = json!({ "terminated": { "exitCode": 3, "reason": "Error", "startedAt": begun, "finishedAt": "2026-12-01T00:00:02Z" } });
        let runs = json!({ "running": { "startedAt": begun } });
        for change in changes(is_removed) {
            match change {
                Fact::Started => self.write("PATCH", &format!("{path}/status"), &status("Running", runs.clone())).await,
                Fact::Ended => self.write("PATCH", &format!("{path}/status"), &status("Failed", ended.clone())).await,
                Fact::Seq(n) => {
                    let labels = json!({ "metadata": { "labels": { SEQ: n.to_string() } } });
                    self.write("PATCH", &path, &labels).await;
                }
                Fact::Removed => self.write("DELETE", &path, &json!({ "gracePeriodSeconds": 0 })).await,
            }
        }
    }

    /// The rows that the server lists.
    async fn truth(&self) -> BTreeMap<String, Row> {
        let listed = self.server.ask("GET", &self.pods(), &Value::Null).await.unwrap();
        let rows = listed["items"].as_array().unwrap().iter().map(|pod| {
            let state = &pod["status"]["containerStatuses"][0]["state"];
            let has_ended = state["terminated"].is_object();
            let has_started = state["running"].is_object() || has_ended;
            (
                text(pod, "/metadata/name").to_owned(),
                row_of(Some(text(pod, "/metadata/labels/seq")), has_started, has_ended),
            )
        });
        rows.collect()
    }
}

type Shared = Arc<Mutex<Fold>>;

/// Folds the backend's stream.
async fn follow_ours(backend: KubeBackend, fold: Shared) {
    let mut events = backend.watch(WatchOptions::default()).await.unwrap();
    while let Some(event) = events.next().await {
        let event = event.unwrap();
        let mut fold = fold.lock().unwrap();
        match &event.kind {
            Kind::ResyncBegin { .. } => fold.begin(),
            Kind::ResyncEnd(_) => fold.end(),
            Kind::Removed(instance) => fold.removed(&instance.name),
            kind => {
                let Some(instance) = kind.instance() else { continue };
                let seq = instance.labels.as_ref().and_then(|labels| labels.get(SEQ));
                let has_ended = instance.state.is_ended();
                let row = row_of(seq, has_ended || instance.state.is_alive(), has_ended);
                fold.row(&instance.name, row);
            }
        }
    }
}

/// Folds the stream of kube-runtime's watcher, which goes on after errors.
async fn follow_theirs(client: kube::Client, namespace: String, fold: Shared) {
    let pods: kube::Api<Pod> = kube::Api::namespaced(client, &namespace);
    let events = kube::runtime::WatchStreamExt::default_backoff(watcher(pods, watcher::Config::default()));
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let mut fold = fold.lock().unwrap();
        match event {
            Ok(watcher::Event::Init) => fold.begin(),
            Ok(watcher::Event::InitDone) => fold.end(),
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                fold.row(pod.metadata.name.as_deref().unwrap_or_default(), row_of_pod(&pod));
            }
            Ok(watcher::Event::Delete(pod)) => fold.removed(pod.metadata.name.as_deref().unwrap_or_default()),
            Err(_) => {}
        }
    }
}

async fn proxy(server: &Server) -> (Proxy, String) {
    let proxy = Proxy::start(Endpoint::Tcp(([127, 0, 0, 1], 0).into()), Endpoint::Tcp(server.address)).await.unwrap();
    let Endpoint::Tcp(address) = proxy.endpoint() else { panic!("the proxy is no socket") };
    let url = format!("http://{address}");
    (proxy, url)
}

/// Breaks what is between the server and the watchers, and kills the server at even parts of the work, until it is dropped.
async fn disturb(cluster: &Cluster, testbed: &Testbed, proxies: [&Proxy; 2], writes: usize, kills: usize) {
    let cuts = async {
        for round in 0_usize.. {
            // A link that falls again within seconds is on probation, and shows little.
            tokio::time::sleep(if round == 0 { Duration::from_secs(1) } else { Duration::from_secs(10) }).await;
            if round % 2 == 0 {
                for proxy in proxies {
                    proxy.sever();
                }
                continue;
            }
            // Half-open: the connections that are there carry nothing more, and end with the stall.
            for proxy in proxies {
                proxy.add(Rule::all(Action::Swallow).existing_only());
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            for proxy in proxies {
                proxy.heal();
            }
        }
    };
    let kills = async {
        for kill in 1..=kills {
            while cluster.written.load(Ordering::Relaxed) < writes * kill / (kills + 1) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // Without its history the server can resume no watch: every second time.
            let verbs: &[&str] = if kill % 2 == 1 { &["compact", "kill", "start"] } else { &["kill", "start"] };
            testbed.run(verbs).await.unwrap();
        }
    };
    tokio::join!(cuts, kills);
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_of_resyncs_every_change_is_there_once_and_in_order() {
    let Some(kubeconfig) = std::env::var_os("RUNTIDE_TEST_K8S") else {
        return report::skip("churn", "k8s", "RUNTIDE_TEST_K8S is not set: cargo xtask testbed up k8s");
    };
    let Some(testbed) = Testbed::of("k8s") else {
        return report::skip("churn", "k8s", "RUNTIDE_TESTBED is not set");
    };
    let (pods, kills) = (number("RUNTIDE_CHURN_PODS", 150), number("RUNTIDE_CHURN_KILLS", 1));
    let _turn = Turn::on("k8s").await.unwrap();
    let server = Server::of(Path::new(&kubeconfig)).unwrap();
    let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let cluster =
        Cluster { server, namespace: format!("churn{:x}", nanos & 0xff_ffff_ffff), written: AtomicUsize::new(0) };
    cluster.server.make_namespace(&cluster.namespace, json!({})).await.unwrap();

    let ((ours, our_url), (theirs, their_url)) = (proxy(&cluster.server).await, proxy(&cluster.server).await);
    let (our_fold, their_fold) = (Shared::default(), Shared::default());
    let config = Config::new(Access::new(our_url))
        .with_namespaces(Namespaces::one(cluster.namespace.as_str()))
        .with_max_silence(Duration::from_secs(8));
    let following = tokio::spawn(follow_ours(KubeBackend::new(config).unwrap(), Arc::clone(&our_fold)));
    let client = kube::Client::try_from(kube::Config::new(their_url.parse().unwrap())).unwrap();
    let watching = tokio::spawn(follow_theirs(client, cluster.namespace.clone(), Arc::clone(&their_fold)));

    let is_synced = |fold: &Shared| {
        let fold = fold.lock().unwrap();
        !fold.gaps.is_empty() && fold.shown.is_none()
    };
    let both = async {
        while !is_synced(&our_fold) || !is_synced(&their_fold) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SETTLES, both).await.expect("both watchers know that there are no pods");
    let all: BTreeMap<String, bool> = (0..pods).map(|n| (format!("p{n:05}"), n % 2 == 0)).collect();
    let writes = all.values().map(|is_removed| 1 + changes(*is_removed).len()).sum();
    let begun = Instant::now();
    let work = stream::iter(&all).for_each_concurrent(WRITERS, |(name, is_removed)| cluster.live(name, *is_removed));
    tokio::select! {
        () = work => {}
        () = disturb(&cluster, &testbed, [&ours, &theirs], writes, kills) => {}
    }
    let took = begun.elapsed();
    ours.heal();
    theirs.heal();

    let truth = cluster.truth().await;
    let end = Instant::now() + SETTLES;
    let mut settled: HashMap<&str, bool> = HashMap::new();
    while Instant::now() < end && !(settled.len() == 2 && settled.values().all(|is_it| *is_it)) {
        for (name, fold) in [("ours", &our_fold), ("theirs", &their_fold)] {
            settled.insert(name, fold.lock().unwrap().rows == truth);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!following.is_finished(), "the stream has no end");
    following.abort();
    watching.abort();
    let folded = |fold: &Shared| std::mem::take(&mut *fold.lock().unwrap());
    let (ours, theirs) = (folded(&our_fold), folded(&their_fold));
    let facts: usize = all.values().map(|is_removed| changes(*is_removed).len()).sum();
    println!(
        "{pods} pods, {facts} changes in {took:.1?}, {kills} kills: the backend had {} resyncs and lost {} changes; kube-runtime's watcher \
         had {} and lost {}; settled: {settled:?}",
        ours.gaps.len(),
        ours.lost(&all),
        theirs.gaps.len(),
        theirs.lost(&all)
    );
    let faults = ours.faults(&all);
    assert!(faults.is_empty(), "{} faults: {:#?}", faults.len(), &faults[..faults.len().min(10)]);
    assert_eq!(ours.rows, truth, "the fold of the stream is the list");
    // The server's own limit is less than it takes for all of them: each try removes some.
    while cluster.server.try_ask("DELETE", &cluster.pods(), &json!({ "gracePeriodSeconds": 0 })).await.unwrap().0 == 504
    {
    }
    cluster.server.ask("DELETE", &format!("/api/v1/namespaces/{}", cluster.namespace), &Value::Null).await.unwrap();
}
