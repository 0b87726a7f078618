//! Requests to one API server, through kube's client. Each has a deadline, ends when the backend is closed, and names its backend.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header, response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use runtide_core::{
    BackendId, Error, ErrorKind, Result, Retry,
    backend::{CallSite, Session, lock},
};
use serde::Deserialize;

use crate::{
    access::without_credentials,
    config::Config,
    credentials::Credentials,
    handover::Handover,
    index::Index,
    status,
    transport::{Base, Connector, Transport},
};

/// Bytes of the longest answer that is taken into memory.
const LONGEST: usize = 256 << 20;
/// Bytes of a refusal that are read.
const LONGEST_REFUSAL: usize = 64 << 10;
/// Pause before a server that has just started is asked again.
const STARTING: Duration = Duration::from_millis(100);

/// A server that answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    /// `v1.33.1`; `None`: it was not asked.
    pub(crate) version: Option<String>,
}

/// The connection of an exec.
pub(crate) type Socket = tokio_tungstenite::WebSocketStream<hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>>;

/// A request, without its credentials.
struct Ask<'a> {
    method: Method,
    path: &'a str,
    body: Option<Sent<'a>>,
}

/// The body of a request.
#[derive(Clone, Copy)]
struct Sent<'a> {
    media: &'static str,
    bytes: &'a [u8],
}

const JSON: &str = "application/json";
/// Server-side apply. JSON is YAML, too.
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

impl<'a> Ask<'a> {
    fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: None }
    }

    fn with_body(method: Method, path: &'a str, media: &'static str, bytes: &'a [u8]) -> Self {
        Self { method, path, body: Some(Sent { media, bytes }) }
    }
}

/// A cheap handle on one backend's connections.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    config: Config,
    id: BackendId,
    endpoint: String,
    base: Base,
    session: Session<Server>,
    credentials: Arc<Credentials>,
    link: Mutex<Option<Arc<Link>>>,
    index: Index,
    handover: Handover,
}

/// kube's client, on connections that are made with the same files.
struct Link {
    requests: kube::Client,
    /// Without a pool.
    watches: kube::Client,
    generation: u64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("backend", &self.0.id).finish_non_exhaustive()
    }
}

impl Client {
    /// Nothing is read or connected yet.
    pub(crate) fn new(config: Config) -> Result<Self> {
        config.validate()?;
        let credentials = Arc::new(Credentials::new(&config.access, config.exec_deadline)?);
        Ok(Self(Arc::new(Inner {
            id: config.backend_id(),
            endpoint: without_credentials(&config.access.server),
            base: Base::of(&config.access.server)?,
            config,
            session: Session::default(),
            credentials,
            link: Mutex::default(),
            index: Index::default(),
            handover: Handover::default(),
        })))
    }

