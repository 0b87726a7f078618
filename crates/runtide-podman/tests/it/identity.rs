//! A service that takes the beginning of an id for the id: no call acts on what it did not name.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use runtide_core::{
    ErrorKind, InstanceId, Result, RuntimeBackend, UnixSignal,
    manager::{AttachOptions, ConnectOptions, Effect, InstanceSpec, LogOptions, RemoveOptions, StopOptions},
};
use runtide_podman::PodmanBackend;
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    exec::{argv, size},
    scripted::{PODMAN, Reply, Service},
};

/// An id that begins like names that people give.
const ID: &str = "cafe0f6fd7d1aa00cafe0f6fd7d1aa00cafe0f6fd7d1aa00cafe0f6fd7d1aa00";

fn container(state: &str) -> Reply {
    Reply::ok(format!(
        r#"{{"Id":"{ID}","Name":"web","State":{{"Status":"{state}","StartedAt":"2024-01-01T00:00:00.1Z"}},
        "Config":{{"Tty":true}},"HostConfig":{{"NetworkMode":"bridge"}},"NetworkSettings":{{"Networks":{{}}}}}}"#
    ))
}

fn network() -> Reply {
    Reply::ok(format!(r#"{{"id":"{ID}","name":"lan","dns_enabled":true}}"#))
}

/// Every verb on a container.
async fn verbs(backend: &PodmanBackend, id: &InstanceId) -> Vec<(&'static str, Result<()>)> {
    let (verbs, exec, networks) = (backend.lifecycle().unwrap(), backend.exec().unwrap(), backend.networks().unwrap());
    let kill = RemoveOptions::default().with_kill();
    vec![
        ("start", verbs.start(id).await.map(drop)),
        ("stop", verbs.stop(id, StopOptions::default()).await.map(drop)),
        ("restart", verbs.restart(id, StopOptions::default()).await),
        ("kill", verbs.kill(id, UnixSignal::TERM).await),
        ("pause", verbs.pause(id).await.map(drop)),
        ("unpause", verbs.unpause(id).await.map(drop)),
        ("wait", verbs.wait(id).await.map(drop)),
        ("rename", verbs.rename(id, "other").await.map(drop)),
        ("exec", exec.exec(id, argv(&["true"])).await.map(drop)),
        ("attach", exec.attach(id, AttachOptions::default()).await.map(drop)),
        ("start_attached", exec.start_attached(id, AttachOptions::default()).await.map(drop)),
        ("resize", exec.resize(id, size(80, 24)).await),
        ("logs", backend.logs().unwrap().logs(id, LogOptions::default()).await.map(drop)),
        ("usage", backend.stats().unwrap().usage(id).await.map(drop)),
        ("connect", networks.connect(&"lan".into(), id, ConnectOptions::default()).await.map(drop)),
        ("remove", verbs.remove(id, kill).await.map(drop)),
    ]
}

fn no(status: u16, message: &str) -> Reply {
    Reply::Whole(status, format!(r#"{{"cause":"c","message":"{message}","response":{status}}}"#))
}

#[tokio::test]
async fn no_verb_acts_on_a_container_by_the_beginning_of_its_id() {
    let ambiguous = no(500, "more than one result for container name or ID cafe: container already exists");
    for found in [container("running"), container("exited"), ambiguous] {
        let service = Service::new(PODMAN, move |request| match request {
            "GET /containers/cafe/json" => found.clone(),
            "GET /networks/lan/json" => network(),
            other => panic!("{other}"),
        });
        for (verb, result) in verbs(&service.backend(), &"cafe".into()).await {
            match result {
                Ok(()) => assert_eq!(verb, "remove", "what does not exist is removed"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{verb}: {error}"),
            }
        }
        assert!(service.asked().iter().all(|request| request.starts_with("GET ")), "{:?}", service.asked());
    }
}

#[tokio::test]
async fn a_verb_is_sent_to_the_container_that_was_inspected() {
    for state in ["running", "paused", "exited"] {
        let service = Service::new(PODMAN, move |request| match request {
            "GET /networks/lan/json" => network(),
            _ if request == "GET /containers/web/json" || request == format!("GET /containers/{ID}/json") => {
                container(state)
            }
            _ => no(500, "no"),
        });
        let _ = verbs(&service.backend(), &"web".into()).await;
        let asked = service.asked();
        let by_name = |request: &&String| request.contains("/containers/web") && *request != "GET /containers/web/json";
        assert_eq!(asked.iter().find(by_name), None, "{state}");
        assert!(asked.iter().any(|request| request.starts_with(&format!("DELETE /containers/{ID}?"))), "{asked:?}");
    }
}

/// A service that has the container `web` and the network `lan`, and answers a create so. Its body is kept.
fn creates(answer: Reply) -> (Service, Arc<Mutex<Option<Value>>>) {
    let sent = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&sent);
    let service = Service::with_bodies(PODMAN, move |request, body| {
        let found = |kind: &str, name: &str| {
            [name, "cafe", ID].into_iter().any(|given| request == format!("GET /{kind}/{given}/json"))
        };
        match request {
            _ if found("containers", "web") => container("exited"),
            _ if found("networks", "lan") => network(),
            _ if request.starts_with("GET /images/") => Reply::Whole(204, String::new()),
            "POST /containers/create" => {
                *kept.lock().unwrap() = Some(serde_json::from_str(body).unwrap());
                answer.clone()
            }
            _ => no(404, "no such object"),
        }
    });
    (service, sent)
}

async fn create(service: &Service, spec: InstanceSpec) -> Result<InstanceId> {
    service.backend().provision().unwrap().create(&spec).await
}

fn made() -> Reply {
    Reply::Whole(201, r#"{"Id":"made1","Warnings":[]}"#.to_owned())
}

#[tokio::test]
async fn a_name_is_not_taken_by_an_id_that_begins_so() {
    let spec = |name: &str| InstanceSpec::of_image("localhost/a:1").with_name(name);
    assert_eq!(create(&creates(made()).0, spec("cafe")).await.unwrap().as_str(), "made1");
    let refused = create(&creates(no(500, "no room")).0, spec("cafe")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unexpected, "the refusal is the service's own: {refused}");
    let (service, sent) = creates(made());
    assert_eq!(create(&service, spec("web")).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(*sent.lock().unwrap(), None);
}

#[tokio::test]
async fn a_container_joins_the_network_that_was_named() {
    let spec = |networks: &[&str]| InstanceSpec::of_image("localhost/a:1").with_networks(networks.iter().copied());
    let (service, sent) = creates(made());
    assert_eq!(create(&service, spec(&["cafe"])).await.unwrap_err().kind(), ErrorKind::NotFound);
    let twice = create(&service, spec(&["lan", ID])).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::InvalidInput, "{twice}");
    assert_eq!(*sent.lock().unwrap(), None);
    create(&service, spec(&[ID])).await.unwrap();
    assert_eq!(sent.lock().unwrap().as_ref().unwrap()["networks"], serde_json::json!({ "lan": {} }));
}

#[tokio::test]
async fn a_container_joins_the_pod_and_has_the_secrets_that_were_named() {
    const SECRET: &str = "cafe0f6fd7d1aa00cafe0f6fd";
    let sent = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&sent);
    let service = Service::with_bodies(PODMAN, move |request, body| match request {
        "GET /pods/shop/json" | "GET /pods/cafe/json" | "GET /pods/cafe0f6fd7d1/json" => {
            Reply::ok(format!(r#"{{"Id":"{ID}","Name":"shop","State":"Running"}}"#))
        }
        "GET /secrets/key/json" | "GET /secrets/cafe/json" => {
            Reply::ok(format!(r#"{{"ID":"{SECRET}","Spec":{{"Name":"key"}}}}"#))
        }
        "POST /containers/create" => {
            *kept.lock().unwrap() = Some(serde_json::from_str::<Value>(body).unwrap());
            made()
        }
        _ => no(404, "no such object"),
    });
    let spec = |key: &str, value: &str| {
        let mut spec = InstanceSpec::of_image("localhost/a:1");
        spec.native.insert(key.to_owned(), value.to_owned());
        spec
    };
    for (key, value, kind) in [
        ("pod", "cafe", ErrorKind::NotFound),
        ("pod", "other", ErrorKind::NotFound),
        ("pod", "../shop", ErrorKind::InvalidInput),
        ("secrets", r#"[{"Source":"cafe"}]"#, ErrorKind::NotFound),
        ("secrets", r#"[{"Source":"key"},{"source":"a?b"}]"#, ErrorKind::InvalidInput),
    ] {
        let error = create(&service, spec(key, value)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{key}={value}: {error}");
        assert_eq!(*sent.lock().unwrap(), None, "{key}={value}");
    }
    for (key, value, expected) in [
        ("pod", "shop", Value::from(ID)),
        ("pod", "cafe0f6fd7d1", Value::from(ID)),
        ("secrets", r#"[{"Source":"key","Target":"t"}]"#, serde_json::json!([{"Source": SECRET, "Target": "t"}])),
    ] {
        create(&service, spec(key, value)).await.unwrap();
        assert_eq!(sent.lock().unwrap().take().unwrap()[key], expected, "{value}");
    }
}

#[tokio::test]
async fn no_name_of_an_image_is_the_beginning_of_an_id() {
    let sent = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&sent);
    let service = Service::with_bodies(PODMAN, move |request, body| {
        if request == "POST /containers/create" {
            body.clone_into(&mut kept.lock().unwrap());
            return made();
        }
        no(404, "cafe:latest: image not known")
    });
    let (backend, image) = (service.backend(), "cafe".into());
    let images = backend.images().unwrap();
    assert!(!images.exists(&image).await.unwrap());
    assert_eq!(images.remove(&image).await.unwrap(), Effect::Unchanged);
    assert_eq!(images.inspect(&image).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(images.tag(&image, &"a:1".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(images.save(&[image]).await.err().unwrap().kind(), ErrorKind::NotFound);
    create(&service, InstanceSpec::of_image("cafe")).await.unwrap();
    assert!(sent.lock().unwrap().contains(r#""image":"cafe:latest""#), "{sent:?}");
    let asked = service.asked().into_iter().filter(|request| request.contains("/images/")).collect::<Vec<_>>();
    assert!(asked.len() >= 5 && asked.iter().all(|request| request.contains("/cafe%3Alatest")), "{asked:?}");
}

/// A service with the pod `shop`, whose members are alive; its own stop has nothing to do.
fn shop(member: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Service {
    Service::new(PODMAN, move |request| match request {
        _ if request == "GET /pods/shop/json" || request == format!("GET /pods/{ID}/json") => {
            let members = ["a", "b", "c"].map(|id| format!(r#"{{"Id":"{id}","State":"running"}}"#)).join(",");
            Reply::ok(format!(r#"{{"Id":"{ID}","Name":"shop","State":"Degraded","Containers":[{members}]}}"#))
        }
        _ if request.starts_with(&format!("POST /pods/{ID}/stop")) => Reply::Whole(304, String::new()),
        _ if request.starts_with("POST /containers/") => member(request),
        _ if request.contains(ID) => Reply::ok("{}"),
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn a_verb_is_sent_to_the_pod_that_was_inspected() {
    let service = shop(|_| Reply::ok(""));
    let backend = service.backend();
    let pods = backend.pods();
    assert_eq!(pods.start("shop").await.unwrap(), Effect::Changed);
    assert_eq!(pods.stop("shop", Duration::from_secs(1)).await.unwrap(), Effect::Changed);
    assert_eq!(pods.remove("shop", true).await.unwrap(), Effect::Changed);
    let by_name: Vec<String> = service.asked().into_iter().filter(|request| request.contains("/shop")).collect();
    assert!(by_name.iter().all(|request| request == "GET /pods/shop/json"), "{by_name:?}");
}

#[tokio::test]
async fn the_containers_of_a_pod_are_stopped_together() {
    let held = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    let [b, c] = held.clone();
    // The first is refused at once, and the others take their time.
    let service = shop(move |request| match request {
        _ if request.starts_with("POST /containers/a/") => Reply::Whole(500, r#"{"message":"no"}"#.to_owned()),
        _ if request.starts_with("POST /containers/b/") => Reply::Late(Arc::clone(&b), 204, String::new()),
        _ => Reply::Late(Arc::clone(&c), 204, String::new()),
    });
    let backend = service.backend();
    let pods = backend.pods();
    let stop = pods.stop("shop", Duration::ZERO);
    tokio::pin!(stop);
    let all_asked = async {
        while service.asked().iter().filter(|request| request.starts_with("POST /containers/")).count() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        stopped = &mut stop => panic!("two are still at it: {stopped:?}"),
        () = all_asked => {}
    }
    for one in &held {
        one.notify_one();
    }
    let error = stop.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.fact("container"), error.fact("pod")),
        (ErrorKind::Unexpected, Some("a"), Some("shop"))
    );
}
