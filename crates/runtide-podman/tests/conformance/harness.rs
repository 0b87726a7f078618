//! Drives a real Podman service from outside, with the suite's proxy between it and the backend.

use std::{
    ops::RangeInclusive,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use runtide_conformance::{
    Absent, Change, Command, Dialect, Done, Fact, Fault, Harness, Held, Law, Life, Obstacle, Output, Supported, Timing,
    Tuning, Workload,
    daemon::Daemon,
    proxy::{Action, Endpoint as Socket, Proxy, Rule},
    testbed::{Testbed, Turn},
};
use runtide_core::{
    ExitStatus, Health, Instance, InstanceId, RuntimeBackend, UnixSignal,
    manager::{InstanceSpec, LogSource},
};
use runtide_podman::{Config, Endpoint, PodmanBackend};
use serde_json::{Value, json};

use super::{
    event_log::EventLog,
    name::known_as,
    observe::{Observer, instance},
};

/// Label of every object of a test, so that it can be found after the test is gone.
const LABEL: &str = "runtide.conformance";
/// In the environment of every container: no error may show it.
const SECRET: &str = "s3cret-of-the-conformance-suite";
/// Name of the backend.
const ID: &str = "podman:conformance";
const LINE: u64 = 1_024;

/// Laws that do not apply to Podman.
pub(crate) const SKIPS: &[(Law, &str)] = &[];

/// One test's share of the daemon.
pub(crate) struct PodmanHarness {
    daemon: Daemon,
    proxy: Proxy,
    observer: Observer,
    version: Option<String>,
    image: String,
    testbed: Option<Testbed>,
    prefix: String,
    networks: AtomicU32,
    folder: PathBuf,
    printers: Mutex<Vec<InstanceId>>,
    /// One test at a time: some of them kill the daemon.
    _turn: Turn,
}

fn broken(reason: impl Into<String>) -> Absent {
    Absent::broken(known_as(), reason)
}

fn done<T>(result: Result<T, String>) -> Done<T> {
    result.map_err(Obstacle::Failed)
}

/// A script in which `print o` and `print e` write the lines of either side.
fn printing(bytes: u64, script: &str) -> String {
    let lines = bytes / LINE;
    let print = "BEGIN { p = sprintf(\"%1008s\", \"\"); for (i = 0; i < n; i++) printf \"%s%014d%s\\n\", c, i, p }";
    format!("print() {{ awk -v c=$1 -v n={lines} '{print}'; }}; {script}")
}

impl PodmanHarness {
    pub(crate) async fn start() -> Result<Self, Absent> {
        let Ok(address) = std::env::var("RUNTIDE_TEST_PODMAN") else {
            return Err(Absent::unset(known_as(), "RUNTIDE_TEST_PODMAN is not set: cargo xtask testbed up podman"));
        };
        let Some(socket) = address.strip_prefix("unix://") else {
            return Err(broken(format!("RUNTIDE_TEST_PODMAN is '{address}', expected unix://…")));
        };
        let turn = Turn::on(known_as()).await.map_err(|error| broken(format!("the lock: {error}")))?;
        let daemon = Daemon::at(PathBuf::from(socket)).below("/v4.0.0/libpod");
        let version = daemon.ask("GET", "/version", &Value::Null).await.and_then(|answer| answer.json());
        let version = version.map_err(|error| broken(format!("{address} does not answer: {error}")))?;
        let version = version["Components"][0]["Version"].as_str().map(str::to_owned);

        let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
        let prefix = format!("rt{:x}", nanos & 0xff_ffff_ffff);
        let folder = std::env::temp_dir().join(format!("runtide-conformance-{prefix}"));
        std::fs::create_dir_all(&folder).map_err(|error| broken(format!("{}: {error}", folder.display())))?;
        let proxy = Proxy::start(Socket::Unix(folder.join("podman.sock")), Socket::Unix(daemon.socket().clone())).await;
        let proxy = proxy.map_err(|error| broken(format!("the proxy: {error}")))?;
        let harness = Self {
            observer: Observer::start(daemon.clone()),
            daemon,
            proxy,
            version,
            image: std::env::var("RUNTIDE_TEST_IMAGE").unwrap_or_else(|_| "runtide/busybox:latest".to_owned()),
            testbed: Testbed::of(known_as()),
            prefix,
            networks: AtomicU32::new(0),
            folder,
            printers: Mutex::default(),
            _turn: turn,
        };
        harness.clear().await;
        Ok(harness)
    }

    /// Removes the objects of this test, and those that earlier tests left, and returns when they are gone: a removal that
    /// is still under way would be an event of the next test.
    async fn clear(&self) {
        for _ in 0..240 {
            if self.clear_once().await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Returns their number.
    async fn clear_once(&self) -> usize {
        let mut there = 0;
        let filter = format!("%7B%22label%22%3A%5B%22{LABEL}%22%5D%7D");
        for (kind, list) in [
            ("containers", format!("/containers/json?all=1&filters={filter}")),
            ("networks", format!("/networks/json?filters={filter}")),
        ] {
            let Ok(found) = self.daemon.ask("GET", &list, &Value::Null).await.and_then(|answer| answer.json()) else {
                continue;
            };
            for id in found.as_array().into_iter().flatten().filter_map(|one| one["Id"].as_str().or(one["id"].as_str()))
            {
                let suffix = if kind == "containers" { "?force=true&volumes=true&timeout=0" } else { "?force=true" };
                there += 1;
                // An object that cannot be removed now is found by the next round.
                let _ = self.daemon.try_ask("DELETE", &format!("/{kind}/{id}{suffix}"), &Value::Null).await;
            }
        }
        there
    }

    fn shell(work: &Workload) -> Option<String> {
        Some(match work {
            Workload::Idle | Workload::Checked => "trap '' HUP; trap 'exit 0' TERM INT; sleep 100000 & wait".to_owned(),
            Workload::Exit { after, code } => format!("sleep {}; exit {code}", after.as_secs_f64()),
            Workload::Oom => "tail /dev/zero".to_owned(),
            Workload::Print { bytes } => printing(*bytes, "print o & print e >&2; wait"),
            Workload::Greet { bytes } => printing(*bytes, "print o"),
            _ => return None,
        })
    }

    async fn post(&self, path: String) -> Done<()> {
        done(self.daemon.ask("POST", &path, &Value::Null).await.map(drop))
    }

    /// On a loaded machine runc may find no moment in which all processes are frozen, and gives up.
    async fn pause(&self, id: &InstanceId) -> Done<()> {
        let path = format!("/containers/{id}/pause");
        for _ in 0..200 {
            match self.daemon.ask("POST", &path, &Value::Null).await {
                Err(error) if error.contains("runc pause") => tokio::time::sleep(Duration::from_millis(100)).await,
                answer => return done(answer.map(drop)),
            }
        }
        self.post(path).await
    }

    async fn exec(&self, id: &InstanceId, argv: &[&str]) -> Done<()> {
        let body = json!({ "Cmd": argv, "AttachStdout": true, "AttachStderr": true });
        let made = self.daemon.ask("POST", &format!("/containers/{id}/exec"), &body).await;
        let made = done(made.and_then(|answer| answer.json()))?;
        let exec = made["Id"].as_str().unwrap_or_default();
        done(self.daemon.ask("POST", &format!("/exec/{exec}/start"), &json!({ "Detach": false })).await.map(drop))
    }

    /// Podman replaces its file of events by the newer half once it is full: twice, and nothing is left of it.
    async fn expire(&self) -> Result<(), String> {
        let log = EventLog::of_the_testbed().ok_or("the events are not the testbed's")?;
        for _ in 0..2 {
            let before = log.inode().map_err(|error| error.to_string())?;
            log.fill(0).map_err(|error| error.to_string())?;
            let churn = self.create("churn", &Workload::Idle).await.map_err(|obstacle| obstacle.to_string())?;
            self.remove(&churn).await.map_err(|obstacle| obstacle.to_string())?;
            if log.inode().map_err(|error| error.to_string())? == before {
                return Err("the file of events was not replaced".to_owned());
            }
        }
        Ok(())
    }

    /// Every container. Podman 4 answers 500 while one of them is between its end and its network's.
    async fn listed(&self) -> Result<Value, String> {
        for _ in 0..600 {
            match self.daemon.ask("GET", "/containers/json?all=true", &Value::Null).await {
                Err(error) if error.contains("joining network namespace") => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                answered => return answered.and_then(|answer| answer.json()),
            }
        }
        Err("Podman cannot list its containers".to_owned())
    }

    async fn inspect(&self, id: &str) -> Result<Option<Value>, String> {
        let path = format!("/containers/{id}/json");
        for _ in 0..100 {
            let answer = self.daemon.try_ask("GET", &path, &Value::Null).await?;
            match answer.status {
                404 => return Ok(None),
                200 => return answer.json().map(Some),
                // Its process ended meanwhile (trap P17).
                500 if answer.text().contains("no such process") => tokio::time::sleep(Duration::from_millis(50)).await,
                status => return Err(format!("GET {path}: {status} {}", answer.text())),
            }
        }
        Err(format!("GET {path}: Podman looks for a process that is gone"))
    }

    /// By inspection: Podman's own wait answers 0 where it failed.
    async fn end(&self, id: &InstanceId) -> Done<ExitStatus> {
        for _ in 0..6_000 {
            let seen = done(self.inspect(id.as_str()).await)?.ok_or_else(|| Obstacle::failed("it is gone"))?;
            let state = &seen["State"];
            if matches!(state["Status"].as_str(), Some("exited" | "stopped")) {
                let code = state["ExitCode"].as_i64().and_then(|code| i32::try_from(code).ok());
                return code.map(ExitStatus::code).ok_or_else(|| Obstacle::failed("an end without a code"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Obstacle::failed("it did not end"))
    }
}

/// An item of a listing in the form of an inspection.
fn as_inspected(listed: &Value) -> Value {
    json!({
        "Id": listed["Id"],
        "Name": listed["Names"][0],
        "IsInfra": listed["IsInfra"],
        "ImageName": listed["Image"],
        "Config": { "Labels": listed["Labels"] },
        "State": { "Status": listed["State"] },
    })
}

/// As a daemon answers on the wire.
fn http(status: &str, headers: &str, body: &str) -> Action {
    Action::Answer(format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}\r\n{body}").into_bytes())
}

#[async_trait]
impl Harness for PodmanHarness {
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
        // Podman runs several programs for its `/info`, which a busy machine does not do in two seconds.
        timing.deadline = Duration::from_secs(10);
        timing.max_silence = Duration::from_secs(5);
        timing.output_bytes = 50_000 * LINE;
        timing
    }

    fn dialect(&self) -> Dialect {
        Dialect::FULL
    }

    fn skips(&self) -> &'static [(Law, &'static str)] {
        SKIPS
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned()]
    }

    async fn backend(&self, tuning: &Tuning) -> Done<Arc<dyn RuntimeBackend>> {
        let mut config = Config::default()
            .with_endpoint(Endpoint::unix(self.folder.join("podman.sock")))
            .with_id(runtide_core::BackendId::from(ID))
            .with_driver(tuning.driver.clone());
        if let Some(deadline) = tuning.deadline {
            config = config.with_deadline(deadline);
        }
        if let Some(silence) = tuning.max_silence {
            config = config.with_max_silence(silence);
        }
        PodmanBackend::new(config).map(|backend| Arc::new(backend) as Arc<dyn RuntimeBackend>).map_err(Obstacle::failed)
    }

    async fn create(&self, name: &str, work: &Workload) -> Done<InstanceId> {
        let Some(shell) = Self::shell(work) else { return Err(Obstacle::unsupported(format!("{work:?}"))) };
        let mut body = json!({
            "name": format!("{}-{name}", self.prefix),
            "image": self.image,
            "command": ["sh", "-c", shell],
            "labels": { LABEL: self.prefix },
            "env": { "TOKEN": SECRET },
            "stop_timeout": 5,
        });
        if *work == Workload::Oom {
            body["resource_limits"] = json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } });
        }
        if *work == Workload::Checked {
            let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            body["healthconfig"] = json!({
                "Test": ["CMD", "test", "!", "-e", "/tmp/sick"],
                "Interval": nanos(Duration::from_secs(3600)),
                "Timeout": nanos(Duration::from_secs(5)),
                "Retries": 1,
            });
        }
        let made = done(self.daemon.ask("POST", "/containers/create", &body).await.and_then(|answer| answer.json()))?;
        let id = made["Id"].as_str().map(InstanceId::from).ok_or_else(|| Obstacle::failed(made))?;
        if matches!(work, Workload::Print { .. }) {
            self.printers.lock().unwrap().push(id.clone());
        }
        Ok(id)
    }

    async fn start(&self, id: &InstanceId) -> Done<()> {
        self.post(format!("/containers/{id}/start")).await
    }

    async fn stop(&self, id: &InstanceId) -> Done<()> {
        self.post(format!("/containers/{id}/stop?timeout=5")).await
    }

    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Done<()> {
        self.post(format!("/containers/{id}/kill?signal={}", signal.number())).await?;
        if signal == UnixSignal::KILL {
            self.end(id).await?;
        }
        Ok(())
    }

    async fn remove(&self, id: &InstanceId) -> Done<()> {
        let removal = format!("/containers/{id}?force=true&volumes=true&timeout=0");
        if self.daemon.ask("DELETE", &removal, &Value::Null).await.is_ok() {
            return Ok(());
        }
        // A service that dies as it thaws a container calls it paused from then on, and neither thaws nor removes it; a signal
        // still ends it.
        let _ = self.post(format!("/containers/{id}/kill?signal=9")).await;
        done(self.daemon.ask("DELETE", &removal, &Value::Null).await.map(drop))
    }

    async fn change(&self, id: &InstanceId, change: &Change) -> Done<()> {
        match change {
            Change::Pause => self.pause(id).await,
            Change::Unpause => self.post(format!("/containers/{id}/unpause")).await,
            Change::Rename(name) => {
                let short: String = name.chars().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect();
                self.post(format!("/containers/{id}/rename?name={}-{short}", self.prefix)).await
            }
            Change::Health(health) => {
                let (verb, wanted) = match health {
                    Health::Healthy => ("-f", "healthy"),
                    _ => ("-c", "unhealthy"),
                };
                let argv = if verb == "-f" { vec!["rm", "-f", "/tmp/sick"] } else { vec!["touch", "/tmp/sick"] };
                self.exec(id, &argv).await?;
                // systemd's timers run the checks, and there may be no systemd here.
                done(self.daemon.try_ask("GET", &format!("/containers/{id}/healthcheck"), &Value::Null).await)?;
                let seen = done(self.inspect(id.as_str()).await)?.unwrap_or_default();
                if seen["State"]["Health"]["Status"] == wanted {
                    return Ok(());
                }
                Err(Obstacle::failed(format!("the health check never said {wanted}")))
            }
            Change::Addresses(_) => {
                let name = format!("{}-net{}", self.prefix, self.networks.fetch_add(1, Ordering::Relaxed));
                let body = json!({ "name": name, "labels": { LABEL: self.prefix } });
                done(self.daemon.ask("POST", "/networks/create", &body).await)?;
                let body = json!({ "container": id.as_str() });
                done(self.daemon.ask("POST", &format!("/networks/{name}/connect"), &body).await.map(drop))
            }
            _ => Err(Obstacle::unsupported("Podman 4 fixes it when it creates a container")),
        }
    }

    async fn burst(&self, n: usize, duration: RangeInclusive<Duration>) -> Done<Vec<Life>> {
        let mut runs = Vec::with_capacity(n);
        let steps = u32::try_from(n.max(2)).unwrap_or(u32::MAX);
        let step = duration.end().saturating_sub(*duration.start()) / steps;
        for (number, code) in (0..steps).zip((0..100).cycle()).take(n) {
            let after = *duration.start() + step * number;
            let id = self.create(&format!("burst-{number}"), &Workload::Exit { after, code }).await?;
            self.start(&id).await?;
            let exit = self.end(&id).await?;
            if number % 2 == 1 {
                self.remove(&id).await?;
            }
            runs.push(Life { id, exit });
        }
        Ok(runs)
    }

    async fn say_unknown(&self, id: &InstanceId) -> Done<()> {
        let rename =
            |from: &str, to: &str| Rule::all(Action::Replace(from.as_bytes().to_vec(), to.as_bytes().to_vec()));
        self.proxy.add(rename("\"Action\":\"mount\"", "\"Action\":\"tilts\""));
        let said = self.daemon.ask("POST", &format!("/containers/{id}/mount"), &Value::Null).await;
        // Podman looks into its log four times a second.
        tokio::time::sleep(Duration::from_millis(800)).await;
        self.proxy.heal();
        done(said.map(drop))
    }

    async fn truth(&self) -> Done<Vec<Instance>> {
        let listed = done(self.listed().await)?;
        let mut truth = Vec::new();
        for one in listed.as_array().into_iter().flatten() {
            let Some(id) = one["Id"].as_str() else { continue };
            match self.inspect(id).await {
                Ok(Some(seen)) => truth.extend(instance(ID, &seen)),
                // Removed between the listing and the inspection.
                Ok(None) => {}
                // A service that is killed while it removes a container leaves one that it lists and cannot inspect.
                Err(error) if error.contains(": 500 ") => truth.extend(instance(ID, &as_inspected(one))),
                Err(error) => return done(Err(error)),
            }
        }
        Ok(truth)
    }

    async fn environment(&self, id: &InstanceId) -> Done<Vec<String>> {
        let seen = done(self.inspect(id.as_str()).await)?.unwrap_or_default();
        let env = seen["Config"]["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(env.map(str::to_owned).collect())
    }

    async fn facts(&self) -> Done<Vec<Fact>> {
        done(self.observer.facts().await)
    }

    fn burst_size(&self) -> usize {
        100
    }

    fn output(&self, side: LogSource, bytes: u64) -> Output {
        let letter = if side == LogSource::Stdout { 'o' } else { 'e' };
        Box::new((0..bytes / LINE).map(move |n| format!("{letter}{n:014}{:1008}\n", "").into_bytes()))
    }

    fn commands(&self, bytes: u64) -> Vec<Command> {
        let (out, err) = (LogSource::Stdout, LogSource::Stderr);
        let shell = |script: &str| Command::new(["sh", "-c", script]);
        let mut fails = shell("exit 3");
        fails.code = 3;
        let mut stdout = shell(&printing(bytes, "print o"));
        stdout.stdout = self.output(out, bytes);
        let mut both = shell(&printing(bytes, "print o & print e >&2; wait; exit 4"));
        (both.stdout, both.stderr, both.code) = (self.output(out, bytes), self.output(err, bytes), 4);
        let mut cat = Command::new(["cat"]);
        (cat.stdin, cat.stdout) = (Some(self.output(err, bytes)), self.output(err, bytes));
        vec![fails, stdout, both, cat]
    }

    fn echo(&self, word: &str) -> Option<Command> {
        let mut echo = Command::new(["sh", "-c", "printf %s \"$1\"", "sh", word]);
        echo.stdout = Box::new(std::iter::once(word.as_bytes().to_vec()));
        Some(echo)
    }

    fn spec(&self, name: &str, work: &Workload) -> Done<InstanceSpec> {
        let Some(shell) = Self::shell(work) else { return Err(Obstacle::unsupported(format!("{work:?}"))) };
        let mut spec = InstanceSpec::of_image(self.image.as_str());
        spec.name = Some(format!("{}-{name}", self.prefix));
        spec.command = vec!["sh".to_owned(), "-c".to_owned(), shell];
        spec.labels.insert(LABEL, self.prefix.as_str());
        Ok(spec)
    }

    async fn fault(&self, fault: &Fault) -> Supported {
        let proxy = &self.proxy;
        match fault {
            Fault::Sever => proxy.sever(),
            Fault::Refuse => {
                proxy.add(Rule::all(Action::Refuse));
                proxy.sever();
            }
            Fault::HalfOpen => proxy.add(Rule::on("/events", Action::Swallow).existing_only()),
            Fault::Stall => proxy.add(Rule::all(Action::Swallow)),
            Fault::Deny => {
                let body = r#"{"message":"authorization denied"}"#;
                proxy.add(Rule::on(
                    " ",
                    http("403 Forbidden", &format!("Content-Length: {}\r\nConnection: close\r\n", body.len()), body),
                ));
                proxy.sever();
            }
            Fault::CleanEof => {
                proxy.add(Rule::on("/events", http("200 OK", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n")));
                proxy.sever_requests("/events");
            }
            Fault::RestartDaemon => return Testbed::fault(self.testbed.as_ref(), &["restart"]).await,
            Fault::KillDaemon => return Testbed::fault(self.testbed.as_ref(), &["kill", "start"]).await,
            Fault::ExpireHistory => {
                proxy.add(Rule::all(Action::Refuse));
                proxy.sever();
                if let Err(reason) = self.expire().await {
                    return Supported::No(reason);
                }
            }
            Fault::BadItem(id) => {
                let (from, to) = (format!("\"Id\":\"{id}\""), format!("\"Id\":[{}]", " ".repeat(id.as_str().len())));
                proxy.add(Rule::all(Action::Replace(from.into_bytes(), to.into_bytes())));
            }
            // In the middle of the first item, past the head.
            Fault::PartialList(_) => proxy.add(Rule::on("/containers/json", Action::Cut(400))),
            Fault::SlowList(time) => proxy.add(Rule::on("/containers/json", Action::Delay(*time))),
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
        self.clear().await;
        // The next run makes its own.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
