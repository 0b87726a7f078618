use std::time::{Duration, SystemTime};

use runtide_core::{
    Address, BackendId, ExitStatus, Group, GroupKind, Health, Instance, InstanceState, Port, Protocol, event::FieldSet,
};
use serde_json::value::RawValue;

use super::*;

const LIST: &[u8] = include_bytes!("../../tests/fixtures/1.41/containers.json");
const EVENTS: &str = include_str!("../../tests/fixtures/1.41/events.ndjson");

fn backend() -> BackendId {
    BackendId::from("docker:test")
}

fn from_list(name: &str) -> Instance {
    let all = items(LIST).unwrap();
    let found = all.into_iter().map(|raw| listed(&backend(), raw).unwrap()).find(|instance| instance.name == name);
    found.unwrap_or_else(|| panic!("{name} is not in the list"))
}

fn item(json: &str) -> Instance {
    listed(&backend(), &RawValue::from_string(json.to_owned()).unwrap()).unwrap()
}

macro_rules! inspect {
    ($name:literal) => {
        inspected(&backend(), include_bytes!(concat!("../../tests/fixtures/1.41/inspect-", $name, ".json")))
            .unwrap()
            .instance
    };
}

fn port(number: u16, protocol: Protocol, published: &[&str]) -> Port {
    let port = Port::new(number.try_into().unwrap(), protocol);
    published.iter().fold(port, |port, host| port.published_at(host.parse().unwrap()))
}

#[test]
fn a_recorded_list_is_read_whole() {
    assert_eq!(items(LIST).unwrap().len(), 9);
    let web = from_list("fx-web");
    assert_eq!(web.state, InstanceState::Running);
    assert_eq!(web.image.as_ref().unwrap().as_str(), "runtide/busybox:latest");
    assert_eq!(web.labels.as_ref().unwrap().get("a.b").unwrap(), "q\"uote");
    let group = Group::new(GroupKind::Compose, "shop").with_service("web".to_owned());
    assert_eq!(web.group.as_deref(), Some(&group));
    assert_eq!(web.created_at, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_196_508)));
    assert_eq!(
        web.ports.unwrap(),
        [
            port(80, Protocol::Tcp, &["0.0.0.0:8080", "[::]:8080"]),
            port(81, Protocol::Tcp, &[]),
            port(9000, Protocol::Udp, &["0.0.0.0:9000", "[::]:9000"]),
        ]
    );
    assert_eq!(web.addresses, Some(vec![Address::new("172.17.0.2".parse().unwrap(), "bridge".to_owned())]));
    assert_eq!((web.incarnation, web.started_at, web.restarts, web.exit), (None, None, None, None));

    assert_eq!(from_list("fx-exited").exit, Some(ExitStatus::code(3)));
    assert_eq!(from_list("fx-labels").exit, Some(ExitStatus::code(3)), "no label shadows the list");
    assert_eq!(from_list("fx-restart").state, InstanceState::Restarting);
    assert_eq!(from_list("fx-restart").exit, Some(ExitStatus::code(5)));
    assert_eq!(from_list("fx-health").health, Some(Health::Healthy));
    assert_eq!(from_list("fx-none").state, InstanceState::Paused);
    assert_eq!(from_list("fx-none").addresses, Some(vec![]), "no network is no address");
    assert_eq!((from_list("fx-host").ports, from_list("fx-host").addresses), (None, None), "they are the host's");
    let stopped = from_list("fx-exited");
    assert_eq!((stopped.ports, stopped.addresses, stopped.health), (None, None, None));
    assert_eq!(from_list("fx-created").exit, None);
}

#[test]
fn a_recorded_inspect_knows_more_and_contradicts_nothing() {
    let pairs = [
        ("fx-web", inspect!("web")),
        ("fx-host", inspect!("host")),
        ("fx-none", inspect!("none")),
        ("fx-exited", inspect!("exited")),
        ("fx-created", inspect!("created")),
        ("fx-health", inspect!("health")),
        ("fx-restart", inspect!("restart")),
    ];
    for (name, full) in pairs {
        let listed = from_list(name);
        let mut summary = summary(&full);
        assert_eq!(full.incarnation.is_some(), name != "fx-created", "{name}");
        assert_eq!(full.started_at.is_some(), name != "fx-created", "{name}");
        if name == "fx-host" {
            assert_eq!(summary.ports.take().unwrap(), [port(7000, Protocol::Tcp, &["0.0.0.0:7000"])]);
        }
        let differing = FieldSet::between(&listed, &summary);
        assert!(differing.is_empty(), "{name}: {differing}");
    }
    assert_eq!(inspect!("exited").exit, Some(ExitStatus::code(3).with_oom_killed(false)));
    assert!(inspect!("exited").finished_at > inspect!("exited").started_at);
    assert_eq!(inspect!("restart").restarts, Some(5));
}

