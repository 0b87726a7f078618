use std::time::{Duration, SystemTime};

use runtide_core::{BackendId, Group, GroupKind, Health, InstanceState, Port, Protocol, event::ResumeToken};
use serde_json::{Value, json, value::RawValue};

use super::*;

fn backend() -> BackendId {
    BackendId::from("podman:test")
}

/// A listed container as Podman 4.3.1 shows it, with these fields instead.
fn item(with: &Value) -> Value {
    let mut item = json!({
        "AutoRemove": false, "Command": ["sh"], "Created": "2026-11-30T15:21:56.522539136Z", "CreatedAt": "", "Exited": false,
        "ExitedAt": -62_135_596_800i64, "ExitCode": 0, "Id": "acd5d78c938fa95e", "Image": "localhost/busybox:latest",
        "ImageID": "c136e76a", "IsInfra": false, "Labels": {"a": "b"}, "Mounts": [], "Names": ["web"], "Namespaces": {},
        "Networks": ["podman"], "Pid": 7, "Pod": "", "PodName": "", "Ports": null, "Size": null, "StartedAt": 1_796_052_116,
        "State": "running", "Status": "",
    });
    for (key, value) in with.as_object().unwrap() {
        item[key] = value.clone();
    }
    item
}

fn of_list(with: &Value) -> Listed {
    let raw = RawValue::from_string(item(with).to_string()).unwrap();
    listed(&backend(), &raw).unwrap()
}

/// The same container inspected.
fn of_inspect(with: &Value) -> Inspected {
    let mut found = json!({
        "Id": "acd5d78c938fa95e", "Created": "2026-11-30T15:21:56.522539136Z", "Name": "web",
        "ImageName": "localhost/busybox:latest", "Pod": "", "IsInfra": false, "RestartCount": 2,
        "State": {"Status": "running", "OOMKilled": false, "ExitCode": 0, "StartedAt": "2026-11-30T15:21:56.959629759Z",
            "FinishedAt": "0001-01-01T00:00:00Z", "Health": {"Status": "", "Log": null}},
        "Config": {"Labels": {"a": "b"}}, "HostConfig": {"NetworkMode": "bridge", "PortBindings": {}},
        "NetworkSettings": {"Networks": {"podman": {"IPAddress": "10.88.0.4", "GlobalIPv6Address": ""}}},
    });
    for (key, value) in with.as_object().unwrap() {
        found[key] = value.clone();
    }
    inspected(&backend(), found.to_string().as_bytes()).unwrap()
}

#[test]
fn every_word_for_a_state_has_its_state() {
    for (word, before, after) in [
        ("created", InstanceState::Created, InstanceState::Stopped),
        ("initialized", InstanceState::Created, InstanceState::Stopped),
        ("running", InstanceState::Running, InstanceState::Running),
        ("paused", InstanceState::Paused, InstanceState::Paused),
        ("stopping", InstanceState::Stopping, InstanceState::Stopping),
        ("stopped", InstanceState::Stopped, InstanceState::Stopped),
        ("exited", InstanceState::Stopped, InstanceState::Stopped),
        ("removing", InstanceState::Stopped, InstanceState::Stopped),
        ("bad state", InstanceState::Unknown, InstanceState::Unknown),
    ] {
        assert_eq!((state(word, false), state(word, true)), (before, after), "{word}");
    }
}

