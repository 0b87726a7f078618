//! Pulls from registries: with and without a password, and one that stalls.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Frame, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use runtide_conformance::report;
use runtide_core::{
    ErrorKind, ImageRef, RuntimeBackend,
    manager::{Credentials, Effect, ImageProgress, PullOptions},
};
use runtide_docker::DockerBackend;
use serde_json::json;
use tokio::sync::Notify;

use super::{build::built, done, drained};
use crate::managers::bench::Bench;

/// A variable of the testbed's; `None`: it is not set, with a line in the report.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        report::skip("images", "registry", format!("{name} is not set"));
    }
    value
}

const USER: &str = "runtide";

fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let value = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap();
            text.push(if at <= chunk.len() { char::from(alphabet[value]) } else { '=' });
        }
    }
    text
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Pushes from outside.
fn push(bench: &Bench, name: &str, password: &str) {
    let auth = base64(json!({"username": USER, "password": password}).to_string().as_bytes(), URL_SAFE);
    let (repository, tag) = name.rsplit_once(':').unwrap();
    let headers = format!("X-Registry-Auth: {auth}\r\n");
    let (status, output) =
        bench.raw_with("POST", &format!("/images/{repository}/push?tag={tag}"), &headers, "").unwrap();
    let output = String::from_utf8_lossy(&output);
    assert!(status == 200 && !output.contains("\"error\""), "{status} {output}");
}

/// An image in the registry, and no longer here.
async fn published(bench: &Bench, registry: &str, password: &str) -> ImageRef {
    let name = format!("{registry}/{}:1", bench.prefix);
    let dockerfile = format!("FROM {}\nCOPY a /a\n", Bench::image());
    built(bench, &[("Dockerfile", &dockerfile), ("a", &bench.prefix)], &[&name]).await;
    push(bench, &name, password);
    let name = ImageRef::from(name);
    assert_eq!(bench.images().remove(&name).await.unwrap(), Effect::Changed);
    name
}

fn with(credentials: Credentials) -> PullOptions {
    PullOptions::default().with_credentials(credentials)
}

#[tokio::test]
async fn an_image_is_pulled_by_its_name_and_by_its_digest() {
    let Some(registry) = variable("RUNTIDE_TEST_REGISTRY") else { return };
    let Some(bench) = Bench::new("pull").await else { return };
    let images = bench.images();
    let name = published(&bench, &registry, "").await;
    let (items, error) = drained(images.pull(&name, with(Credentials::Anonymous)).await).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(items.last(), Some(&ImageProgress::Done(name.clone())));
    assert!(items.iter().any(|item| matches!(item, ImageProgress::Layer { .. })), "{items:?}");
    let info = images.inspect(&name).await.unwrap();
    assert_eq!((info.tags.as_slice(), info.digests.len()), (std::slice::from_ref(&name), 1));
    assert_eq!(done(images.pull(&name, with(Credentials::Anonymous)).await).await, [name.to_string()], "up to date");

    let digest = info.digests[0].clone();
    assert_eq!(images.remove(&name).await.unwrap(), Effect::Changed);
    assert_eq!(done(images.pull(&digest, with(Credentials::Anonymous)).await).await, [digest.to_string()]);
    assert_eq!(images.inspect(&digest).await.unwrap().id, info.id);
    assert_eq!(images.remove(&digest).await.unwrap(), Effect::Changed);
    assert_eq!(images.remove(&digest).await.unwrap(), Effect::Unchanged);

    for missing in [format!("{registry}/{}:2", bench.prefix), format!("{registry}/no/such:1")] {
        let (_, error) = drained(images.pull(&ImageRef::from(missing), with(Credentials::Anonymous)).await).await;
        assert_eq!(error.unwrap().kind(), ErrorKind::NotFound);
    }
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
    let images = bench.images();
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

    let folder = tempfile::tempdir().unwrap();
    let entry = base64(format!("{USER}:{password}").as_bytes(), STANDARD);
    let config = json!({"auths": {registry.as_str(): {"auth": entry}}});
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let endpoint: runtide_docker::Endpoint = std::env::var("RUNTIDE_TEST_DOCKER").unwrap().parse().unwrap();
    let config = runtide_docker::Config::default().with_endpoint(endpoint).with_client_folder(folder.path());
    let stored = DockerBackend::new(config).unwrap();
    let stored = stored.images().unwrap();
    assert_eq!(done(stored.pull(&name, PullOptions::default()).await).await, [name.to_string()]);
    assert_eq!(images.remove(&name).await.unwrap(), Effect::Changed);
    // A build pulls its base with what is stored.
    let dockerfile = format!("FROM {name}\nENV A=1\n");
    let context = runtide_core::manager::BuildContext::Tar(super::build::tar_of(&[("Dockerfile", &dockerfile)]));
    done(stored.build(context, super::build::options(&bench)).await).await;
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
    blobs: Vec<(String, String)>,
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
        Self {
            asked: Notify::new(),
            given_up: Arc::new(Notify::new()),
            blobs: vec![(of(config.as_bytes()), config)],
            manifest: manifest.to_string(),
        }
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
        if let Some((_, blob)) = self.blobs.iter().find(|(digest, _)| path.ends_with(digest)) {
            return whole("application/octet-stream", blob);
        }
        if path.contains("/blobs/") {
            // Drop by drop: a daemon that gave the layer up notices with the next one.
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
    let mut stream = bench.images().pull(&name, with(Credentials::Anonymous)).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let reading = async {
        while let Some(item) = stream.next().await {
            seen.lock().unwrap().push(item);
        }
    };
    let minute = Duration::from_secs(60);
    tokio::select! {
        () = reading => panic!("the pull ended: {:?}", seen.lock().unwrap()),
        asked = tokio::time::timeout(minute, registry.asked.notified()) => asked.unwrap(),
    }
    drop(stream);
    tokio::time::timeout(minute, registry.given_up.notified()).await.expect("the daemon gives the layer up");
    assert!(!bench.images().exists(&name).await.unwrap());
    serving.abort();
}
