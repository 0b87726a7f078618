//! The mapping, value by value.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::needless_pass_by_value, reason = "states are written where they are used")]

use std::time::{Duration, SystemTime};

use runtide_core::{ExitCause, ExitStatus, Group, GroupKind, Health, InstanceState, Protocol, UnixSignal};
use serde_json::{Value, json};

use super::*;
use crate::access::Access;

fn view(granularity: Granularity) -> View {
    View::of(&Config::new(Access::new("http://h")).with_granularity(granularity))
}

fn seen_with(view: &View, pod: &Value) -> Vec<Seen> {
    let text = pod.to_string();
    view.instances(&serde_json::from_str(&text).unwrap())
}

fn seen(pod: &Value) -> Seen {
    seen_with(&view(Granularity::Pod), pod).remove(0)
}

/// A pod with one container `main`, of this status and state.
fn pod(phase: &str, state: Value) -> Value {
    let mut pod = json!({
        "metadata": {"uid": "u1", "name": "web-0", "namespace": "prod", "creationTimestamp": "2026-11-30T12:00:00Z"},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}], "restartPolicy": "Always"},
        "status": {"phase": phase}
    });
    if !state.is_null() {
        pod["status"]["containerStatuses"] = json!([{"name": "main", "restartCount": 0, "state": state}]);
    }
    pod
}

fn with(mut pod: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap()[key] = value;
    pod
}

fn running() -> Value {
    json!({"running": {"startedAt": "2026-11-30T12:00:01Z"}})
}

fn waiting(reason: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": "x"}})
}

fn ended(code: i32, reason: &str) -> Value {
    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": "2026-11-30T12:00:01Z", "finishedAt": "2026-11-30T12:00:02Z"}})
}

fn deleted(pod: Value) -> Value {
    with(pod, "/metadata/deletionTimestamp", json!("2026-11-30T12:01:00Z"))
}

fn again(pod: Value, last: Value) -> Value {
    let pod = with(pod, "/status/containerStatuses/0/lastState", last);
    with(pod, "/status/containerStatuses/0/restartCount", json!(3))
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status})
}

