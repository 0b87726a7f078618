//! Each container of a pod as an instance of its own.

use std::sync::Arc;

use runtide_core::{
    Group, GroupKind, Health, ImageRef, Incarnation, Instance, InstanceId, InstanceKind, InstanceState,
};

use super::{
    Seen, View,
    fields::{addresses, exit, is_node_lost, is_sidecar, labels, ports, status_of, time},
};
use crate::wire::{ContainerSpec, ContainerStatus, Pod};

/// The part that a container has in its pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Main,
    Sidecar,
    /// Runs to its end before the others begin.
    Init,
    /// Added for debugging, and never restarted.
    Ephemeral,
}

pub(super) fn instances(view: &View, pod: &Pod<'_>) -> Vec<Seen> {
    let (spec, status) = (&pod.spec, &pod.status);
    let init = spec.init_containers.iter().map(|one| {
        let role = if is_sidecar(one) { Role::Sidecar } else { Role::Init };
        (role, one, status_of(&status.init_container_statuses, &one.name))
    });
    let app = spec.containers.iter();
    let app = app.map(|one| (Role::Main, one, status_of(&status.container_statuses, &one.name)));
    let ephemeral = spec.ephemeral_containers.iter();
    let ephemeral =
        ephemeral.map(|one| (Role::Ephemeral, one, status_of(&status.ephemeral_container_statuses, &one.name)));
    init.chain(app).chain(ephemeral).map(|(role, spec, status)| instance(view, pod, role, spec, status)).collect()
}

fn instance(
    view: &View,
    pod: &Pod<'_>,
    role: Role,
    spec: &ContainerSpec<'_>,
    status: Option<&ContainerStatus<'_>>,
) -> Seen {
    let meta = &pod.metadata;
    let (state, reason) = state(pod, role, status);
    let id = InstanceId::from(format!("{}/{}", meta.uid, spec.name));
    let run = status.map_or(0, |status| status.restart_count);
    let name = format!("{}/{}", meta.name, spec.name);
    let mut instance = Instance::new(view.backend.clone(), id.clone(), name, InstanceKind::Container, state);
    instance.incarnation = Some(Incarnation::from(format!("{id}/{run}")));
    instance.reason = reason.map(Arc::from);
    instance.image = spec.image.as_deref().map(ImageRef::from);
    instance.labels = Some(labels(meta, view.annotations.as_deref()));
    let pod_name = format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name);
    instance.group = Some(Arc::new(Group::new(GroupKind::Pod, pod_name).with_service(Some(spec.name.to_string()))));
    instance.node = pod.spec.node_name.as_deref().filter(|node| !node.is_empty()).map(str::to_owned);
    instance.created_at = time(meta.creation_timestamp.as_deref());
    instance.restarts = Some(run);
    if !state.is_ended() {
        instance.addresses = Some(addresses(&pod.status));
        instance.ports = Some(ports(spec.ports.iter()));
    }
    if state == InstanceState::Running && (spec.readiness_probe.is_some() || spec.startup_probe.is_some()) {
        instance.health = status.and_then(|status| match (status.ready?, status.started) {
            (true, _) => Some(Health::Healthy),
            (false, Some(false)) => Some(Health::Starting),
            (false, _) => Some(Health::Unhealthy),
        });
    }
    let mut previous_exit = None;
    if let Some(status) = status {
        let last = status.last_state.terminated.as_ref();
        // A sidecar is killed when the pod ends: its code says nothing.
        let exit_of = |ended| if role == Role::Sidecar { None } else { exit(ended) };
        // Of a container that waits, `lastState` is the present run.
        previous_exit = last.filter(|_| status.state.waiting.is_none()).and_then(exit_of);
        let over = status.state.terminated.as_ref().or(last.filter(|_| status.state.running.is_none()));
        let began = status.state.running.as_ref().and_then(|running| running.started_at.as_deref());
        instance.started_at = time(began.or_else(|| over?.started_at.as_deref()));
        if state.is_ended() {
            instance.exit = over.and_then(exit_of);
            instance.finished_at = time(over.and_then(|over| over.finished_at.as_deref()));
        }
    }
    Seen { instance: Arc::new(instance), run, previous_exit }
}

/// The state of a container, and the word for it. Every combination has one.
fn state(pod: &Pod<'_>, role: Role, status: Option<&ContainerStatus<'_>>) -> (InstanceState, Option<String>) {
    use InstanceState::{Created, Failed, Restarting, Running, Starting, Stopped, Stopping, Unknown};
    let is_deleted = pod.metadata.deletion_timestamp.is_some();
    let is_over = matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let never = || {
        let reason = pod.status.reason.as_deref().unwrap_or(if is_deleted { "Terminating" } else { "Pending" });
        (if is_deleted || is_over { Created } else { Starting }, Some(reason.to_owned()))
    };
    let Some(status) = status else { return never() };
    let waiting = status.state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
    if status.state.running.is_some() {
        return match (is_deleted, is_node_lost(pod)) {
            (_, true) => (Unknown, Some(pod.status.reason.as_deref().unwrap_or("NodeNotReady").to_owned())),
            (true, false) => (Stopping, None),
            (false, false) => (Running, None),
        };
    }
    let ended = status.state.terminated.as_ref().or(status.last_state.terminated.as_ref());
    let Some(ended) = ended else {
        return match waiting {
            Some(reason) if !is_deleted && !is_over => (Starting, Some(reason.to_owned())),
            _ => never(),
        };
    };
    let failed = ended.exit_code != 0;
    let policy = pod.spec.restart_policy.as_deref().unwrap_or("Always");
    let is_started_again = !is_deleted
        && !is_over
        && match role {
            Role::Main => policy == "Always" || (policy == "OnFailure" && failed),
            Role::Sidecar => true,
            Role::Init => failed && policy != "Never",
            Role::Ephemeral => false,
        };
    let word = ended.reason.as_deref().filter(|reason| *reason != "Completed");
    if is_started_again {
        (Restarting, waiting.or(word).map(str::to_owned))
    } else if failed && role != Role::Sidecar {
        (Failed, word.map(str::to_owned))
    } else {
        (Stopped, None)
    }
}