#[test]
fn list_and_inspection_agree_in_every_field_that_both_have() {
    let ports = json!([
        {"host_ip": "127.0.0.1", "container_port": 80, "host_port": 18_080, "range": 1, "protocol": "tcp"},
        {"host_ip": "", "container_port": 5_000, "host_port": 15_000, "range": 2, "protocol": "udp"},
    ]);
    let bindings = json!({"NetworkMode": "bridge", "PortBindings": {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18080"}], "9000/tcp": null,
        "5000/udp": [{"HostIp": "", "HostPort": "15000"}], "5001/udp": [{"HostIp": "", "HostPort": "15001"}],
    }});
    let listed = of_list(&json!({"Ports": ports})).instance;
    let full = of_inspect(&json!({"HostConfig": bindings})).instance;
    assert_eq!(summary(&full).ports, listed.ports);
    let port = |number: u16, protocol| Port::new(number.try_into().unwrap(), protocol);
    assert_eq!(
        listed.ports.unwrap(),
        [
            port(80, Protocol::Tcp).published_at("127.0.0.1:18080".parse().unwrap()),
            port(5_000, Protocol::Udp).published_at("0.0.0.0:15000".parse().unwrap()),
            port(5_001, Protocol::Udp).published_at("0.0.0.0:15001".parse().unwrap()),
        ]
    );
    for (list, inspect) in [
        (json!({}), json!({})),
        (
            json!({"State": "exited", "Exited": true, "ExitCode": 7}),
            json!({"State": {"Status": "exited", "ExitCode": 7, "StartedAt": "2026-11-30T15:21:56.9Z", "FinishedAt": "2026-11-30T15:21:57.1Z"}}),
        ),
        (
            json!({"State": "created", "Exited": false, "StartedAt": -62_135_596_800i64}),
            json!({"State": {"Status": "created", "ExitCode": 0, "StartedAt": "0001-01-01T00:00:00Z"}}),
        ),
        (
            json!({"State": "initialized", "ExitCode": 0}),
            json!({"State": {"Status": "initialized", "ExitCode": 0, "StartedAt": "2026-11-30T15:21:56.9Z", "FinishedAt": "2026-11-30T15:21:57.1Z"}}),
        ),
        (
            json!({"Networks": [], "Labels": null}),
            json!({"HostConfig": {"NetworkMode": "host"}, "Config": {"Labels": null}}),
        ),
    ] {
        let (listed, mut inspected) = (of_list(&list).instance, summary(&of_inspect(&inspect).instance));
        inspected.addresses = None;
        assert!(listed.differences(&inspected).is_empty(), "{list}: {:?}", listed.differences(&inspected));
    }
}

#[test]
fn a_run_that_was_made_ready_again_has_no_exit() {
    let state = json!({"Status": "created", "ExitCode": 0, "StartedAt": "2026-11-30T15:21:56.9Z", "FinishedAt": "2026-11-30T15:21:57.1Z"});
    let again = of_inspect(&json!({ "State": state })).instance;
    assert_eq!((again.state, again.exit), (InstanceState::Stopped, None));
    assert_eq!(of_list(&json!({"State": "exited", "Exited": false})).instance.exit, None);
}

#[test]
fn want_of_memory_counts_only_with_the_kernels_code() {
    assert_eq!(exit(137, Some(true)).unwrap().oom_killed, Some(true));
    assert_eq!(exit(137, Some(false)).unwrap().oom_killed, None, "Podman does not always notice");
    assert_eq!(exit(0, Some(true)).unwrap().oom_killed, None, "the mark may be of an earlier run");
    assert_eq!(exit(3, Some(false)).unwrap().oom_killed, Some(false));
    assert_eq!(exit(-1, Some(false)), None, "Podman found no code");
}

#[test]
fn a_pods_members_are_grouped_and_its_infra_container_is_marked() {
    let pod = json!({"Pod": "d869db4a3ed9c08f", "PodName": "shop", "Networks": []});
    let member = of_list(&pod);
    assert_eq!(member.instance.group.as_deref(), Some(&Group::new(GroupKind::Pod, "shop")));
    assert_eq!((member.is_infra, member.instance.ports), (false, None), "the ports are the pod's");
    assert!(of_list(&json!({"IsInfra": true})).is_infra);
    assert!(of_inspect(&json!({"IsInfra": true, "Pod": "d869"})).is_infra);
    let compose = json!({"Labels": {"io.podman.compose.project": "shop", "com.docker.compose.service": "web"}});
    let group = of_list(&compose).instance.group.unwrap();
    assert_eq!((group.kind, group.name.as_str(), group.service.as_deref()), (GroupKind::Compose, "shop", Some("web")));
}

