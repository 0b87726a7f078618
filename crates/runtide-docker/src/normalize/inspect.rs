//! `/containers/{id}/json`: every field of one container.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use runtide_core::{BackendId, ExitStatus, Incarnation, Instance, InstanceId, InstanceKind};
use serde::{Deserialize, Deserializer};

use super::{
    Text, container,
    list::HostConfig,
    network,
    network::{Bindings, Networks, Stack},
    state, status,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    created: Text<'a>,
    #[serde(borrow, default)]
    state: Option<State<'a>>,
    #[serde(default)]
    restart_count: Option<i64>,
    #[serde(borrow, default)]
    config: Option<ContainerConfig<'a>>,
    #[serde(borrow, default)]
    host_config: Option<HostConfig<'a>>,
    #[serde(borrow, default)]
    network_settings: Option<NetworkSettings<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State<'a> {
    #[serde(borrow)]
    status: Text<'a>,
    exit_code: Option<i32>,
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

/// The instance in an inspection's body.
pub(crate) fn inspected(backend: &BackendId, body: &[u8]) -> serde_json::Result<Instance> {
    let found: Container<'_> = serde_json::from_slice(body)?;
    let of_state = found.state.unwrap_or_default();
    let state = state(&of_state.status);
    let name = container::name([&*found.name], &found.id);
    let mut instance =
        Instance::new(backend.clone(), InstanceId::from(&*found.id), name, InstanceKind::Container, state);
    instance.incarnation = time(&of_state.started_at).map(|_| Incarnation::from(&*of_state.started_at));
    instance.started_at = time(&of_state.started_at);
    instance.restarts = found.restart_count.and_then(|count| count.try_into().ok());
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
    } else if let Some(ended) = time(&of_state.finished_at) {
        instance.finished_at = Some(ended);
        instance.exit = of_state.exit_code.map(|code| ExitStatus::code(code).with_oom_killed(of_state.oom_killed));
    }
    Ok(instance)
}

/// `None` also for Docker's zero time, `0001-01-01T00:00:00Z`.
fn time(text: &str) -> Option<SystemTime> {
    let at: SystemTime = text.parse::<jiff::Timestamp>().ok()?.into();
    (at > SystemTime::UNIX_EPOCH).then_some(at)
}

/// Cuts the time to the list's precision.
fn whole_seconds(at: SystemTime) -> SystemTime {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
