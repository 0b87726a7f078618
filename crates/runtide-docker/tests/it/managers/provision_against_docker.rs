//! Each field of a spec, against the `docker` command with the same option: both containers must be described alike.

use std::{
    num::{NonZeroU16, NonZeroU32, NonZeroU64},
    time::Duration,
};

use runtide_core::{
    Port, Protocol,
    manager::{
        Dns, ExtraHost, HealthCheck, HealthTest, InstanceSpec, Mount, MountSource, NetworkAttachment, NetworkSpec,
        RestartPolicy, Ulimit, VolumeId,
    },
};
use serde_json::Value;

use super::bench::Bench;
use crate::docker_command::{docker, output};

type Case = (&'static str, Box<dyn Fn(InstanceSpec) -> InstanceSpec>, Vec<String>);

fn case(name: &'static str, spec: impl Fn(InstanceSpec) -> InstanceSpec + 'static, options: &[&str]) -> Case {
    (name, Box::new(spec), options.iter().map(|option| (*option).to_owned()).collect())
}

fn port(number: u16, protocol: Protocol) -> Port {
    Port::new(NonZeroU16::new(number).unwrap(), protocol)
}

#[expect(clippy::too_many_lines, reason = "one row for each option")]
fn cases(volume: &str, network: &str) -> Vec<Case> {
    let (own_volume, front) = (volume.to_owned(), network.to_owned());
    let only_front = front.clone();
    let joined = NetworkAttachment::new(front.clone()).with_aliases(["web", "web.internal"]);
    let joined = joined.with_address("10.214.1.7".parse().unwrap());
    let first = NetworkAttachment::new(front.clone());
    let volume_mount = format!("type=volume,src={volume},dst=/data,readonly");
    let sock = |text: &str| text.parse().unwrap();
    let numbers = |from, to| NonZeroU16::new(from).unwrap()..=NonZeroU16::new(to).unwrap();
    vec![
        case("nothing", |spec| spec, &[]),
        case(
            "env",
            |spec| spec.with_env([("A", "1"), ("B", "a \"b\" $c\nd"), ("C", "")]),
            &["-e", "A=1", "-e", "B=a \"b\" $c\nd", "-e", "C="],
        ),
        case("working_dir", |spec| spec.with_working_dir("/tmp"), &["-w", "/tmp"]),
        case("user", |spec| spec.with_user("1000:50"), &["-u", "1000:50"]),
        case("labels", |spec| spec.with_label("a.b", "c d").with_label("e", ""), &["-l", "a.b=c d", "-l", "e="]),
        case("entrypoint", |spec| spec.with_entrypoint(["/bin/echo"]), &["--entrypoint", "/bin/echo"]),
        case(
            "bind",
            |spec| spec.with_mounts([Mount::new(MountSource::Bind("/tmp".into()), "/host").read_only()]),
            &["--mount", "type=bind,src=/tmp,dst=/host,readonly"],
        ),
        case(
            "volume",
            move |spec| {
                spec.with_mounts([
                    Mount::new(MountSource::Volume(VolumeId::from(own_volume.as_str())), "/data").read_only()
                ])
            },
            &["--mount", &volume_mount],
        ),
        case(
            "tmpfs",
            |spec| spec.with_mounts([Mount::new(MountSource::Tmpfs, "/scratch")]),
            &["--mount", "type=tmpfs,dst=/scratch"],
        ),
        case(
            "exposed",
            |spec| spec.with_ports([port(80, Protocol::Tcp), port(53, Protocol::Udp), port(9, Protocol::Sctp)]),
            &["--expose", "80", "--expose", "53/udp", "--expose", "9/sctp"],
        ),
        case(
            "published",
            move |spec| {
                spec.with_ports([
                    port(80, Protocol::Tcp).published_at(sock("127.0.0.1:18080")).published_at(sock("0.0.0.0:0")),
                    port(53, Protocol::Udp).published_at(sock("127.0.0.1:10053")),
                    port(9, Protocol::Sctp).published_at(sock("127.0.0.1:10009")),
                ])
            },
            &[
                "-p",
                "0.0.0.0::80",
                "-p",
                "127.0.0.1:18080:80",
                "-p",
                "127.0.0.1:10053:53/udp",
                "-p",
                "127.0.0.1:10009:9/sctp",
            ],
        ),
        case(
            "range",
            move |spec| {
                spec.with_ports(
                    Port::range_published_at(numbers(7000, 7003), Protocol::Udp, sock("127.0.0.1:17000")).unwrap(),
                )
            },
            &["-p", "127.0.0.1:17000-17003:7000-7003/udp"],
        ),
        case(
            "exposed_range",
            move |spec| spec.with_ports(Port::range(numbers(7000, 7003), Protocol::Tcp)),
            &["--expose", "7000-7003"],
        ),
        case("network", move |spec| spec.with_networks([first.clone()]), &["--network", &only_front]),
        case(
            "attached",
            move |spec| spec.with_networks([joined.clone()]),
            &["--network", &front, "--network-alias", "web", "--network-alias", "web.internal", "--ip", "10.214.1.7"],
        ),
        case("no_network", |spec| spec.with_networks(["none"]), &["--network", "none"]),
        case("host_network", |spec| spec.with_networks(["host"]), &["--network", "host"]),
        case(
            "extra_hosts",
            |spec| {
                spec.with_extra_hosts([
                    ExtraHost::new("db", "10.1.2.3".parse().unwrap()),
                    ExtraHost::new("db6", "fd00::3".parse().unwrap()),
                    ExtraHost::of_gateway("host.docker.internal"),
                ])
            },
            &[
                "--add-host",
                "db:10.1.2.3",
                "--add-host",
                "db6:fd00::3",
                "--add-host",
                "host.docker.internal:host-gateway",
            ],
        ),
        case(
            "dns",
            |spec| {
                spec.with_dns(
                    Dns::default()
                        .with_servers(["9.9.9.9".parse().unwrap()])
                        .with_search(["example.com".to_owned()])
                        .with_options(["ndots:2".to_owned()]),
                )
            },
            &["--dns", "9.9.9.9", "--dns-search", "example.com", "--dns-option", "ndots:2"],
        ),
        case("memory", |spec| spec.with_memory_bytes(NonZeroU64::new(64 << 20)), &["-m", "64m"]),
        case("cpus", |spec| spec.with_milli_cpus(NonZeroU32::new(1500)), &["--cpus", "1.5"]),
        case("pids", |spec| spec.with_pids(NonZeroU32::new(50)), &["--pids-limit", "50"]),
        case(
            "ulimits",
            |spec| spec.with_ulimits([Ulimit::new("nofile", 2048).with_soft(1024), Ulimit::unlimited("core")]),
            &["--ulimit", "nofile=1024:2048", "--ulimit", "core=-1"],
        ),
        case(
            "capabilities",
            |spec| spec.with_cap_add(["net_admin", "CAP_SYS_PTRACE"]).with_cap_drop(["MKNOD"]),
            &["--cap-add", "CAP_NET_ADMIN", "--cap-add", "CAP_SYS_PTRACE", "--cap-drop", "CAP_MKNOD"],
        ),
        case(
            "all_capabilities",
            |spec| spec.with_cap_drop(["all"]).with_cap_add(["chown"]),
            &["--cap-drop", "ALL", "--cap-add", "CAP_CHOWN"],
        ),
        case("read_only_root", InstanceSpec::with_read_only_root, &["--read-only"]),
        case("init", InstanceSpec::with_init, &["--init"]),
        case(
            "restart",
            |spec| spec.with_restart(RestartPolicy::OnFailure { attempts: Some(3) }),
            &["--restart", "on-failure:3"],
        ),
        case("restart_always", |spec| spec.with_restart(RestartPolicy::Always), &["--restart", "always"]),
        case(
            "restart_unless_stopped",
            |spec| spec.with_restart(RestartPolicy::UnlessStopped),
            &["--restart", "unless-stopped"],
        ),
        case(
            "health",
            |spec| {
                spec.with_health_check(
                    HealthCheck::new(HealthTest::Shell("test -e /tmp/ok".to_owned()))
                        .with_interval(Duration::from_secs(30))
                        .with_timeout(Duration::from_millis(1500))
                        .with_start_period(Duration::from_secs(5))
                        .with_retries(NonZeroU32::new(2)),
                )
            },
            &[
                "--health-cmd",
                "test -e /tmp/ok",
                "--health-interval",
                "30s",
                "--health-timeout",
                "1500ms",
                "--health-start-period",
                "5s",
                "--health-retries",
                "2",
            ],
        ),
        case("no_health", |spec| spec.with_health_check(HealthCheck::disabled()), &["--no-healthcheck"]),
        case(
            "stop",
            |spec| {
                spec.with_stop_signal("QUIT".parse::<runtide_core::UnixSignal>().ok())
                    .with_stop_timeout(Duration::from_secs(7))
            },
            &["--stop-signal", "SIGQUIT", "--stop-timeout", "7"],
        ),
        case(
            "native",
            |spec| spec.with_native([("hostname", "called"), ("shm_size", "1048576")]),
            &["-h", "called", "--shm-size", "1m"],
        ),
    ]
}

/// The parts of a container's description that its creation decides, without what is empty, and without what the command sets for its
/// own terminal.
fn comparable(container: &Value, short_id: &str) -> Value {
    fn without_empty(value: &Value) -> Option<Value> {
        match value {
            Value::Object(map) => {
                let map: serde_json::Map<_, _> =
                    map.iter().filter_map(|(key, value)| Some((key.clone(), without_empty(value)?))).collect();
                (!map.is_empty()).then_some(Value::Object(map))
            }
            Value::Array(items) if items.is_empty() => None,
            Value::Null | Value::Bool(false) => None,
            Value::String(text) if text.is_empty() => None,
            Value::Number(number) if number.as_i64() == Some(0) => None,
            other => Some(other.clone()),
        }
    }
    let (mut config, networks) = (container["Config"].clone(), container["NetworkSettings"]["Networks"].clone());
    let config = config.as_object_mut().unwrap();
    config.remove("AttachStdout");
    config.remove("AttachStderr");
    if let Some(labels) = config.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.remove("runtide.create");
    }
    // The container's own id, if nothing else was asked for.
    if config.get("Hostname").is_some_and(|name| name == short_id) {
        config.remove("Hostname");
    }
    // Ports that are exposed alone have an empty value.
    let exposed =
        config.get("ExposedPorts").and_then(Value::as_object).map(|ports| ports.keys().cloned().collect::<Vec<_>>());
    let mounts: Vec<Value> = container["Mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|mount| serde_json::json!([mount["Type"], mount["Destination"], mount["RW"], mount["Name"]]))
        .collect();
    let mut host = container["HostConfig"].clone();
    // Lists whose order has no meaning.
    for list in ["ExtraHosts", "Ulimits"] {
        if let Some(list) = host[list].as_array_mut() {
            list.sort_by_key(ToString::to_string);
        }
    }
    if let Some(env) = config.get_mut("Env").and_then(Value::as_array_mut) {
        env.sort_by_key(ToString::to_string);
    }
    for bindings in host["PortBindings"].as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
        if let Some(list) = bindings.as_array_mut() {
            list.sort_by_key(ToString::to_string);
        }
    }
    let whole = serde_json::json!({ "Config": config, "HostConfig": host, "Networks": networks, "Exposed": exposed, "Mounts": mounts, "Path": container["Path"], "Args": container["Args"] });
    without_empty(&whole).unwrap()
}

