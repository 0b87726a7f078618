//! Drives pods of a real API server from outside, as their node, with the suite's proxy between the server and the backend.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use runtide_conformance::{
    Absent, Change, Command, Dialect, Done, Fact, Fault, Happened, Harness, Held, Law, Life, Obstacle, Output,
    Supported, Timing, Tuning, Workload,
    proxy::{Action, Endpoint as Socket, Proxy, Rule},
    testbed::{Testbed, Turn},
};
use runtide_core::{
    ExitStatus, Health, Instance, InstanceId, RuntimeBackend, UnixSignal,
    manager::{InstanceSpec, LogSource},
};
use runtide_k8s::{Access, Config, KubeBackend, Namespaces, User};
use serde_json::{Value, json};

use super::{
    kubelet::{Kubelet, LINE, printing},
    name::known_as,
    observe::instance,
    server::Server,
};

/// Label of every object of a test, so that it can be found after the test is gone.
const LABEL: &str = "runtide.conformance";
/// The backend's token, which no error may show. The server takes the certificate of the harness's own connection.
const SECRET: &str = "s3cret-of-the-conformance-suite";
/// Name of the backend.
const ID: &str = "k8s:conformance";
/// In the first line of the requests that the faults are about.
const LISTS: &str = "limit=500";
const WATCHES: &str = "watch=1";

/// Laws that do not apply to Kubernetes.
pub(crate) const SKIPS: &[(Law, &str)] =
    &[(Law::M7, "operations are composed of networks, images and provision, which this backend has not")];

/// A pod of the harness.
#[derive(Clone, Debug)]
struct Pod {
    name: String,
    work: Workload,
    /// Runs that began.
    runs: u32,
}

/// State that the harness and the threads of its pods share.
struct Node {
    server: Server,
    namespace: String,
    pods: Mutex<HashMap<InstanceId, Pod>>,
    facts: Mutex<Vec<Fact>>,
    addresses: AtomicU32,
    /// The real node, for a law that needs one; `None` within: there is none.
    kubelet: OnceLock<Option<Kubelet>>,
}

/// One test's share of the server.
pub(crate) struct KubeHarness {
    node: Arc<Node>,
    proxy: Proxy,
    version: Option<String>,
    testbed: Option<Testbed>,
    _beating: tokio::sync::oneshot::Sender<()>,
    /// One test at a time: some of them kill the server.
    _turn: Turn,
}

fn broken(reason: impl Into<String>) -> Absent {
    Absent::broken(known_as(), reason)
}

fn done<T>(result: Result<T, String>) -> Done<T> {
    result.map_err(Obstacle::Failed)
}

fn now() -> String {
    // Kubernetes writes whole seconds.
    let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(0)).unwrap_or_default().to_string()
}

impl Node {
    fn kubelet(&self) -> Option<&Kubelet> {
        self.kubelet.get()?.as_ref()
    }

    fn path(&self, name: &str) -> String {
        format!("/api/v1/namespaces/{}/pods/{name}", self.namespace)
    }

    fn pod(&self, id: &InstanceId) -> Done<Pod> {
        self.pods.lock().unwrap().get(id).cloned().ok_or_else(|| Obstacle::failed(format!("{id} is no pod")))
    }

    fn fact(&self, id: &InstanceId, what: Happened) {
        self.facts.lock().unwrap().push(Fact { id: id.clone(), what });
    }

    async fn shown(&self, id: &InstanceId) -> Done<Value> {
        done(self.server.ask("GET", &self.path(&self.pod(id)?.name), &Value::Null).await)
    }

    /// Writes the status of a pod, as its kubelet does.
    async fn report(&self, id: &InstanceId, status: Value) -> Done<Value> {
        let path = format!("{}/status", self.path(&self.pod(id)?.name));
        done(self.server.ask("PATCH", &path, &json!({ "status": status })).await)
    }

    /// The status of the only container.
    fn container(pod: &Pod, ready: bool, state: &Value) -> Value {
        json!([{
            "name": "main", "image": "busybox:1", "imageID": "", "restartCount": pod.runs.saturating_sub(1),
            "ready": ready, "started": ready, "state": state
        }])
    }

    fn conditions(ready: bool) -> Value {
        let is = if ready { "True" } else { "False" };
        json!([
            { "type": "PodScheduled", "status": "True" },
            { "type": "ContainersReady", "status": is },
            { "type": "Ready", "status": is },
        ])
    }

