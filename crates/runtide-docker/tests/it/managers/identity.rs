//! A daemon that takes the beginning of an id for the id: no call acts on what it did not name.

use runtide_core::{
    ErrorKind, InstanceId, Result, RuntimeBackend, UnixSignal,
    manager::{AttachOptions, ConnectOptions, Effect, InstanceSpec, LogOptions, RemoveOptions, StopOptions},
};
use runtide_docker::DockerBackend;

use super::exec::{argv, size};
use crate::scripted_daemon::{Fake, Reply};

/// An id that begins like names that people give.
const ID: &str = "cafe0f6fd7d1aa00cafe0f6fd7d1aa00cafe0f6fd7d1aa00cafe0f6fd7d1aa00";

fn container(is_running: bool) -> Reply {
    let status = if is_running { "running" } else { "exited" };
    Reply::ok(&format!(
        r#"{{"Id":"{ID}","Name":"/web","Config":{{"Tty":true}},"HostConfig":{{}},
        "State":{{"Status":"{status}","Running":{is_running},"StartedAt":"2024-01-01T00:00:00.1Z"}}}}"#
    ))
}

fn network() -> Reply {
    Reply::ok(&format!(r#"{{"Id":"{ID}","Name":"lan"}}"#))
}

/// Every verb on a container.
async fn verbs(backend: &DockerBackend, id: &InstanceId) -> Vec<(&'static str, Result<()>)> {
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

#[tokio::test]
async fn no_verb_acts_on_a_container_by_the_beginning_of_its_id() {
    let ambiguous = || Reply::message(500, "Multiple IDs found with provided prefix: cafe");
    let found: [fn() -> Reply; 3] = [|| container(true), || container(false), ambiguous];
    for found in found {
        let fake = Fake::new(move |request| match request {
            "GET /containers/cafe/json" => found(),
            "GET /networks/lan" => network(),
            other => panic!("{other}"),
        });
        for (verb, result) in verbs(&fake.backend, &"cafe".into()).await {
            match result {
                Ok(()) => assert_eq!(verb, "remove", "what does not exist is removed"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{verb}: {error}"),
            }
        }
        assert!(fake.seen().iter().all(|request| request.starts_with("GET ")), "{:?}", fake.seen());
    }
}

#[tokio::test]
async fn a_verb_is_sent_to_the_container_that_was_inspected() {
    for is_running in [true, false] {
        let fake = Fake::new(move |request| match request {
            "GET /networks/lan" => network(),
            _ if request == "GET /containers/web/json" || request == format!("GET /containers/{ID}/json") => {
                container(is_running)
            }
            _ => Reply::message(500, "no"),
        });
        let _ = verbs(&fake.backend, &"web".into()).await;
        let seen = fake.seen();
        let by_name = |request: &&String| request.contains("/containers/web") && *request != "GET /containers/web/json";
        assert_eq!(seen.iter().find(by_name), None, "{is_running}");
        assert!(seen.iter().any(|request| request.starts_with(&format!("DELETE /containers/{ID}?"))), "{seen:?}");
    }
}

#[tokio::test]
async fn no_name_of_an_image_is_the_beginning_of_an_id() {
    let fake = Fake::new(|request| match request {
        _ if request.starts_with("POST /containers/create") => {
            Reply::Json(201, r#"{"Id":"made1","Warnings":[]}"#.to_owned())
        }
        _ => Reply::message(404, "No such image: cafe:latest"),
    });
    let image = "cafe".into();
    let images = fake.backend.images().unwrap();
    assert!(!images.exists(&image).await.unwrap());
    assert_eq!(images.remove(&image).await.unwrap(), Effect::Unchanged);
    assert_eq!(images.inspect(&image).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(images.tag(&image, &"a:1".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(images.save(&[image]).await.err().unwrap().kind(), ErrorKind::NotFound);
    fake.backend.provision().unwrap().create(&InstanceSpec::of_image("cafe")).await.unwrap();
    let seen = fake.seen().into_iter().filter(|request| request.contains("/images/")).collect::<Vec<_>>();
    assert!(seen.len() >= 5 && seen.iter().all(|request| request.contains("/cafe%3Alatest")), "{seen:?}");
    let bodies = fake.bodies();
    assert!(bodies.iter().any(|body| body.contains(r#""Image":"cafe:latest""#)), "{bodies:?}");
}
