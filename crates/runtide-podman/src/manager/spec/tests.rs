//! A spec in libpod's form, field by field.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};

use runtide_core::{
    Protocol,
    manager::{ExtraHost, HealthCheck, HealthTest, Mount, Ulimit, VolumeId},
};

use super::*;

fn spec() -> InstanceSpec {
    InstanceSpec::of_image("localhost/busybox:1")
}

fn body(spec: &InstanceSpec) -> Value {
    Request::new(spec).unwrap().body
}

fn refused(spoil: impl FnOnce(&mut InstanceSpec)) -> &'static str {
    let mut spec = spec();
    spoil(&mut spec);
    Request::new(&spec).unwrap_err().field
}

#[test]
fn an_empty_spec_asks_for_the_images_defaults() {
    assert_eq!(body(&spec()), json!({"image": "localhost/busybox:1", "restart_policy": "no"}));
}

#[test]
fn an_empty_entry_point_clears_and_an_empty_command_does_not() {
    let body = body(&spec().with_entrypoint([""; 0]));
    assert_eq!((&body["entrypoint"], body.get("command")), (&json!([]), None));
}

#[test]
fn ports_keep_every_protocol_and_address() {
    let port = |number, protocol| Port::new(NonZeroU16::new(number).unwrap(), protocol);
    let mut spec = spec();
    spec.ports = vec![
        port(53, Protocol::Udp).published_at("0.0.0.0:53".parse().unwrap()).published_at("[::1]:0".parse().unwrap()),
        port(53, Protocol::Tcp),
        port(9, Protocol::Sctp),
        port(9, Protocol::Udp),
    ];
    let body = body(&spec);
    assert_eq!(body["expose"], json!({"53": "tcp", "9": "sctp,udp"}));
    assert_eq!(
        body["portmappings"],
        json!([
            {"container_port": 53, "host_port": 53, "host_ip": "0.0.0.0", "protocol": "udp"},
            {"container_port": 53, "host_port": 0, "host_ip": "::1", "protocol": "udp"},
        ])
    );
}

#[test]
fn counts_with_another_meaning_to_podman_are_translated() {
    let restart = |restart| {
        let body = body(&spec().with_restart(restart));
        (body["restart_policy"].clone(), body.get("restart_tries").cloned())
    };
    assert_eq!(
        restart(Restart::OnFailure { attempts: Some(0) }),
        (json!("no"), None),
        "0 is without a limit to Podman"
    );
    assert_eq!(restart(Restart::OnFailure { attempts: Some(3) }), (json!("on-failure"), Some(json!(3))));
    assert_eq!(restart(Restart::UnlessStopped), (json!("unless-stopped"), None));
    let cpu = |milli| body(&spec().with_milli_cpus(NonZeroU32::new(milli)))["resource_limits"]["cpu"].clone();
    assert_eq!(cpu(1_500), json!({"quota": 150_000, "period": 100_000}));
    assert_eq!(cpu(1), json!({"quota": 1_000, "period": 1_000_000}), "the least that the kernel takes");
    let mut spec = spec();
    (spec.stop_timeout, spec.stop_signal) = (Some(Duration::from_nanos(1)), "RTMIN+16".parse().ok());
    let body = body(&spec);
    assert_eq!((&body["stop_timeout"], &body["stop_signal"]), (&json!(1), &json!(50)));
}

#[test]
fn networks_are_joined_or_replaced_by_a_mode() {
    let with = |networks: &[&str]| Request::new(&spec().with_networks(networks.iter().copied()));
    let request = with(&["a", "b", "a"]).unwrap();
    assert_eq!(request.networks, ["a", "b"]);
    assert_eq!(request.body["networks"], json!({"a": {}, "b": {}}));
    let request = with(&["host"]).unwrap();
    assert_eq!((request.networks.len(), &request.body["netns"]), (0, &json!({"nsmode": "host"})));
    for networks in [&["../a"][..], &["host", "a"], &[""]] {
        assert_eq!(with(networks).unwrap_err().field, "networks");
    }
}