#[tokio::test]
async fn each_field_of_a_spec_is_what_the_docker_command_makes_of_the_option() {
    let Some(bench) = Bench::new("against").await else { return };
    if docker("provision").is_none() {
        return;
    }
    let volume = bench.volume("v");
    let network = format!("{}-net", bench.prefix);
    let spec = NetworkSpec::named(network.as_str()).with_label("runtide.test", &bench.prefix);
    bench.networks().create(&spec.with_subnet("10.214.1.0/24")).await.unwrap();
    let mut differing = Vec::new();
    for (name, change, options) in cases(&volume, &network) {
        let mut plain = bench.spec(name, "exit 0");
        plain.command = vec!["true".to_owned()];
        let ours = bench.provision().create(&change(plain)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let ours = bench.inspect(&ours);

        let mut command = docker("provision").unwrap();
        command.arg("-H").arg(format!("unix://{}", bench.socket().display()));
        command.args(["create", "--name", &format!("{}-{name}-cli", bench.prefix)]);
        command.args(["-l", &format!("runtide.test={}", bench.prefix)]).args(&options);
        let made = output(command.arg(Bench::image()).arg("true"));
        assert!(made.status.success(), "{name}: {}", String::from_utf8_lossy(&made.stderr));
        let id = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        let theirs = bench.inspect(&id.as_str().into());

        let of = |seen: &Value| comparable(seen, &seen["Id"].as_str().unwrap()[..12]);
        if of(&ours) != of(&theirs) {
            differing.push(format!("{name}:\n  ours   {}\n  theirs {}", of(&ours), of(&theirs)));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
