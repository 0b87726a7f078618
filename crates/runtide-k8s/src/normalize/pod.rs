//! A pod as one instance.

use std::sync::Arc;

use runtide_core::{Health, ImageRef, Incarnation, Instance, InstanceKind, InstanceState};

use super::{
    Seen, View,
    fields::{addresses, exit, group, is_node_lost, is_sidecar, labels, main, ports, status_of, time},
};
use crate::wire::{ContainerStatus, Pod};

const CRASH_LOOP: &str = "CrashLoopBackOff";

pub(super) fn instance(view: &View, pod: &Pod<'_>) -> Seen {
    let (state, reason) = state(pod);
    let (meta, spec, status) = (&pod.metadata, &pod.spec, &pod.status);
    let mut instance = Instance::new(view.backend.clone(), &*meta.uid, &*meta.name, InstanceKind::Pod, state);
    let run = restarts(pod);
    instance.incarnation = Some(Incarnation::from(format!("{}/{run}", meta.uid)));
    instance.reason = reason.map(Arc::from);
    instance.labels = Some(labels(meta, view.annotations.as_deref()));
    instance.group = Some(group(meta));
    instance.node = spec.node_name.as_deref().filter(|node| !node.is_empty()).map(str::to_owned);
    instance.created_at = time(meta.creation_timestamp.as_deref());
    instance.restarts = Some(run);
    if !state.is_ended() {
        instance.addresses = Some(addresses(status));
        let sidecars = spec.init_containers.iter().filter(|init| is_sidecar(init));
        instance.ports = Some(ports(spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports)));
    }
    instance.health = health(pod, state);
    let mut previous_exit = None;
    if let Some(main) = main(pod) {
        instance.image = main.image.as_deref().map(ImageRef::from);
        if let Some(own) = status_of(&status.container_statuses, &main.name) {
            let ended = own.state.terminated.as_ref();
            let last = own.last_state.terminated.as_ref();
            previous_exit = last.filter(|_| own.state.waiting.is_none()).and_then(exit);
            let began = own.state.running.as_ref().and_then(|running| running.started_at.as_deref());
            // A container that waits for its next run shows the last one in `lastState`.
            let over = ended.or(last.filter(|_| own.state.running.is_none()));
            instance.started_at = time(began.or_else(|| over?.started_at.as_deref()));
            if state.is_ended() {
                instance.exit = over.and_then(exit);
                instance.finished_at = time(over.and_then(|over| over.finished_at.as_deref()));
            }
        }
    }
    Seen { instance: Arc::new(instance), run, previous_exit }
}

/// Restarts of all containers that are to run until the pod ends: the column RESTARTS of kubectl.
fn restarts(pod: &Pod<'_>) -> u32 {
    let status = &pod.status;
    let sidecars = pod.spec.init_containers.iter().filter(|init| is_sidecar(init));
    let sidecars = sidecars.filter_map(|init| status_of(&status.init_container_statuses, &init.name));
    let all = status.container_statuses.iter().chain(sidecars);
    all.fold(0, |sum, one| sum.saturating_add(one.restart_count))
}

