//! Creating, on a real daemon.

use std::{
    num::{NonZeroU16, NonZeroU32, NonZeroU64},
    time::Duration,
};

use runtide_core::{
    ErrorKind, ImageRef, Port, Protocol, UnixSignal,
    manager::{LogOptions, Mount, MountSource, RestartPolicy, VolumeId},
};
use serde_json::json;

use super::bench::Bench;

#[tokio::test]
async fn every_field_of_a_spec_reaches_the_container() {
    let Some(bench) = Bench::new("spec").await else { return };
    let (first, second, volume) = (bench.network("one"), bench.network("two"), bench.volume("v"));
    let mut spec = bench.spec("a", "exit 0");
    spec.entrypoint = Some(vec!["/bin/env".to_owned(), "X=1".to_owned()]);
    spec.env.insert("GREETING".to_owned(), "a \"quoted\"\nline = $HOME".to_owned());
    spec.user = Some("1000:1000".to_owned());
    spec.working_dir = Some("/tmp".to_owned());
    spec.labels.insert("with.quote", "it's \"so\"\n");
    spec.mounts = vec![
        Mount::new(MountSource::Bind("/tmp".into()), "/host: tmp").read_only(),
        Mount::new(MountSource::Volume(VolumeId::from(volume.as_str())), "/data"),
        Mount::new(MountSource::Tmpfs, "/scratch"),
    ];
    let port = |number, protocol| Port::new(NonZeroU16::new(number).unwrap(), protocol);
    spec.ports = vec![
        port(80, Protocol::Tcp).published_at("127.0.0.1:0".parse().unwrap()),
        port(53, Protocol::Udp),
        port(99, Protocol::Sctp),
    ];
    spec.networks = vec![first.as_str().into(), second.as_str().into()];
    spec.memory_bytes = NonZeroU64::new(32 << 20);
    spec.milli_cpus = NonZeroU32::new(250);
    spec.pids = NonZeroU32::new(40);
    spec.restart = RestartPolicy::OnFailure { attempts: Some(2) };
    spec.stop_signal = Some("RTMIN+20".parse::<UnixSignal>().unwrap());
    spec.stop_timeout = Some(Duration::from_millis(1500));
    spec.native.insert("hostname".to_owned(), "called".to_owned());
    spec.native.insert("healthcheck".to_owned(), r#"{"Test":["CMD","true"],"Interval":5000000000}"#.to_owned());
    spec.native.insert("cap_drop".to_owned(), "NET_RAW".to_owned());
    let id = bench.provision().create(&spec).await.unwrap();

    let made = bench.inspect(&id);
    assert_eq!(made["State"]["Status"], "created", "created, never started");
    let config = &made["Config"];
    assert_eq!(config["Entrypoint"], json!(["/bin/env", "X=1"]));
    assert_eq!(config["Cmd"], json!(["/bin/sh", "-c", "exit 0"]));
    assert!(config["Env"].as_array().unwrap().contains(&json!("GREETING=a \"quoted\"\nline = $HOME")));
    assert_eq!(
        (&config["User"], &config["WorkingDir"], &config["Hostname"]),
        (&json!("1000:1000"), &json!("/tmp"), &json!("called"))
    );
    assert_eq!(config["Labels"]["with.quote"], "it's \"so\"\n");
    assert_eq!((&config["StopSignal"], &config["StopTimeout"]), (&json!("54"), &json!(2)));
    assert_eq!(config["Healthcheck"]["Interval"], 5_000_000_000_u64);
    assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}, "99/sctp": {}}));
    let host = &made["HostConfig"];
    assert_eq!(
        (&host["Memory"], &host["NanoCpus"], &host["PidsLimit"]),
        (&json!(32 << 20), &json!(250_000_000), &json!(40))
    );
    assert_eq!(host["RestartPolicy"], json!({"Name": "on-failure", "MaximumRetryCount": 2}));
    assert_eq!(host["CapDrop"], json!(["NET_RAW"]));
    let mounts: Vec<_> = made["HostConfig"]["Mounts"].as_array().unwrap().iter().map(|m| m["Target"].clone()).collect();
    assert_eq!(mounts, ["/host: tmp", "/data", "/scratch"]);
    assert_eq!(host["Mounts"][0]["ReadOnly"], true);
    let joined = made["NetworkSettings"]["Networks"].as_object().unwrap();
    assert_eq!(
        joined.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(),
        [&*first, &*second].into()
    );
}

