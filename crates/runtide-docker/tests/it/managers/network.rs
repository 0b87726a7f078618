//! Networks, on a real daemon.

use std::net::IpAddr;

use runtide_core::{
    ErrorKind, InstanceId,
    manager::{ConnectOptions, Effect, NetworkAttachment, NetworkId, NetworkSpec, RemoveOptions, Subnet},
};
use runtide_docker::{Config, DockerBackend, Endpoint};
use serde_json::{Value, json};

use super::bench::Bench;
use crate::docker_command::{docker, output};

/// A range of this test alone, out of those that the daemon picks for itself.
fn range(third: u8) -> String {
    format!("10.213.{third}.0/24")
}

fn spec(bench: &Bench, name: &str) -> NetworkSpec {
    NetworkSpec::named(format!("{}-{name}", bench.prefix)).with_label("runtide.test", &bench.prefix)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_network_is_as_the_docker_command_makes_it() {
    let Some(bench) = Bench::new("net-fields").await else { return };
    let Some(mut docker) = docker("networks") else { return };
    let spec = spec(&bench, "full")
        .with_driver("bridge")
        .with_internal()
        .with_ipv6()
        .with_subnet(Subnet::new(range(1)).with_gateway(ip("10.213.1.9")))
        .with_subnet(Subnet::new("fd00:213:1::/64").with_gateway(ip("fd00:213:1::9")))
        .with_options([("com.docker.network.driver.mtu", "1400")])
        .with_label("odd", "it's \"so\"\n\0");
    let id = bench.networks().create(&spec).await.unwrap();
    let ours = bench.json("GET", &format!("/networks/{id}"), "");
    assert_eq!(bench.networks().remove(&id).await.unwrap(), Effect::Changed, "so that the ranges are free");

    let theirs = format!("{}-theirs", bench.prefix);
    docker.arg("-H").arg(format!("unix://{}", bench.socket().display())).args(["network", "create", "-d", "bridge"]);
    docker.args(["--internal", "--ipv6", "--subnet", &range(1), "--gateway", "10.213.1.9"]);
    docker.args(["--subnet", "fd00:213:1::/64", "--gateway", "fd00:213:1::9"]);
    docker.args(["-o", "com.docker.network.driver.mtu=1400", "--label", &format!("runtide.test={}", bench.prefix)]);
    let made = output(docker.arg(&theirs));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let theirs = bench.json("GET", &format!("/networks/{theirs}"), "");

    let comparable = |mut network: Value| {
        let network = network.as_object_mut().unwrap();
        for key in ["Id", "Name", "Created"] {
            network.remove(key);
        }
        for own in ["odd", "runtide.create"] {
            network["Labels"].as_object_mut().unwrap().remove(own);
        }
        // The command sends an empty map where nothing was given.
        network["IPAM"]["Options"] = Value::Null;
        network.clone()
    };
    assert_eq!(ours["Labels"]["odd"], "it's \"so\"\n\0");
    assert_eq!(comparable(ours), comparable(theirs));
}

#[tokio::test]
async fn a_network_is_shown_with_its_gateway_and_its_members_running_or_not() {
    let Some(bench) = Bench::new("net-info").await else { return };
    let wanted = spec(&bench, "lan").with_subnet(Subnet::new(range(2)).with_gateway(ip("10.213.2.254")));
    let id = bench.networks().create(&wanted).await.unwrap();
    let in_it = |name: &str, script: &str| bench.spec(name, script).with_networks([id.clone()]);
    let runs = bench.run_spec(&in_it("runs", "exec sleep 600")).await;
    let created = bench.provision().create(&in_it("created", "exit 0")).await.unwrap();
    let ended = bench.run_spec(&in_it("ended", "exit 0")).await;
    bench.lifecycle().wait(&ended).await.unwrap();
    bench.run("elsewhere", "exec sleep 600").await;

    let mut members = [runs.clone(), created.clone(), ended.clone()];
    members.sort();
    let listed = bench.networks().list().await.unwrap();
    for mut info in [
        bench.networks().inspect(&id).await.unwrap(),
        bench.networks().inspect(&NetworkId::from(wanted.name.as_str())).await.unwrap(),
        bench.networks().inspect(&NetworkId::from(&id.as_str()[..12])).await.unwrap(),
        listed.iter().find(|info| info.id == id).unwrap().clone(),
    ] {
        info.members.sort();
        assert_eq!((&info.id, &info.name), (&id, &wanted.name));
        assert_eq!(info.members, members);
        assert_eq!(info.gateway, Some(ip("10.213.2.254")));
        assert_eq!(info.subnets, wanted.subnets);
        assert_eq!((info.driver.as_deref(), info.internal, info.ipv6), (Some("bridge"), Some(false), Some(false)));
        assert_eq!(info.labels, wanted.labels);
    }
    assert!(listed.iter().any(|info| info.name == "host") && listed.iter().any(|info| info.name == "none"));

    // Trap D34: the daemon would remove it, and the stopped ones could not be started again.
    for id_of_last in [runs, ended, created] {
        let refused = bench.networks().remove(&id).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        bench.lifecycle().remove(&id_of_last, RemoveOptions::default().with_kill()).await.unwrap();
    }
    assert_eq!(bench.networks().remove(&id).await.unwrap(), Effect::Changed);
    assert_eq!(bench.networks().remove(&id).await.unwrap(), Effect::Unchanged);
    assert_eq!(bench.networks().inspect(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_networks_of_one_name_one_is_made() {
    let Some(bench) = Bench::new("net-race").await else { return };
    for round in 0..4 {
        let spec = spec(&bench, &format!("race-{round}"));
        let creates = (0..6).map(|_| {
            let config = Config::default().with_endpoint(Endpoint::unix(bench.socket()));
            let (backend, spec) = (DockerBackend::new(config).unwrap(), spec.clone());
            tokio::spawn(async move {
                use runtide_core::RuntimeBackend;
                backend.networks().unwrap().create(&spec).await
            })
        });
        let creates: Vec<_> = creates.collect();
        let mut made = Vec::new();
        for create in creates {
            match create.await.unwrap() {
                Ok(id) => made.push(id),
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
            }
        }
        let there = bench.networks().list().await.unwrap();
        let there: Vec<_> = there.into_iter().filter(|info| info.name == spec.name).map(|info| info.id).collect();
        assert!(made.len() <= 1, "{} creates of one name succeeded", made.len());
        assert_eq!(there, made, "what lost is gone");
        let taken = bench.networks().create(&spec).await.map_err(|error| error.kind());
        assert_eq!(taken.err(), (!made.is_empty()).then_some(ErrorKind::AlreadyExists));
    }
    let own = bench.networks().create(&NetworkSpec::named("bridge")).await.unwrap_err();
    assert_eq!(own.kind(), ErrorKind::AlreadyExists, "{own}");
}

#[tokio::test]
async fn a_container_is_connected_under_further_names_and_at_an_address() {
    let Some(bench) = Bench::new("net-connect").await else { return };
    let networks = bench.networks();
    let id = networks.create(&spec(&bench, "lan").with_subnet(range(3).as_str())).await.unwrap();
    let (server, idle) = (bench.run("server", "exec sleep 600").await, bench.create("idle", "exec sleep 600").await);
    let at = |address: &str| ConnectOptions::default().with_address(Some(ip(address)));
    let as_db = at("10.213.3.7").with_aliases(["db".to_owned(), "db.internal".to_owned()]);
    for (container, options, address) in [(&server, as_db, "10.213.3.7"), (&idle, at("10.213.3.8"), "10.213.3.8")] {
        let connect = async |options| networks.connect(&id, container, options).await;
        assert_eq!(connect(options.clone()).await.unwrap(), Effect::Changed);
        assert_eq!(connect(options.clone()).await.unwrap(), Effect::Unchanged);
        assert_eq!(connect(ConnectOptions::default()).await.unwrap(), Effect::Unchanged);
        let endpoint = bench.inspect(container)["NetworkSettings"]["Networks"][spec(&bench, "lan").name].clone();
        assert_eq!(endpoint["IPAMConfig"]["IPv4Address"], address);
        let other_name = connect(ConnectOptions::default().with_aliases(["web".to_owned()])).await.unwrap_err();
        assert_eq!(other_name.kind(), ErrorKind::Conflict, "{other_name}");
        assert_eq!(connect(at("10.213.3.99")).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    // The names resolve for another member.
    let client = bench.spec("client", "for name in db db.internal; do ping -c 1 -W 60 $name || exit 1; done");
    let client = bench.run_spec(&client.with_networks([id.clone()])).await;
    let exit = bench.lifecycle().wait(&client).await.unwrap().unwrap();
    assert_eq!(exit.end, runtide_core::ExitStatus::code(0).end);

    let other = bench.run("other", "exec sleep 600").await;
    let refused = async |options| networks.connect(&id, &other, options).await.unwrap_err().kind();
    assert_eq!(refused(at("10.213.3.7")).await, ErrorKind::Conflict, "the address is taken");
    assert_eq!(refused(at("10.213.3.1")).await, ErrorKind::Conflict, "the address is the gateway's");
    assert_eq!(refused(at("10.213.4.7")).await, ErrorKind::InvalidInput, "the address is of another range");
    assert_eq!(refused(at("fd00::7")).await, ErrorKind::InvalidInput);
    for alias in ["", "a b", "a\nb", "a\0", "é"] {
        let options = ConnectOptions::default().with_aliases([alias.to_owned()]);
        assert_eq!(refused(options).await, ErrorKind::InvalidInput, "{alias:?}");
    }
    let bridge = networks.disconnect(&"bridge".into(), &other).await.unwrap();
    assert_eq!(bridge, Effect::Changed);
    let own = networks.connect(&"bridge".into(), &other, at("172.17.0.99")).await.unwrap_err();
    assert_eq!(own.kind(), ErrorKind::Unsupported, "{own}");
    assert_eq!(networks.connect(&"bridge".into(), &other, ConnectOptions::default()).await.unwrap(), Effect::Changed);

    for container in [&server, &idle] {
        assert_eq!(networks.disconnect(&id, container).await.unwrap(), Effect::Changed);
        assert_eq!(networks.disconnect(&id, container).await.unwrap(), Effect::Unchanged);
        let seen = bench.inspect(container)["NetworkSettings"]["Networks"].clone();
        assert!(seen.get(spec(&bench, "lan").name).is_none(), "{seen}");
    }
    let absent = InstanceId::from("runtide-no-such-container");
    assert_eq!(networks.disconnect(&id, &absent).await.unwrap(), Effect::Unchanged);
    assert_eq!(networks.disconnect(&"runtide-no-such-network".into(), &server).await.unwrap(), Effect::Unchanged);
    let nothing = networks.connect(&id, &absent, ConnectOptions::default()).await.unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::NotFound, "{nothing}");
    let nowhere = networks.connect(&"runtide-no-such-network".into(), &server, ConnectOptions::default()).await;
    assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_container_is_created_in_its_networks_with_names_and_addresses() {
    let Some(bench) = Bench::new("net-create").await else { return };
    let networks = bench.networks();
    let front = networks.create(&spec(&bench, "front").with_subnet(range(5).as_str())).await.unwrap();
    let back = spec(&bench, "back").with_ipv6().with_subnet(range(6).as_str()).with_subnet("fd00:213:6::/64");
    let back = networks.create(&back).await.unwrap();
    let picked = networks.create(&spec(&bench, "picked")).await.unwrap();
    let joined = [
        NetworkAttachment::new(front.clone()).with_aliases(["web"]).with_address(ip("10.213.5.7")),
        NetworkAttachment::new(back.clone()).with_aliases(["db"]).with_address(ip("fd00:213:6::7")),
    ];
    let id = bench.run_spec(&bench.spec("a", "exec sleep 600").with_networks(joined)).await;
    let seen = bench.inspect(&id)["NetworkSettings"]["Networks"].clone();
    let (front_name, back_name) = (spec(&bench, "front").name, spec(&bench, "back").name);
    assert_eq!(seen.as_object().unwrap().len(), 2, "{seen}");
    assert_eq!(seen[&front_name]["IPAddress"], "10.213.5.7");
    assert_eq!(seen[&back_name]["GlobalIPv6Address"], "fd00:213:6::7");
    assert!(seen[&front_name]["Aliases"].as_array().unwrap().contains(&json!("web")));
    assert!(seen[&back_name]["Aliases"].as_array().unwrap().contains(&json!("db")));

    let before = bench.containers();
    for (network, address, kind) in [
        (&front, "10.213.6.7", ErrorKind::InvalidInput), // of the other network
        (&front, "10.213.5.1", ErrorKind::Conflict),     // the gateway's
        (&picked, "203.0.113.7", ErrorKind::InvalidInput),
    ] {
        let spec = bench
            .spec("b", "exit 0")
            .with_networks([NetworkAttachment::new(network.clone()).with_address(ip(address))]);
        let refused = bench.provision().create(&spec).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{address}: {refused}");
    }
    // The daemon itself would accept this one, and fail at the start.
    let own = networks.inspect(&picked).await.unwrap();
    let first = own.subnets[0].parsed().unwrap().0;
    let IpAddr::V4(first) = first else { panic!("{first}") };
    let inside = IpAddr::from(std::net::Ipv4Addr::from_bits(first.to_bits() + 77));
    let spec = bench.spec("b", "exit 0").with_networks([NetworkAttachment::new(picked).with_address(inside)]);
    let refused = bench.provision().create(&spec).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    assert_eq!(bench.containers(), before, "nothing is left of what was refused");
}

#[tokio::test]
async fn hostile_networks_are_refused_and_no_other_network_is_touched() {
    let Some(bench) = Bench::new("net-hostile").await else { return };
    let networks = bench.networks();
    let victim = networks.create(&spec(&bench, "victim")).await.unwrap();
    let container = bench.create("c", "exit 0").await;
    let mut words: Vec<String> =
        ["", ".", "..", "../containers", "a/b", "a?x", "a#b", "a b", "a\n", "a\0", "%2e%2e", "é", "-f"]
            .map(str::to_owned)
            .into();
    words.push("x".repeat(64 << 10));
    words.extend([
        format!("{victim}/../{victim}"),
        format!("{victim}?x=1"),
        format!("./{victim}"),
        format!("{victim}\n"),
    ]);
    for word in words {
        let id = NetworkId::from(word.as_str());
        let kinds = [
            networks.create(&NetworkSpec::named(word.as_str())).await.unwrap_err().kind(),
            networks.remove(&id).await.unwrap_err().kind(),
            networks.inspect(&id).await.unwrap_err().kind(),
            networks.connect(&id, &container, ConnectOptions::default()).await.unwrap_err().kind(),
            networks.disconnect(&id, &container).await.unwrap_err().kind(),
        ];
        assert_eq!(kinds, [ErrorKind::InvalidInput; 5], "{word:.60?}");
    }
    // The daemon takes the beginning of an id for the id: a network of such a name may be gone.
    for length in [1, 4, 11] {
        let begin = NetworkId::from(&victim.as_str()[..length]);
        assert_eq!(networks.remove(&begin).await.unwrap(), Effect::Unchanged, "{begin}");
    }
    networks.inspect(&victim).await.unwrap();
    let odd = spec(&bench, "odd").with_label("", "\0").with_label("a\"b\n", "$(id)").with_options([("x.y", "a\"b\n")]);
    let odd_id = networks.create(&odd).await.unwrap();
    let seen = networks.inspect(&odd_id).await.unwrap();
    assert_eq!((seen.labels, seen.options), (odd.labels, odd.options));
    let taken = spec(&bench, "b").with_subnet(range(7).as_str());
    networks.create(&taken).await.unwrap();
    let overlaps = networks.create(&spec(&bench, "c").with_subnet(range(7).as_str())).await.unwrap_err();
    assert_eq!(overlaps.kind(), ErrorKind::Conflict, "{overlaps}");
    let no_driver = networks.create(&spec(&bench, "d").with_driver("runtide-no-such-driver")).await.unwrap_err();
    assert_eq!(no_driver.kind(), ErrorKind::NotFound, "{no_driver}");
    // Other tests' containers may be in it.
    let own = networks.remove(&"none".into()).await.unwrap_err();
    assert!(matches!(own.kind(), ErrorKind::PermissionDenied | ErrorKind::Conflict), "{own}");
}