/// The state of a pod, and the word for it. Every combination has one.
fn state(pod: &Pod<'_>) -> (InstanceState, Option<String>) {
    use InstanceState::{Created, Failed, Restarting, Running, Starting, Stopped, Stopping, Unknown};
    let status = &pod.status;
    let own = status.reason.as_deref().filter(|reason| !reason.is_empty()).map(str::to_owned);
    let phase = status.phase.as_deref().unwrap_or_default();
    match phase {
        "Succeeded" => return (Stopped, own),
        "Failed" => return (Failed, own.or_else(|| failure(pod))),
        "Pending" | "Running" | "" => {}
        "Unknown" => return (Unknown, Some(own.unwrap_or_else(|| "NodeLost".to_owned()))),
        other => return (Unknown, Some(format!("phase {other}"))),
    }
    if phase == "Running" && is_node_lost(pod) {
        return (Unknown, Some(own.unwrap_or_else(|| "NodeNotReady".to_owned())));
    }
    let containers = &status.container_statuses;
    let is_any = |is: &dyn Fn(&ContainerStatus<'_>) -> bool| containers.iter().any(is);
    let runs = |one: &ContainerStatus<'_>| one.state.running.is_some();
    let ended = |one: &ContainerStatus<'_>| one.state.terminated.is_some();
    let began = |one: &ContainerStatus<'_>| runs(one) || ended(one) || one.last_state.terminated.is_some();
    let loops = |one: &ContainerStatus<'_>| waiting(one) == Some(CRASH_LOOP);

    if pod.metadata.deletion_timestamp.is_some() {
        // The grace period is for processes: a pod that has none is not stopping any more.
        let helpers = status.init_container_statuses.iter().chain(&status.ephemeral_container_statuses);
        return if is_any(&runs)
            || helpers.filter(|_| is_any(&began)).any(runs)
            || (phase == "Running" && containers.is_empty())
        {
            (Stopping, own)
        } else if is_any(&began) {
            if is_success(containers) { (Stopped, own) } else { (Failed, own.or_else(|| failure(pod))) }
        } else {
            (Created, Some("Terminating".to_owned()))
        };
    }
    if is_any(&loops) && is_any(&began) {
        return (Restarting, Some(CRASH_LOOP.to_owned()));
    }
    if phase != "Running" {
        return (Starting, Some(pending(pod)));
    }
    if is_any(&runs) || containers.is_empty() {
        return (Running, own);
    }
    let policy = pod.spec.restart_policy.as_deref().unwrap_or("Always");
    let restarts = policy == "Always" || (policy == "OnFailure" && !is_success(containers));
    match (is_any(&began), restarts) {
        (true, true) => (Restarting, containers.iter().find_map(waiting).map(str::to_owned).or_else(|| failure(pod))),
        (true, false) if is_success(containers) => (Stopped, own),
        (true, false) => (Failed, own.or_else(|| failure(pod))),
        (false, _) => (Starting, Some(pending(pod))),
    }
}

fn waiting<'p>(one: &'p ContainerStatus<'_>) -> Option<&'p str> {
    one.state.waiting.as_ref()?.reason.as_deref().filter(|reason| !reason.is_empty())
}

/// True if each container's last run ended with 0.
fn is_success(containers: &[ContainerStatus<'_>]) -> bool {
    containers.iter().all(|one| {
        one.state.terminated.as_ref().or(one.last_state.terminated.as_ref()).is_some_and(|ended| ended.exit_code == 0)
    })
}

/// The word for the first failure of a container, the main one's before others.
fn failure(pod: &Pod<'_>) -> Option<String> {
    let containers = &pod.status.container_statuses;
    let main = main(pod).and_then(|main| status_of(containers, &main.name));
    main.into_iter()
        .chain(containers)
        .chain(&pod.status.init_container_statuses)
        .filter_map(|one| one.state.terminated.as_ref().or(one.last_state.terminated.as_ref()))
        .find(|ended| ended.exit_code != 0)
        .and_then(|ended| ended.reason.as_deref())
        .map(str::to_owned)
}

/// The word for the thing that a pod waits for. There always is a word, since a field that is left open keeps its earlier value.
fn pending(pod: &Pod<'_>) -> String {
    let status = &pod.status;
    let unscheduled = status.conditions.iter().find(|one| one.kind == "PodScheduled" && one.status == "False");
    if let Some(why) = unscheduled
        && let Some(reason) = why.reason.as_deref().filter(|reason| !reason.is_empty())
    {
        return match why.message.as_deref().filter(|message| !message.is_empty()) {
            Some(message) => format!("{reason}: {message}"),
            None => reason.to_owned(),
        };
    }
    // An init container that does not get on keeps all others waiting.
    for init in &pod.spec.init_containers {
        let Some(one) = status_of(&status.init_container_statuses, &init.name) else { continue };
        if let Some(reason) = waiting(one).filter(|reason| *reason != "PodInitializing") {
            return format!("Init:{reason}");
        }
        if let Some(ended) = one.state.terminated.as_ref().filter(|ended| ended.exit_code != 0) {
            return format!("Init:{}", ended.reason.as_deref().unwrap_or("Error"));
        }
    }
    let of_container = status.container_statuses.iter().find_map(waiting);
    of_container.or(status.reason.as_deref()).unwrap_or("Pending").to_owned()
}

/// The verdict of the probes, where there are any.
fn health(pod: &Pod<'_>, state: InstanceState) -> Option<Health> {
    let spec = &pod.spec;
    let is_probed = !spec.readiness_gates.is_empty()
        || spec.containers.iter().any(|one| one.readiness_probe.is_some() || one.startup_probe.is_some());
    if !is_probed || state != InstanceState::Running {
        return None;
    }
    let ready = pod.status.conditions.iter().find(|one| one.kind == "Ready")?;
    Some(match &*ready.status {
        "True" => Health::Healthy,
        _ if pod.status.container_statuses.iter().any(|one| one.started == Some(false)) => Health::Starting,
        _ => Health::Unhealthy,
    })
}