    pub(crate) fn id(&self) -> &BackendId {
        &self.0.id
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    pub(crate) fn index(&self) -> &Index {
        &self.0.index
    }

    pub(crate) fn handover(&self) -> &Handover {
        &self.0.handover
    }

    pub(crate) fn site(&self, operation: &'static str) -> CallSite<'_> {
        CallSite::new(operation, &self.0.id).with_endpoint(&self.0.endpoint)
    }

    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        self.0.session.check_open(self.site(operation))
    }

    pub(crate) fn last_server(&self) -> Option<Arc<Server>> {
        self.0.session.last_server()
    }

    pub(crate) fn close(&self) {
        self.0.session.close();
        self.drop_connections();
    }

    /// The idle connections are closed, and the next ones are made with the files as they are then: what made one request fail may make
    /// the next one fail too.
    fn drop_connections(&self) {
        *lock(&self.0.link) = None;
    }

    /// Ends with `Cancelled` when the backend is closed.
    pub(crate) async fn until_closed<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            () = self.0.session.closed() => Err(self.site(operation).closed()),
            done = work => done,
        }
    }

    /// Runs a credential plugin if its turn has come, which has a deadline of its own, and reads the files for TLS.
    async fn link(&self, operation: &'static str) -> Result<Arc<Link>> {
        let named = |error: Error| error.with_context("backend", &self.0.id).with_context("operation", operation);
        let current = self.0.credentials.current().await.map_err(named)?;
        if let Some(link) = lock(&self.0.link).clone().filter(|link| link.generation == current.generation) {
            return Ok(link);
        }
        let config = &self.0.config;
        let connector =
            Connector::new(&config.access, current.identity.as_ref(), config.connect_deadline).map_err(named)?;
        let client = |connector, pools| {
            let transport = Transport::new(connector, self.0.base.clone(), Arc::clone(&self.0.credentials), pools);
            kube::Client::new(transport, "default")
        };
        let link = Arc::new(Link {
            requests: client(connector.clone(), true),
            watches: client(connector, false),
            generation: current.generation,
        });
        *lock(&self.0.link) = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Sends a request, and once more where the server refuses credentials that can be fetched again: such a request had no effect.
    async fn send(&self, operation: &'static str, ask: &Ask<'_>, is_watch: bool) -> Result<(response::Parts, Body)> {
        let site = self.site(operation);
        for attempt in 0.. {
            let link = self.link(operation).await?;
            let client = if is_watch { &link.watches } else { &link.requests };
            let request =
                Request::builder().method(&ask.method).uri(ask.path).header(header::ACCEPT, "application/json");
            let request = match ask.body {
                Some(sent) => request.header(header::CONTENT_TYPE, sent.media).body(sent.bytes.to_vec().into()),
                None => request.body(Body::empty()),
            };
            let request = request.map_err(|error| {
                site.error(ErrorKind::InvalidInput, "the request cannot be written").with_source(error)
            })?;
            let answered = site.within(self.0.config.deadline, async {
                client.send(request).await.map_err(|error| status::of_transport(site, error))
            });
            let response = answered.await.inspect_err(|_| self.drop_connections())?;
            let (head, body) = response.into_parts();
            if head.status.is_success() {
                if self.0.session.current_server().is_none() {
                    let known = self.0.session.last_server().unwrap_or_default();
                    self.0.session.answered(known);
                }
                return Ok((head, body));
            }
            let text = site.within(self.0.config.deadline, self.collect(site, body, LONGEST_REFUSAL)).await;
            if head.status == StatusCode::UNAUTHORIZED && attempt == 0 && self.0.credentials.refused().await {
                self.drop_connections();
                continue;
            }
            let refusal = status::of_response(site, head.status, &head.headers, &text.unwrap_or_default());
            // A server that has just started does not have all of its paths, and says of those that there are none.
            if status::is_no_such_path(&refusal) {
                if self.is_starting(site, &link).await {
                    let why = "the server has just started, and does not serve this yet";
                    return Err(site.error(ErrorKind::Unavailable, why).with_retry(Retry::Poll(STARTING)));
                }
                // It may have been starting as it answered.
                if attempt == 0 {
                    continue;
                }
            }
            return Err(refusal);
        }
        Err(site.error(ErrorKind::Unauthenticated, "the credentials were refused"))
    }

    /// The server says that it is not ready. One that says nothing of that, or not to this user, counts as ready.
    async fn is_starting(&self, site: CallSite<'_>, link: &Link) -> bool {
        let Ok(request) = Request::get("/readyz").body(Body::empty()) else { return false };
        let asked = site.within(self.0.config.deadline, async {
            link.requests.send(request).await.map_err(|error| status::of_transport(site, error))
        });
        asked.await.is_ok_and(|answer| answer.status().is_server_error())
    }

    async fn collect(&self, site: CallSite<'_>, body: Body, longest: usize) -> Result<Bytes> {
        let limited = http_body_util::Limited::new(body, longest);
        match limited.collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(site.error(ErrorKind::Protocol, format!("the answer is longer than {longest} bytes")))
            }
            Err(error) => {
                self.drop_connections();
                Err(status::of_transport(site, kube::Error::Service(error)))
            }
        }
    }

    /// The headers and the whole body of an answer.
    pub(crate) async fn get(&self, operation: &'static str, path: &str) -> Result<(HeaderMap, Bytes)> {
        self.exchange(operation, &Ask::get(path)).await.map(|(head, body)| (head.headers, body))
    }

    /// Deletes an object, or begins to: the server's answer is that it was accepted.
    pub(crate) async fn delete(&self, operation: &'static str, path: &str, options: &[u8]) -> Result<()> {
        self.exchange(operation, &Ask::with_body(Method::DELETE, path, JSON, options)).await.map(drop)
    }

    /// Applies an object by server-side apply; `true` with the server's answer if that created it.
    pub(crate) async fn apply(&self, operation: &'static str, path: &str, object: &[u8]) -> Result<(bool, Bytes)> {
        let ask = Ask::with_body(Method::PATCH, path, APPLY, object);
        let (head, body) = self.exchange(operation, &ask).await?;
        Ok((head.status == StatusCode::CREATED, body))
    }

    /// Changes an object by a merge patch; the server's answer.
    pub(crate) async fn merge(&self, operation: &'static str, path: &str, change: &[u8]) -> Result<Bytes> {
        let (_, answer) = self.exchange(operation, &Ask::with_body(Method::PATCH, path, MERGE, change)).await?;
        Ok(answer)
    }

    async fn exchange(&self, operation: &'static str, ask: &Ask<'_>) -> Result<(response::Parts, Bytes)> {
        let site = self.site(operation);
        self.until_closed(operation, async {
            let (head, body) = self.send(operation, ask, false).await?;
            let collected = self.collect(site, body, LONGEST);
            let body = site.within(self.0.config.deadline, collected).await.inspect_err(|_| self.drop_connections())?;
            Ok((head, body))
        })
        .await
    }

    /// The headers and the stream of an answer, on a connection of its own, which is closed when the stream is dropped.
    pub(crate) async fn stream(&self, operation: &'static str, path: &str) -> Result<(HeaderMap, Body)> {
        let (head, body) = self.until_closed(operation, self.send(operation, &Ask::get(path), true)).await?;
        Ok((head.headers, body))
    }

    /// Opens a WebSocket, on a connection of its own; `true` with it if the peer can be told of the end of one stream.
    pub(crate) async fn upgrade(&self, operation: &'static str, path: &str) -> Result<(Socket, bool)> {
        let site = self.site(operation);
        self.until_closed(operation, async {
            for attempt in 0.. {
                let link = self.link(operation).await?;
                let request = Request::get(path).body(Vec::new()).map_err(|error| {
                    site.error(ErrorKind::InvalidInput, "the request cannot be written").with_source(error)
                })?;
                let opened = site.within(self.0.config.deadline, async { Ok(link.watches.connect(request).await) });
                let error = match opened.await.inspect_err(|_| self.drop_connections())? {
                    Ok(opened) => {
                        let closes = opened.supports_stream_close();
                        return Ok((opened.into_stream(), closes));
                    }
                    Err(error) => error,
                };
                let error = status::of_upgrade(site, error);
                if error.kind() == ErrorKind::Unauthenticated && attempt == 0 && self.0.credentials.refused().await {
                    self.drop_connections();
                    continue;
                }
                return Err(error);
            }
            Err(site.error(ErrorKind::Unauthenticated, "the credentials were refused"))
        })
        .await
    }

    /// Asks for the server's version.
    pub(crate) async fn identify(&self, operation: &'static str) -> Result<Arc<Server>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        let (_, body) = self.get(operation, "/version").await?;
        let version: Version = serde_json::from_slice(&body).map_err(|error| {
            let message = "the server does not answer as a Kubernetes API server";
            self.site(operation).error(ErrorKind::Protocol, message).with_source(error)
        })?;
        let server = Arc::new(Server { version: Some(version.git_version) });
        self.0.session.answered(Arc::clone(&server));
        Ok(server)
    }
}
