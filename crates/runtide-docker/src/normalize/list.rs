//! Items of `/containers/json`, each decoded separately, so that an unreadable one hides no other (traps D17, D19).

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use runtide_core::{BackendId, ErrorKind, ExitStatus, Failure, Instance, InstanceId, InstanceKind, InstanceState};
use runtide_engine::{
    Text, lenient, log_left_out,
    network::{self, ListedPort, Networks, Stack},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{container, state, status};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Item<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    names: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    image: Text<'a>,
    created: Option<i64>,
    #[serde(borrow)]
    state: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    /// Health as a field of its own, since API 1.52.
    #[serde(borrow)]
    health: Option<Health<'a>>,
    #[serde(borrow)]
    labels: Option<BTreeMap<Text<'a>, Text<'a>>>,
    #[serde(borrow)]
    ports: Option<Vec<ListedPort<'a>>>,
    #[serde(borrow)]
    host_config: Option<HostConfig<'a>>,
    #[serde(borrow)]
    network_settings: Option<NetworkSettings<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Health<'a> {
    #[serde(borrow)]
    status: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct HostConfig<'a> {
    #[serde(borrow)]
    pub(super) network_mode: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings<'a> {
    #[serde(borrow)]
    networks: Option<Networks<'a>>,
}

/// The raw items; an error only if the body is no list at all.
pub(crate) fn items(body: &[u8]) -> serde_json::Result<Vec<&RawValue>> {
    Ok(serde_json::from_slice::<Option<Vec<&RawValue>>>(body)?.unwrap_or_default())
}

/// One item, or the failure that names it.
pub(crate) fn listed(backend: &BackendId, raw: &RawValue) -> Result<Instance, Failure> {
    let (instance, left_out) =
        lenient(raw.get(), |text| Ok(instance(backend, &serde_json::from_str::<Item<'_>>(text)?)))
            .map_err(|error| undecodable(raw, &error))?;
    if instance.id.as_str().is_empty() {
        return Err(undecodable(raw, &"it has no id"));
    }
    if left_out.iter().any(|field| field == "State") {
        return Err(undecodable(raw, &"its state cannot be read"));
    }
    log_left_out(backend, instance.id.as_str(), &left_out);
    Ok(instance)
}

fn instance(backend: &BackendId, item: &Item<'_>) -> Instance {
    let id = InstanceId::from(&*item.id);
    let names = item.names.iter().flatten().map(|name| &**name);
    let state = state(&item.state);
    let mut instance =
        Instance::new(backend.clone(), id, container::name(names, &item.id), InstanceKind::Container, state);
    let status = status::parse(&item.status);
    if state.is_alive() {
        let stack = Stack::of(item.host_config.as_ref().map_or("", |config| &config.network_mode));
        // The status line of a paused container has no health. Since 1.52 the list has a field for it, but a summary should not
        // depend on the version; an inspection has the last verdict.
        if state != InstanceState::Paused {
            instance.health = item.health.as_ref().and_then(|health| status::health(&health.status)).or(status.health);
        }
        instance.ports = network::listed_ports(stack, item.ports.as_deref());
        instance.addresses =
            network::addresses(stack, item.network_settings.as_ref().and_then(|settings| settings.networks.as_ref()));
    } else {
        instance.exit = status.exit_code.map(ExitStatus::code);
    }
    instance.image = container::image(&item.image);
    let labels = container::labels(item.labels.as_ref());
    instance.group = container::group(&labels);
    instance.labels = Some(labels);
    instance.created_at = item.created.and_then(|seconds| {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().ok().filter(|seconds| *seconds > 0)?))
    });
    instance
}

/// The failure of an unreadable item, with its id if that can be read.
fn undecodable(raw: &RawValue, cause: &dyn std::fmt::Display) -> Failure {
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "Id")]
        id: String,
    }
    let mut failure =
        Failure::new(ErrorKind::Protocol, "docker.list", format!("one container cannot be read: {cause}"));
    if let Ok(Named { id }) = serde_json::from_str(raw.get()) {
        failure.context.insert("instance".to_owned(), id);
    }
    failure
}
