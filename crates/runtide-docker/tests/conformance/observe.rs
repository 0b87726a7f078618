//! An outside observer: reads the daemon's events as facts, and its containers as they are.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtide_conformance::{Fact, Happened};
use runtide_core::{Address, ExitStatus, Health, Instance, InstanceId, InstanceKind, InstanceState, Labels};
use serde_json::Value;
use tokio::task::JoinHandle;

use runtide_conformance::daemon::Daemon;

/// Reads the daemon's events on its own connection.
pub(crate) struct Observer {
    facts: Arc<Mutex<Vec<Fact>>>,
    reading: JoinHandle<()>,
}

impl Observer {
    pub(crate) fn start(daemon: Daemon) -> Self {
        let facts = Arc::<Mutex<Vec<Fact>>>::default();
        let sink = Arc::clone(&facts);
        let reading = tokio::spawn(async move {
            let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
            let mut last = now;
            loop {
                let mut newest = last;
                let since = format!("{}.{:09}", (last + 1) / 1_000_000_000, (last + 1) % 1_000_000_000);
                // The daemon may be down; it replays the events since then once it is back.
                let _ = daemon
                    .events(&since, |event| {
                        newest = newest.max(event["timeNano"].as_u64().map_or(0, u128::from));
                        sink.lock().unwrap().extend(fact(&event));
                    })
                    .await;
                last = newest;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { facts, reading }
    }

    pub(crate) fn facts(&self) -> Vec<Fact> {
        self.facts.lock().unwrap().clone()
    }
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
