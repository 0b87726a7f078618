//! Fields that pods and containers share.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
    time::SystemTime,
};

use runtide_core::{Address, ExitStatus, Group, GroupKind, Labels, Port, Protocol, UnixSignal};

use crate::wire::{ContainerPort, ContainerSpec, ContainerStatus, Meta, Pod, PodStatus, Terminated};

/// Containers that count for the pod's life.
pub(super) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

pub(crate) fn time(text: Option<&str>) -> Option<SystemTime> {
    text?.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

/// A sidecar: an init container that runs with the others until the end.
pub(super) fn is_sidecar(init: &ContainerSpec<'_>) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

pub(super) fn status_of<'p, 'a>(statuses: &'p [ContainerStatus<'a>], name: &str) -> Option<&'p ContainerStatus<'a>> {
    statuses.iter().find(|status| status.name == name)
}

/// The container that the pod is about: the one that its annotation names, else the first.
pub(super) fn main<'p, 'a>(pod: &'p Pod<'a>) -> Option<&'p ContainerSpec<'a>> {
    let named = pod.metadata.annotations.get(DEFAULT_CONTAINER);
    let named = named.and_then(|name| pod.spec.containers.iter().find(|container| container.name == *name));
    named.or_else(|| pod.spec.containers.first())
}

/// The exit of a run, unless the kubelet lost the container and made a code up.
pub(crate) fn exit(ended: &Terminated<'_>) -> Option<ExitStatus> {
    let reason = ended.reason.as_deref();
    if reason == Some("ContainerStatusUnknown") {
        return None;
    }
    let signal = ended.signal.and_then(|signal| u8::try_from(signal).ok()).and_then(std::num::NonZeroU8::new);
    let status = match signal {
        Some(signal) => ExitStatus::signal(UnixSignal(signal)),
        None => ExitStatus::code(ended.exit_code),
    };
    Some(if reason == Some("OOMKilled") { status.with_oom_killed(true) } else { status })
}

/// The controller that made the pod, as kubectl names it: `deployment/web`. A ReplicaSet with the hash of a template is a Deployment's.
fn owner(meta: &Meta<'_>) -> Option<String> {
    let owner = meta.owner_references.iter().find(|owner| owner.controller == Some(true))?;
    if owner.kind == "ReplicaSet"
        && let Some(hash) = meta.labels.get("pod-template-hash")
        && let Some(deployment) = owner.name.strip_suffix(&**hash).and_then(|name| name.strip_suffix('-'))
    {
        return Some(format!("deployment/{deployment}"));
    }
    Some(format!("{}/{}", owner.kind.to_ascii_lowercase(), owner.name))
}

/// Namespace and owner of a pod.
pub(super) fn group(meta: &Meta<'_>) -> Arc<Group> {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    Arc::new(Group::new(GroupKind::Namespace, namespace).with_service(owner(meta)))
}

pub(super) fn labels(meta: &Meta<'_>, annotations: Option<&str>) -> Labels {
    let labels = meta.labels.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    let annotations = annotations.into_iter().flat_map(|prefix| {
        meta.annotations.iter().map(move |(key, value)| (format!("{prefix}{key}"), value.to_string()))
    });
    labels.chain(annotations).collect()
}

/// The addresses of a pod, of either family.
pub(super) fn addresses(status: &PodStatus<'_>) -> Vec<Address> {
    let all = status.pod_ips.iter().filter_map(|one| one.ip.as_deref()).chain(status.pod_ip.as_deref());
    let mut all: Vec<Address> = all.filter_map(|ip| Some(Address::new(ip.parse::<IpAddr>().ok()?, None))).collect();
    all.sort();
    all.dedup();
    all
}

/// Ports in order of number and protocol, each once.
pub(super) fn ports<'p>(declared: impl Iterator<Item = &'p ContainerPort<'p>>) -> Vec<Port> {
    let number = |number: i64| u16::try_from(number).ok().and_then(NonZeroU16::new);
    let mut ports: Vec<Port> = Vec::new();
    for one in declared {
        let protocol = match one.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => continue,
        };
        let Some(inside) = number(one.number) else { continue };
        let host = one.host_port.and_then(number).map(|port| {
            let ip = one.host_ip.as_deref().and_then(|ip| ip.parse().ok());
            SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port.get())
        });
        let position = ports.iter().position(|port| port.number == inside && port.protocol == protocol);
        let port = match position {
            Some(position) => ports.remove(position),
            None => Port::new(inside, protocol),
        };
        ports.push(match host {
            Some(host) => port.published_at(host),
            None => port,
        });
    }
    ports.sort_by_key(|port| (port.number, port.protocol));
    ports
}

/// True if the node's controller gave the node up: it sets `Ready` alone to false, while the kubelet's own conditions say that all is
/// well (trap K18).
pub(super) fn is_node_lost(pod: &Pod<'_>) -> bool {
    let status = &pod.status;
    if status.reason.as_deref() == Some("NodeLost") || status.phase.as_deref() == Some("Unknown") {
        return true;
    }
    let is = |kind: &str, wanted: &str| {
        status.conditions.iter().any(|condition| condition.kind == kind && condition.status == wanted)
    };
    is("Ready", "False")
        && is("ContainersReady", "True")
        && pod.spec.readiness_gates.iter().all(|gate| is(&gate.condition_type, "True"))
}
