//! A service that keeps each request, whole, and answers as the test says.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use runtide_podman::{Config, Endpoint, PodmanBackend};
use tokio::{net::UnixListener, task::JoinHandle};

/// One request. The path is without the version.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) request: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    /// The values of a parameter of the query, decoded.
    pub(super) fn queries(&self, key: &str) -> Vec<String> {
        let pairs = self.request.split(['?', '&']).skip(1);
        let values = pairs.filter_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        // The command writes a space as a plus.
        let decoded = |value: &str| {
            percent_encoding::percent_decode_str(&value.replace('+', " ")).decode_utf8().unwrap().into_owned()
        };
        values.map(decoded).collect()
    }

    pub(super) fn query(&self, key: &str) -> Option<String> {
        self.queries(key).into_iter().next()
    }

    /// The method and the path.
    pub(super) fn target(&self) -> &str {
        self.request.split('?').next().unwrap()
    }
}

/// An answer.
pub(super) enum Answer {
    Whole(u16, String),
    /// A success that breaks off behind this.
    Cut(String),
    /// None, ever.
    Silent,
}

pub(super) fn ok(body: impl Into<String>) -> Answer {
    Answer::Whole(200, body.into())
}

/// An error in Podman's form.
pub(super) fn refusal(status: u16, message: &str) -> Answer {
    Answer::Whole(status, serde_json::json!({"cause": message, "message": message, "response": status}).to_string())
}

type Script = Box<dyn Fn(&Seen) -> Answer + Send + Sync>;

pub(super) struct Capture {
    folder: tempfile::TempDir,
    seen: Arc<Mutex<Vec<Seen>>>,
    serving: JoinHandle<()>,
}

impl Capture {
    pub(super) fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("podman.sock")).unwrap();
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
        self.folder.path().join("podman.sock")
    }

    pub(super) fn config(&self) -> Config {
        Config::default().with_endpoint(Endpoint::unix(self.socket()))
    }

    /// A backend whose client has stored nothing.
    pub(super) fn backend(&self) -> PodmanBackend {
        PodmanBackend::new(self.config().with_auth_file(self.folder.path().join("no-such-file"))).unwrap()
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

type Reply = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

async fn answer(
    kept: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Script>,
    request: Request<Incoming>,
) -> Result<Reply, Infallible> {
    let reply = |status: u16, parts: Vec<std::io::Result<Frame<Bytes>>>| {
        let response = Response::builder().status(status).header("Libpod-API-Version", "4.3.1");
        let response = response.header("Server", "Libpod/4.3.1 (linux)");
        Ok(response.body(StreamBody::new(futures_util::stream::iter(parts)).boxed_unsync()).unwrap())
    };
    let whole = |body: String| vec![Ok(Frame::data(Bytes::from(body)))];
    let path = request.uri().path_and_query().unwrap().as_str().to_owned();
    if path.ends_with("/_ping") {
        return reply(200, whole("OK".to_owned()));
    }
    let path = path.split_once("/libpod").map_or(path.as_str(), |(_, rest)| rest).to_owned();
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let seen = Seen { request: format!("{} {path}", parts.method), headers: parts.headers, body };
    let said = script(&seen);
    kept.lock().unwrap().push(seen);
    match said {
        Answer::Whole(status, body) => reply(status, whole(body)),
        Answer::Cut(body) => {
            let mut parts = whole(body);
            parts.push(Err(std::io::ErrorKind::ConnectionReset.into()));
            reply(200, parts)
        }
        Answer::Silent => std::future::pending().await,
    }
}
