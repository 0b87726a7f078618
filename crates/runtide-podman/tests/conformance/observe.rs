//! An outside observer: reads the daemon's events as facts, and its containers as they are.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtide_conformance::{Fact, Happened};
use runtide_core::{Address, ExitStatus, Health, Instance, InstanceId, InstanceKind, InstanceState, Labels};
use serde_json::Value;
use tokio::task::JoinHandle;

use runtide_conformance::daemon::Daemon;

/// Longest time that the observer's own connection may lag behind the log of events.
const LAG: Duration = Duration::from_secs(60);

/// Longest time between that of an event and its place in the log, on a busy machine.
const DISORDER: Duration = Duration::from_secs(30);

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
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
        let seen = Arc::new(Mutex::new(Seen { facts: Vec::new(), newest: now }));
        let (source, sink) = (daemon.clone(), Arc::clone(&seen));
        let reading = tokio::spawn(async move {
            // A stream that goes over the log's replacement repeats what the new file still has, and so does one that begins again.
            let mut known = HashSet::new();
            loop {
                // Processes take the time of an event before they write it, so that an older one may come behind a newer one.
                let since = stamp(sink.lock().unwrap().newest.saturating_sub(DISORDER.as_nanos()).max(now));
                // The daemon may be down; it replays the events since then once it is back.
                let _ = source
                    .events(&since, |event| {
                        let mut seen = sink.lock().unwrap();
                        seen.newest = seen.newest.max(at(&event));
                        let key = [&event["Actor"]["ID"], &event["Action"], &event["timeNano"]].map(Value::to_string);
                        if known.insert(key) {
                            seen.facts.extend(fact(&event));
                        }
                    })
                    .await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { daemon, seen, reading }
    }

    /// The facts up to now: those that are in the log when this is called. Podman looks into it for its streams four times a second, on a
    /// busy machine more rarely.
    pub(crate) async fn facts(&self) -> Result<Vec<Fact>, String> {
        let mut logged = 0;
        let since = format!("{}&stream=false", stamp(self.seen.lock().unwrap().newest));
        let past = self.daemon.events(&since, |event| logged = logged.max(at(&event)));
        // A daemon that is down says nothing.
        let _ = tokio::time::timeout(LAG, past).await.map_err(|_| "the past events do not end".to_owned())?;
        let caught_up = async {
            while self.seen.lock().unwrap().newest < logged {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LAG, caught_up).await.map_err(|_| "the observer does not catch up".to_owned())?;
        Ok(self.seen.lock().unwrap().facts.clone())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Nanoseconds since the epoch, in the form that Podman reads without loss.
fn stamp(nanos: u128) -> String {
    let nanos = i128::try_from(nanos).unwrap_or(i128::MAX);
    jiff::Timestamp::from_nanosecond(nanos).unwrap_or_default().to_string()
}

/// Time of an event, in nanoseconds since 1970.
fn at(event: &Value) -> u128 {
    event["timeNano"].as_u64().map_or(0, u128::from)
}

fn fact(event: &Value) -> Option<Fact> {
    if event["Type"] != "container" {
        return None;
    }
    let attributes = &event["Actor"]["Attributes"];
    let what = match event["Action"].as_str()? {
        "start" => Happened::Started { incarnation: None },
        "died" => {
            let code = attributes["containerExitCode"].as_str().and_then(|code| code.parse().ok());
            Happened::Stopped { exit: code.map(ExitStatus::code) }
        }
        "remove" => Happened::Removed,
        _ => return None,
    };
    Some(Fact { id: InstanceId::from(event["Actor"]["ID"].as_str()?), what })
}

/// A container as its inspection shows it; fields that are not read here stay unknown. `None`: it is a pod's infra container.
pub(crate) fn instance(backend: &str, seen: &Value) -> Option<Instance> {
    if seen["IsInfra"] == true {
        return None;
    }
    let state = &seen["State"];
    let has_run = |time: &Value| time.as_str().is_some_and(|time| !time.starts_with("0001-"));
    let ran = has_run(&state["StartedAt"]);
    let is = match state["Status"].as_str()? {
        "created" | "initialized" if ran => InstanceState::Stopped,
        "created" | "initialized" => InstanceState::Created,
        "running" => InstanceState::Running,
        "paused" => InstanceState::Paused,
        "stopping" => InstanceState::Stopping,
        "removing" | "exited" | "stopped" => InstanceState::Stopped,
        _ => InstanceState::Unknown,
    };
    let mut instance =
        Instance::new(backend, seen["Id"].as_str()?, seen["Name"].as_str()?, InstanceKind::Container, is);
    if ran {
        instance.incarnation = state["StartedAt"].as_str().map(Into::into);
    }
    let ended = matches!(state["Status"].as_str()?, "exited" | "stopped");
    if ended && has_run(&state["FinishedAt"]) {
        let code = state["ExitCode"].as_i64().and_then(|code| i32::try_from(code).ok())?;
        instance.exit = Some(ExitStatus::code(code).with_oom_killed(state["OOMKilled"].as_bool()));
    }
    instance.health = match state["Health"]["Status"].as_str().filter(|_| is == InstanceState::Running) {
        Some("starting") => Some(Health::Starting),
        Some("healthy") => Some(Health::Healthy),
        Some("unhealthy") => Some(Health::Unhealthy),
        _ => None,
    };
    instance.image = seen["ImageName"].as_str().map(Into::into);
    let labels = seen["Config"]["Labels"].as_object();
    let labels =
        labels.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    instance.labels = Some(labels.collect::<Labels>());
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
