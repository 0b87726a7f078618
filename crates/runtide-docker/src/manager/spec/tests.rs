//! The mapping, without a daemon.

use std::num::NonZeroU16;

use runtide_core::{
    Protocol,
    manager::{Dns, ExtraHost, HealthCheck, HealthTest, Mount as CoreMount, Ulimit, VolumeId},
};
use serde_json::json;

use super::*;

fn spec() -> InstanceSpec {
    InstanceSpec::of_image("busybox:1")
}

fn body(spec: &InstanceSpec) -> serde_json::Value {
    serde_json::to_value(Request::new(spec).unwrap().body).unwrap()
}

fn refused(spoil: impl FnOnce(&mut InstanceSpec)) -> &'static str {
    let mut spec = spec();
    spoil(&mut spec);
    Request::new(&spec).unwrap_err().field
}

#[test]
fn an_empty_spec_asks_for_the_images_defaults() {
    let policy = json!({"RestartPolicy": {"Name": "no"}});
    assert_eq!(body(&spec()), json!({"Image": "busybox:1", "HostConfig": policy}));
}

#[test]
fn an_empty_entry_point_clears_and_an_empty_command_does_not() {
    let mut spec = spec();
    spec.entrypoint = Some(vec![]);
    let body = body(&spec);
    assert_eq!(body["Entrypoint"], json!([]));
    assert_eq!(body.get("Cmd"), None);
}

#[test]
fn ports_keep_every_protocol_and_address() {
    let port = |number, protocol| Port::new(NonZeroU16::new(number).unwrap(), protocol);
    let mut spec = spec();
    spec.ports = vec![
        port(53, Protocol::Udp).published_at("0.0.0.0:53".parse().unwrap()).published_at("[::1]:0".parse().unwrap()),
        port(53, Protocol::Tcp),
        port(53, Protocol::Udp).published_at("127.0.0.2:53".parse().unwrap()),
        port(9, Protocol::Sctp),
    ];
    let body = body(&spec);
    assert_eq!(body["ExposedPorts"], json!({"53/udp": {}, "53/tcp": {}, "9/sctp": {}}));
    let bindings = json!({"53/udp": [
        {"HostIp": "0.0.0.0", "HostPort": "53"}, {"HostIp": "::1", "HostPort": ""}, {"HostIp": "127.0.0.2", "HostPort": "53"},
    ]});
    assert_eq!(body["HostConfig"]["PortBindings"], bindings);
}

#[test]
fn counts_with_another_meaning_to_the_daemon_are_translated() {
    let policy = |restart| {
        let mut spec = spec();
        spec.restart = restart;
        body(&spec)["HostConfig"]["RestartPolicy"].clone()
    };
    assert_eq!(
        policy(Restart::OnFailure { attempts: Some(0) }),
        json!({"Name": "no"}),
        "0 is without a limit to Docker"
    );
    assert_eq!(policy(Restart::OnFailure { attempts: None }), json!({"Name": "on-failure"}));
    assert_eq!(policy(Restart::OnFailure { attempts: Some(3) }), json!({"Name": "on-failure", "MaximumRetryCount": 3}));
    assert_eq!(policy(Restart::UnlessStopped), json!({"Name": "unless-stopped"}));
    let mut spec = spec();
    (spec.stop_timeout, spec.stop_signal) = (Some(Duration::from_nanos(1)), "RTMIN+16".parse().ok());
    spec.milli_cpus = std::num::NonZeroU32::new(1);
    let body = body(&spec);
    assert_eq!((&body["StopTimeout"], &body["StopSignal"]), (&json!(1), &json!("50")));
    assert_eq!(body["HostConfig"]["NanoCpus"], 1_000_000);
}

#[test]
fn networks_are_joined_at_once_or_one_after_the_other() {
    let mut spec = spec();
    spec.networks = ["a", "b", "a", "c"].map(NetworkAttachment::from).to_vec();
    let mut request = Request::new(&spec).unwrap();
    assert_eq!(request.networks, ["a", "b", "c"].map(NetworkAttachment::from));
    assert_eq!(request.clone().join(true), []);
    assert_eq!(request.join(false), ["b", "c"].map(NetworkAttachment::from));
    let body = serde_json::to_value(&request.body).unwrap();
    assert_eq!(body["NetworkingConfig"], json!({"EndpointsConfig": {"a": {}}}));
    assert_eq!(body["HostConfig"]["NetworkMode"], "a");

    spec.networks = vec!["host".into()];
    let mut request = Request::new(&spec).unwrap();
    assert_eq!(request.join(true), []);
    assert_eq!(request.body.networking_config, None);
}