#[test]
fn nulls_and_absent_fields_are_unknown_and_no_error() {
    let bare = item(r#"{"Id":"0123456789abcdef"}"#);
    assert_eq!((bare.name.as_str(), bare.state), ("0123456789ab", InstanceState::Unknown));
    let nulls = item(
        r#"{"Id":"a","Names":null,"Image":null,"Created":null,"Ports":null,"Labels":null,"State":"running","Status":null,
            "HostConfig":null,"NetworkSettings":{"Networks":{"bridge":null}}}"#,
    );
    assert_eq!((nulls.ports, nulls.addresses, nulls.created_at, nulls.image), (None, Some(vec![]), None, None));
    assert_eq!(nulls.labels.unwrap().len(), 0);
    let inspected = inspected(&backend(), br#"{"Id":"a","State":null,"Config":null,"NetworkSettings":null}"#);
    let inspected = inspected.unwrap().instance;
    assert_eq!((inspected.state, inspected.labels), (InstanceState::Unknown, None));
}

#[test]
fn a_linked_container_keeps_its_own_name() {
    assert_eq!(item(r#"{"Id":"a","Names":["/web/db","/db"]}"#).name, "db");
    assert_eq!(item(r#"{"Id":"a","Names":["/web/db"]}"#).name, "web/db");
    assert_eq!(item(r#"{"Id":"a","Names":["/"]}"#).name, "a");
}

#[test]
fn a_moved_tag_leaves_the_image_unknown() {
    assert_eq!(item(r#"{"Id":"a","Image":"sha256:0011"}"#).image, None);
    assert_eq!(item(r#"{"Id":"a","Image":"a@sha256:0011"}"#).image.unwrap().as_str(), "a@sha256:0011");
}

#[test]
fn every_protocol_is_known_and_every_host_address_listed_once() {
    let ports = |json: &str| item(&format!(r#"{{"Id":"a","State":"running","Ports":{json}}}"#)).ports.unwrap();
    let twice = r#"[{"IP":"::","PrivatePort":1,"PublicPort":2,"Type":"sctp"},{"IP":"::","PrivatePort":1,"PublicPort":2,"Type":"sctp"},
                    {"IP":"0.0.0.0","PrivatePort":1,"PublicPort":2,"Type":"sctp"},{"PrivatePort":0,"Type":"tcp"},
                    {"PrivatePort":5,"Type":"quic"},{"PrivatePort":1,"Type":"tcp"}]"#;
    assert_eq!(ports(twice), [port(1, Protocol::Tcp, &[]), port(1, Protocol::Sctp, &["0.0.0.0:2", "[::]:2"])]);
    assert_eq!(ports("[]"), []);
}

#[test]
fn a_list_of_1_52_tells_health_by_itself() {
    let health =
        |json: &str| item(&format!(r#"{{"Id":"a","State":"running","Status":"Up 1 second","Health":{json}}}"#)).health;
    assert_eq!(health(r#"{"Status":"unhealthy","FailingStreak":3}"#), Some(Health::Unhealthy));
    assert_eq!(health(r#"{"Status":"none"}"#), None);
    assert_eq!(health("null"), None);
}

/// Docker stops a frozen one's checks and keeps the last verdict; of a stopped one it says `unhealthy`.
#[test]
fn health_is_reported_of_running_containers_and_list_and_inspection_agree() {
    let table = [
        ("running", "Up 1 second (unhealthy)", Some(Health::Unhealthy), Some(Health::Unhealthy)),
        ("paused", "Up 1 second (Paused)", None, Some(Health::Unhealthy)),
        ("exited", "Exited (0) 1 second ago", None, None),
        ("restarting", "Restarting (1) 1 second ago", None, None),
        ("dead", "Dead", None, None),
        ("created", "Created", None, None),
    ];
    for (state, line, in_list, in_inspect) in table {
        let old = item(&format!(r#"{{"Id":"a","State":"{state}","Status":"{line}"}}"#));
        let new =
            item(&format!(r#"{{"Id":"a","State":"{state}","Status":"{line}","Health":{{"Status":"unhealthy"}}}}"#));
        let full = format!(r#"{{"Id":"a","State":{{"Status":"{state}","Health":{{"Status":"unhealthy"}}}}}}"#);
        let full = inspected(&backend(), full.as_bytes()).unwrap().instance;
        assert_eq!((old.health, new.health), (in_list, in_list), "{state}");
        assert_eq!((full.health, summary(&full).health), (in_inspect, in_list), "{state}");
    }
}

fn events() -> impl Iterator<Item = Event<'static>> {
    EVENTS.lines().map(|line| serde_json::from_str(line).unwrap())
}

#[test]
fn recorded_messages_are_decoded_with_their_tokens() {
    let all: Vec<Event<'_>> = events().collect();
    let tokens: std::collections::HashSet<_> =
        all.iter().map(|event| event.token(&mut String::new()).unwrap()).collect();
    assert_eq!(tokens.len(), all.len(), "two facts, two tokens");
    assert_eq!(all[0].token(&mut String::new()).unwrap().as_str(), "1795196508.943511165 create 6a00dae10311");
    assert_eq!(all[1].token(&mut String::new()).unwrap().as_str(), "1795196508.977385786 network-connect 6a00dae10311");
    assert!(tokens.iter().all(|token| !token.as_str().contains("/bin/sh")), "a token holds no command line");
    assert_eq!(all[0].action(), Action::Create);
    assert!(all.iter().filter(|event| event.is_container()).all(|event| event.container().is_some()));
    let oom = all.iter().position(|event| event.action() == Action::Oom).unwrap();
    let died = all[oom..].iter().find(|event| event.action() == Action::Die).unwrap();
    assert_eq!(died.attributes().unwrap().exit_code(), Some(137));
}

#[test]
fn old_and_new_forms_of_a_message_say_the_same() {
    let forms = [
        r#"{"status":"die","id":"c1","from":"i","Type":"container","Action":"die","Actor":{"ID":"c1","Attributes":{"exitCode":"3"}},"time":5,"timeNano":5000000007}"#,
        r#"{"Type":"container","Action":"die","Actor":{"ID":"c1","Attributes":{"exitCode":"3"}},"time":5,"timeNano":5000000007}"#,
        r#"{"status":"die","id":"c1","from":"i","time":5,"timeNano":5000000007}"#,
    ];
    for form in forms {
        let event: Event<'_> = serde_json::from_str(form).unwrap();
        assert_eq!((event.action(), event.container()), (Action::Die, Some("c1")), "{form}");
        assert_eq!(event.token(&mut String::new()).unwrap().as_str(), "5.000000007 die c1");
    }
    let verb = |action: &str| {
        let json = format!(r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"c"}}}}"#);
        serde_json::from_str::<Event<'_>>(&json).unwrap().action()
    };
    assert_eq!(verb("health_status: healthy"), Action::Other);
    assert_eq!(verb("exec_create: start"), Action::Exec);
    assert_eq!(verb("kill"), Action::Other);
    assert_eq!(verb("stop"), Action::Other);
}

#[test]
fn every_state_has_its_mapping() {
    let table = [
        ("created", InstanceState::Created),
        ("running", InstanceState::Running),
        ("paused", InstanceState::Paused),
        ("restarting", InstanceState::Restarting),
        ("removing", InstanceState::Stopped),
        ("exited", InstanceState::Stopped),
        ("dead", InstanceState::Failed),
        ("configured", InstanceState::Created),
        ("initialized", InstanceState::Created),
        ("stopping", InstanceState::Stopping),
        ("stopped", InstanceState::Stopped),
        ("", InstanceState::Unknown),
        ("Running", InstanceState::Unknown),
        ("hibernating", InstanceState::Unknown),
    ];
    for (text, expected) in table {
        assert_eq!(state(text), expected, "{text}");
    }
}

#[test]
fn a_compose_project_or_a_stack_is_the_group() {
    let group =
        |labels: &str| item(&format!(r#"{{"Id":"a","Labels":{{{labels}}}}}"#)).group.map(|group| Group::clone(&group));
    let stack = Group::new(GroupKind::Stack, "shop");
    let namespace = r#""com.docker.stack.namespace":"shop""#;
    assert_eq!(group(namespace), Some(stack.clone()));
    let service = format!(r#"{namespace},"com.docker.swarm.service.name":"shop_web""#);
    assert_eq!(group(&service), Some(stack.clone().with_service("web".to_owned())));
    let foreign = format!(r#"{namespace},"com.docker.swarm.service.name":"other""#);
    assert_eq!(group(&foreign), Some(stack.with_service("other".to_owned())));
    let both = format!(r#"{namespace},"com.docker.compose.project":"p""#);
    assert_eq!(group(&both), Some(Group::new(GroupKind::Compose, "p")));
    for none in ["", r#""com.docker.stack.namespace":"""#, r#""com.docker.swarm.service.name":"x""#] {
        assert_eq!(group(none), None, "{none}");
    }
}

fn ended(state: &str) -> Inspected {
    let json = format!(
        r#"{{"Id":"a","State":{{"Status":"exited","StartedAt":"2024-01-01T00:00:00Z","FinishedAt":"2024-01-01T00:00:01Z",{state}}},"RestartCount":0}}"#
    );
    inspected(&backend(), json.as_bytes()).unwrap()
}

/// A failed start leaves the last run's times, and writes over its code.
#[test]
fn a_failed_start_has_a_reason_and_no_exit_of_its_own() {
    for code in [126, 127, 128] {
        let failed = ended(&format!(r#""ExitCode":{code},"OOMKilled":true,"Error":"port is already allocated""#));
        assert_eq!(
            (failed.instance.exit, failed.rewritten),
            (None, Some(Rewritten { oom_killed: Some(true) })),
            "{code}"
        );
        assert_eq!(failed.instance.reason.as_deref(), Some("port is already allocated"));
        assert_eq!(failed.instance.restarts, None, "the daemon counts from 0 again");
        assert!(failed.instance.finished_at.is_some() && failed.instance.incarnation.is_some());
        let by_itself = ended(&format!(r#""ExitCode":{code},"OOMKilled":false,"Error":"""#));
        assert_eq!(by_itself.instance.exit, Some(ExitStatus::code(code).with_oom_killed(false)));
        assert_eq!((by_itself.instance.reason, by_itself.rewritten), (None, None));
    }
    let kept = ended(r#""ExitCode":3,"Error":"port is already allocated""#);
    assert_eq!((kept.instance.exit, kept.rewritten), (Some(ExitStatus::code(3)), None), "no code of a failed start");

    let never = br#"{"Id":"a","State":{"Status":"created","ExitCode":127,"Error":"exec: not found","StartedAt":"0001-01-01T00:00:00Z","FinishedAt":"0001-01-01T00:00:00Z"}}"#;
    let never = inspected(&backend(), never).unwrap();
    assert_eq!((never.instance.state, never.instance.exit, never.rewritten), (InstanceState::Created, None, None));
    assert_eq!(never.instance.reason.as_deref(), Some("exec: not found"));

    let runs =
        br#"{"Id":"a","State":{"Status":"running","ExitCode":0,"Error":"old","StartedAt":"2024-01-01T00:00:00Z"}}"#;
    assert_eq!(inspected(&backend(), runs).unwrap().instance.reason, None);
}

const ODD: [&str; 9] =
    ["3221225786", "-9999999999", "1.5", "1e400", "99999999999999999999", "\"x\"", "[1]", "{\"a\":1}", "true"];

/// Each number of each reply, out of its range or no number at all: that field alone is unknown.
#[test]
fn a_number_that_cannot_be_read_costs_that_field_alone() {
    for odd in ODD {
        let full = ended(&format!(r#""ExitCode":{odd},"Error":"""#)).instance;
        assert_eq!((full.state, full.exit), (InstanceState::Stopped, None), "{odd}");
        assert!(full.finished_at.is_some(), "{odd}");
        let full = format!(r#"{{"Id":"a","Name":"/web","RestartCount":{odd},"State":{{"Status":"running"}}}}"#);
        let full = inspected(&backend(), full.as_bytes()).unwrap().instance;
        if odd != "3221225786" {
            assert_eq!(full.restarts, None, "{odd}");
        }
        assert_eq!((full.name.as_str(), full.state), ("web", InstanceState::Running), "{odd}");

        let listed = item(&format!(
            r#"{{"Id":"a","Names":["/web"],"State":"running","Created":{odd},
                "Ports":[{{"PrivatePort":80,"Type":"tcp"}},{{"PrivatePort":{odd},"Type":"tcp"}},{{"PrivatePort":81,"PublicPort":{odd},"Type":"tcp"}}]}}"#
        ));
        assert_eq!(listed.name, "web", "{odd}");
        assert_eq!(listed.ports.unwrap(), [port(80, Protocol::Tcp, &[]), port(81, Protocol::Tcp, &[])], "{odd}");

        let json = format!(r#"{{"Type":"container","Action":"die","Actor":{{"ID":"c"}},"timeNano":{odd}}}"#);
        match serde_json::from_str::<Event<'_>>(&json) {
            Ok(event) => assert_eq!((event.action(), event.container()), (Action::Die, Some("c")), "{odd}"),
            Err(_) => assert!(!odd.starts_with(['3', '-', '1', '9']) || odd == "1e400", "{odd}"),
        }
        let die = format!(
            r#"{{"Type":"container","Action":"die","Actor":{{"ID":"c","Attributes":{{"exitCode":{}}}}},"timeNano":1}}"#,
            serde_json::to_string(odd).unwrap()
        );
        assert_eq!(serde_json::from_str::<Event<'_>>(&die).unwrap().attributes().unwrap().exit_code(), None, "{odd}");
        assert_eq!(item(r#"{"Id":"a","State":"exited","Status":"Exited (3221225786) 1 second ago"}"#).exit, None);
    }
    let ports = br#"{"Id":"a","State":{"Status":"running"},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"99999"}],"70000/tcp":null}}}"#;
    let ports = inspected(&backend(), ports).unwrap().instance.ports.unwrap();
    assert_eq!(ports, [port(80, Protocol::Tcp, &[])]);
}
