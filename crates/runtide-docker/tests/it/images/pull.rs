//! Credentials on their way to a daemon that decodes them strictly.

use std::os::unix::fs::PermissionsExt;

use runtide_core::{
    ErrorKind, ImageRef, RuntimeBackend,
    manager::{BuildContext, BuildOptions, Credentials, PullOptions, Secret},
};
use runtide_docker::{Config, DockerBackend};
use serde_json::{Value, json};

use super::{
    capture::{Capture, Seen},
    done, drained,
};

const PULLED: &str = "{\"status\":\"Status: Image is up to date\"}\n";

fn daemon() -> Capture {
    Capture::start(|seen| match seen.request.as_str() {
        request if request.starts_with("POST /images/create") => (200, PULLED.to_owned()),
        request if request.starts_with("POST /build") => (200, "{\"aux\":{\"ID\":\"sha256:1\"}}".to_owned()),
        _ => (200, r#"{"Id":"sha256:1"}"#.to_owned()),
    })
}

/// As the daemon decodes it: Go's URL-safe base64, with its padding, and no other.
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

async fn auth_of(daemon: &Capture, backend: &DockerBackend, image: &str, credentials: Credentials) -> Option<Value> {
    let options = PullOptions::default().with_credentials(credentials);
    done(backend.images().unwrap().pull(&ImageRef::from(image), options).await).await;
    decoded(&daemon.take()[0], "x-registry-auth")
}

#[tokio::test]
async fn credentials_from_a_value_arrive_whole() {
    let daemon = daemon();
    let backend = daemon.backend();
    for password in ["abc>>>def", "abc???def", "ÿþ\"\\ \n", "p"] {
        let auth = auth_of(&daemon, &backend, "localhost:5000/a", Credentials::user("me", password)).await.unwrap();
        assert_eq!(auth, json!({"username": "me", "password": password, "serveraddress": "localhost:5000"}));
    }
    let token = auth_of(&daemon, &backend, "a", Credentials::IdentityToken(Secret::new("t>>>?"))).await.unwrap();
    assert_eq!(token, json!({"identitytoken": "t>>>?", "serveraddress": "https://index.docker.io/v1/"}));
    assert_eq!(auth_of(&daemon, &backend, "a", Credentials::Anonymous).await, None);
    assert_eq!(auth_of(&daemon, &backend, "a", Credentials::Stored).await, None, "nothing is stored");
    let shown = format!("{:?}", PullOptions::default().with_credentials(Credentials::user("me", "hunter2")));
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// A folder with this configuration of the client's.
fn stored(config: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

#[tokio::test]
async fn stored_credentials_are_found_as_the_docker_command_finds_them() {
    // `me:abc>>>def` and `hub:x`.
    let folder = stored(&json!({"auths": {
        "localhost:5000": {"auth": "bWU6YWJjPj4+ZGVm"}, "https://index.docker.io/v1/": {"auth": "aHViOng="},
    }}));
    let daemon = daemon();
    let backend = DockerBackend::new(daemon.config().with_client_folder(folder.path())).unwrap();
    let auth = auth_of(&daemon, &backend, "localhost:5000/a:1", Credentials::Stored).await.unwrap();
    assert_eq!((&auth["username"], &auth["password"]), (&json!("me"), &json!("abc>>>def")));
    for hub in ["a", "docker.io/a/b", "index.docker.io/a/b"] {
        assert_eq!(auth_of(&daemon, &backend, hub, Credentials::Stored).await.unwrap()["username"], "hub", "{hub}");
    }
    assert_eq!(auth_of(&daemon, &backend, "localhost:5001/a", Credentials::Stored).await, None);
    assert_eq!(auth_of(&daemon, &backend, "localhost:5000/a", Credentials::Anonymous).await, None);

    let options = BuildOptions::default();
    let context = BuildContext::Tar(Box::pin(std::io::Cursor::new(Vec::new())));
    done(backend.images().unwrap().build(context, options).await).await;
    let all = decoded(&daemon.take()[0], "x-registry-config").unwrap();
    assert_eq!((&all["localhost:5000"]["password"], all.as_object().unwrap().len()), (&json!("abc>>>def"), 2));
}

/// The test runs itself with helpers on the path: a process's own path cannot be changed.
#[tokio::test]
async fn helpers_on_the_path_are_asked() {
    const CHILD: &str = "RUNTIDE_TEST_HELPERS";
    if std::env::var_os(CHILD).is_some() {
        return with_helpers().await;
    }
    let programs = tempfile::tempdir().unwrap();
    let helper = |name: &str, script: &str| {
        let path = programs.path().join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\nread -r address\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    helper("own", r#"echo noise >&2; echo "{\"Username\":\"own\",\"Secret\":\"for $address\"}""#);
    helper("token", r#"echo '{"Username":"<token>","Secret":"abc>>>def"}'"#);
    helper("empty", "echo 'credentials not found in native keychain'; exit 1");
    helper("locked", "echo 'the keychain is locked'; exit 1");
    let folder = stored(&json!({
        "auths": {"e.example": {"auth": "bWU6YWJjPj4+ZGVm"}, "s.example": {}},
        "credHelpers": {"o.example": "own", "t.example": "token", "e.example": "empty", "l.example": "locked", "m.example": "missing"},
        "credsStore": "own",
    }));
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "images::pull::helpers_on_the_path_are_asked", "--nocapture"])
        .envs([(CHILD, "1"), ("PATH", &path), ("DOCKER_CONFIG", folder.path().to_str().unwrap())])
        .env_remove("DOCKER_AUTH_CONFIG")
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn with_helpers() {
    let daemon = daemon();
    let backend = DockerBackend::new(Config::default().with_endpoint(daemon.config().endpoint)).unwrap();
    let auth = auth_of(&daemon, &backend, "o.example/a", Credentials::Stored).await.unwrap();
    assert_eq!((&auth["username"], &auth["password"]), (&json!("own"), &json!("for o.example")));
    let auth = auth_of(&daemon, &backend, "s.example/a", Credentials::Stored).await.unwrap();
    assert_eq!(auth["password"], "for s.example", "the store has those without a helper of their own");
    let auth = auth_of(&daemon, &backend, "busybox", Credentials::Stored).await.unwrap();
    assert_eq!(auth["password"], "for https://index.docker.io/v1/");
    let auth = auth_of(&daemon, &backend, "t.example/a", Credentials::Stored).await.unwrap();
    assert_eq!(auth, json!({"identitytoken": "abc>>>def", "serveraddress": "t.example"}));
    assert_eq!(auth_of(&daemon, &backend, "e.example/a", Credentials::Stored).await, None, "not what the file has");
    for (image, kind) in [("l.example/a", ErrorKind::Unauthenticated), ("m.example/a", ErrorKind::InvalidInput)] {
        let pull = backend.images().unwrap().pull(&ImageRef::from(image), PullOptions::default()).await;
        assert_eq!(drained(pull).await.1.unwrap().kind(), kind, "{image}");
        assert!(daemon.take().is_empty(), "{image}: no pull without the credentials that are meant for it");
    }
}
