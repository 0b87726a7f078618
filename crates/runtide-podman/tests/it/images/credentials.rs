//! Credentials on their way to a service that decodes them strictly.

use std::os::unix::fs::PermissionsExt;

use runtide_core::{
    ErrorKind, ImageRef, RuntimeBackend,
    manager::{BuildContext, BuildOptions, Credentials, PullOptions, Secret},
};
use runtide_podman::PodmanBackend;
use serde_json::{Value, json};

use super::{
    capture::{Capture, Seen, ok},
    done, drained, reader,
};

const ID: &str = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";

fn service() -> Capture {
    Capture::start(|seen| match seen.target() {
        "POST /images/pull" => ok(format!(r#"{{"images":["{ID}"]}}"#)),
        "POST /build" => ok(format!("{{\"stream\":\"{ID}\\n\"}}")),
        _ => ok(format!(r#"{{"Id":"{ID}"}}"#)),
    })
}

/// As the service decodes it: Go's URL-safe base64, with its padding, and no other.
fn decoded(seen: &Seen, header: &str) -> Option<Value> {
    let text = seen.headers.get(header)?.to_str().unwrap();
    assert_eq!(text.len() % 4, 0, "padded");
    let mut bits = (0_u32, 0);
    let mut bytes = Vec::new();
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            other => panic!("'{}' is not of the URL-safe alphabet", char::from(other)),
        };
        bits = (bits.0 << 6 | u32::from(value), bits.1 + 6);
        if bits.1 >= 8 {
            bits.1 -= 8;
            bytes.push(u8::try_from(bits.0 >> bits.1 & 0xff).unwrap());
        }
    }
    Some(serde_json::from_slice(&bytes).unwrap())
}

async fn auth_of(service: &Capture, backend: &PodmanBackend, image: &str, credentials: Credentials) -> Option<Value> {
    let options = PullOptions::default().with_credentials(credentials);
    done(backend.images().unwrap().pull(&ImageRef::from(image), options).await).await;
    decoded(&service.take()[0], "x-registry-auth")
}

#[tokio::test]
async fn credentials_from_a_value_arrive_whole() {
    let service = service();
    let backend = service.backend();
    for password in ["abc>>>def", "abc???def", "ÿþ\"\\ \n", "p"] {
        let auth = auth_of(&service, &backend, "localhost:5000/a", Credentials::user("me", password)).await.unwrap();
        assert_eq!((&auth["username"], &auth["password"]), (&json!("me"), &json!(password)));
    }
    let token = auth_of(&service, &backend, "a", Credentials::IdentityToken(Secret::new("t>>>?"))).await.unwrap();
    assert_eq!(token["identitytoken"], "t>>>?");
    // Without the header the service would take the credentials that it has stored itself.
    assert_eq!(auth_of(&service, &backend, "a", Credentials::Anonymous).await, Some(json!({})));
    assert_eq!(auth_of(&service, &backend, "a", Credentials::Stored).await, None, "nothing is stored");
    let shown = format!("{:?}", PullOptions::default().with_credentials(Credentials::user("me", "hunter2")));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn stored_credentials_are_found_as_the_podman_command_finds_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.json");
    // `me:abc>>>def`, `of:space` and `hub:x`; the last one would make the service refuse the whole request.
    let stored = json!({"auths": {
        "localhost:5000": {"auth": "bWU6YWJjPj4+ZGVm"}, "q.example/a": {"auth": "b2Y6c3BhY2U="}, "docker.io": {"auth": "aHViOng="},
        "odd@host": {"auth": "aHViOng="},
    }});
    std::fs::write(&file, stored.to_string()).unwrap();
    let service = service();
    let backend = PodmanBackend::new(service.config().with_auth_file(&file)).unwrap();
    let auth = auth_of(&service, &backend, "localhost:5000/a:1", Credentials::Stored).await.unwrap();
    assert_eq!((&auth["username"], &auth["password"]), (&json!("me"), &json!("abc>>>def")));
    let auth = auth_of(&service, &backend, "q.example/a/b", Credentials::Stored).await.unwrap();
    assert_eq!(auth["password"], "space");
    assert_eq!(auth_of(&service, &backend, "q.example/b", Credentials::Stored).await, None);
    let auth = auth_of(&service, &backend, "docker.io/library/a", Credentials::Stored).await.unwrap();
    assert_eq!(auth["username"], "hub");
    // The registry of a short name is found by the service.
    let all = auth_of(&service, &backend, "busybox", Credentials::Stored).await.unwrap();
    assert_eq!((&all["localhost:5000"]["password"], all.as_object().unwrap().len()), (&json!("abc>>>def"), 3));
    assert_eq!(auth_of(&service, &backend, "localhost:5000/a", Credentials::Anonymous).await, Some(json!({})));

    done(backend.images().unwrap().build(BuildContext::Tar(reader("")), BuildOptions::default()).await).await;
    let all = decoded(&service.take()[0], "x-registry-config").unwrap();
    assert_eq!((&all["q.example/a"]["password"], all.as_object().unwrap().len()), (&json!("space"), 3));

    std::fs::write(&file, r#"{"auths": "s3cret"}"#).unwrap();
    let pull = backend.images().unwrap().pull(&ImageRef::from("q.example/a"), PullOptions::default()).await;
    let error = drained(pull).await.1.unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

/// The test runs itself with a helper on the path: a process's own path cannot be changed.
#[tokio::test]
async fn a_helper_on_the_path_is_asked_in_the_commands_own_file() {
    const CHILD: &str = "RUNTIDE_TEST_HELPERS";
    if std::env::var_os(CHILD).is_some() {
        let service = service();
        let backend = PodmanBackend::new(service.config()).unwrap();
        let auth = auth_of(&service, &backend, "o.example/a/b", Credentials::Stored).await.unwrap();
        assert_eq!((&auth["username"], &auth["password"]), (&json!("own"), &json!("for o.example")));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let helper = folder.path().join("docker-credential-own");
    let script =
        "#!/bin/sh\nread -r address\necho \"{\\\"Username\\\":\\\"own\\\",\\\"Secret\\\":\\\"for $address\\\"}\"\n";
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("auth.json");
    std::fs::write(&file, json!({"credHelpers": {"o.example": "own"}}).to_string()).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "images::credentials::a_helper_on_the_path_is_asked_in_the_commands_own_file", "--nocapture"])
        .envs([(CHILD, "1"), ("PATH", &path), ("REGISTRY_AUTH_FILE", file.to_str().unwrap())])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
