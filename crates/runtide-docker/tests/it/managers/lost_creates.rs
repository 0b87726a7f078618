//! Creates whose answer is lost: what they made is found by its label, and removed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use runtide_conformance::proxy::{Action, Endpoint as Socket, Proxy, Rule};
use runtide_core::{
    ErrorKind, Result, RuntimeBackend,
    manager::{InstanceSpec, NetworkSpec, VolumeSpec},
};
use runtide_docker::{Config, DockerBackend, Endpoint};
use serde_json::Value;
use tokio::sync::Notify;

use super::bench::Bench;
use crate::scripted_daemon::{Fake, Reply, labelled};

/// The objects that can be created.
const KINDS: [&str; 3] = ["container", "network", "volume"];

/// Creates an object, without a name where it can be without.
async fn create(backend: &DockerBackend, kind: &str, label: (&str, &str), image: &str, name: &str) -> Result<()> {
    let (key, value) = label;
    match kind {
        "container" => {
            let spec = InstanceSpec::of_image(image).with_command(["true"]).with_label(key, value);
            backend.provision().unwrap().create(&spec).await.map(drop)
        }
        "network" => {
            let spec = NetworkSpec::named(name).with_label(key, value);
            backend.networks().unwrap().create(&spec).await.map(drop)
        }
        _ => backend.volumes().unwrap().create(&VolumeSpec::default().with_label(key, value)).await.map(drop),
    }
}

