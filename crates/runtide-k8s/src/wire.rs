//! The parts of the server's objects that are read. All else, `managedFields` above all, is skipped and never kept.
//!
//! Not k8s-openapi's types: they fail as a whole where one field has another form than their version knows, and hold whole pods.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

type Text<'a> = Cow<'a, str>;

/// Go writes an empty list or map as `null` too.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// One line of a watch.
#[derive(Deserialize)]
pub(crate) struct Event<'a> {
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Text<'a>,
    #[serde(borrow)]
    pub(crate) object: &'a RawValue,
}

/// One page of a listing.
#[derive(Deserialize)]
pub(crate) struct Page<'a> {
    #[serde(default, borrow)]
    pub(crate) metadata: ListMeta<'a>,
    #[serde(default, borrow, deserialize_with = "nullable")]
    pub(crate) items: Vec<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ListMeta<'a> {
    #[serde(borrow)]
    pub(crate) resource_version: Option<Text<'a>>,
    #[serde(rename = "continue", borrow)]
    pub(crate) next: Option<Text<'a>>,
    pub(crate) remaining_item_count: Option<u64>,
}

/// Name of an object that cannot be decoded, as far as it can be read.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Named {
    pub(crate) metadata: NamedMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NamedMeta {
    pub(crate) uid: serde_json::Value,
    pub(crate) name: serde_json::Value,
    pub(crate) namespace: serde_json::Value,
    pub(crate) resource_version: serde_json::Value,
}

#[derive(Deserialize)]
pub(crate) struct Pod<'a> {
    #[serde(borrow)]
    pub(crate) metadata: Meta<'a>,
    #[serde(default, borrow, deserialize_with = "nullable")]
    pub(crate) spec: Spec<'a>,
    #[serde(default, borrow, deserialize_with = "nullable")]
    pub(crate) status: PodStatus<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta<'a> {
    #[serde(borrow)]
    pub(crate) uid: Text<'a>,
    #[serde(borrow)]
    pub(crate) name: Text<'a>,
    #[serde(default, borrow)]
    pub(crate) namespace: Option<Text<'a>>,
    #[serde(default, borrow)]
    pub(crate) resource_version: Option<Text<'a>>,
    #[serde(default, borrow)]
    pub(crate) creation_timestamp: Option<Text<'a>>,
    #[serde(default, borrow)]
    pub(crate) deletion_timestamp: Option<Text<'a>>,
    #[serde(default, borrow, deserialize_with = "nullable")]
    pub(crate) labels: BTreeMap<Text<'a>, Text<'a>>,
    #[serde(default, borrow, deserialize_with = "nullable")]
    pub(crate) annotations: BTreeMap<Text<'a>, Text<'a>>,
    #[serde(default, borrow, deserialize_with = "nullable")]
    pub(crate) owner_references: Vec<Owner<'a>>,
    #[serde(default, borrow, deserialize_with = "nullable")]
    pub(crate) finalizers: Vec<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Owner<'a> {
    #[serde(borrow)]
    pub(crate) kind: Text<'a>,
    #[serde(borrow)]
    pub(crate) name: Text<'a>,
    pub(crate) controller: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec<'a> {
    #[serde(borrow)]
    pub(crate) node_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) restart_policy: Option<Text<'a>>,
    pub(crate) host_network: Option<bool>,
    pub(crate) termination_grace_period_seconds: Option<u32>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) containers: Vec<ContainerSpec<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) init_containers: Vec<ContainerSpec<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) ephemeral_containers: Vec<ContainerSpec<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) readiness_gates: Vec<Gate<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Gate<'a> {
    #[serde(borrow)]
    pub(crate) condition_type: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerSpec<'a> {
    #[serde(borrow)]
    pub(crate) name: Text<'a>,
    #[serde(borrow)]
    pub(crate) image: Option<Text<'a>>,
    /// Of an init container: `Always` makes it a sidecar.
    #[serde(borrow)]
    pub(crate) restart_policy: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) ports: Vec<ContainerPort<'a>>,
    pub(crate) tty: Option<bool>,
    pub(crate) stdin: Option<bool>,
    /// The input ends with the first that was attached to it.
    pub(crate) stdin_once: Option<bool>,
    pub(crate) readiness_probe: Option<IgnoredAny>,
    pub(crate) startup_probe: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerPort<'a> {
    #[serde(rename = "containerPort")]
    pub(crate) number: i64,
    pub(crate) host_port: Option<i64>,
    #[serde(rename = "hostIP", borrow)]
    pub(crate) host_ip: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) protocol: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus<'a> {
    #[serde(borrow)]
    pub(crate) phase: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) reason: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) conditions: Vec<Condition<'a>>,
    #[serde(rename = "podIP", borrow)]
    pub(crate) pod_ip: Option<Text<'a>>,
    #[serde(rename = "podIPs", borrow, deserialize_with = "nullable")]
    pub(crate) pod_ips: Vec<PodIp<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) container_statuses: Vec<ContainerStatus<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) init_container_statuses: Vec<ContainerStatus<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) ephemeral_container_statuses: Vec<ContainerStatus<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodIp<'a> {
    #[serde(borrow)]
    pub(crate) ip: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Condition<'a> {
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Text<'a>,
    #[serde(borrow)]
    pub(crate) status: Text<'a>,
    #[serde(borrow)]
    pub(crate) reason: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) message: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatus<'a> {
    #[serde(borrow)]
    pub(crate) name: Text<'a>,
    pub(crate) restart_count: u32,
    pub(crate) started: Option<bool>,
    pub(crate) ready: Option<bool>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) state: ContainerState<'a>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) last_state: ContainerState<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerState<'a> {
    #[serde(borrow)]
    pub(crate) waiting: Option<Waiting<'a>>,
    #[serde(borrow)]
    pub(crate) running: Option<Running<'a>>,
    #[serde(borrow)]
    pub(crate) terminated: Option<Terminated<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Waiting<'a> {
    #[serde(borrow)]
    pub(crate) reason: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Running<'a> {
    #[serde(borrow)]
    pub(crate) started_at: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Terminated<'a> {
    pub(crate) exit_code: i32,
    pub(crate) signal: Option<i64>,
    #[serde(borrow)]
    pub(crate) reason: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) started_at: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) finished_at: Option<Text<'a>>,
}