#[test]
fn hostile_words_are_refused() {
    for name in ["", "../a", "-ab", "a b", "a/b", "a\0b", "é2"] {
        assert_eq!(refused(|spec| spec.name = Some(name.to_owned())), "name", "{name}");
    }
    for image in ["", "a b", "a\nb", "é"] {
        assert_eq!(refused(|spec| spec.image = Some(image.into())), "image");
    }
    for key in ["", "A=B", "A\0"] {
        assert_eq!(refused(|spec| drop(spec.env.insert(key.to_owned(), String::new()))), "env");
    }
    assert_eq!(refused(|spec| spec.command = vec!["a\0".to_owned()]), "command");
    assert_eq!(refused(|spec| spec.working_dir = Some("relative".to_owned())), "working_dir");
    assert_eq!(refused(|spec| spec.user = Some(String::new())), "user");
    assert_eq!(refused(|spec| spec.stop_timeout = Some(Duration::MAX)), "stop_timeout");
    assert_eq!(refused(|spec| spec.memory_bytes = NonZeroU64::new(u64::MAX)), "memory_bytes");
}

#[test]
fn impossible_mounts_are_refused_and_possible_ones_keep_their_mode() {
    let twice = Mount::new(MountSource::Tmpfs, "/a");
    let mounts = [
        vec![Mount::new(MountSource::Tmpfs, "relative")],
        vec![Mount::new(MountSource::Tmpfs, "/")],
        vec![Mount::new(MountSource::Tmpfs, "/a/../b")],
        vec![Mount::new(MountSource::Bind("relative".into()), "/a")],
        vec![Mount::new(MountSource::Volume(VolumeId::from("../v")), "/a")],
        vec![twice.clone(), twice],
    ];
    for mounts in mounts {
        assert_eq!(refused(|spec| spec.mounts.clone_from(&mounts)), "mounts", "{mounts:?}");
    }
    let mut spec = spec();
    spec.mounts = vec![
        Mount::new(MountSource::Bind("/b".into()), "/1").read_only(),
        Mount::new(MountSource::Volume(VolumeId::from("v")), "/2"),
    ];
    let request = Request::new(&spec).unwrap();
    assert_eq!(request.volumes, ["v"]);
    let bind = json!([{"destination": "/1", "type": "bind", "source": "/b", "options": ["rbind", "ro"]}]);
    assert_eq!(request.body["mounts"], bind);
    assert_eq!(request.body["volumes"], json!([{"Name": "v", "Dest": "/2", "Options": ["rw"]}]));
}

#[test]
fn an_endpoint_has_its_aliases_and_address() {
    let joined = NetworkAttachment::new("a").with_aliases(["db"]).with_address("10.89.7.5".parse().unwrap());
    let made = body(&spec().with_networks([joined.clone()]));
    assert_eq!(made["networks"], json!({"a": {"aliases": ["db"], "static_ips": ["10.89.7.5"]}}));
    let mut spec = spec();
    spec.networks = vec![joined, NetworkAttachment::new("a")];
    assert_eq!(Request::new(&spec).unwrap_err().field, "networks");
}