/// A daemon that makes one object, and answers so.
fn making(kind: &'static str, answer: impl Fn() -> Reply + Send + Sync + 'static) -> Fake {
    Fake::new(move |request| match request {
        _ if request.starts_with(&format!("POST /{kind}s/create")) => answer(),
        _ if request.starts_with(&format!("GET /{kind}s")) && request.contains("label") => {
            // Another client's is listed as well, by a daemon that knows no such filter.
            let ours = labelled(request, "ours");
            let theirs = r#"{"Id":"theirs","Name":"theirs","Labels":{"runtide.create":"another"}}"#;
            let both = ours.replacen('[', &format!("[{theirs},"), 1);
            Reply::ok(&if kind == "volume" { format!(r#"{{"Volumes":{both},"Warnings":null}}"#) } else { both })
        }
        _ if request.starts_with(&format!("DELETE /{kind}s/ours")) => Reply::empty(),
        _ => Reply::message(404, "no such thing"),
    })
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_leaves_nothing() {
    type Answer = fn() -> Reply;
    let answers: [(Answer, ErrorKind); 4] = [
        (|| Reply::Hangup, ErrorKind::Unavailable),
        (|| Reply::Json(502, "no answer from above".to_owned()), ErrorKind::Unavailable),
        (|| Reply::Json(504, String::new()), ErrorKind::Timeout),
        (|| Reply::Json(201, "<html>".to_owned()), ErrorKind::Protocol),
    ];
    for kind in KINDS {
        for (answer, expected) in answers {
            let fake = making(kind, answer);
            let error = create(&fake.backend, kind, ("a", "b"), "a:1", "web").await.unwrap_err();
            assert_eq!(error.kind(), expected, "{kind}: {error}");
            fake.sees(&format!("DELETE /{kind}s/ours")).await;
            assert!(!fake.seen().iter().any(|request| request.contains("theirs")), "{:?}", fake.seen());
        }
    }
}

#[tokio::test]
async fn a_caller_who_gives_up_and_closes_leaves_nothing() {
    for kind in KINDS {
        let gate = Arc::new(Notify::new());
        let late = Arc::clone(&gate);
        let fake = making(kind, move || {
            let answer = || Reply::Json(201, r#"{"Id":"ours","Name":"ours","Warnings":[]}"#.to_owned());
            Reply::Late(Arc::clone(&late), Box::new(answer))
        });
        let begin = format!("POST /{kind}s/create");
        tokio::select! {
            _ = create(&fake.backend, kind, ("a", "b"), "a:1", "web") => panic!("there is no answer yet"),
            () = fake.sees(&begin) => {}
        }
        fake.backend.close().await.unwrap();
        gate.notify_one();
        fake.sees(&format!("DELETE /{kind}s/ours")).await;
    }
}

#[tokio::test]
async fn a_volume_that_another_client_made_at_the_same_moment_is_not_ours() {
    for (labels, expected) in [("{}", ErrorKind::AlreadyExists), (r#"{"a":"b"}"#, ErrorKind::Conflict)] {
        let there = format!(r#"{{"Name":"vol","Driver":"local","Labels":{labels},"Options":null}}"#);
        let fake = Fake::new(move |request| match request {
            // The daemon answers 201, with the volume that is there.
            "POST /volumes/create" => Reply::Json(201, there.clone()),
            _ => Reply::message(404, "no such volume"),
        });
        let error = fake.backend.volumes().unwrap().create(&VolumeSpec::named("vol")).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert!(!fake.seen().iter().any(|request| request.starts_with("DELETE")), "{:?}", fake.seen());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_volumes_of_one_name_one_is_made() {
    let Some(bench) = Bench::new("vol-race").await else { return };
    for round in 0..4 {
        let name = format!("{}-{round}", bench.prefix);
        let spec = VolumeSpec::named(&name).with_label("runtide.test", &bench.prefix);
        let creates = (0..6).map(|_| {
            let config = Config::default().with_endpoint(Endpoint::unix(bench.socket()));
            let (backend, spec) = (DockerBackend::new(config).unwrap(), spec.clone());
            tokio::spawn(async move { backend.volumes().unwrap().create(&spec).await })
        });
        let mut made = 0;
        for create in creates.collect::<Vec<_>>() {
            match create.await.unwrap() {
                Ok(_) => made += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
            }
        }
        assert_eq!(made, 1, "one client made it, and knows");
        let seen = bench.volumes().inspect(&name.as_str().into()).await.unwrap();
        assert_eq!(seen.labels, spec.labels, "the create's own label is not the user's");
    }
}

/// Everything with this test's label.
fn left(bench: &Bench) -> Vec<Value> {
    let filter = format!("%7B%22label%22%3A%5B%22runtide.test%3D{}%22%5D%7D", bench.prefix);
    let list = |path: &str| bench.json("GET", &format!("/{path}filters={filter}"), "");
    let volumes = list("volumes?")["Volumes"].clone();
    let all = [list("containers/json?all=1&"), list("networks?"), volumes];
    all.iter().flat_map(|found| found.as_array().cloned().unwrap_or_default()).collect()
}

#[tokio::test]
async fn nothing_is_left_on_a_real_daemon_when_the_answer_is_cut_off() {
    let Some(bench) = Bench::new("lost").await else { return };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let proxy = Proxy::start(Socket::Unix(socket.clone()), Socket::Unix(bench.socket().to_owned())).await.unwrap();
    let backend = DockerBackend::new(Config::default().with_endpoint(Endpoint::unix(&socket))).unwrap();
    let (label, image) = (("runtide.test", bench.prefix.as_str()), Bench::image());
    for kind in KINDS {
        let name = format!("{}-{kind}", bench.prefix);
        proxy.add(Rule::on(format!("/{kind}s/create"), Action::Cut(0)));
        let error = create(&backend, kind, label, &image, &name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        proxy.heal();
        assert_eq!(left(&bench), Vec::<Value>::new(), "{kind}");

        // The daemon has made it, and its answer is on the way.
        proxy.add(Rule::on(format!("/{kind}s/create"), Action::Delay(Duration::from_secs(600))));
        let waits = async {
            while left(&bench).is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            made = create(&backend, kind, label, &image, &name) => panic!("{made:?}"),
            () = waits => {}
        }
        proxy.heal();
        let begun = Instant::now();
        while !left(&bench).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{kind}: {:?}", left(&bench));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn the_label_of_a_create_is_not_the_users() {
    let Some(bench) = Bench::new("own-label").await else { return };
    let spec = bench.spec("a", "true");
    let id = bench.provision().create(&spec).await.unwrap();
    assert!(bench.inspect(&id)["Config"]["Labels"]["runtide.create"].is_string());
    let listed = bench.backend.list_instances(runtide_core::ListOptions::default()).await.unwrap();
    let listed = listed.instances.into_iter().find(|instance| instance.id == id).unwrap();
    for instance in [listed, bench.backend.inspect(&id).await.unwrap()] {
        assert_eq!(instance.labels.as_ref(), Some(&spec.labels));
    }
}