#[test]
fn a_bad_item_is_a_failure_with_its_id_and_a_bad_field_is_unknown() {
    let raw = |value: Value| RawValue::from_string(value.to_string()).unwrap();
    let failure = listed(&backend(), &raw(item(&json!({"State": 7})))).unwrap_err();
    assert_eq!(failure.context["instance"], "acd5d78c938fa95e");
    listed(&backend(), &raw(item(&json!({"Id": ["a"]})))).unwrap_err();
    let odd =
        of_list(&json!({"ExitCode": 1e30, "Labels": [1], "Status": {"new": 1}, "Ports": [{"container_port": 70_000}]}));
    assert_eq!((odd.instance.state, odd.instance.exit), (InstanceState::Running, None));
    assert_eq!(items(b"null").unwrap().len(), 0);
    assert!(items(b"{}").is_err());
}

#[test]
fn health_is_known_of_what_runs() {
    assert_eq!(of_list(&json!({"Status": "healthy"})).instance.health, Some(Health::Healthy));
    assert_eq!(of_list(&json!({"Status": "healthy", "State": "paused"})).instance.health, None);
    assert_eq!(of_list(&json!({"Status": "unhealthy", "State": "exited"})).instance.health, None);
}

fn event(action: &str, attributes: &Value) -> String {
    json!({
        "status": action, "id": "acd5d78c938fa95e", "Type": "container", "Action": action,
        "Actor": {"ID": "acd5d78c938fa95e", "Attributes": attributes},
        "scope": "local", "time": 1_796_052_117, "timeNano": 1_796_052_117_261_530_640u64,
    })
    .to_string()
}

#[test]
fn an_exit_code_is_taken_from_died_alone() {
    let attributes =
        json!({"a": "b", "containerExitCode": "7", "image": "localhost/busybox:latest", "name": "web", "podId": ""});
    let text = event("died", &attributes);
    let died: Event<'_> = serde_json::from_str(&text).unwrap();
    assert_eq!((died.action(), died.exit_code(), died.pod()), (Action::Died, Some(7), None));
    assert_eq!(died.token(), Some(ResumeToken::from("1796052117.261530640 died acd5d78c938f")));
    assert_eq!(died.at(), Some(SystemTime::UNIX_EPOCH + Duration::new(1_796_052_117, 261_530_640)));
    let text = event("remove", &attributes);
    let removed: Event<'_> = serde_json::from_str(&text).unwrap();
    assert_eq!((removed.action(), removed.exit_code()), (Action::Remove, None));

    let described = described(&backend(), &died, InstanceState::Stopped).unwrap();
    assert_eq!(described.labels.unwrap().iter().collect::<Vec<_>>(), [("a", "b")], "Podman's own keys are no labels");
    assert_eq!((described.name.as_str(), described.image.unwrap().as_str()), ("web", "localhost/busybox:latest"));
}

#[test]
fn every_message_is_an_edge_a_hint_or_nothing() {
    let action = |verb: &str| {
        let text = event(verb, &json!({}));
        serde_json::from_str::<Event<'_>>(&text).unwrap().action()
    };
    for verb in ["init", "stop", "cleanup", "exec", "exec_died", "attach", "mount", "kill", "restart"] {
        assert_eq!(action(verb), Action::Nothing, "{verb}");
    }
    for verb in ["rename", "update", "checkpoint", "restore", "never heard of"] {
        assert_eq!(action(verb), Action::Other, "{verb}");
    }
    for verb in ["health_status", "health_status: healthy"] {
        assert_eq!(action(verb), Action::Checked, "{verb}");
    }
    let network = r#"{"Type":"network","Action":"connect","Actor":{"ID":"acd5"},"timeNano":1}"#;
    let connected: Event<'_> = serde_json::from_str(network).unwrap();
    assert_eq!((connected.kind(), connected.container()), (Kind::Network, Some("acd5")));
    let created: Event<'_> =
        serde_json::from_str(r#"{"Type":"network","Action":"create","Actor":{"ID":"n1"}}"#).unwrap();
    assert_eq!(created.container(), None, "that is a network's id");
}