#[test]
fn rights_checks_and_resolution_are_in_libpods_form() {
    let mut spec = spec().with_init().with_read_only_root().with_cap_add(["net_admin"]).with_cap_drop(["ALL"]);
    spec.ulimits = vec![Ulimit::new("nofile", 64), Ulimit::unlimited("core")];
    spec.extra_hosts = vec![ExtraHost::new("db", "10.0.0.7".parse().unwrap())];
    spec.dns.servers = vec!["1.1.1.1".parse().unwrap()];
    let check = HealthCheck::new(HealthTest::command(["true"])).with_interval(Some(Duration::from_secs(30)));
    spec.health_check = Some(check);
    let made = body(&spec);
    assert_eq!((&made["init"], &made["read_only_filesystem"]), (&json!(true), &json!(true)));
    assert_eq!((&made["cap_add"], &made["cap_drop"]), (&json!(["CAP_NET_ADMIN"]), &json!(["ALL"])));
    assert_eq!(
        made["r_limits"],
        json!([{"type": "nofile", "soft": 64, "hard": 64}, {"type": "core", "soft": u64::MAX, "hard": u64::MAX}])
    );
    assert_eq!((&made["hostadd"], &made["dns_server"]), (&json!(["db:10.0.0.7"]), &json!(["1.1.1.1"])));
    assert_eq!(made["healthconfig"], json!({"Test": ["CMD", "true"], "Interval": 30_000_000_000u64}));

    let refused = |spoil: &dyn Fn(&mut InstanceSpec)| {
        let mut spec = InstanceSpec::of_image("localhost/busybox:1");
        spoil(&mut spec);
        let refused = Request::new(&spec).unwrap_err();
        (refused.field, refused.kind)
    };
    let unsupported = ErrorKind::Unsupported;
    assert_eq!(refused(&|spec| spec.extra_hosts = vec![ExtraHost::of_gateway("gw")]), ("extra_hosts", unsupported));
    let slow = || HealthCheck::new(HealthTest::command(["true"])).with_start_interval(Some(Duration::from_secs(1)));
    assert_eq!(refused(&|spec| spec.health_check = Some(slow())), ("health_check", unsupported));
    assert_eq!(refused(&|spec| spec.cap_add = vec!["ROOT".to_owned()]).0, "cap_add");
    assert_eq!(refused(&|spec| spec.ulimits = vec![Ulimit::new("x", 1)]).0, "ulimits");
    assert_eq!(refused(&|spec| spec.dns.search = vec!["a b".to_owned()]).0, "dns");
    let both = |spec: &mut InstanceSpec| {
        spec.restart = Restart::Always;
        spec.native.insert("auto_remove".to_owned(), "true".to_owned());
    };
    assert_eq!(refused(&both).0, "restart");
}

#[test]
fn every_field_of_a_spec_is_honoured() {
    let mut spec = spec().with_name("a").with_command(["a"]).with_entrypoint(["a"]).with_env([("a", "b")]);
    spec = spec.with_user("a").with_working_dir("/").with_label("a", "b").with_networks(["a"]).with_init();
    assert!(spec.given().iter().all(|field| HONOURED.contains(field)));
    assert_eq!(HONOURED.len(), 26, "a field that the core adds is refused until it is listed");
}

#[test]
fn native_values_are_in_libpods_form_and_every_key_is_documented() {
    let made = |key: &str, value: &str| {
        let mut body = Map::new();
        native(&mut body, key, value).map(|()| Value::Object(body))
    };
    for (key, value, expected) in [
        ("tty", "true", json!({"terminal": true})),
        ("pod", "web", json!({"pod": "web"})),
        ("log_driver", "none", json!({"log_configuration": {"driver": "none"}})),
        ("groups", "a, b", json!({"groups": ["a", "b"]})),
        ("sysctls", r#"{"net.core.somaxconn":"1"}"#, json!({"sysctl": {"net.core.somaxconn": "1"}})),
    ] {
        assert_eq!(made(key, value).unwrap(), expected, "{key}");
    }
    for (key, value) in [("tty", "yes"), ("shm_size", "64m"), ("sysctls", "true}"), ("hostname", ""), ("hostnam", "x")]
    {
        assert!(made(key, value).is_err(), "{key}={value}");
    }
    let table: String = include_str!("../spec.rs").lines().filter(|line| line.starts_with("//! | `")).collect();
    for (key, ..) in KEYS {
        assert!(table.contains(&format!("`{key}`")), "{key} is not in the table");
    }
    assert!(KEYS.is_sorted_by_key(|(key, ..)| *key));
    assert_eq!(
        refused(|spec| {
            spec.networks = vec!["a".into()];
            spec.native.insert("pod".to_owned(), "web".to_owned());
        }),
        "native"
    );
}
