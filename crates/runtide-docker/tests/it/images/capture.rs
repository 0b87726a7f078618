//! A daemon that keeps each request, whole, and answers as the test says.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use runtide_docker::{Config, DockerBackend, Endpoint};
use tokio::{net::UnixListener, task::JoinHandle};

/// One request. The path is without the version.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) request: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    /// A parameter of the query, decoded.
    pub(super) fn query(&self, key: &str) -> Option<String> {
        let (_, query) = self.request.split_once('?')?;
        let value = query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))?;
        // The command writes a space as a plus.
        let value = value.replace('+', " ");
        Some(percent_encoding::percent_decode_str(&value).decode_utf8().unwrap().into_owned())
    }
}

type Script = Box<dyn Fn(&Seen) -> (u16, String) + Send + Sync>;

pub(super) struct Capture {
    folder: tempfile::TempDir,
    seen: Arc<Mutex<Vec<Seen>>>,
    serving: JoinHandle<()>,
}

impl Capture {
    pub(super) fn start(script: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, script): (_, Arc<Script>) = (Arc::clone(&seen), Arc::new(Box::new(script)));
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                let service = service_fn(move |request| answer(Arc::clone(&kept), Arc::clone(&script), request));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { folder, seen, serving }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// A backend whose client has stored nothing.
    pub(super) fn backend(&self) -> DockerBackend {
        DockerBackend::new(self.config().with_client_folder(self.folder.path().join("no-such-folder"))).unwrap()
    }

    pub(super) fn config(&self) -> Config {
        Config::default().with_endpoint(Endpoint::unix(self.socket()))
    }

    /// The requests so far, negotiation left out.
    pub(super) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(
    kept: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Script>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let reply = |status: u16, body: String| {
        let response = Response::builder().status(status).header("Api-Version", "1.41").header("Ostype", "linux");
        Ok(response.body(Full::new(Bytes::from(body))).unwrap())
    };
    let path = request.uri().path_and_query().unwrap().as_str().to_owned();
    if path.ends_with("/_ping") {
        return reply(200, "OK".to_owned());
    }
    if path.ends_with("/version") {
        let version = r#"{"Version":"20.10","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#;
        return reply(200, version.to_owned());
    }
    let path = path.strip_prefix("/v1.41").unwrap_or(&path).to_owned();
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let seen = Seen { request: format!("{} {path}", parts.method), headers: parts.headers, body };
    let (status, body) = script(&seen);
    kept.lock().unwrap().push(seen);
    reply(status, body)
}