    async fn begin(&self, id: &InstanceId) -> Done<Pod> {
        let pod = {
            let mut pods = self.pods.lock().unwrap();
            let pod = pods.get_mut(id).ok_or_else(|| Obstacle::failed("no such pod"))?;
            pod.runs += 1;
            pod.clone()
        };
        let address = format!("10.9.{}.7", self.addresses.fetch_add(1, Ordering::Relaxed) % 250);
        let state = json!({ "running": { "startedAt": now() } });
        let status = json!({
            "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "conditions": Self::conditions(true), "containerStatuses": Self::container(&pod, true, &state),
        });
        self.fact(id, Happened::Started { incarnation: None });
        self.report(id, status).await?;
        Ok(pod)
    }

    /// Ends the run, if one is under way.
    async fn end(&self, id: &InstanceId, code: i32, reason: &str) -> Done<()> {
        let shown = self.shown(id).await?;
        if !shown["status"]["containerStatuses"][0]["state"]["running"].is_object() {
            return Ok(());
        }
        let pod = self.pod(id)?;
        let exit = ExitStatus::code(code);
        let exit = if reason == "OOMKilled" { exit.with_oom_killed(true) } else { exit };
        let state = json!({ "terminated": {
            "exitCode": code, "reason": reason, "finishedAt": now(),
            "startedAt": shown["status"]["containerStatuses"][0]["state"]["running"]["startedAt"],
        }});
        let status = json!({
            "conditions": Self::conditions(false), "containerStatuses": Self::container(&pod, false, &state),
        });
        self.fact(id, Happened::Stopped { exit: Some(exit) });
        self.report(id, status).await.map(drop)
    }

    async fn remove(&self, id: &InstanceId) -> Done<()> {
        let path = self.path(&self.pod(id)?.name);
        let force = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": id.as_str() } });
        self.fact(id, Happened::Removed);
        match done(self.server.try_ask("DELETE", &path, &force).await)? {
            (200..=299 | 404, _) => Ok(()),
            (status, answer) => Err(Obstacle::failed(format!("DELETE {path}: {status} {}", answer["message"]))),
        }
    }
}

/// Reports that the node is well, until it is dropped: the cluster gives up one that does not, and its pods.
fn beat(node: Arc<Node>) -> tokio::sync::oneshot::Sender<()> {
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            loop {
                let ready = json!([{ "type": "Ready", "status": "True", "lastHeartbeatTime": now() }]);
                let path = format!("/api/v1/nodes/{}/status", node.namespace);
                // The server may be away.
                let _ = node.server.try_ask("PATCH", &path, &json!({ "status": { "conditions": ready } })).await;
                if tokio::time::timeout(Duration::from_secs(2), &mut stopped).await.is_ok() {
                    return;
                }
            }
        });
    });
    stop
}

impl KubeHarness {
    pub(crate) async fn start() -> Result<Self, Absent> {
        let Some(kubeconfig) = std::env::var_os("RUNTIDE_TEST_K8S") else {
            return Err(Absent::unset(known_as(), "RUNTIDE_TEST_K8S is not set: cargo xtask testbed up k8s"));
        };
        let turn = Turn::on(known_as()).await.map_err(|error| broken(format!("the lock: {error}")))?;
        let path = Path::new(&kubeconfig);
        let server = Server::of(path).map_err(|error| broken(format!("{}: {error}", path.display())))?;
        let version = server.ask("GET", "/version", &Value::Null).await.map_err(broken)?;
        let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
        let namespace = format!("rt{:x}", nanos & 0xff_ffff_ffff);
        let proxy = Proxy::start(Socket::Tcp(([127, 0, 0, 1], 0).into()), Socket::Tcp(server.address)).await;
        let proxy = proxy.map_err(|error| broken(format!("the proxy: {error}")))?;
        let labels = json!({ LABEL: namespace });
        server.make_namespace(&namespace, labels.clone()).await.map_err(broken)?;
        let body = json!({ "metadata": { "name": namespace, "labels": labels } });
        server.ask("POST", "/api/v1/nodes", &body).await.map_err(broken)?;
        let node = Arc::new(Node {
            server,
            namespace,
            pods: Mutex::default(),
            facts: Mutex::default(),
            addresses: AtomicU32::new(1),
            kubelet: OnceLock::new(),
        });
        let beating = beat(Arc::clone(&node));
        Ok(Self {
            node,
            proxy,
            version: version["gitVersion"].as_str().map(str::to_owned),
            testbed: Testbed::of(known_as()),
            _beating: beating,
            _turn: turn,
        })
    }
}