#[test]
fn every_combination_has_its_state_and_its_word() {
    use InstanceState::*;
    let unschedulable = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]);
    let lost = json!([condition("Ready", "False"), condition("ContainersReady", "True")]);
    let none = Value::Null;
    let policy = |pod: Value, policy: &str| with(pod, "/spec/restartPolicy", json!(policy));
    let init = |pod: Value, state: Value, restart: Value| {
        let pod = with(pod, "/spec/initContainers", json!([{"name": "i", "restartPolicy": restart}]));
        with(pod, "/status/initContainerStatuses", json!([{"name": "i", "restartCount": 0, "state": state}]))
    };
    let table: Vec<(&str, Value, InstanceState, Option<&str>)> = vec![
        ("fresh", pod("Pending", none.clone()), Starting, Some("Pending")),
        ("no phase yet", pod("", none.clone()), Starting, Some("Pending")),
        (
            "unschedulable",
            with(pod("Pending", none.clone()), "/status/conditions", unschedulable),
            Starting,
            Some("Unschedulable: 0/3 nodes are available"),
        ),
        ("creating", pod("Pending", waiting("ContainerCreating")), Starting, Some("ContainerCreating")),
        ("pulling fails", pod("Pending", waiting("ErrImagePull")), Starting, Some("ErrImagePull")),
        ("pulling backs off", pod("Pending", waiting("ImagePullBackOff")), Starting, Some("ImagePullBackOff")),
        (
            "init fails",
            init(pod("Pending", waiting("PodInitializing")), waiting("CrashLoopBackOff"), none.clone()),
            Starting,
            Some("Init:CrashLoopBackOff"),
        ),
        (
            "init failed",
            init(pod("Pending", waiting("PodInitializing")), ended(1, "Error"), none.clone()),
            Starting,
            Some("Init:Error"),
        ),
        (
            "init runs",
            init(pod("Pending", waiting("PodInitializing")), running(), none.clone()),
            Starting,
            Some("PodInitializing"),
        ),
        ("runs", pod("Running", running()), Running, None),
        ("runs without statuses", pod("Running", none.clone()), Running, None),
        (
            "runs with a sidecar that crashes",
            init(pod("Running", running()), waiting("CrashLoopBackOff"), json!("Always")),
            Running,
            None,
        ),
        (
            "crash loop",
            again(pod("Running", waiting("CrashLoopBackOff")), ended(1, "Error")),
            Restarting,
            Some("CrashLoopBackOff"),
        ),
        ("ended, to be started again", pod("Running", ended(1, "OOMKilled")), Restarting, Some("OOMKilled")),
        (
            "created again",
            again(pod("Running", waiting("ContainerCreating")), ended(1, "Error")),
            Restarting,
            Some("ContainerCreating"),
        ),
        ("failed and on failure", policy(pod("Running", ended(1, "Error")), "OnFailure"), Restarting, Some("Error")),
        ("done and on failure", policy(pod("Running", ended(0, "Completed")), "OnFailure"), Stopped, None),
        ("failed and never", policy(pod("Running", ended(3, "Error")), "Never"), Failed, Some("Error")),
        ("succeeded", pod("Succeeded", ended(0, "Completed")), Stopped, None),
        ("failed", pod("Failed", ended(3, "Error")), Failed, Some("Error")),
        ("out of memory", pod("Failed", ended(137, "OOMKilled")), Failed, Some("OOMKilled")),
        ("evicted", with(pod("Failed", none.clone()), "/status/reason", json!("Evicted")), Failed, Some("Evicted")),
        (
            "node lost, failed",
            with(pod("Failed", none.clone()), "/status/reason", json!("NodeLost")),
            Failed,
            Some("NodeLost"),
        ),
        ("node lost", with(pod("Running", running()), "/status/reason", json!("NodeLost")), Unknown, Some("NodeLost")),
        (
            "node not ready",
            with(pod("Running", running()), "/status/conditions", lost.clone()),
            Unknown,
            Some("NodeNotReady"),
        ),
        (
            "node not ready, deleted",
            deleted(with(pod("Running", running()), "/status/conditions", lost)),
            Unknown,
            Some("NodeNotReady"),
        ),
        ("phase unknown", pod("Unknown", running()), Unknown, Some("NodeLost")),
        ("a phase of later servers", pod("Hibernating", running()), Unknown, Some("phase Hibernating")),
        ("stopping", deleted(pod("Running", running())), Stopping, None),
        ("stopped, and still there", deleted(pod("Running", ended(0, "Completed"))), Stopped, None),
        ("killed, and still there", deleted(pod("Running", ended(137, "Error"))), Failed, Some("Error")),
        ("deleted before it ran", deleted(pod("Pending", waiting("ContainerCreating"))), Created, Some("Terminating")),
        ("deleted before it was scheduled", deleted(pod("Pending", none)), Created, Some("Terminating")),
    ];
    for (what, pod, state, reason) in table {
        let instance = seen(&pod).instance;
        assert_eq!((instance.state, instance.reason.as_deref()), (state, reason), "{what}");
    }
}

#[test]
fn one_of_two_containers_decides_as_kubectl_shows_it() {
    let two = |phase: &str, first: Value, second: Value| {
        let mut pod = pod(phase, first);
        pod["spec"]["containers"] = json!([{"name": "main"}, {"name": "two"}]);
        pod["status"]["containerStatuses"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "two", "restartCount": 2, "state": second, "lastState": ended(5, "Error")}));
        seen(&pod).instance
    };
    let crashing = two("Running", running(), waiting("CrashLoopBackOff"));
    assert_eq!((crashing.state, crashing.restarts), (InstanceState::Restarting, Some(2)));
    assert_eq!(crashing.exit, None, "the main container has not ended");
    assert_eq!(two("Running", running(), ended(0, "Completed")).state, InstanceState::Running);
    assert_eq!(two("Pending", running(), waiting("ImagePullBackOff")).state, InstanceState::Starting);
}

