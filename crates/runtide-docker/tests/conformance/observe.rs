//! An outside observer: reads the daemon's events as facts, and its containers as they are.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtide_conformance::{Fact, Happened};
use runtide_core::{Address, ExitStatus, Health, Instance, InstanceId, InstanceKind, InstanceState, Labels};
use serde_json::Value;
use tokio::task::JoinHandle;

use runtide_conformance::daemon::Daemon;

/// Longest time that the observer's own connection may lag behind the daemon's answers.
const LAG: Duration = Duration::from_secs(60);

/// Reads the daemon's events on its own connection.
pub(crate) struct Observer {
    daemon: Daemon,
    seen: Arc<Mutex<Seen>>,
    reading: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    facts: Vec<Fact>,
    /// Time of the newest event, of any kind, in nanoseconds since 1970.
    newest: u128,
}

impl Observer {
    pub(crate) fn start(daemon: Daemon) -> Self {
        let seen = Arc::new(Mutex::new(Seen { facts: Vec::new(), newest: now() }));
        let (source, sink) = (daemon.clone(), Arc::clone(&seen));
        let reading = tokio::spawn(async move {
            loop {
                let since = time(sink.lock().unwrap().newest + 1);
                // The daemon may be down; it replays the events since then once it is back.
                let _ = source
                    .events(&since, |event| {
                        let mut seen = sink.lock().unwrap();
                        seen.newest = seen.newest.max(at(&event));
                        seen.facts.extend(fact(&event));
                    })
                    .await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { daemon, seen, reading }
    }

    /// The facts up to now: those that the daemon has emitted when it is asked.
    pub(crate) async fn facts(&self) -> Result<Vec<Fact>, String> {
        let mut emitted = 0;
        let until = format!("{}&until={}", time(self.seen.lock().unwrap().newest), time(now()));
        let past = self.daemon.events(&until, |event| emitted = emitted.max(at(&event)));
        // A daemon that is down has emitted nothing that it still knows.
        let _ = tokio::time::timeout(LAG, past).await.map_err(|_| "the past events do not end".to_owned())?;
        let caught_up = async {
            while self.seen.lock().unwrap().newest < emitted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LAG, caught_up).await.map_err(|_| "the observer does not catch up".to_owned())?;
        Ok(self.seen.lock().unwrap().facts.clone())
    }
}

fn now() -> u128 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos())
}

/// A time as the daemon takes it.
fn time(nanos: u128) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// Time of an event, in nanoseconds since 1970.
fn at(event: &Value) -> u128 {
    event["timeNano"].as_u64().map_or(0, u128::from)
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn fact(event: &Value) -> Option<Fact> {
    if event["Type"] != "container" {
        return None;
    }
    let attributes = &event["Actor"]["Attributes"];
    let what = match event["Action"].as_str()? {
        "start" => Happened::Started { incarnation: None },
        "die" => {
            let code = attributes["exitCode"].as_str().and_then(|code| code.parse().ok());
            Happened::Stopped { exit: code.map(ExitStatus::code) }
        }
        "destroy" => Happened::Removed,
        _ => return None,
    };
    Some(Fact { id: InstanceId::from(event["Actor"]["ID"].as_str()?), what })
}

/// A container as its inspection shows it; fields that are not read here stay unknown.
pub(crate) fn instance(backend: &str, seen: &Value) -> Option<Instance> {
    let state = &seen["State"];
    let is = match state["Status"].as_str()? {
        "created" => InstanceState::Created,
        "running" => InstanceState::Running,
        "paused" => InstanceState::Paused,
        "restarting" => InstanceState::Restarting,
        "removing" => InstanceState::Stopping,
        "exited" => InstanceState::Stopped,
        "dead" => InstanceState::Failed,
        _ => InstanceState::Unknown,
    };
    let name = seen["Name"].as_str()?.trim_start_matches('/');
    let mut instance = Instance::new(backend, seen["Id"].as_str()?, name, InstanceKind::Container, is);
    let has_run = |time: &Value| time.as_str().is_some_and(|time| !time.starts_with("0001-"));
    if has_run(&state["StartedAt"]) {
        instance.incarnation = state["StartedAt"].as_str().map(Into::into);
    }
    if is.is_ended() && has_run(&state["FinishedAt"]) {
        let code = state["ExitCode"].as_i64().and_then(|code| i32::try_from(code).ok())?;
        // A start that failed writes its code over that of the run before it.
        let is_of_a_start =
            (126..=128).contains(&code) && state["Error"].as_str().is_some_and(|error| !error.is_empty());
        if !is_of_a_start {
            instance.exit = Some(ExitStatus::code(code).with_oom_killed(state["OOMKilled"].as_bool()));
        }
    }
    // Docker reports a container that it no longer checks as unhealthy, and emits no event for that.
    instance.health = match state["Health"]["Status"].as_str().filter(|_| is == InstanceState::Running) {
        Some("starting") => Some(Health::Starting),
        Some("healthy") => Some(Health::Healthy),
        Some("unhealthy") => Some(Health::Unhealthy),
        _ => None,
    };
    instance.image = seen["Config"]["Image"].as_str().map(Into::into);
    let labels = seen["Config"]["Labels"].as_object()?;
    instance.labels = Some(
        labels.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect::<Labels>(),
    );
    if is.is_alive() {
        let networks = seen["NetworkSettings"]["Networks"].as_object()?;
        let mut addresses: Vec<Address> = networks
            .iter()
            .filter_map(|(name, network)| {
                let ip = network["IPAddress"].as_str()?.parse().ok()?;
                Some(Address::new(ip, Some(name.clone())))
            })
            .collect();
        addresses.sort();
        instance.addresses = Some(addresses);
    }
    instance.restarts = seen["RestartCount"].as_u64().and_then(|count| u32::try_from(count).ok());
    Some(instance)
}
