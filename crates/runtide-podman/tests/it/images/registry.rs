//! Pulls from registries: with and without a password, and one that stalls.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Frame, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use runtide_conformance::report;
use runtide_core::{
    ErrorKind, ImageRef, RuntimeBackend,
    manager::{BuildContext, Credentials, Effect, ImageProgress, PullOptions},
};
use runtide_podman::{Config, PodmanBackend};
use serde_json::json;
use tokio::sync::Notify;

use super::{
    build::{built, options},
    done, drained, images, tar_of,
};
use crate::bench::Bench;

/// A variable of the testbed's; `None`: it is not set, with a line in the report.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        report::skip("images", "registry", format!("{name} is not set"));
    }
    value
}

const USER: &str = "runtide";

/// An image in the registry, pushed from outside, and no longer here.
async fn published(bench: &Bench, registry: &str, password: &str) -> ImageRef {
    let name = format!("{registry}/{}:1", bench.prefix);
    let dockerfile = format!("FROM {}\nCOPY a /a\n", Bench::image());
    built(bench, &[("Dockerfile", &dockerfile), ("a", &bench.prefix)], &[&name]).await;
    let service = std::env::var("RUNTIDE_TEST_PODMAN").unwrap();
    let credentials = format!("--creds={USER}:{password}");
    let pushed = tokio::process::Command::new("podman")
        .args(["--url", &service, "push", "--quiet", "--tls-verify=false", &credentials, &name])
        .output()
        .await
        .unwrap();
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let name = ImageRef::from(name);
    assert_eq!(images(bench).remove(&name).await.unwrap(), Effect::Changed);
    name
}

fn with(credentials: Credentials) -> PullOptions {
    PullOptions::default().with_credentials(credentials)
}

