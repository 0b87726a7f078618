//! `/containers/{id}/json`: every field of one container.

use std::collections::BTreeMap;

use runtide_core::{BackendId, ExitStatus, Incarnation, Instance, InstanceId, InstanceKind};
use runtide_engine::{
    Text, lenient, log_left_out,
    network::{self, Bindings, Networks, Stack},
    time,
};
use serde::Deserialize;

use super::{container, has_ended, state};

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
    image_name: Text<'a>,
    #[serde(borrow)]
    pod: Text<'a>,
    is_infra: Option<bool>,
    #[serde(borrow)]
    state: Option<State<'a>>,
    restart_count: Option<u32>,
    #[serde(borrow)]
    config: Option<Config<'a>>,
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
struct Config<'a> {
    #[serde(borrow)]
    labels: Option<BTreeMap<Text<'a>, Text<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig<'a> {
    #[serde(borrow)]
    network_mode: Text<'a>,
    #[serde(borrow)]
    port_bindings: Option<Bindings<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings<'a> {
    #[serde(borrow)]
    networks: Option<Networks<'a>>,
}

/// The answer to an inspection.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub(crate) instance: Instance,
    /// It holds a pod together, and is no instance.
    pub(crate) is_infra: bool,
    /// Id of its pod, whose name an inspection does not have.
    pub(crate) pod: Option<String>,
}

/// The instance in an inspection's body.
pub(crate) fn inspected(backend: &BackendId, body: &[u8]) -> serde_json::Result<Inspected> {
    let text = String::from_utf8_lossy(body);
    let (inspected, left_out) = lenient(&text, |text| Ok(instance(backend, &serde_json::from_str(text)?)))?;
    if inspected.instance.id.as_str().is_empty() {
        return Err(serde::de::Error::custom("it has no id"));
    }
    if left_out.iter().any(|field| matches!(field.as_str(), "State" | "State.Status" | "IsInfra")) {
        return Err(serde::de::Error::custom("its state cannot be read"));
    }
    log_left_out(backend, inspected.instance.id.as_str(), &left_out);
    Ok(inspected)
}

fn instance(backend: &BackendId, found: &Container<'_>) -> Inspected {
    let unknown = State::default();
    let of_state = found.state.as_ref().unwrap_or(&unknown);
    let started = time(&of_state.started_at);
    let state = state(&of_state.status, started.is_some());
    let name = container::name(&found.name, &found.id);
    let mut instance =
        Instance::new(backend.clone(), InstanceId::from(&*found.id), name, InstanceKind::Container, state);
    instance.incarnation = started.map(|_| Incarnation::from(&*of_state.started_at));
    instance.started_at = started;
    instance.restarts = found.restart_count;
    instance.created_at = time(&found.created);
    instance.image = container::image(&found.image_name);
    let labels = container::labels(found.config.as_ref().and_then(|config| config.labels.as_ref()));
    let pod = (!found.pod.is_empty()).then(|| found.pod.to_string());
    if pod.is_none() {
        instance.group = container::compose(&labels);
    }
    instance.labels = Some(labels);
    if state.is_alive() {
        let stack = Stack::of(found.host_config.as_ref().map_or("", |config| &config.network_mode));
        let settings = found.network_settings.as_ref();
        instance.health = of_state.health.as_ref().and_then(|health| container::health(&health.status));
        let networks = settings.and_then(|settings| settings.networks.as_ref());
        instance.addresses = network::addresses(stack, networks);
        let bindings = found.host_config.as_ref().and_then(|config| config.port_bindings.as_ref());
        let mut ports = bindings.map(network::inspected_ports).unwrap_or_default();
        // The list has no port that is only exposed.
        ports.retain(|port| !port.published.is_empty());
        let has_network = networks.is_some_and(|networks| !networks.is_empty());
        let is_own = stack == Stack::Own && pod.is_none();
        instance.ports = (is_own && (has_network || !ports.is_empty())).then_some(ports);
    } else if has_ended(&of_state.status)
        && let Some(ended) = time(&of_state.finished_at)
    {
        instance.finished_at = Some(ended);
        instance.exit = of_state.exit_code.and_then(|code| exit(code, of_state.oom_killed));
    }
    Inspected { instance, is_infra: found.is_infra == Some(true), pod }
}

/// Code of a run that the kernel killed.
const KILLED: i32 = 137;

/// The exit of a run. Podman 4 never takes the mark of a run out of memory back, so that it may be an earlier run's: it counts
/// with the code that the kernel leaves. Nor does it always set it, so that a killed run without it may have been out of memory.
pub(crate) fn exit(code: i32, oom_killed: Option<bool>) -> Option<ExitStatus> {
    let exit = seen(code)?;
    Some(exit.with_oom_killed(oom_killed.filter(|killed| *killed == (code == KILLED))))
}

/// The exit of a code; `None` for -1, which Podman writes where it found no code: the process that waits for the container died.
pub(crate) fn seen(code: i32) -> Option<ExitStatus> {
    (code >= 0).then(|| ExitStatus::code(code))
}