#[test]
fn the_fields_of_a_pod() {
    let pod = json!({
        "metadata": {
            "uid": "u1", "name": "web-5d4f-x", "namespace": "prod", "creationTimestamp": "2026-11-30T12:00:00Z",
            "labels": {"app": "web", "pod-template-hash": "5d4f"}, "annotations": {"note": "x"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d4f", "controller": true}],
            "managedFields": [{"manager": "m", "fieldsV1": {"f:x": {}}}]
        },
        "spec": {"nodeName": "n1", "containers": [
            {"name": "helper", "image": "helper:1", "ports": [{"containerPort": 9000, "protocol": "UDP"}]},
            {"name": "main", "image": "web:2", "readinessProbe": {}, "ports": [
                {"containerPort": 443}, {"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"}, {"containerPort": 0}
            ]}
        ]},
        "status": {"phase": "Running", "podIP": "10.1.0.7", "podIPs": [{"ip": "10.1.0.7"}, {"ip": "fd00::7"}],
            "conditions": [condition("Ready", "True")],
            "containerStatuses": [
                {"name": "helper", "restartCount": 1, "state": running()},
                {"name": "main", "restartCount": 2, "state": running(), "lastState": ended(9, "Error")}
            ]}
    });
    let mut pod = pod;
    pod["metadata"]["annotations"] = json!({"note": "x", "kubectl.kubernetes.io/default-container": "main"});
    let one = seen(&pod);
    let instance = &one.instance;
    assert_eq!((instance.id.as_str(), instance.name.as_str()), ("u1", "web-5d4f-x"));
    assert_eq!(instance.incarnation.as_ref().unwrap().as_str(), "u1/3");
    assert_eq!((one.run, one.previous_exit), (3, Some(ExitStatus::code(9))));
    assert_eq!(instance.restarts, Some(3));
    assert_eq!(instance.image.as_ref().unwrap().as_str(), "web:2");
    let group = Group::new(GroupKind::Namespace, "prod").with_service(Some("deployment/web".to_owned()));
    assert_eq!(instance.group.as_deref(), Some(&group));
    assert_eq!(instance.node.as_deref(), Some("n1"));
    assert_eq!(instance.health, Some(Health::Healthy));
    let labels = instance.labels.as_ref().unwrap();
    assert_eq!((labels.get("app"), labels.get("note"), labels.len()), (Some("web"), None, 2));
    let ports = instance.ports.as_ref().unwrap();
    let shown: Vec<_> = ports.iter().map(|port| (port.number.get(), port.protocol, port.published.len())).collect();
    assert_eq!(shown, [(80, Protocol::Tcp, 1), (443, Protocol::Tcp, 0), (9000, Protocol::Udp, 0)]);
    assert_eq!(ports[0].published, ["10.0.0.1:8080".parse().unwrap()]);
    let addresses: Vec<_> = instance.addresses.iter().flatten().map(|one| one.ip.to_string()).collect();
    assert_eq!(addresses, ["10.1.0.7", "fd00::7"]);
    let created = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_040_000);
    assert_eq!(instance.created_at, Some(created));
    assert_eq!(instance.started_at, Some(created + Duration::from_secs(1)));
    assert_eq!((instance.exit, instance.finished_at), (None, None));

    let annotated = View::of(&Config::new(Access::new("http://h")).with_annotations("annotation/"));
    let labels = seen_with(&annotated, &pod).remove(0).instance.labels.clone().unwrap();
    assert_eq!(labels.get("annotation/note"), Some("x"));
}

#[test]
fn owners_are_named_as_kubectl_names_them() {
    let owned = |kind: &str, name: &str| {
        let owner = json!([{"kind": kind, "name": name, "controller": true}]);
        let group = seen(&with(pod("Running", running()), "/metadata/ownerReferences", owner)).instance.group.clone();
        group.unwrap().service.clone()
    };
    assert_eq!(owned("StatefulSet", "db").as_deref(), Some("statefulset/db"));
    assert_eq!(owned("ReplicaSet", "bare").as_deref(), Some("replicaset/bare"), "without the hash of a template");
    assert_eq!(owned("Node", "n1").as_deref(), Some("node/n1"), "a mirror of a static pod");
    assert_eq!(seen(&pod("Running", running())).instance.group.as_ref().unwrap().service, None);
}

