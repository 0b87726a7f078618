//! Verbs on a container whose state another client, or a restart policy, changes at the same moment.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use runtide_core::{
    Detail, ErrorKind, InstanceId, InstanceState, ListOptions, RuntimeBackend, UnixSignal,
    manager::{Effect, RemoveOptions, StopOptions},
};

use crate::scripted::{PODMAN, Reply, Service};

fn inspection(status: &str, run: usize) -> Reply {
    let started = format!("2026-11-30T15:21:{run:02}.000000000Z");
    Reply::ok(format!(r#"{{"Id":"a1","Name":"web","State":{{"Status":"{status}","StartedAt":"{started}"}}}}"#))
}

fn improper(message: &str) -> Reply {
    let body = format!(
        r#"{{"cause":"container state improper","message":"{message}: container state improper","response":500}}"#
    );
    Reply::Whole(500, body)
}

/// Number of requests with this beginning.
fn count(service: &Service, begin: &str) -> usize {
    service.asked().iter().filter(|request| request.starts_with(begin)).count()
}

/// A service whose container begins `again` further runs while a stop is under way.
fn restarted(again: usize) -> Service {
    let stops = Arc::new(AtomicUsize::new(0));
    Service::new(PODMAN, move |request| match request {
        "GET /containers/a1/json" => inspection("running", stops.load(Ordering::SeqCst)),
        _ if request.starts_with("POST /containers/a1/stop") => {
            if stops.fetch_add(1, Ordering::SeqCst) < again {
                improper("container a1 is running or paused, refusing to clean up")
            } else {
                Reply::Whole(204, String::new())
            }
        }
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn a_stop_also_stops_the_run_that_began_meanwhile() {
    for again in [1, 3] {
        let service = restarted(again);
        let backend = service.backend();
        let stopped = backend.lifecycle().unwrap().stop(&InstanceId::from("a1"), StopOptions::default()).await;
        assert_eq!(stopped.unwrap(), Effect::Changed);
        assert_eq!(count(&service, "POST /containers/a1/stop"), again + 1);
    }
}

#[tokio::test]
async fn a_stop_that_is_refused_for_the_same_run_is_not_repeated() {
    let service = Service::new(PODMAN, |request| match request {
        "GET /containers/a1/json" => inspection("running", 1),
        _ => improper("container a1 is stuck"),
    });
    let backend = service.backend();
    let error = backend.lifecycle().unwrap().stop(&InstanceId::from("a1"), StopOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(count(&service, "POST /containers/a1/stop"), 1);
}

#[tokio::test]
async fn a_state_that_forbids_a_verb_at_its_moment_is_a_conflict_whatever_an_inspection_shows() {
    let id = InstanceId::from("a1");
    for shown in ["running", "stopping"] {
        let service = Service::new(PODMAN, move |request| match request {
            "GET /containers/a1/json" => inspection(shown, 1),
            _ => improper("\\\"stopping\\\" is not running, can't do it"),
        });
        let backend = service.backend();
        let lifecycle = backend.lifecycle().unwrap();
        let refusals = [
            lifecycle.pause(&id).await.unwrap_err(),
            lifecycle.kill(&id, UnixSignal::TERM).await.unwrap_err(),
            lifecycle.restart(&id, StopOptions::default()).await.unwrap_err(),
        ];
        for error in refusals {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            assert!(error.message().contains("is not running"), "{error}");
        }
    }
    let service = Service::new(PODMAN, |request| match request {
        "GET /containers/a1/json" => inspection("paused", 1),
        _ => Reply::Whole(500, r#"{"message":"the disk is full","response":500}"#.to_owned()),
    });
    let error = service.backend().lifecycle().unwrap().unpause(&id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected, "another failure of the service is none: {error}");
}

const HIDDEN: &str =
    r#"{"cause":"container not known","message":"getting container from store: container not known","response":500}"#;
const HIDDEN_ID: &str = "f27f517c973afb0f9a2305fe99f9001e4a81eb8973d599adad12bc496b279a0d";

#[tokio::test]
async fn a_container_that_cannot_be_inspected_is_what_the_listing_shows() {
    let listed = format!(
        r#"[{{"Id":"{HIDDEN_ID}","Names":["web"],"State":"removing","Image":"busybox","Labels":{{"a":"b"}}}}]"#
    );
    let service = Service::new(PODMAN, move |request| match request {
        _ if request.starts_with("GET /containers/json") => Reply::ok(listed.clone()),
        _ if request.starts_with("GET /containers/") => Reply::Whole(500, HIDDEN.to_owned()),
        _ => Reply::ok("{}"),
    });
    let backend = service.backend();
    let seen = backend.inspect(&InstanceId::from(HIDDEN_ID)).await.unwrap();
    assert_eq!((&*seen.name, seen.state), ("web", InstanceState::Stopped));
    let all = backend.list_instances(ListOptions::default().with_detail(Detail::Full)).await.unwrap();
    assert!(all.is_complete(), "{:?}", all.completeness);
    assert_eq!(all.instances.len(), 1);
    let error = backend.inspect(&InstanceId::from("f27f517c973a")).await.unwrap_err();
    assert!(error.message().contains("container not known"), "{error}");
}

/// A service that was killed while it removed a container lists it and cannot inspect it; it removes it all the same.
#[tokio::test]
async fn a_container_that_cannot_be_inspected_can_be_removed_by_its_whole_id() {
    let service = Service::new(PODMAN, |request| match request {
        _ if request.starts_with("DELETE ") => Reply::ok("[]"),
        _ => Reply::Whole(500, HIDDEN.to_owned()),
    });
    let backend = service.backend();
    let lifecycle = backend.lifecycle().unwrap();
    let id = InstanceId::from(HIDDEN_ID);
    assert_eq!(lifecycle.remove(&id, RemoveOptions::default()).await.unwrap(), Effect::Changed);
    let removals = count(&service, &format!("DELETE /containers/{id}?force=false"));
    assert_eq!(removals, 1, "{:?}", service.asked());
    // Shorter, it may be the beginning of another one's id.
    for short in ["f27f517c973a", "web"] {
        let error = lifecycle.remove(&InstanceId::from(short), RemoveOptions::default()).await.unwrap_err();
        assert!(error.message().contains("container not known"), "{error}");
    }
    assert_eq!(count(&service, "DELETE "), 1);
}

#[tokio::test]
async fn an_inspection_during_which_the_process_ended_is_made_again() {
    let asked = AtomicUsize::new(0);
    let service = Service::new(PODMAN, move |request| match request {
        "GET /containers/a1/json" if asked.fetch_add(1, Ordering::SeqCst) < 2 => {
            let text = "read /proc/8799/cgroup: no such process";
            Reply::Whole(500, format!(r#"{{"cause":"no such process","message":"{text}","response":500}}"#))
        }
        "GET /containers/a1/json" => inspection("exited", 1),
        other => panic!("{other}"),
    });
    let seen = service.backend().inspect(&InstanceId::from("a1")).await.unwrap();
    assert_eq!((seen.state, count(&service, "GET /containers/a1/json")), (InstanceState::Stopped, 3));
}