#[tokio::test]
async fn an_image_comes_from_its_registry_with_its_progress() {
    let Some(registry) = variable("RUNTIDE_TEST_REGISTRY") else { return };
    let Some(bench) = Bench::new("pull").await else { return };
    let images = images(&bench);
    let name = published(&bench, &registry, "any").await;
    let (items, error) = drained(images.pull(&name, with(Credentials::Anonymous)).await).await;
    assert!(error.is_none(), "{error:?} after {items:?}");
    assert_eq!(items.last(), Some(&ImageProgress::Done(name.clone())));
    let layers = items.iter().filter(|item| matches!(item, ImageProgress::Layer { .. })).count();
    assert!(layers >= 2, "{items:?}");
    let info = images.inspect(&name).await.unwrap();
    assert!(info.digests.iter().any(|digest| digest.as_str().starts_with(&registry)), "{info:?}");
    // By its digest, from a name with a tag as well.
    let digest = info.digests[0].as_str().split_once('@').unwrap().1.to_owned();
    assert_eq!(images.remove(&name).await.unwrap(), Effect::Changed);
    let both = ImageRef::from(format!("{name}@{digest}"));
    let pulled = done(images.pull(&both, with(Credentials::Anonymous)).await).await;
    assert_eq!(pulled, [format!("{}@{digest}", name.as_str().strip_suffix(":1").unwrap())]);
    assert_eq!(images.remove(&ImageRef::from(pulled[0].as_str())).await.unwrap(), Effect::Changed);

    let missing = ImageRef::from(format!("{registry}/{}-missing:1", bench.prefix));
    let (_, error) = drained(images.pull(&missing, with(Credentials::Anonymous)).await).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::NotFound);
    let nowhere = images.pull(&ImageRef::from("127.0.0.1:1/a"), with(Credentials::Anonymous)).await;
    assert_eq!(drained(nowhere).await.1.unwrap().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_registry_with_a_password_is_open_to_those_who_have_it() {
    let (Some(registry), Some(password)) =
        (variable("RUNTIDE_TEST_REGISTRY_AUTH"), variable("RUNTIDE_TEST_REGISTRY_PASSWORD"))
    else {
        return;
    };
    let Some(bench) = Bench::new("pull-locked").await else { return };
    let images = images(&bench);
    let name = published(&bench, &registry, &password).await;
    for refused in
        [Credentials::Anonymous, Credentials::user(USER, "hunter2"), Credentials::user("other", password.as_str())]
    {
        let (_, error) = drained(images.pull(&name, with(refused)).await).await;
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    let pulled = done(images.pull(&name, with(Credentials::user(USER, password.as_str()))).await).await;
    assert_eq!(pulled, [name.to_string()]);
    assert_eq!(images.remove(&name).await.unwrap(), Effect::Changed);

    // The file that `podman login` writes is found.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.json");
    // `--url`: without it the command makes a storage of its own in the machine's folders.
    let service = std::env::var("RUNTIDE_TEST_PODMAN").unwrap();
    let login = tokio::process::Command::new("podman")
        .args(["--url", &service, "login", "--tls-verify=false", "--username", USER])
        .args(["--password", &password, "--authfile"])
        .arg(&file)
        .arg(&registry)
        .output()
        .await
        .unwrap();
    assert!(login.status.success(), "{}", String::from_utf8_lossy(&login.stderr));
    let endpoint: runtide_podman::Endpoint = std::env::var("RUNTIDE_TEST_PODMAN").unwrap().parse().unwrap();
    let stored = PodmanBackend::new(Config::default().with_endpoint(endpoint).with_auth_file(&file)).unwrap();
    let stored = stored.images().unwrap();
    assert_eq!(done(stored.pull(&name, PullOptions::default()).await).await, [name.to_string()]);
    assert_eq!(images.remove(&name).await.unwrap(), Effect::Changed);
    // A build pulls its base with what is stored.
    let dockerfile = format!("FROM {name}\nENV A=1\n");
    done(stored.build(BuildContext::Tar(tar_of(&[("Dockerfile", &dockerfile)])), options(&bench)).await).await;
    assert_eq!(images.remove(&name).await.unwrap(), Effect::Changed);
}

/// Notifies when it is dropped.
struct Dropped(Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A registry whose one layer takes a quarter of an hour.
struct Slow {
    asked: Notify,
    given_up: Arc<Notify>,
    config: String,
    manifest: String,
}

impl Slow {
    fn new() -> Self {
        let config = json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [of(b"x")]}});
        let config = config.to_string();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(), "digest": of(config.as_bytes())},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 1_000_000, "digest": of(b"layer")}],
        });
        Self { asked: Notify::new(), given_up: Arc::new(Notify::new()), config, manifest: manifest.to_string() }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let path = request.uri().path();
        let whole = |kind: &str, text: &str| {
            let response =
                Response::builder().header("Content-Type", kind).header("Docker-Content-Digest", of(text.as_bytes()));
            let response = response.header("Content-Length", text.len());
            let body = if request.method() == "HEAD" { String::new() } else { text.to_owned() };
            response.body(Full::new(Bytes::from(body)).boxed_unsync()).unwrap()
        };
        if path.contains("/manifests/") {
            return whole("application/vnd.docker.distribution.manifest.v2+json", &self.manifest);
        }
        if path.ends_with(&of(self.config.as_bytes())) {
            return whole("application/octet-stream", &self.config);
        }
        if path.contains("/blobs/") {
            // Drop by drop: a service that gave the layer up notices with the next one.
            let guard = Dropped(Arc::clone(&self.given_up));
            let drops = futures_util::stream::unfold(guard, |guard| async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 10]))), guard))
            });
            self.asked.notify_one();
            let body = StreamBody::new(drops).boxed_unsync();
            return Response::builder().header("Content-Length", 1_000_000).body(body).unwrap();
        }
        whole("application/json", "{}")
    }
}

fn of(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    hash.as_ref().iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

#[tokio::test]
async fn a_pull_that_is_dropped_is_cancelled() {
    let Some(bench) = Bench::new("pull-dropped").await else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let registry = Arc::new(Slow::new());
    let serving = tokio::spawn({
        let registry = Arc::clone(&registry);
        async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let registry = Arc::clone(&registry);
                let service = service_fn(move |request| {
                    let answer = registry.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        }
    });
    let name = ImageRef::from(format!("127.0.0.1:{port}/{}:1", bench.prefix));
    let mut stream = images(&bench).pull(&name, with(Credentials::Anonymous)).await.unwrap();
    let reading = async {
        let mut seen = Vec::new();
        while let Some(item) = stream.next().await {
            seen.push(item);
        }
        seen
    };
    let minute = Duration::from_secs(60);
    tokio::select! {
        seen = reading => panic!("the pull ended: {seen:?}"),
        asked = tokio::time::timeout(minute, registry.asked.notified()) => asked.unwrap(),
    }
    drop(stream);
    tokio::time::timeout(minute, registry.given_up.notified()).await.expect("the service gives the layer up");
    assert!(!images(&bench).exists(&name).await.unwrap());
    serving.abort();
}