#[test]
fn hostile_words_are_refused() {
    for name in ["", "a", "../a", "-ab", "a b", "a/b", "a\0b", "é2"] {
        assert_eq!(refused(|spec| spec.name = Some(name.to_owned())), "name", "{name}");
    }
    for image in ["", "a b", "a\nb", "é"] {
        assert_eq!(refused(|spec| spec.image = Some(image.into())), "image");
    }
    for key in ["", "A=B", "A\0"] {
        assert_eq!(refused(|spec| drop(spec.env.insert(key.to_owned(), String::new()))), "env");
    }
    assert_eq!(refused(|spec| drop(spec.env.insert("A".to_owned(), "\0".to_owned()))), "env");
    assert_eq!(refused(|spec| spec.command = vec!["a\0".to_owned()]), "command");
    assert_eq!(refused(|spec| spec.entrypoint = Some(vec!["a\0".to_owned()])), "entrypoint");
    assert_eq!(refused(|spec| spec.working_dir = Some("relative".to_owned())), "working_dir");
    assert_eq!(refused(|spec| spec.user = Some(String::new())), "user");
    assert_eq!(refused(|spec| spec.stop_timeout = Some(Duration::MAX)), "stop_timeout");
    assert_eq!(refused(|spec| spec.memory_bytes = std::num::NonZeroU64::new(u64::MAX)), "memory_bytes");
    for networks in [&["../a"][..], &["host", "a"], &[""]] {
        assert_eq!(
            refused(|spec| spec.networks = networks.iter().copied().map(NetworkAttachment::from).collect()),
            "networks"
        );
    }
    let both = |spec: &mut InstanceSpec| {
        spec.networks = vec!["a".into()];
        spec.native.insert("network_mode".to_owned(), "host".to_owned());
    };
    assert_eq!(refused(both), "networks");
}

#[test]
fn impossible_mounts_are_refused() {
    #[cfg(unix)]
    let bytes = std::path::PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/\xff"));
    #[cfg(not(unix))]
    let bytes = std::path::PathBuf::from("relative");
    let mounts = [
        CoreMount::new(MountSource::Tmpfs, "relative"),
        CoreMount::new(MountSource::Tmpfs, "/"),
        CoreMount::new(MountSource::Tmpfs, "/a/../b"),
        CoreMount::new(MountSource::Tmpfs, bytes.clone()),
        CoreMount::new(MountSource::Bind(bytes), "/a"),
        CoreMount::new(MountSource::Bind("relative".into()), "/a"),
        CoreMount::new(MountSource::Volume(VolumeId::from("../v")), "/a"),
    ];
    for mount in mounts {
        assert_eq!(refused(|spec| spec.mounts = vec![mount.clone()]), "mounts", "{mount:?}");
    }
    let twice = CoreMount::new(MountSource::Tmpfs, "/a");
    assert_eq!(refused(|spec| spec.mounts = vec![twice.clone(), twice]), "mounts");
}

fn refusal(spoil: impl FnOnce(&mut InstanceSpec)) -> (ErrorKind, &'static str) {
    let mut spec = spec();
    spoil(&mut spec);
    let refused = Request::new(&spec).unwrap_err();
    (refused.kind, refused.field)
}

#[test]
fn a_network_is_joined_under_further_names_and_at_an_address() {
    let mut spec = spec();
    spec.networks = vec![
        NetworkAttachment::new("a").with_aliases(["db", "db.internal"]).with_address("10.1.2.3".parse().unwrap()),
        NetworkAttachment::new("b").with_address("fd00::3".parse().unwrap()),
    ];
    let mut request = Request::new(&spec).unwrap();
    assert_eq!(request.join(true), []);
    let body = serde_json::to_value(&request.body).unwrap();
    let endpoints = json!({
        "a": {"Aliases": ["db", "db.internal"], "IPAMConfig": {"IPv4Address": "10.1.2.3"}},
        "b": {"IPAMConfig": {"IPv6Address": "fd00::3"}},
    });
    assert_eq!(body["NetworkingConfig"]["EndpointsConfig"], endpoints);

    let joined = |network: NetworkAttachment| refusal(|spec| spec.networks = vec![network]);
    for alias in ["", "a b", "a\0", "a\n", "é", &"x".repeat(300)] {
        let refused = joined(NetworkAttachment::new("a").with_aliases([alias]));
        assert_eq!(refused, (ErrorKind::InvalidInput, "networks"), "{alias:?}");
    }
    for own in PREDEFINED {
        let refused = joined(NetworkAttachment::new(own).with_aliases(["db"]));
        assert_eq!(refused, (ErrorKind::Unsupported, "networks"), "{own}");
    }
    let twice = vec![NetworkAttachment::new("a"), NetworkAttachment::new("a").with_aliases(["db"])];
    assert_eq!(refusal(|spec| spec.networks = twice), (ErrorKind::InvalidInput, "networks"));
}

