//! `/containers/{id}/json`: every field of one container.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, SystemTime},
};

use runtide_core::{BackendId, ExitCause, ExitStatus, Incarnation, Instance, InstanceId, InstanceKind};
use runtide_engine::{
    Text, lenient, log_left_out,
    network::{self, Bindings, Networks, Stack},
    time,
};
use serde::{Deserialize, Deserializer};

use super::{container, list::HostConfig, state, status};

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Container<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    created: Text<'a>,
    #[serde(borrow)]
    state: Option<State<'a>>,
    restart_count: Option<u32>,
    #[serde(borrow)]
    config: Option<ContainerConfig<'a>>,
    #[serde(borrow)]
    host_config: Option<HostConfig<'a>>,
    #[serde(borrow)]
    network_settings: Option<NetworkSettings<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State<'a> {
    #[serde(borrow)]
    status: Text<'a>,
    exit_code: Option<i32>,
    #[serde(borrow)]
    error: Text<'a>,
    #[serde(rename = "OOMKilled")]
    oom_killed: Option<bool>,
    #[serde(borrow)]
    started_at: Text<'a>,
    #[serde(borrow)]
    finished_at: Text<'a>,
    #[serde(borrow)]
    health: Option<Health<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Health<'a> {
    #[serde(borrow)]
    status: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ContainerConfig<'a> {
    #[serde(borrow)]
    image: Text<'a>,
    #[serde(borrow)]
    labels: Option<BTreeMap<Text<'a>, Text<'a>>>,
    #[serde(borrow)]
    exposed_ports: Option<Exposed<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings<'a> {
    #[serde(borrow)]
    ports: Option<Bindings<'a>>,
    #[serde(borrow)]
    networks: Option<Networks<'a>>,
}

/// Docker's form of a set: `{"80/tcp":{}}`.
#[derive(Default)]
struct Exposed<'a>(Vec<Text<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Exposed<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = BTreeMap::<Text<'de>, Option<Empty>>::deserialize(deserializer)?;
        Ok(Self(pairs.into_keys().collect()))
    }
}

#[derive(Deserialize)]
struct Empty {}

/// Codes that the daemon writes over an exit code when a start fails: its program cannot be run, is not found, and any other
/// reason, for which older daemons replace a 0 alone. A list has them as well, and no word of the reason.
const REWRITTEN: RangeInclusive<i32> = 126..=128;

/// True if the run that is over may have ended in another way, and a failed start left this code behind.
pub(crate) fn is_doubtful(end: ExitCause) -> bool {
    matches!(end, ExitCause::Code(code) if REWRITTEN.contains(&code))
}

/// The answer to an inspection.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub(crate) instance: Instance,
    /// Set if a failed start may have written over the last run's exit code, which is unknown then.
    pub(crate) rewritten: Option<Rewritten>,
}

/// The part of a run's exit that a failed start leaves as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) oom_killed: Option<bool>,
}

/// The instance in an inspection's body.
pub(crate) fn inspected(backend: &BackendId, body: &[u8]) -> serde_json::Result<Inspected> {
    let text = String::from_utf8_lossy(body);
    let (inspected, left_out) = lenient(&text, |text| {
        let found: Container<'_> = serde_json::from_str(text)?;
        Ok(instance(backend, &found))
    })?;
    if inspected.instance.id.as_str().is_empty() {
        return Err(serde::de::Error::custom("it has no id"));
    }
    if left_out.iter().any(|field| field == "State" || field == "State.Status") {
        return Err(serde::de::Error::custom("its state cannot be read"));
    }
    log_left_out(backend, inspected.instance.id.as_str(), &left_out);
    Ok(inspected)
}

fn instance(backend: &BackendId, found: &Container<'_>) -> Inspected {
    let unknown = State::default();
    let of_state = found.state.as_ref().unwrap_or(&unknown);
    let state = state(&of_state.status);
    let name = container::name([&*found.name], &found.id);
    let mut instance =
        Instance::new(backend.clone(), InstanceId::from(&*found.id), name, InstanceKind::Container, state);
    let mut rewritten = None;
    instance.incarnation = time(&of_state.started_at).map(|_| Incarnation::from(&*of_state.started_at));
    instance.started_at = time(&of_state.started_at);
    instance.restarts = found.restart_count;
    instance.created_at = time(&found.created).map(whole_seconds);
    if let Some(config) = &found.config {
        instance.image = container::image(&config.image);
        let labels = container::labels(config.labels.as_ref());
        instance.group = container::group(&labels);
        instance.labels = Some(labels);
    }
    if state.is_alive() {
        let stack = Stack::of(found.host_config.as_ref().map_or("", |config| &config.network_mode));
        let settings = found.network_settings.as_ref();
        instance.health = of_state.health.as_ref().and_then(|health| status::health(&health.status));
        instance.addresses = network::addresses(stack, settings.and_then(|settings| settings.networks.as_ref()));
        instance.ports = match stack {
            Stack::Own => settings.and_then(|settings| settings.ports.as_ref()).map(network::inspected_ports),
            Stack::Host => found.config.as_ref().map(|config| {
                network::host_ports(config.exposed_ports.iter().flat_map(|exposed| &exposed.0).map(|key| &**key))
            }),
            Stack::Shared => None,
        };
        return Inspected { instance, rewritten };
    }
    // The daemon clears it when a start succeeds: it is about a start (or a removal) that failed since.
    let failed = !of_state.error.is_empty();
    instance.reason = failed.then(|| Arc::from(&*of_state.error));
    if failed {
        // A start by hand sets the count to 0 before it fails.
        instance.restarts = instance.restarts.filter(|count| *count > 0);
    }
    if let Some(ended) = time(&of_state.finished_at) {
        instance.finished_at = Some(ended);
        let exit = of_state.exit_code.map(|code| ExitStatus::code(code).with_oom_killed(of_state.oom_killed));
        if failed && exit.is_some_and(|exit| is_doubtful(exit.end)) {
            rewritten = Some(Rewritten { oom_killed: of_state.oom_killed });
        } else {
            instance.exit = exit;
        }
    }
    Inspected { instance, rewritten }
}

/// Cuts the time to the list's precision.
fn whole_seconds(at: SystemTime) -> SystemTime {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
