//! The list of secrets, scripted and on a real Podman.

use std::path::PathBuf;

use runtide_conformance::daemon::Daemon;
use runtide_core::ErrorKind;
use serde_json::{Value, json};

use crate::{
    bench::Bench,
    scripted::{PODMAN, Reply, Service},
};

#[tokio::test]
async fn secrets_are_listed_with_what_the_service_reports_of_them() {
    let service = Service::new(PODMAN, |request| match request {
        "GET /secrets/json" => Reply::ok(
            r#"[{"ID":"1","CreatedAt":"2026-11-30T18:39:21.79Z","UpdatedAt":"0001-01-01T00:00:00Z",
                 "Spec":{"Name":"a","Driver":{"Name":"shell","Options":{"lookup":"cat s3cret"}},"Labels":{"k":"v"}}},
                7, {"ID":"","Spec":null}, {"ID":"2","Spec":{"Name":"b","Driver":{"Name":"file"},"Labels":null},"SecretData":"s3cret"}]"#,
        ),
        other => panic!("{other}"),
    });
    let secrets = service.backend().secrets().list().await.unwrap();
    assert_eq!(secrets.iter().map(|secret| secret.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    let first = &secrets[0];
    assert_eq!((first.name.as_str(), first.driver.as_str()), ("a", "shell"));
    assert_eq!(first.labels.as_ref().unwrap().get("k"), Some("v"));
    assert!(first.created_at.is_some() && first.updated_at.is_none());
    assert_eq!(secrets[1].labels, None, "what was not reported is not known");
    assert!(!format!("{secrets:?}").contains("s3cret"));
    let broken = Service::new(PODMAN, |_| Reply::ok("{}"));
    assert_eq!(broken.backend().secrets().list().await.unwrap_err().kind(), ErrorKind::Protocol);
    let none = Service::new(PODMAN, |_| Reply::ok("null"));
    assert_eq!(none.backend().secrets().list().await.unwrap(), []);
}

#[tokio::test]
async fn a_secret_of_a_real_service_is_in_the_list_and_its_value_is_not() {
    let Some(bench) = Bench::new("secret").await else { return };
    let address = std::env::var("RUNTIDE_TEST_PODMAN").unwrap();
    let daemon = Daemon::at(PathBuf::from(address.strip_prefix("unix://").unwrap())).below("/v4.0.0/libpod");
    let name = format!("{}-token", bench.prefix);
    let made = daemon.ask("POST", &format!("/secrets/create?name={name}"), &json!("hunter2")).await.unwrap();
    let id = made.json().unwrap()["ID"].as_str().unwrap().to_owned();
    let listed = bench.backend.secrets().list().await.unwrap();
    daemon.ask("DELETE", &format!("/secrets/{name}"), &Value::Null).await.unwrap();
    let secret = listed.iter().find(|secret| secret.id == id).unwrap();
    assert_eq!((secret.name.as_str(), secret.driver.as_str()), (name.as_str(), "file"));
    assert!(secret.created_at.is_some() && secret.updated_at.is_some());
    assert!(!format!("{listed:?}").contains("hunter2"));
    assert!(!bench.backend.secrets().list().await.unwrap().iter().any(|secret| secret.id == id));
}