#[test]
fn a_health_check_is_in_the_engines_form() {
    let made = |check: HealthCheck| {
        let mut spec = spec();
        spec.health_check = Some(check);
        (body(&spec)["Healthcheck"].clone(), Request::new(&spec).unwrap().since)
    };
    let check = HealthCheck::new(HealthTest::command(["wget", "-q", "http://localhost"]))
        .with_interval(Duration::from_secs(30))
        .with_timeout(Duration::from_millis(1500))
        .with_start_period(Duration::from_secs(60))
        .with_retries(std::num::NonZeroU32::new(2));
    let expected = json!({
        "Test": ["CMD", "wget", "-q", "http://localhost"],
        "Interval": 30_000_000_000_u64,
        "Timeout": 1_500_000_000,
        "StartPeriod": 60_000_000_000_u64,
        "Retries": 2,
    });
    assert_eq!(made(check.clone()), (expected, None));
    assert_eq!(made(HealthCheck::disabled()).0, json!({"Test": ["NONE"]}));
    assert_eq!(
        made(HealthCheck::new(HealthTest::Shell("a | b".to_owned()))).0,
        json!({"Test": ["CMD-SHELL", "a | b"]})
    );
    let starts = made(check.with_start_interval(Duration::from_secs(1)));
    assert_eq!((&starts.0["StartInterval"], starts.1.map(|since| since.1)), (&json!(1_000_000_000), Some(44)));
}

#[test]
fn a_health_check_that_the_daemon_reads_otherwise_is_refused() {
    let refused = |check: HealthCheck| refusal(|spec| spec.health_check = Some(check));
    let check = || HealthCheck::new(HealthTest::command(["true"]));
    for check in [
        check().with_interval(Duration::ZERO), // the daemon's default
        check().with_timeout(Duration::from_nanos(999_999)),
        check().with_start_period(Duration::MAX),
        HealthCheck::new(HealthTest::Command(vec![])), // the image's own
        HealthCheck::new(HealthTest::command(["a\0"])),
        HealthCheck::new(HealthTest::Shell(String::new())),
        HealthCheck::disabled().with_interval(Duration::from_secs(1)),
    ] {
        assert_eq!(refused(check.clone()), (ErrorKind::InvalidInput, "health_check"), "{check:?}");
    }
}

#[test]
fn names_are_resolved_as_the_spec_says() {
    let mut spec = spec();
    spec.extra_hosts = vec![
        ExtraHost::new("db", "10.1.2.3".parse().unwrap()),
        ExtraHost::new("db", "fd00::3".parse().unwrap()),
        ExtraHost::of_gateway("host.docker.internal"),
    ];
    spec.dns = Dns::default()
        .with_servers(["9.9.9.9".parse().unwrap(), "2620:fe::fe".parse().unwrap()])
        .with_search(["example.com".to_owned()])
        .with_options(["ndots:2".to_owned()]);
    let host = body(&spec)["HostConfig"].clone();
    assert_eq!(host["ExtraHosts"], json!(["db:10.1.2.3", "db:fd00::3", "host.docker.internal:host-gateway"]));
    assert_eq!((&host["Dns"], &host["DnsSearch"]), (&json!(["9.9.9.9", "2620:fe::fe"]), &json!(["example.com"])));
    assert_eq!(host["DnsOptions"], json!(["ndots:2"]));

    for name in ["", "a:b", "a b", "a\n127.0.0.1 b", "a\0"] {
        let hosts = vec![ExtraHost::new(name, "10.1.2.3".parse().unwrap())];
        assert_eq!(refusal(|spec| spec.extra_hosts = hosts), (ErrorKind::InvalidInput, "extra_hosts"), "{name:?}");
    }
    for word in ["", "a b", "a\nnameserver 6.6.6.6"] {
        let search = Dns::default().with_search([word.to_owned()]);
        assert_eq!(refusal(|spec| spec.dns = search), (ErrorKind::InvalidInput, "dns"), "{word:?}");
        let options = Dns::default().with_options([word.to_owned()]);
        assert_eq!(refusal(|spec| spec.dns = options), (ErrorKind::InvalidInput, "dns"), "{word:?}");
    }
}

