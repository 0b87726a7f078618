//! [`Client`]: negotiation, requests as bytes, and bollard for the verbs, all on one pool of connections.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, Response, body::Incoming, header};
use runtide_core::{
    BackendId, Error, ErrorKind, Result, RuntimeKind,
    backend::{CallSite, Session},
};
use serde::Deserialize;

use crate::{
    config::Config,
    error::{DaemonErrors as _, is_version_mismatch},
    normalize, tls,
    transport::{Body, BoxError, Connector, Pool},
    version::ApiVersion,
};

/// Bytes of an error's body that are read, at most.
const ERROR_BODY: usize = 64 * 1024;

/// Seconds until bollard gives up. Longer than any call: it counts whole seconds, and the deadlines are ours (trap D18).
const BOLLARD_TIMEOUT: u64 = 365 * 24 * 3600;

/// One configured daemon. Cheap to clone; the first call connects.
#[derive(Clone, Debug)]
pub(crate) struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    id: BackendId,
    endpoint: String,
    authority: String,
    connector: Connector,
    pool: Arc<Pool>,
    session: Session<Server>,
    /// Locked while one call negotiates, so that a burst of first calls asks once.
    negotiating: tokio::sync::Mutex<()>,
}

/// A server that answered, with the negotiated API.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: RuntimeKind,
    pub(crate) version: String,
    pub(crate) api: ApiVersion,
    /// The daemon's own clock when it answered, to the second and never ahead; `None` for a proxy's clock.
    pub(crate) date: Option<SystemTime>,
    bollard: bollard::Docker,
}

