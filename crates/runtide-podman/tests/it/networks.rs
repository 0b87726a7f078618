//! Networks, on a real Podman and on one that answers as Podman does in a race.

use std::{net::IpAddr, sync::Mutex};

use runtide_core::{
    ErrorKind, InstanceId, RuntimeBackend,
    manager::{ConnectOptions, Effect, NetworkAttachment, NetworkId, NetworkSpec, RemoveOptions, Subnet},
};
use runtide_podman::{Config, Endpoint, PodmanBackend};
use serde_json::Value;

use crate::{
    bench::{Bench, LABEL},
    scripted::{PODMAN, Reply, Service},
};

/// A range of this test alone, out of those that Podman picks for itself.
fn range(third: u8) -> String {
    format!("10.214.{third}.0/24")
}

fn spec(bench: &Bench, name: &str) -> NetworkSpec {
    NetworkSpec::named(format!("{}-{name}", bench.prefix)).with_label(LABEL, &bench.prefix)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn seen(bench: &Bench, path: &str) -> Value {
    bench.daemon().ask("GET", path, &Value::Null).await.unwrap().json().unwrap()
}

#[tokio::test]
async fn a_network_is_made_shown_and_removed() {
    let Some(bench) = Bench::new("net").await else { return };
    let networks = bench.networks();
    let wanted = spec(&bench, "full")
        .with_driver("bridge")
        .with_internal()
        .with_ipv6()
        .with_subnet(Subnet::new(range(1)).with_gateway(ip("10.214.1.9")))
        .with_subnet("fd00:214:1::/64")
        .with_options([("mtu", "1400")])
        .with_label("odd", "it's \"so\"\n\0");
    let id = networks.create(&wanted).await.unwrap();
    let outside = seen(&bench, &format!("/networks/{id}/json")).await;
    assert_eq!((&outside["labels"]["odd"], &outside["dns_enabled"]), (&"it's \"so\"\n\0".into(), &true.into()));
    let listed = networks.list().await.unwrap();
    for info in [
        networks.inspect(&id).await.unwrap(),
        networks.inspect(&NetworkId::from(wanted.name.as_str())).await.unwrap(),
        networks.inspect(&NetworkId::from(&id.as_str()[..12])).await.unwrap(),
        listed.into_iter().find(|info| info.id == id).unwrap(),
    ] {
        assert_eq!(
            (&info.id, &info.name, &info.labels, &info.options),
            (&id, &wanted.name, &wanted.labels, &wanted.options)
        );
        assert_eq!((info.driver.as_deref(), info.internal, info.ipv6), (Some("bridge"), Some(true), Some(true)));
        assert_eq!((info.gateway, info.subnets.len()), (Some(ip("10.214.1.9")), 2));
        assert_eq!(info.subnets[1].gateway, Some(ip("fd00:214:1::1")));
    }
    assert_eq!(networks.create(&wanted).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let overlaps = networks.create(&spec(&bench, "b").with_subnet(range(1).as_str())).await.unwrap_err();
    assert_eq!(overlaps.kind(), ErrorKind::Conflict, "{overlaps}");
    for unsupported in [
        spec(&bench, "c").with_driver("runtide-no-such-driver"),
        spec(&bench, "c").with_options([("runtide.no.such.option", "1")]),
    ] {
        let error = networks.create(&unsupported).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.fact("feature").is_some() && error.fact("reason").is_some(), "{error}");
    }
    let mode = networks.create(&NetworkSpec::named("bridge")).await.unwrap_err();
    assert_eq!(mode.kind(), ErrorKind::InvalidInput, "{mode}");
    assert!(!networks.list().await.unwrap().iter().any(|info| info.name == spec(&bench, "c").name), "nothing was made");

    assert_eq!(networks.remove(&id).await.unwrap(), Effect::Changed);
    assert_eq!(networks.remove(&id).await.unwrap(), Effect::Unchanged);
    assert_eq!(networks.inspect(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    let own = networks.remove(&"podman".into()).await.unwrap_err();
    assert!(matches!(own.kind(), ErrorKind::PermissionDenied | ErrorKind::Conflict), "{own}");
}

#[tokio::test]
async fn a_network_shows_its_members_running_or_not_and_is_kept_for_them() {
    let Some(bench) = Bench::new("net-info").await else { return };
    let networks = bench.networks();
    let id = networks.create(&spec(&bench, "lan")).await.unwrap();
    let in_it = |name: &str, script: &str| bench.spec(name, script).with_networks([spec(&bench, "lan").name.as_str()]);
    let create = async |spec| bench.provision().create(&spec).await.unwrap();
    let (runs, created, ended) = (
        create(in_it("runs", "sleep 600")).await,
        create(in_it("created", "true")).await,
        create(in_it("ended", "true")).await,
    );
    for id in [&runs, &ended] {
        bench.lifecycle().start(id).await.unwrap();
    }
    bench.lifecycle().wait(&ended).await.unwrap();
    let _elsewhere = bench.run("elsewhere", "sleep 600").await;
    let pod = format!("{}-pod", bench.prefix);
    let body =
        serde_json::json!({ "name": pod, "netns": {"nsmode": "bridge"}, "networks": { spec(&bench, "lan").name: {} } });
    bench.daemon().ask("POST", "/pods/create", &body).await.unwrap();
    let in_pod = create(bench.spec("in-pod", "sleep 600").with_native([("pod", pod.as_str())])).await;

    let mut members = [runs.clone(), created.clone(), ended.clone(), in_pod.clone()];
    members.sort();
    let listed = networks.list().await.unwrap().into_iter().find(|info| info.id == id).unwrap();
    for mut info in [networks.inspect(&id).await.unwrap(), listed] {
        info.members.sort();
        assert_eq!(info.members, members);
    }
    // By its id Podman would take it from under them.
    for last in [runs, ended, created, in_pod] {
        let refused = networks.remove(&id).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        bench.lifecycle().remove(&last, RemoveOptions::default().with_kill()).await.unwrap();
    }
    let refused = networks.remove(&id).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.fact("pod").is_some()),
        (ErrorKind::Conflict, true),
        "a pod without a container"
    );
    bench.backend.pods().remove(&pod, true).await.unwrap();
    assert_eq!(networks.remove(&id).await.unwrap(), Effect::Changed);
    bench.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_networks_of_one_name_one_is_made() {
    let Some(bench) = Bench::new("net-race").await else { return };
    let spec = spec(&bench, "race");
    let creates = (0..6).map(|_| {
        let config = Config::default().with_endpoint(Endpoint::unix(bench.socket()));
        let (backend, spec) = (PodmanBackend::new(config).unwrap(), spec.clone());
        tokio::spawn(async move { backend.networks().unwrap().create(&spec).await })
    });
    let mut made = Vec::new();
    for create in creates.collect::<Vec<_>>() {
        match create.await.unwrap() {
            Ok(id) => made.push(id),
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
        }
    }
    let there = bench.networks().list().await.unwrap();
    let there: Vec<_> = there.into_iter().filter(|info| info.name == spec.name).map(|info| info.id).collect();
    assert_eq!((made.len(), there), (1, made), "one was made, and it is there");
    bench.clear().await;
}

#[tokio::test]
async fn a_container_is_connected_under_further_names_and_at_an_address() {
    let Some(bench) = Bench::new("net-connect").await else { return };
    let networks = bench.networks();
    let id = networks.create(&spec(&bench, "lan").with_subnet(range(3).as_str())).await.unwrap();
    // One of the default network's.
    let joined = |name: &str| bench.spec(name, "sleep 600").with_networks([NetworkAttachment::new("podman")]);
    let run = async |name| {
        let id = bench.provision().create(&joined(name)).await.unwrap();
        bench.lifecycle().start(&id).await.unwrap();
        id
    };
    let (server, other) = (run("server").await, run("other").await);
    let idle = bench.provision().create(&joined("idle")).await.unwrap();
    let at = |address: &str| ConnectOptions::default().with_address(Some(ip(address)));
    let as_db = at("10.214.3.7").with_aliases(vec!["db".to_owned(), "db.internal".to_owned()]);
    let connect = async |container, options| networks.connect(&id, container, options).await;
    assert_eq!(connect(&server, as_db.clone()).await.unwrap(), Effect::Changed);
    assert_eq!(connect(&server, as_db).await.unwrap(), Effect::Unchanged);
    assert_eq!(connect(&server, ConnectOptions::default()).await.unwrap(), Effect::Unchanged);
    let endpoint = seen(&bench, &format!("/containers/{server}/json")).await["NetworkSettings"]["Networks"]
        [spec(&bench, "lan").name]
        .clone();
    assert_eq!(endpoint["IPAddress"], "10.214.3.7");
    let other_name = ConnectOptions::default().with_aliases(vec!["web".to_owned()]);
    assert_eq!(connect(&server, other_name).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(connect(&server, at("10.214.3.99")).await.unwrap_err().kind(), ErrorKind::Conflict);

    let refused = async |options| connect(&other, options).await.unwrap_err().kind();
    assert_eq!(refused(at("10.214.3.7")).await, ErrorKind::Conflict, "the address is taken");
    assert_eq!(refused(at("10.214.3.1")).await, ErrorKind::Conflict, "the address is the gateway's");
    assert_eq!(refused(at("10.214.4.7")).await, ErrorKind::InvalidInput, "the address is of another range");
    for alias in ["", "a b", "a\n", "a\0", "é"] {
        let options = ConnectOptions::default().with_aliases(vec![alias.to_owned()]);
        assert_eq!(refused(options).await, ErrorKind::InvalidInput, "{alias:?}");
    }
    bench.backend.inspect(&other).await.unwrap();

    // One that does not run shows no address.
    assert_eq!(connect(&idle, at("10.214.3.8")).await.unwrap(), Effect::Changed);
    assert_eq!(connect(&idle, ConnectOptions::default()).await.unwrap(), Effect::Unchanged);
    bench.lifecycle().start(&idle).await.unwrap();
    assert_eq!(connect(&idle, at("10.214.3.8")).await.unwrap(), Effect::Unchanged);

    for container in [&server, &idle] {
        assert_eq!(networks.disconnect(&id, container).await.unwrap(), Effect::Changed);
        assert_eq!(networks.disconnect(&id, container).await.unwrap(), Effect::Unchanged);
        let left = seen(&bench, &format!("/containers/{container}/json")).await;
        assert!(left["NetworkSettings"]["Networks"].get(spec(&bench, "lan").name).is_none(), "{left}");
    }
    let no_names = networks.connect(&"podman".into(), &server, ConnectOptions::default()).await.unwrap();
    assert_eq!(no_names, Effect::Unchanged);
    let absent = InstanceId::from("runtide-no-such-container");
    assert_eq!(networks.disconnect(&id, &absent).await.unwrap(), Effect::Unchanged);
    assert_eq!(networks.disconnect(&"runtide-no-such-network".into(), &server).await.unwrap(), Effect::Unchanged);
    assert_eq!(connect(&absent, ConnectOptions::default()).await.unwrap_err().kind(), ErrorKind::NotFound);
    let nowhere = networks.connect(&"runtide-no-such-network".into(), &server, ConnectOptions::default()).await;
    assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::NotFound);
    bench.clear().await;
}

#[tokio::test]
async fn a_container_whose_networks_cannot_change_is_refused_and_left_as_it_was() {
    let Some(bench) = Bench::new("net-mode").await else { return };
    let networks = bench.networks();
    let id = networks.create(&spec(&bench, "lan")).await.unwrap();
    let of_mode = |name: &str, mode: &str| bench.spec(name, "sleep 600").with_networks([mode]);
    let alone = bench.provision().create(&of_mode("none", "none")).await.unwrap();
    let error = networks.connect(&id, &alone, ConnectOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.fact("feature")), (ErrorKind::Unsupported, Some("networks_connect")), "{error}");
    let paused = bench.provision().create(&of_mode("paused", "podman")).await.unwrap();
    bench.lifecycle().start(&paused).await.unwrap();
    bench.lifecycle().pause(&paused).await.unwrap();
    // Podman would answer with success, and fail at every inspection from then on.
    let error = networks.connect(&id, &paused, ConnectOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.fact("state")), (ErrorKind::Conflict, Some("paused")), "{error}");
    bench.lifecycle().unpause(&paused).await.unwrap();
    let aliases = ConnectOptions::default().with_aliases(vec!["db".to_owned()]);
    let error = networks.connect(&"podman".into(), &alone, aliases).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "the default network has no names: {error}");
    bench.clear().await;
}