#[test]
fn rights_and_limits_of_processes_are_in_the_engines_form() {
    let mut spec = spec().with_cap_add(["sys_time", "CAP_NET_ADMIN", "SYS_TIME"]).with_cap_drop(["all"]);
    spec.ulimits = vec![Ulimit::new("nofile", 1024).with_soft(512), Ulimit::unlimited("core")];
    (spec.read_only_root, spec.init) = (true, true);
    let host = body(&spec)["HostConfig"].clone();
    assert_eq!((&host["CapAdd"], &host["CapDrop"]), (&json!(["CAP_NET_ADMIN", "CAP_SYS_TIME"]), &json!(["ALL"])));
    assert_eq!(
        host["Ulimits"],
        json!([{"Name": "nofile", "Soft": 512, "Hard": 1024}, {"Name": "core", "Soft": -1, "Hard": -1}])
    );
    assert_eq!((&host["ReadonlyRootfs"], &host["Init"]), (&json!(true), &json!(true)));

    let caps = |add: &[&str], drop: &[&str]| {
        let (add, drop) = (add.to_vec(), drop.to_vec());
        refusal(|spec| *spec = spec.clone().with_cap_add(add).with_cap_drop(drop))
    };
    assert_eq!(caps(&["NET_ADMIN,SYS_TIME"], &[]), (ErrorKind::InvalidInput, "cap_add"));
    assert_eq!(caps(&[], &["ROOT"]), (ErrorKind::InvalidInput, "cap_drop"));
    assert_eq!(caps(&["NET_RAW"], &["CAP_NET_RAW"]), (ErrorKind::InvalidInput, "cap_drop"));
    let limit = |limit: Ulimit| refusal(|spec| spec.ulimits = vec![limit]);
    assert_eq!(limit(Ulimit::new("files", 1)), (ErrorKind::InvalidInput, "ulimits"));
    assert_eq!(limit(Ulimit::new("nofile", 1).with_soft(2)), (ErrorKind::InvalidInput, "ulimits"));
    assert_eq!(limit(Ulimit::new("nofile", u64::MAX)), (ErrorKind::InvalidInput, "ulimits"));
    assert_eq!(limit(Ulimit::new("as", 1)), (ErrorKind::Unsupported, "ulimits"));
    let twice = vec![Ulimit::new("nofile", 1), Ulimit::new("nofile", 2)];
    assert_eq!(refusal(|spec| spec.ulimits = twice), (ErrorKind::InvalidInput, "ulimits"));
}

#[test]
fn nothing_is_said_twice() {
    let native = |key: &str, value: &str| {
        let mut spec = spec().with_init().with_read_only_root().with_cap_add(["NET_ADMIN"]);
        spec.native.insert(key.to_owned(), value.to_owned());
        Request::new(&spec).map_err(|refused| (refused.kind, refused.field)).map(drop)
    };
    for (key, value) in [("init", "true"), ("read_only", "false"), ("cap_add", "SYS_TIME")] {
        assert_eq!(native(key, value), Err((ErrorKind::InvalidInput, "native")), "{key}");
    }
    assert_eq!(native("cap_drop", "SYS_TIME"), Ok(()));
    let removed = |spec: &mut InstanceSpec| {
        spec.restart = Restart::Always;
        spec.native.insert("auto_remove".to_owned(), "true".to_owned());
    };
    assert_eq!(refusal(removed), (ErrorKind::InvalidInput, "restart"));
}

#[test]
fn a_port_of_the_host_publishes_one_port() {
    let port = |number, host: &str| {
        Port::new(NonZeroU16::new(number).unwrap(), Protocol::Tcp).published_at(host.parse().unwrap())
    };
    assert_eq!(refusal(|spec| spec.ports = vec![port(1, "0.0.0.0:80"), port(2, "0.0.0.0:80")]).1, "ports");
    let mut spec = spec();
    spec.ports = vec![port(1, "127.0.0.1:80"), port(2, "127.0.0.2:80"), port(3, "0.0.0.0:0"), port(4, "0.0.0.0:0")];
    Request::new(&spec).unwrap();
}