#[test]
fn an_exit_is_what_the_kubelet_saw() {
    let exit = |state: Value| seen(&pod("Failed", state)).instance.exit;
    assert_eq!(exit(ended(137, "Error")).unwrap().end, ExitCause::Code(137), "never a signal that was not reported");
    assert_eq!(exit(ended(137, "OOMKilled")).unwrap().oom_killed, Some(true));
    let signalled = json!({"terminated": {"exitCode": 0, "signal": 15}});
    assert_eq!(exit(signalled).unwrap().end, ExitCause::Signal(UnixSignal::TERM));
    assert_eq!(exit(ended(137, "ContainerStatusUnknown")), None, "the kubelet made it up");
    assert_eq!(exit(Value::Null), None);
    let looping = seen(&again(pod("Running", waiting("CrashLoopBackOff")), ended(7, "Error")));
    assert_eq!(looping.instance.exit, Some(ExitStatus::code(7)));
    assert_eq!((looping.run, looping.previous_exit), (3, None), "`lastState` is the present run");
    assert!(looping.instance.finished_at.is_some());
}

#[test]
fn health_is_the_probes_verdict_and_nothing_without_one() {
    let health = |ready: &str, started: Value, probe: Value| {
        let pod = with(
            pod("Running", running()),
            "/status/conditions",
            json!([condition("Ready", ready), condition("ContainersReady", ready)]),
        );
        let pod = with(pod, "/status/containerStatuses/0/started", started);
        seen(&with(pod, "/spec/containers/0/readinessProbe", probe)).instance.health
    };
    assert_eq!(health("True", json!(true), json!({})), Some(Health::Healthy));
    assert_eq!(health("False", json!(true), json!({})), Some(Health::Unhealthy));
    assert_eq!(health("False", json!(false), json!({})), Some(Health::Starting));
    assert_eq!(health("True", json!(true), Value::Null), None);
    let gated = with(pod("Running", running()), "/spec/readinessGates", json!([{"conditionType": "lb"}]));
    let gated =
        with(gated, "/status/conditions", json!([condition("Ready", "False"), condition("ContainersReady", "True")]));
    let gated = seen(&gated).instance;
    assert_eq!((gated.state, gated.health), (InstanceState::Running, Some(Health::Unhealthy)), "its gate is not open");
}

#[test]
fn each_container_is_an_instance_in_the_group_of_its_pod() {
    let mut pod = pod("Running", running());
    pod["spec"]["initContainers"] = json!([{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}]);
    pod["spec"]["ephemeralContainers"] = json!([{"name": "debug"}]);
    pod["status"]["initContainerStatuses"] = json!([
        {"name": "setup", "state": ended(0, "Completed")},
        {"name": "proxy", "restartCount": 4, "state": waiting("CrashLoopBackOff"), "lastState": ended(1, "Error")}
    ]);
    let all = seen_with(&view(Granularity::Container), &pod);
    let shown: Vec<_> = all.iter().map(|one| (one.instance.id.as_str(), one.instance.state)).collect();
    assert_eq!(
        shown,
        [
            ("u1/setup", InstanceState::Stopped),
            ("u1/proxy", InstanceState::Restarting),
            ("u1/main", InstanceState::Running),
            ("u1/debug", InstanceState::Starting),
        ]
    );
    let proxy = &all[1].instance;
    assert_eq!((proxy.name.as_str(), proxy.exit), ("web-0/proxy", None), "a sidecar's code says nothing");
    assert_eq!(proxy.incarnation.as_ref().unwrap().as_str(), "u1/proxy/4");
    let group = Group::new(GroupKind::Pod, "prod/web-0").with_service(Some("proxy".to_owned()));
    assert_eq!(proxy.group.as_deref(), Some(&group));
    assert_eq!(all[0].instance.exit, Some(ExitStatus::code(0)));

    let over = with(pod.clone(), "/status/phase", json!("Failed"));
    let states: Vec<_> = seen_with(&view(Granularity::Container), &over).iter().map(|one| one.instance.state).collect();
    assert_eq!(states[3], InstanceState::Created, "never started, and never will be");
    let states: Vec<_> =
        seen_with(&view(Granularity::Container), &deleted(pod)).iter().map(|one| one.instance.state).collect();
    assert_eq!(states[2], InstanceState::Stopping);
}

#[test]
fn null_lists_and_unknown_fields_are_read() {
    let pod = json!({
        "metadata": {"uid": "u1", "name": "a", "labels": null, "annotations": null, "ownerReferences": null, "later": {}},
        "spec": {"containers": null, "initContainers": null}, "status": null
    });
    let instance = seen(&pod).instance;
    assert_eq!((instance.state, instance.labels.as_ref().unwrap().len()), (InstanceState::Starting, 0));
}