/// As the server answers on the wire.
fn http(status: &str, headers: &str, body: &str) -> Action {
    Action::Answer(format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}\r\n{body}").into_bytes())
}

#[async_trait]
impl Harness for KubeHarness {
    fn name(&self) -> &'static str {
        known_as()
    }

    fn is_real(&self) -> bool {
        true
    }

    fn version(&self) -> Option<String> {
        self.version.clone()
    }

    fn timing(&self) -> Timing {
        let mut timing = Timing::REAL;
        timing.timeout = Duration::from_secs(60);
        // A watch lasts whole seconds.
        timing.max_silence = Duration::from_secs(4);
        timing.deadline = Duration::from_secs(3);
        // A bookmark says that what was missed is here; it comes before the end of a watch of three seconds.
        timing.replay = Duration::from_secs(3);
        // A node rotates a log of 10 MiB, and the API shows the last part alone.
        timing.output_bytes = 4096 * LINE;
        timing
    }

    fn dialect(&self) -> Dialect {
        Dialect::FULL
    }

    fn skips(&self) -> &'static [(Law, &'static str)] {
        SKIPS
    }

    fn stop_removes(&self) -> bool {
        true
    }

    fn begin(&self, law: Law) {
        if law.id().starts_with('M') {
            let _ = self.node.kubelet.set(Kubelet::of_environment());
        }
    }

    fn is_console(&self) -> bool {
        true
    }

    fn output(&self, side: LogSource, bytes: u64) -> Output {
        let letter = if side == LogSource::Stdout { 'o' } else { 'e' };
        Box::new((0..bytes / LINE).map(move |n| format!("{letter}{n:014}{:1008}\n", "").into_bytes()))
    }

    fn commands(&self, bytes: u64) -> Vec<Command> {
        // None has an input: this server cannot be told of its end, which is refused.
        let shell = |script: &str| Command::new(["sh", "-c", script]);
        let mut fails = shell("exit 3");
        fails.code = 3;
        let mut stdout = shell(&printing(bytes, "print o"));
        stdout.stdout = self.output(LogSource::Stdout, bytes);
        let mut both = shell(&printing(bytes, "print o & print e >&2; wait; exit 4"));
        both.stdout = self.output(LogSource::Stdout, bytes);
        (both.stderr, both.code) = (self.output(LogSource::Stderr, bytes), 4);
        vec![fails, stdout, both]
    }

    fn echo(&self, word: &str) -> Option<Command> {
        let mut echo = Command::new(["sh", "-c", "printf %s \"$1\"", "sh", word]);
        echo.stdout = Box::new(std::iter::once(word.as_bytes().to_vec()));
        Some(echo)
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned()]
    }

    async fn backend(&self, tuning: &Tuning) -> Done<Arc<dyn RuntimeBackend>> {
        let Socket::Tcp(address) = self.proxy.endpoint() else {
            return Err(Obstacle::failed("the proxy is no socket"));
        };
        let access = Access::new(format!("http://{address}")).with_user(User::Token(SECRET.into()));
        let mut config = Config::new(access)
            .with_id(runtide_core::BackendId::from(ID))
            .with_namespaces(Namespaces::one(self.node.namespace.as_str()))
            .with_driver(tuning.driver.clone());
        if let Some(deadline) = tuning.deadline {
            config = config.with_deadline(deadline);
        }
        if let Some(silence) = tuning.max_silence {
            config = config.with_max_silence(silence);
        }
        KubeBackend::new(config).map(|backend| Arc::new(backend) as Arc<dyn RuntimeBackend>).map_err(Obstacle::failed)
    }

    async fn create(&self, name: &str, work: &Workload) -> Done<InstanceId> {
        let node = &self.node;
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let name: String = name.chars().map(plain).collect();
        let probe = (*work == Workload::Checked).then(|| json!({ "exec": { "command": ["true"] } }));
        if matches!(node.kubelet.get(), Some(None)) {
            return Err(Obstacle::failed("RUNTIDE_TEST_K8S_NODE is not set: cargo xtask testbed up k8s"));
        }
        let spec = match node.kubelet() {
            Some(kubelet) => kubelet.spec(work)?,
            None => json!({
                "nodeName": node.namespace, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
                "containers": [{ "name": "main", "image": "busybox:1", "readinessProbe": probe }],
            }),
        };
        let body = json!({ "metadata": { "name": name, "labels": { LABEL: node.namespace } }, "spec": spec });
        let path = format!("/api/v1/namespaces/{}/pods", node.namespace);
        let made = loop {
            // Right after its namespace a pod is refused until the namespace has its service account.
            match done(node.server.try_ask("POST", &path, &body).await)? {
                (200..=299, made) => break made,
                (403 | 500, answer)
                    if answer["message"]
                        .as_str()
                        .is_some_and(|text| text.contains("service account") || text.contains("serviceaccount")) =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                (status, answer) => {
                    return Err(Obstacle::failed(format!("POST {path}: {status} {}", answer["message"])));
                }
            }
        };
        let id = made["metadata"]["uid"].as_str().map(InstanceId::from).ok_or_else(|| Obstacle::failed(&made))?;
        let pod = Pod { name, work: work.clone(), runs: 0 };
        node.pods.lock().unwrap().insert(id.clone(), pod);
        Ok(id)
    }

    async fn start(&self, id: &InstanceId) -> Done<()> {
        if let Some(kubelet) = self.node.kubelet() {
            self.node.fact(id, Happened::Started { incarnation: None });
            return kubelet.start(&self.node.server, &self.node.path(&self.node.pod(id)?.name)).await;
        }
        let pod = self.node.begin(id).await?;
        match pod.work {
            Workload::Exit { after, code } => {
                let (node, id) = (Arc::clone(&self.node), id.clone());
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        tokio::time::sleep(after).await;
                        // The pod may be gone by then.
                        let _ = node.end(&id, code, if code == 0 { "Completed" } else { "Error" }).await;
                    });
                });
                Ok(())
            }
            Workload::Oom => self.node.end(id, 137, "OOMKilled").await,
            Workload::Print { .. } | Workload::Greet { .. } => self.node.end(id, 0, "Completed").await,
            _ => Ok(()),
        }
    }

    async fn stop(&self, id: &InstanceId) -> Done<()> {
        if self.node.kubelet().is_some() {
            return Kubelet::stop(&self.node.server, &self.node.path(&self.node.pod(id)?.name), id).await;
        }
        self.node.end(id, 0, "Completed").await
    }

    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Done<()> {
        if self.node.kubelet().is_some() {
            return Kubelet::signal(id, signal);
        }
        match signal {
            UnixSignal::KILL => self.node.end(id, 137, "Error").await,
            UnixSignal::TERM | UnixSignal::INT => self.node.end(id, 0, "Completed").await,
            _ => Ok(()),
        }
    }

    async fn remove(&self, id: &InstanceId) -> Done<()> {
        if self.node.kubelet().is_some() {
            return self.node.remove(id).await;
        }
        self.node.end(id, 137, "Error").await?;
        self.node.remove(id).await
    }

    async fn change(&self, id: &InstanceId, change: &Change) -> Done<()> {
        let node = &self.node;
        match change {
            Change::Health(health) => {
                let ready = *health == Health::Healthy;
                let shown = node.shown(id).await?;
                let state = &shown["status"]["containerStatuses"][0]["state"];
                let mut containers = Node::container(&node.pod(id)?, ready, state);
                containers[0]["started"] = json!(true);
                let status = json!({ "conditions": Node::conditions(ready), "containerStatuses": containers });
                node.report(id, status).await.map(drop)
            }
            Change::Addresses(_) => {
                let address = format!("10.9.{}.8", node.addresses.fetch_add(1, Ordering::Relaxed) % 250);
                node.report(id, json!({ "podIP": address, "podIPs": [{ "ip": address }] })).await.map(drop)
            }
            Change::Labels(labels) => {
                let labels: serde_json::Map<_, _> =
                    labels.iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
                let path = node.path(&node.pod(id)?.name);
                done(node.server.ask("PATCH", &path, &json!({ "metadata": { "labels": labels } })).await.map(drop))
            }
            _ => Err(Obstacle::unsupported("Kubernetes fixes it when it creates a pod")),
        }
    }

    async fn burst(&self, n: usize, duration: RangeInclusive<Duration>) -> Done<Vec<Life>> {
        let mut runs = Vec::with_capacity(n);
        let steps = u32::try_from(n.max(2)).unwrap_or(u32::MAX);
        let step = duration.end().saturating_sub(*duration.start()) / steps;
        for (number, code) in (0..steps).zip((0..100).cycle()).take(n) {
            let after = *duration.start() + step * number;
            let id = self.create(&format!("burst-{number}"), &Workload::Idle).await?;
            self.node.begin(&id).await?;
            tokio::time::sleep(after).await;
            self.node.end(&id, code, if code == 0 { "Completed" } else { "Error" }).await?;
            if number % 2 == 1 {
                self.node.remove(&id).await?;
            }
            runs.push(Life { id, exit: ExitStatus::code(code) });
        }
        Ok(runs)
    }

    async fn say_unknown(&self, id: &InstanceId) -> Done<()> {
        let (from, to) = ("\"type\":\"MODIFIED\"", "\"type\":\"TILTEDLY\"");
        let before = self.proxy.replaced();
        self.proxy.add(Rule::all(Action::Replace(from.as_bytes().to_vec(), to.as_bytes().to_vec())));
        let path = self.node.path(&self.node.pod(id)?.name);
        // Another one each time: an equal note is no change.
        let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
        let note = json!({ "metadata": { "annotations": { "note": nanos.to_string() } } });
        let said = self.node.server.ask("PATCH", &path, &note).await;
        let passed = async {
            while self.proxy.replaced() == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let passed = tokio::time::timeout(self.timing().timeout, passed).await;
        self.proxy.heal();
        done(said)?;
        passed.map_err(|_| Obstacle::failed("the watch does not report the change"))
    }

    async fn truth(&self) -> Done<Vec<Instance>> {
        let path = format!("/api/v1/namespaces/{}/pods", self.node.namespace);
        let listed = done(self.node.server.ask("GET", &path, &Value::Null).await)?;
        Ok(listed["items"].as_array().into_iter().flatten().filter_map(|pod| instance(ID, pod)).collect())
    }

    async fn facts(&self) -> Done<Vec<Fact>> {
        Ok(self.node.facts.lock().unwrap().clone())
    }

    fn burst_size(&self) -> usize {
        100
    }

    fn spec(&self, _: &str, work: &Workload) -> Done<InstanceSpec> {
        Err(Obstacle::unsupported(format!("{work:?}")))
    }

    async fn fault(&self, fault: &Fault) -> Supported {
        let proxy = &self.proxy;
        match fault {
            Fault::Sever => proxy.sever(),
            Fault::Refuse => {
                proxy.add(Rule::all(Action::Refuse));
                proxy.sever();
            }
            Fault::HalfOpen => proxy.add(Rule::on(WATCHES, Action::Swallow).existing_only()),
            Fault::Stall => proxy.add(Rule::all(Action::Swallow)),
            Fault::Deny => {
                let body = r#"{"kind":"Status","message":"denied","reason":"Forbidden","code":403}"#;
                let headers = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
                proxy.add(Rule::on(" ", http("403 Forbidden", &headers, body)));
                proxy.sever();
            }
            Fault::CleanEof => {
                proxy.add(Rule::on(WATCHES, http("200 OK", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n")));
                proxy.sever_requests(WATCHES);
            }
            Fault::RestartDaemon => return Testbed::fault(self.testbed.as_ref(), &["restart"]).await,
            Fault::KillDaemon => return Testbed::fault(self.testbed.as_ref(), &["kill", "start"]).await,
            Fault::BadItem(id) => {
                let (from, to) = (format!("\"uid\":\"{id}\""), format!("\"uid\":[{}]", " ".repeat(id.as_str().len())));
                proxy.add(Rule::all(Action::Replace(from.into_bytes(), to.into_bytes())));
            }
            // In the middle of the first item, past the head.
            Fault::PartialList(_) => proxy.add(Rule::on(LISTS, Action::Cut(600))),
            Fault::SlowList(time) => proxy.add(Rule::on(LISTS, Action::Delay(*time))),
            other => return Supported::No(format!("{other:?} is no fault of this harness")),
        }
        Supported::Yes
    }

    async fn heal(&self) -> Done<()> {
        self.proxy.heal();
        Ok(())
    }

    fn dials(&self) -> u64 {
        self.proxy.dials().len() as u64
    }

    async fn held(&self) -> Held {
        let descriptors = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        Held::new(Some(self.proxy.live()), descriptors, Some(tasks))
    }

    async fn finish(&self) {
        let (node, force) = (&self.node, json!({ "gracePeriodSeconds": 0 }));
        let pods = format!("/api/v1/namespaces/{}/pods", node.namespace);
        // An object that cannot be removed now has a label by which it is found.
        let _ = node.server.try_ask("DELETE", &pods, &force).await;
        let _ = node.server.try_ask("DELETE", &format!("/api/v1/namespaces/{}", node.namespace), &Value::Null).await;
        let _ = node.server.try_ask("DELETE", &format!("/api/v1/nodes/{}", node.namespace), &Value::Null).await;
    }
}