#[tokio::test]
async fn hostile_networks_are_refused_and_no_other_network_is_touched() {
    let Some(bench) = Bench::new("net-hostile").await else { return };
    let networks = bench.networks();
    let victim = networks.create(&spec(&bench, "victim")).await.unwrap();
    let container = bench.provision().create(&bench.spec("c", "true")).await.unwrap();
    let mut words: Vec<String> =
        ["", ".", "..", "../containers", "a/b", "a?x", "a#b", "a b", "a\n", "a\0", "%2e%2e", "é", "-f"]
            .map(str::to_owned)
            .into();
    words.extend(["x".repeat(64 << 10), format!("{victim}?x=1"), format!("./{victim}"), format!("{victim}\n")]);
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
    // Podman takes the beginning of an id for the id: a network of such a name may be gone.
    for length in [1, 4, 11] {
        let begin = NetworkId::from(&victim.as_str()[..length]);
        assert_eq!(networks.remove(&begin).await.unwrap(), Effect::Unchanged, "{begin}");
    }
    networks.inspect(&victim).await.unwrap();
    bench.clear().await;
}

#[tokio::test]
async fn a_refusal_within_a_success_is_an_error() {
    let service = Service::new(PODMAN, |request| match request {
        "GET /networks/lan/json" => Reply::ok(r#"{"id":"1","name":"lan"}"#),
        "GET /containers/json?all=true" => Reply::ok("[]"),
        "DELETE /networks/lan" => Reply::ok(r#"[{"Name":"lan","Err":"the disk is gone"}]"#),
        other => panic!("{other}"),
    });
    let error = service.backend().networks().unwrap().remove(&"lan".into()).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unexpected, "the disk is gone"), "{error}");
}