impl Client {
    pub(crate) fn new(config: Config) -> Result<Self> {
        config.validate()?;
        let tls = tls::connector(&config.endpoint, config.tls.as_ref())?;
        let connector = Connector::new(config.endpoint.clone(), tls, config.connect_deadline);
        Ok(Self(Arc::new(Inner {
            id: config.backend_id(),
            endpoint: config.endpoint.to_string(),
            authority: config.endpoint.authority(),
            pool: Arc::new(Pool::new(connector.clone())),
            connector,
            config,
            session: Session::default(),
            negotiating: tokio::sync::Mutex::new(()),
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

    /// Deadline of one request, from its first byte to its last.
    pub(crate) fn deadline(&self) -> Duration {
        self.0.config.deadline
    }

    pub(crate) fn site(&self, operation: &'static str) -> CallSite<'_> {
        CallSite::new(operation, &self.0.id).with_endpoint(&self.0.endpoint)
    }

    /// Classifies a verb's error; if the server's API has changed, the next call negotiates again.
    pub(crate) fn error(&self, operation: &'static str, error: bollard::errors::Error) -> Error {
        if let bollard::errors::Error::DockerResponseServerError { status_code: 400, message } = &error
            && is_version_mismatch(message)
        {
            self.forget();
        }
        self.site(operation).bollard(error)
    }

    /// Fails every later call with `Cancelled`, and closes idle connections.
    pub(crate) fn close(&self) {
        self.0.session.close();
        self.0.pool.reset();
    }

    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        self.0.session.check_open(self.site(operation))
    }

    /// bollard, for the verbs, with the negotiated version. It has no deadline: callers set one, most of them
    /// [`deadline`](Self::deadline).
    pub(crate) async fn bollard(&self) -> Result<bollard::Docker> {
        Ok(self.server().await?.bollard.clone())
    }

    /// The server that answered last, if one did.
    pub(crate) fn last_server(&self) -> Option<Arc<Server>> {
        self.0.session.last_server()
    }

    /// The negotiated server; negotiates if necessary.
    pub(crate) async fn server(&self) -> Result<Arc<Server>> {
        self.check_open("docker.negotiate")?;
        if let Some(server) = self.0.session.current_server() {
            return Ok(server);
        }
        let _one = self.0.negotiating.lock().await;
        match self.0.session.current_server() {
            Some(server) => Ok(server),
            None => self.negotiate().await,
        }
    }

    /// Asks the server for its versions (trap D9: it may be another one than a moment ago).
    pub(crate) async fn negotiate(&self) -> Result<Arc<Server>> {
        let site = self.site("docker.negotiate");
        let deadline = self.deadline();
        let answered = async {
            let response = self.head(site, "/version").await?;
            let date = date_of_daemon(response.headers());
            Ok((date, collect(site, response).await?))
        };
        let (date, body) = self.within(site, deadline, answered).await?;
        let (reply, left_out): (VersionReply, _) =
            normalize::lenient(&String::from_utf8_lossy(&body), |json| serde_json::from_str(json))
                .map_err(|error| site.undecodable(error))?;
        normalize::log(self.id(), "version", &left_out);
        let server = Arc::new(self.understand(site, &reply, date)?);
        tracing::debug!(backend = %self.id(), kind = %server.kind, version = server.version, api = %server.api, "negotiated");
        let former = self.0.session.answered(Arc::clone(&server));
        if let Some(former) = former.filter(|former| former.version != server.version || former.kind != server.kind) {
            tracing::info!(backend = %self.id(), from = former.version, to = server.version, "another server answers");
        }
        Ok(server)
    }

    fn understand(&self, site: CallSite<'_>, reply: &VersionReply, date: Option<SystemTime>) -> Result<Server> {
        let parsed = |text: &str| {
            text.parse::<ApiVersion>().map_err(|error| {
                site.error(ErrorKind::Protocol, "the server's API version is not a version").with_source(error)
            })
        };
        let offered = reply.api_version.as_deref().filter(|text| !text.is_empty());
        let Some(offered) = offered else {
            return Err(site.error(ErrorKind::Protocol, "the server does not report its API version"));
        };
        // One that cannot be read refuses nothing: the server will, if it has to.
        let minimum = reply.min_api_version.as_deref().filter(|text| !text.is_empty()).and_then(|text| {
            parsed(text)
                .inspect_err(|_| tracing::warn!(backend = %self.id(), field = "MinAPIVersion", value = text, "left out: it is no version"))
                .ok()
        });
        let api = ApiVersion::negotiate(parsed(offered)?, minimum, self.config().max_api_version).map_err(|why| {
            site.error(ErrorKind::Unsupported, why.clone())
                .with_context("feature", "api_version")
                .with_context("reason", why)
        })?;
        Ok(Server {
            kind: reply.kind(),
            version: reply.version.as_deref().unwrap_or_default().to_owned(),
            api,
            date,
            bollard: self.verbs(site, api)?,
        })
    }

    /// bollard on our connections: one pool and one TLS configuration.
    fn verbs(&self, site: CallSite<'_>, api: ApiVersion) -> Result<bollard::Docker> {
        let pool = self.0.pool.clone();
        let transport = move |request: bollard::BollardRequest| {
            let pool = pool.clone();
            async move {
                let request = request.map(|body| Body::new(body.map_err(BoxError::from)));
                pool.send(request).await.map_err(|err| bollard::errors::Error::IOError { err })
            }
        };
        let address = format!("http://{}", self.0.authority);
        bollard::Docker::connect_with_custom_transport(transport, Some(address), BOLLARD_TIMEOUT, &api.to_bollard())
            .map_err(|error| site.bollard(error))
    }

    /// Forgets the negotiated server: the next call negotiates.
    pub(crate) fn forget(&self) {
        self.0.session.forget();
    }

    /// Checks that an HTTP server answers.
    pub(crate) async fn ping(&self, operation: &'static str) -> Result<()> {
        let site = self.site(operation);
        let answered = async { self.head(site, "/_ping").await.map(drop) };
        self.within(site, self.deadline(), answered).await
    }

    /// The whole answer to a GET of the negotiated API (`path_and_query` begins after the version).
    ///
    /// # Cancel safety
    /// A dropped future drops its request.
    pub(crate) async fn get_bytes(
        &self,
        operation: &'static str,
        path_and_query: &str,
        deadline: Duration,
    ) -> Result<Bytes> {
        let site = self.site(operation);
        let answered = async {
            let path = self.versioned(path_and_query).await?;
            let response = self.head(site, &path).await?;
            collect(site, response).await
        };
        self.within(site, deadline, answered).await
    }

    /// The head of an answer, within the deadline; its body has no deadline.
    pub(crate) async fn stream(&self, operation: &'static str, path_and_query: &str) -> Result<Response<Incoming>> {
        let site = self.site(operation);
        let answered = async {
            let path = self.versioned(path_and_query).await?;
            self.head(site, &path).await
        };
        self.within(site, self.deadline(), answered).await
    }

    pub(crate) async fn versioned(&self, path_and_query: &str) -> Result<String> {
        Ok(format!("/v{}{path_and_query}", self.server().await?.api))
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.0.connector
    }

    pub(crate) fn request<B>(&self, site: CallSite<'_>, path_and_query: &str, body: B) -> Result<Request<B>> {
        Request::builder()
            .method(Method::GET)
            .uri(format!("http://{}{path_and_query}", self.0.authority))
            .header(header::HOST, &self.0.authority)
            .body(body)
            .map_err(|error| site.error(ErrorKind::InvalidInput, "the request cannot be written").with_source(error))
    }

    async fn head(&self, site: CallSite<'_>, path_and_query: &str) -> Result<Response<Incoming>> {
        self.check_open(site.operation())?;
        tracing::trace!(operation = site.operation(), path_and_query, "request");
        let body = Body::new(Empty::new().map_err(|never| match never {}));
        let request = self.request(site, path_and_query, body)?;
        let response = self.0.pool.send(request).await.map_err(|error| self.broken(site, error))?;
        self.succeeded(site, response).await
    }

    /// The response if it is a success, otherwise its error.
    pub(crate) async fn succeeded(
        &self,
        site: CallSite<'_>,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = http_body_util::Limited::new(response.into_body(), ERROR_BODY).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let message = serde_json::from_slice::<ErrorReply>(&body)
            .map_or_else(|_| String::from_utf8_lossy(&body).into_owned(), |body| body.message);
        if status == 400 && is_version_mismatch(&message) {
            self.forget();
        }
        Err(site.status(status.as_u16(), &message))
    }

    /// Classifies a broken connection. The server behind the next one may be another, so it is negotiated again.
    pub(crate) fn broken(&self, site: CallSite<'_>, error: io::Error) -> Error {
        self.forget();
        site.io(error)
    }

    pub(crate) fn within<T>(
        &self,
        site: CallSite<'_>,
        deadline: Duration,
        call: impl Future<Output = Result<T>>,
    ) -> impl Future<Output = Result<T>> {
        // Nested, so that a timeout that the call itself reports is not taken for this deadline's.
        let call = site.within(deadline, async { Ok(call.await) });
        async move {
            match call.await {
                Ok(result) => result,
                Err(timeout) => {
                    // A peer that stalls on one connection stalls on the idle ones too.
                    self.0.pool.reset();
                    self.forget();
                    Err(timeout)
                }
            }
        }
    }
}

async fn collect(site: CallSite<'_>, response: Response<Incoming>) -> Result<Bytes> {
    let body = response.into_body().collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| site.io(crate::transport::as_io(error)))
}

/// The daemon's clock. `None` if the `Server` header is not the daemon's: a proxy that replaces it replaces the date as well.
fn date_of_daemon(headers: &hyper::HeaderMap) -> Option<SystemTime> {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let server = text(header::SERVER)?;
    if !server.starts_with("Docker/") && !server.starts_with("Libpod/") {
        return None;
    }
    http_date(text(header::DATE)?)
}

/// Parses a date like "Wed, 21 Oct 2015 07:28:00 GMT".
fn http_date(text: &str) -> Option<SystemTime> {
    jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp().into())
}

/// Body of an error response.
#[derive(Deserialize)]
struct ErrorReply {
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct VersionReply {
    version: Option<String>,
    api_version: Option<String>,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: Option<String>,
    components: Option<Vec<Component>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Component {
    name: Option<String>,
}

impl VersionReply {
    /// The kind of runtime. Podman listens on Docker's socket too, and names itself among the components.
    fn kind(&self) -> RuntimeKind {
        let names = self.components.iter().flatten().filter_map(|component| component.name.as_deref());
        if names.into_iter().any(|name| name.to_ascii_lowercase().contains("podman")) {
            RuntimeKind::Podman
        } else {
            RuntimeKind::Docker
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_date_is_read() {
        let at = http_date("Tue, 15 Nov 1994 08:12:31 GMT").unwrap();
        assert_eq!(at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 784_887_151);
        assert_eq!(http_date("yesterday"), None);
    }

    #[tokio::test]
    async fn no_field_but_the_version_itself_is_needed_to_speak_to_a_server() {
        let client = Client::new(Config::default()).unwrap();
        let understood = |json: &str| {
            let (reply, _) = normalize::lenient(json, |json| serde_json::from_str::<VersionReply>(json)).unwrap();
            client.understand(client.site("test"), &reply, None).map(|server| server.api.to_string())
        };
        let odd = r#"{"Version":20.10,"ApiVersion":"1.41","MinAPIVersion":"1.99999","Components":[{"Name":7},3]}"#;
        assert_eq!(understood(odd).unwrap(), "1.41");
        assert_eq!(understood(r#"{"ApiVersion":1.41}"#).unwrap_err().kind(), ErrorKind::Protocol);
        assert_eq!(understood(r#"{"ApiVersion":"1.99999"}"#).unwrap_err().kind(), ErrorKind::Protocol);
    }

    #[test]
    fn the_servers_kind_is_read_from_its_components() {
        let kind = |json| serde_json::from_str::<VersionReply>(json).unwrap().kind();
        assert_eq!(kind(r#"{"Components":[{"Name":"Engine"},{"Name":"containerd"}]}"#), RuntimeKind::Docker);
        assert_eq!(kind(r#"{"Components":[{"Name":"Podman Engine"},{"Name":"Conmon"}]}"#), RuntimeKind::Podman);
        assert_eq!(kind(r#"{"Components":null}"#), RuntimeKind::Docker);
    }
}
