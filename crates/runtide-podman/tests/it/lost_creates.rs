//! Creates whose answer is lost: what they made is found by its label, and removed.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use runtide_conformance::proxy::{Action, Endpoint as Socket, Proxy, Rule};
use runtide_core::{
    Error, ErrorKind, Result, RuntimeBackend,
    manager::{InstanceSpec, NetworkSpec, VolumeSpec},
};
use runtide_podman::{Config, Endpoint, PodmanBackend};
use serde_json::Value;

use crate::{
    bench::{Bench, LABEL},
    scripted::{PODMAN, Reply, Service},
};

/// The four objects that can be created.
const KINDS: [&str; 4] = ["container", "network", "volume", "pod"];

/// Creates an object, without a name where it can be without.
async fn create(backend: &PodmanBackend, kind: &str, label: (&str, &str), image: &str, name: &str) -> Result<()> {
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
        "volume" => backend.volumes().unwrap().create(&VolumeSpec::default().with_label(key, value)).await.map(drop),
        _ => backend.pods().create(name, &[]).await.map(drop),
    }
}

/// A service that makes one object, and answers so.
fn making(kind: &'static str, answer: Reply) -> Service {
    let made = Mutex::new(None::<String>);
    Service::with_bodies(PODMAN, move |request, body| match request {
        _ if request.starts_with("POST /") && request.ends_with(&format!("/{kind}s/create")) => {
            let body: Value = serde_json::from_str(body).unwrap();
            let labels = body.get("labels").or_else(|| body.get("Labels")).unwrap();
            *made.lock().unwrap() = Some(labels["runtide.create"].as_str().unwrap().to_owned());
            answer.clone()
        }
        _ if request.starts_with(&format!("GET /{kind}s/json?")) => {
            let mark = made.lock().unwrap().clone().unwrap();
            assert!(request.contains(&format!("runtide.create%3D{mark}")), "{request}");
            // Another client's is listed as well, by a service that knows no such filter.
            let item = |id: &str, mark: &str| {
                let labels = format!(r#"{{"runtide.create":"{mark}"}}"#);
                format!(
                    r#"{{"Id":"{id}","id":"{id}","name":"{id}","Name":"{id}","Labels":{labels},"labels":{labels}}}"#
                )
            };
            Reply::ok(format!("[{},{}]", item("theirs", "another"), item("ours", &mark)))
        }
        _ if request.starts_with(&format!("DELETE /{kind}s/ours")) => Reply::ok("[]"),
        _ if request.ends_with("/exists") => Reply::Whole(404, "{}".to_owned()),
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_leaves_nothing() {
    for kind in KINDS {
        for (answer, expected) in [
            (Reply::Hangup, ErrorKind::Unavailable),
            (Reply::Whole(502, "no answer from above".to_owned()), ErrorKind::Unavailable),
            (Reply::Whole(504, String::new()), ErrorKind::Timeout),
            (Reply::Whole(201, "<html>".to_owned()), ErrorKind::Protocol),
        ] {
            let service = making(kind, answer.clone());
            let error = create(&service.backend(), kind, ("a", "b"), "localhost/a:1", "web").await.unwrap_err();
            assert_eq!(error.kind(), expected, "{kind}, {answer:?}: {error}");
            service.sees(&format!("DELETE /{kind}s/ours")).await;
        }
    }
}

#[tokio::test]
async fn a_caller_who_gives_up_and_closes_leaves_nothing() {
    for kind in KINDS {
        let said = Arc::new(tokio::sync::Notify::new());
        let service =
            making(kind, Reply::Late(Arc::clone(&said), 200, r#"{"Id":"ours","id":"ours","Name":"ours"}"#.to_owned()));
        let (backend, begin) = (service.backend(), format!("POST /{kind}s/create"));
        tokio::select! {
            _ = create(&backend, kind, ("a", "b"), "localhost/a:1", "web") => panic!("there is no answer yet"),
            () = service.sees(&begin) => {}
        }
        backend.close().await.unwrap();
        said.notify_one();
        service.sees(&format!("DELETE /{kind}s/ours")).await;
    }
}

#[tokio::test]
async fn a_refusal_of_the_services_own_removes_nothing() {
    for kind in KINDS {
        let service = Service::new(PODMAN, |request| match request {
            _ if request.starts_with("POST /") => Reply::Whole(500, r#"{"message":"no"}"#.to_owned()),
            _ if request.starts_with("GET /images/") => Reply::ok(""),
            _ => Reply::Whole(404, "{}".to_owned()),
        });
        create(&service.backend(), kind, ("a", "b"), "localhost/a:1", "web").await.unwrap_err();
        assert!(!service.asked().iter().any(|request| request.starts_with("DELETE")), "{:?}", service.asked());
    }
}

/// Everything with this test's label, and its pods.
async fn left(bench: &Bench) -> Vec<String> {
    let filter = format!("%7B%22label%22%3A%5B%22{LABEL}%3D{}%22%5D%7D", bench.prefix);
    let mut left = Vec::new();
    for list in ["containers/json?all=true&", "networks/json?", "volumes/json?", "pods/json?"] {
        let path = if list.starts_with("pods") { "/pods/json".to_owned() } else { format!("/{list}filters={filter}") };
        let found = bench.daemon().ask("GET", &path, &Value::Null).await.unwrap().json().unwrap();
        let of_this =
            |item: &&Value| !list.starts_with("pods") || item["Name"].as_str().unwrap().starts_with(&bench.prefix);
        left.extend(found.as_array().into_iter().flatten().filter(of_this).map(ToString::to_string));
    }
    left
}

#[tokio::test]
async fn nothing_is_left_on_a_real_service_when_the_answer_is_cut_off() {
    let Some(bench) = Bench::new("lost").await else { return };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("podman.sock");
    let proxy = Proxy::start(Socket::Unix(socket.clone()), Socket::Unix(bench.socket().to_owned())).await.unwrap();
    let backend = PodmanBackend::new(Config::default().with_endpoint(Endpoint::unix(&socket))).unwrap();
    let label = (LABEL, bench.prefix.as_str());
    let image = Bench::image();
    let is_lost = |error: Error| assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    for kind in KINDS {
        let name = format!("{}-{kind}", bench.prefix);
        proxy.add(Rule::on(format!("/{kind}s/create"), Action::Cut(0)));
        is_lost(create(&backend, kind, label, &image, &name).await.unwrap_err());
        proxy.heal();
        assert_eq!(left(&bench).await, Vec::<String>::new(), "{kind}");

        // The service is still at it, or its answer is on the way.
        proxy.add(Rule::on(format!("/{kind}s/create"), Action::Delay(Duration::from_secs(600))));
        let begun = || proxy.requests().iter().any(|request| request.contains(&format!("/{kind}s/create")));
        let waits = async {
            while !begun() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            while left(&bench).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            made = create(&backend, kind, label, &image, &name) => panic!("{made:?}"),
            () = waits => {}
        }
        proxy.heal();
        let begun = Instant::now();
        while !left(&bench).await.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{kind}: {:?}", left(&bench).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn the_label_of_a_create_is_not_the_users() {
    let Some(bench) = Bench::new("own-label").await else { return };
    let spec = bench.spec("a", "true");
    let id = bench.provision().create(&spec).await.unwrap();
    let listed = bench.backend.list_instances(runtide_core::ListOptions::default()).await.unwrap();
    let listed = listed.instances.into_iter().find(|instance| instance.id == id).unwrap();
    for instance in [listed, bench.backend.inspect(&id).await.unwrap()] {
        assert_eq!(instance.labels.as_ref(), Some(&spec.labels));
    }
    bench.clear().await;
}
