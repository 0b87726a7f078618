//! Networks, on a daemon that makes two of one name, and on one that changes its mind.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use runtide_core::{
    ErrorKind, RuntimeBackend,
    manager::{ConnectOptions, Effect, NetworkSpec},
};

use tokio::sync::Notify;

use crate::scripted_daemon::{Fake, Reply};

const MADE: &str = r#"{"Id":"ours","Warning":""}"#;
const OURS: &str = r#"[{"Id":"ours","Name":"lan"},{"Id":"theirs-2","Name":"lan-2"}]"#;
const BOTH: &str = r#"[{"Id":"ours","Name":"lan"},{"Id":"theirs","Name":"lan"}]"#;

#[tokio::test]
async fn a_network_is_taken_back_if_another_client_was_as_fast() {
    let listings = AtomicUsize::new(0);
    let fake = Fake::new(move |request| match request {
        "POST /networks/create" => Reply::Json(201, MADE.to_owned()),
        request if request.starts_with("GET /networks?filters=") => {
            Reply::ok(if listings.fetch_add(1, Ordering::SeqCst) == 0 { BOTH } else { OURS })
        }
        "DELETE /networks/ours" => Reply::empty(),
        _ => Reply::message(404, "no such thing"),
    });
    let made = fake.backend.networks().unwrap().create(&NetworkSpec::named("lan")).await.unwrap();
    assert_eq!(made.as_str(), "ours");
    let verbs: Vec<_> =
        fake.seen().iter().map(|request| request.split(['?', ' ']).take(2).collect::<Vec<_>>().join(" ")).collect();
    let once = ["POST /networks/create", "GET /networks"];
    assert_eq!(verbs, [&once[..], &["DELETE /networks/ours"], &once].concat());
}

#[tokio::test]
async fn a_network_whose_create_is_answered_after_the_caller_gave_up_is_taken_back() {
    let gate = Arc::new(Notify::new());
    let late = gate.clone();
    let fake = Fake::new(move |request| match request {
        "POST /networks/create" => Reply::Late(late.clone(), Box::new(|| Reply::Json(201, MADE.to_owned()))),
        "DELETE /networks/ours" => Reply::empty(),
        _ => Reply::message(404, "no such thing"),
    });
    let spec = NetworkSpec::named("lan");
    tokio::select! {
        _ = fake.backend.networks().unwrap().create(&spec) => panic!("there is no answer yet"),
        () = fake.sees("POST /networks/create") => {}
    }
    gate.notify_one();
    fake.sees("DELETE /networks/ours").await;
}

#[tokio::test]
async fn a_network_whose_name_cannot_be_compared_is_taken_back() {
    let unknown = || {
        Fake::new(|request| match request {
            "POST /networks/create" => Reply::Json(201, MADE.to_owned()),
            "DELETE /networks/ours" => Reply::empty(),
            _ => Reply::message(500, "the list is broken"),
        })
    };
    let fake = unknown();
    let error = fake.backend.networks().unwrap().create(&NetworkSpec::named("lan")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected, "{error}");
    fake.sees("DELETE /networks/ours").await;

    let dropped = Fake::new(|request| match request {
        "POST /networks/create" => Reply::Json(201, MADE.to_owned()),
        "DELETE /networks/ours" => Reply::empty(),
        _ => Reply::Stall,
    });
    let spec = NetworkSpec::named("lan");
    tokio::select! {
        _ = dropped.backend.networks().unwrap().create(&spec) => panic!("it cannot be done"),
        () = dropped.sees("GET /networks?filters=") => {}
    }
    dropped.sees("DELETE /networks/ours").await;
}

#[tokio::test]
async fn a_container_that_joins_as_its_network_is_removed_keeps_it() {
    let deleted = AtomicUsize::new(0);
    let fake = Fake::new(move |request| match request {
        "GET /networks/lan" => Reply::ok(r#"{"Id":"1","Name":"lan"}"#),
        "DELETE /networks/1" => {
            deleted.store(1, Ordering::SeqCst);
            Reply::message(403, "error while removing network: network lan id 1 has active endpoints")
        }
        "GET /containers/json?all=1" if deleted.load(Ordering::SeqCst) == 1 => {
            Reply::ok(r#"[{"Id":"c1","NetworkSettings":{"Networks":{"lan":{"NetworkID":"1"}}}}]"#)
        }
        "GET /containers/json?all=1" => Reply::ok("[]"),
        _ => Reply::message(404, "no such thing"),
    });
    let error = fake.backend.networks().unwrap().remove(&"lan".into()).await.unwrap_err();
    assert_eq!((error.kind(), error.fact("instance")), (ErrorKind::Conflict, Some("c1")), "{error}");
}

#[tokio::test]
async fn members_that_cannot_be_listed_keep_the_network() {
    let fake = Fake::new(|request| match request {
        "GET /networks/lan" => Reply::ok(r#"{"Id":"1","Name":"lan"}"#),
        "GET /containers/json?all=1" => Reply::ok(r#"[{"Id":"c1"},7]"#),
        _ => Reply::empty(),
    });
    let error = fake.backend.networks().unwrap().remove(&"lan".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "unknown is not absent: {error}");
    assert!(!fake.seen().iter().any(|request| request.starts_with("DELETE")), "{:?}", fake.seen());
}

#[tokio::test]
async fn another_network_is_not_taken_for_the_one_that_is_asked_for() {
    // The daemon takes the beginning of an id.
    let fake = Fake::new(|_| Reply::ok(r#"{"Id":"cafe0f6fd7d1aa00","Name":"lan"}"#));
    let networks = fake.backend.networks().unwrap();
    assert_eq!(networks.remove(&"cafe".into()).await.unwrap(), Effect::Unchanged);
    let error = networks.connect(&"cafe".into(), &"c1".into(), ConnectOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(fake.seen(), ["GET /networks/cafe"; 2]);
}

#[tokio::test]
async fn a_verb_that_was_carried_out_by_another_client_is_unchanged() {
    let asked = AtomicUsize::new(0);
    let in_lan = r#"{"Id":"c1","State":{"Running":true},"NetworkSettings":{"Networks":{"lan":{"NetworkID":"1","EndpointID":"e"}}}}"#;
    let fake = Fake::new(move |request| match request {
        "GET /networks/lan" => Reply::ok(r#"{"Id":"1","Name":"lan"}"#),
        "GET /containers/c1/json" if asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => {
            Reply::ok(r#"{"Id":"c1"}"#)
        }
        "GET /containers/c1/json" => Reply::ok(in_lan),
        _ => Reply::message(403, "endpoint with name c1 already exists in network lan"),
    });
    let networks = fake.backend.networks().unwrap();
    let effect = networks.connect(&"lan".into(), &"c1".into(), ConnectOptions::default()).await.unwrap();
    assert_eq!(effect, Effect::Unchanged);

    let asked = AtomicUsize::new(0);
    let fake = Fake::new(move |request| match request {
        "GET /networks/lan" => Reply::ok(r#"{"Id":"1","Name":"lan"}"#),
        "GET /containers/c1/json" if asked.fetch_add(1, Ordering::SeqCst) == 0 => Reply::ok(in_lan),
        "GET /containers/c1/json" => Reply::ok(r#"{"Id":"c1"}"#),
        _ => Reply::message(500, "container c1 is not connected to the network lan"),
    });
    let effect = fake.backend.networks().unwrap().disconnect(&"lan".into(), &"c1".into()).await.unwrap();
    assert_eq!(effect, Effect::Unchanged);
}