#[tokio::test]
async fn a_published_port_0_is_picked_by_the_daemon() {
    let Some(bench) = Bench::new("port").await else { return };
    let mut spec = bench.spec("a", "exec sleep 600");
    spec.ports =
        vec![Port::new(NonZeroU16::new(80).unwrap(), Protocol::Tcp).published_at("127.0.0.1:0".parse().unwrap())];
    let id = bench.run_spec(&spec).await;
    let binding = bench.inspect(&id)["NetworkSettings"]["Ports"]["80/tcp"][0].clone();
    assert_eq!(binding["HostIp"], "127.0.0.1");
    assert!(binding["HostPort"].as_str().unwrap().parse::<u16>().unwrap() > 0);
}

#[tokio::test]
async fn the_environment_arrives_to_the_last_byte() {
    let Some(bench) = Bench::new("env").await else { return };
    for (name, value) in [
        ("big", "x".repeat(64 * 1024)),
        ("odd", "a'b\"c`d$(e)\n\t\\ é = \u{7f} ; rm -rf /".to_owned()),
        ("empty", String::new()),
    ] {
        let mut spec = bench.spec(name, "printf %s \"$VALUE\"");
        spec.env.insert("VALUE".to_owned(), value.clone());
        let id = bench.run_spec(&spec).await;
        bench.lifecycle().wait(&id).await.unwrap();
        let mut output = bench.logs().logs(&id, LogOptions::default()).await.unwrap();
        let mut read = Vec::new();
        while let Some(line) = output.next().await {
            read.extend_from_slice(&line.unwrap().bytes);
        }
        assert_eq!(read, value.as_bytes(), "{name}");
    }
}

#[tokio::test]
async fn an_entry_point_is_kept_replaced_or_cleared() {
    let Some(bench) = Bench::new("entry").await else { return };
    let base = bench.create("base", "").await;
    let image = bench.prefix.clone();
    let body = json!({"Entrypoint": ["/bin/echo", "entry"], "Cmd": ["cmd"], "Labels": {"runtide.test": bench.prefix}});
    bench.json("POST", &format!("/commit?container={base}&repo={image}&tag=1"), &body.to_string());
    for (name, entrypoint, path, args) in [
        ("kept", None, "/bin/echo", json!(["entry", "x"])),
        ("other", Some(vec!["/bin/cat".to_owned()]), "/bin/cat", json!(["x"])),
        ("none", Some(vec![]), "x", json!([])),
    ] {
        let mut spec = bench.spec(name, "");
        spec.image = Some(ImageRef::from(format!("{image}:1")));
        (spec.entrypoint, spec.command) = (entrypoint, vec!["x".to_owned()]);
        let made = bench.inspect(&bench.provision().create(&spec).await.unwrap());
        assert_eq!((&made["Path"], &made["Args"]), (&json!(path), &args), "{name}");
    }
    let mut spec = bench.spec("own", "");
    (spec.image, spec.command) = (Some(ImageRef::from(format!("{image}:1"))), vec![]);
    assert_eq!(bench.inspect(&bench.provision().create(&spec).await.unwrap())["Args"], json!(["entry", "cmd"]));
}

#[tokio::test]
async fn missing_or_taken_parts_are_reported_and_nothing_is_left() {
    let Some(bench) = Bench::new("absent").await else { return };
    let absent = |field: &str| {
        let mut spec = bench.spec(field, "exit 0");
        match field {
            "image" => spec.image = Some(ImageRef::from("runtide/no-such-image:0")),
            "network" => spec.networks = vec!["runtide-no-such-network".into()],
            _ => spec.mounts = vec![Mount::new(MountSource::Volume(VolumeId::from("runtide-no-such-volume")), "/v")],
        }
        spec
    };
    for field in ["image", "network", "volume"] {
        let error = bench.provision().create(&absent(field)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{field}: {error}");
    }
    assert_eq!(bench.raw("GET", "/volumes/runtide-no-such-volume", "").0, 404, "nothing was made in passing");
    let mut missing = bench.spec("bind", "exit 0");
    missing.mounts = vec![Mount::new(MountSource::Bind("/no/such/path/of/runtide".into()), "/v")];
    bench.provision().create(&missing).await.unwrap_err();
    assert_eq!(bench.containers(), 0);

    bench.create("twice", "exit 0").await;
    let error = bench.provision().create(&bench.spec("twice", "exit 0")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(bench.containers(), 1);
}
