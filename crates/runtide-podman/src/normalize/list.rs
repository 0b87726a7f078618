//! Items of `/containers/json`, each decoded separately, so that an unreadable one hides no other (trap P5).

use std::collections::BTreeMap;

use runtide_core::{BackendId, ErrorKind, Failure, Instance, InstanceId, InstanceKind, InstanceState};
use runtide_engine::{
    Text, lenient, log_left_out,
    network::{Table, published},
    time,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{container, has_ended, inspect::seen, state};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Item<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    names: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    image: Text<'a>,
    #[serde(borrow)]
    created: Text<'a>,
    #[serde(borrow)]
    state: Text<'a>,
    /// The health, and no line for people.
    #[serde(borrow)]
    status: Text<'a>,
    exit_code: Option<i32>,
    exited: Option<bool>,
    started_at: Option<i64>,
    is_infra: Option<bool>,
    #[serde(borrow)]
    pod: Text<'a>,
    #[serde(borrow)]
    pod_name: Text<'a>,
    #[serde(borrow)]
    labels: Option<BTreeMap<Text<'a>, Text<'a>>>,
    #[serde(borrow)]
    networks: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    ports: Option<Vec<Port<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "the names are libpod's")]
struct Port<'a> {
    #[serde(borrow)]
    host_ip: Text<'a>,
    container_port: u16,
    host_port: u16,
    range: u16,
    #[serde(borrow)]
    protocol: Text<'a>,
}

/// One item of the list.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) instance: Instance,
    /// It holds a pod together, and is no instance.
    pub(crate) is_infra: bool,
    /// Id and name of its pod.
    pub(crate) pod: Option<(String, String)>,
}

/// The raw items; an error only if the body is no list at all.
pub(crate) fn items(body: &[u8]) -> serde_json::Result<Vec<&RawValue>> {
    Ok(serde_json::from_slice::<Option<Vec<&RawValue>>>(body)?.unwrap_or_default())
}

/// One item, or the failure that names it.
pub(crate) fn listed(backend: &BackendId, raw: &RawValue) -> Result<Listed, Failure> {
    let (listed, left_out) = lenient(raw.get(), |text| Ok(instance(backend, &serde_json::from_str::<Item<'_>>(text)?)))
        .map_err(|error| undecodable(raw, &error))?;
    if listed.instance.id.as_str().is_empty() {
        return Err(undecodable(raw, &"it has no id"));
    }
    if let Some(field) = left_out.iter().find(|field| matches!(field.as_str(), "State" | "IsInfra")) {
        return Err(undecodable(raw, &format!("its {field} cannot be read")));
    }
    log_left_out(backend, listed.instance.id.as_str(), &left_out);
    Ok(listed)
}

fn instance(backend: &BackendId, item: &Item<'_>) -> Listed {
    let name = item.names.iter().flatten().map(|name| &**name).find(|name| !name.is_empty()).unwrap_or_default();
    // Go's zero time, in place of a missing one, is before 1970.
    let ran = item.started_at.is_some_and(|seconds| seconds > 0);
    let state = state(&item.state, ran);
    let id = InstanceId::from(&*item.id);
    let name = container::name(name, &item.id);
    let mut instance = Instance::new(backend.clone(), id, name, InstanceKind::Container, state);
    if state.is_alive() {
        // An inspection has the last verdict of a paused container; the list's is the same, but Docker's has none.
        if state != InstanceState::Paused {
            instance.health = container::health(&item.status);
        }
        let ports = ports(item.ports.as_deref());
        // A container in a pod has the pod's ports. On the host's network it has no list of them; with pasta or slirp4netns it has
        // no network, and ports all the same (trap P12).
        let has_network = item.networks.as_ref().is_some_and(|networks| !networks.is_empty());
        instance.ports = (item.pod.is_empty() && (has_network || !ports.is_empty())).then_some(ports);
    } else if has_ended(&item.state) && item.exited == Some(true) {
        instance.exit = item.exit_code.and_then(seen);
    }
    instance.image = container::image(&item.image);
    let labels = container::labels(item.labels.as_ref());
    let pod = (!item.pod.is_empty()).then(|| (item.pod.to_string(), item.pod_name.to_string()));
    instance.group = match &pod {
        Some((_, name)) => (!name.is_empty()).then(|| container::pod(name)),
        None => container::compose(&labels),
    };
    instance.labels = Some(labels);
    instance.created_at = time(&item.created);
    Listed { instance, is_infra: item.is_infra == Some(true), pod }
}

/// Ports that are published. A port that is only exposed is not among them.
fn ports(ports: Option<&[Port<'_>]>) -> Vec<runtide_core::Port> {
    let mut table = Table::default();
    for port in ports.into_iter().flatten() {
        for offset in 0..port.range.max(1) {
            let (Some(inside), Some(outside)) =
                (port.container_port.checked_add(offset), port.host_port.checked_add(offset))
            else {
                break;
            };
            for protocol in port.protocol.split(',') {
                let protocol = if protocol.is_empty() { "tcp" } else { protocol };
                table.add(inside, protocol, published(&port.host_ip, outside));
            }
        }
    }
    table.into_ports()
}

/// The failure of an unreadable item, with its id if that can be read.
fn undecodable(raw: &RawValue, cause: &dyn std::fmt::Display) -> Failure {
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "Id")]
        id: String,
    }
    let mut failure =
        Failure::new(ErrorKind::Protocol, "podman.list", format!("one container cannot be read: {cause}"));
    if let Ok(Named { id }) = serde_json::from_str(raw.get()) {
        failure.context.insert("instance".to_owned(), id);
    }
    failure
}