#[tokio::test]
async fn a_connection_that_failed_half_way_is_taken_back() {
    let inspected = Mutex::new(0);
    let whole = r#"{"Id":"c1","State":{"Status":"running"},"HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Networks":{}}}"#;
    let service = Service::new(PODMAN, move |request| match request {
        "GET /networks/lan/json" => Reply::ok(r#"{"id":"1","name":"lan","dns_enabled":true}"#),
        "GET /containers/c1/json" => {
            let mut inspected = inspected.lock().unwrap();
            *inspected += 1;
            // As Podman is after a connection that it wrote down and could not make.
            if *inspected == 2 {
                Reply::Whole(500, r#"{"message":"network inspection mismatch"}"#.to_owned())
            } else {
                Reply::ok(whole)
            }
        }
        "POST /networks/lan/connect" => {
            Reply::Whole(500, r#"{"message":"IPAM error: requested ip address is already allocated"}"#.to_owned())
        }
        "POST /networks/lan/disconnect" => Reply::ok("{}"),
        other => panic!("{other}"),
    });
    let error =
        service.backend().networks().unwrap().connect(&"lan".into(), &"c1".into(), ConnectOptions::default()).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(service.asked().contains(&"POST /networks/lan/disconnect".to_owned()), "{:?}", service.asked());
}
