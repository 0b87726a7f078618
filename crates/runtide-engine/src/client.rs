//! [`Client`]: negotiation and requests to one daemon, on one pool of connections.

use std::{fmt, future::Future, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, LengthLimitError, Limited};
use hyper::{Response, StatusCode, body::Incoming, client::conn::http1, upgrade};
use hyper_util::rt::TokioIo;
use runtide_core::{
    BackendId, Error, ErrorKind, Result,
    backend::{CallSite, Session},
};
use serde::Deserialize;

use crate::{
    answer::{Answer, date_of_daemon},
    connection::Driven,
    dialect::Dialect,
    endpoint::{Endpoint, Tls},
    error::{is_version_mismatch, of_answer, of_io},
    hijack::{self, Hijacked},
    request::{Request, of_path},
    tls,
    transport::{Body, Connector, Link, Pool, as_io},
};

/// Bytes of an error's body that are read, at most.
const ERROR_BODY: usize = 64 * 1024;

/// Bytes of a whole answer, at most: ten times what a list of 100,000 containers takes. A daemon that never ends its answer takes no
/// more memory.
const WHOLE_ANSWER: usize = 1024 * 1024 * 1024;

/// The parts of a client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the backend, in errors.
    pub id: BackendId,
    /// The daemon's address.
    pub endpoint: Endpoint,
    /// Files for `https`.
    pub tls: Option<Tls>,
    /// Deadline of a request, from its first byte to its last, unless the call has its own.
    pub deadline: Duration,
    /// Deadline of a connection attempt, the TLS handshake included. `ssh` has it for reaching the host, in whole seconds; its login
    /// counts to the request.
    pub connect_deadline: Duration,
}

/// One configured daemon. Cheap to clone; the first call connects and negotiates.
///
/// # Behavior
/// * Each call has a deadline. When it passes, the idle connections are closed, since a peer that stalls on one of them stalls on
///   all, and the next call negotiates again.
/// * A connection that breaks also leads to a new negotiation: another server may answer (trap D9).
/// * A dropped future drops its request and closes its connection, which the daemon may or may not notice before it has acted.
pub struct Client<D: Dialect>(Arc<Inner<D>>, Lifetime);

/// The calls that a closed client refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    UntilClosed,
    /// None: what was created is removed after the close as well.
    Outlives,
}

struct Inner<D: Dialect> {
    dialect: D,
    id: BackendId,
    endpoint: String,
    authority: String,
    deadline: Duration,
    connector: Connector,
    pool: Pool,
    session: Session<D::Server>,
    /// Locked while one call negotiates, so that a burst of first calls asks once.
    negotiating: tokio::sync::Mutex<()>,
}

impl<D: Dialect> Clone for Client<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), self.1)
    }
}

impl<D: Dialect> fmt::Debug for Client<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.0.id).field("endpoint", &self.0.endpoint).finish_non_exhaustive()
    }
}

impl<D: Dialect> Client<D> {
    /// A client without a connection.
    ///
    /// # Errors
    /// `InvalidInput` for TLS files that cannot be read, `Unsupported` for `ssh://` where the engine has no [`Dialect::dial_stdio`].
    pub fn new(dialect: D, settings: Settings) -> Result<Self> {
        let Settings { id, endpoint, tls, deadline, connect_deadline } = settings;
        let tls = tls::connector(&endpoint, tls.as_ref())?;
        let connector = match &endpoint {
            Endpoint::Ssh(ssh) => {
                let command = D::dial_stdio(ssh.socket()).ok_or_else(|| {
                    let why = "this engine's command line has no command that ssh could run for it";
                    Error::new(ErrorKind::Unsupported, D::NEGOTIATE, format!("'{endpoint}' cannot be reached: {why}"))
                        .with_context("feature", "ssh")
                        .with_context("reason", why)
                })?;
                Connector::through_ssh(ssh.clone(), &command, connect_deadline)
            }
            _ => Connector::new(endpoint.clone(), tls, connect_deadline),
        };
        Ok(Self(
            Arc::new(Inner {
                dialect,
                id,
                endpoint: endpoint.to_string(),
                authority: endpoint.authority(),
                deadline,
                pool: Pool::new(connector.clone()),
                connector,
                session: Session::default(),
                negotiating: tokio::sync::Mutex::new(()),
            }),
            Lifetime::UntilClosed,
        ))
    }

    /// The backend's id.
    pub fn id(&self) -> &BackendId {
        &self.0.id
    }

    /// The daemon's address, as it is shown.
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// `host:port` for the `Host` header; `localhost` for a socket.
    pub fn authority(&self) -> &str {
        &self.0.authority
    }

    /// Deadline of one request, from its first byte to its last.
    pub fn deadline(&self) -> Duration {
        self.0.deadline
    }

    /// The call's site, for its errors.
    pub fn site(&self, operation: &'static str) -> CallSite<'_> {
        CallSite::new(operation, &self.0.id).with_endpoint(&self.0.endpoint)
    }

    /// Fails every later call with `Cancelled`, and closes idle connections.
    pub fn close(&self) {
        self.0.session.close();
        self.0.pool.reset();
    }

    /// The same client, whose calls go on after the close: to remove what was created before it.
    #[must_use]
    pub fn outliving_close(&self) -> Self {
        Self(Arc::clone(&self.0), Lifetime::Outlives)
    }

    /// Waits until it is closed: what is open then ends with `Cancelled`. One that outlives the close waits indefinitely.
    pub async fn closed(&self) {
        match self.1 {
            Lifetime::UntilClosed => self.0.session.closed().await,
            Lifetime::Outlives => std::future::pending().await,
        }
    }

    /// Runs work for as long as the client is open.
    ///
    /// # Errors
    /// `Cancelled` once it was closed; else the work's own.
    pub async fn until_closed<T>(&self, operation: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.closed() => Err(self.site(operation).closed()),
        }
    }

    /// # Errors
    /// `Cancelled` once it was closed.
    pub fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.1 == Lifetime::Outlives {
            return Ok(());
        }
        self.0.session.check_open(self.site(operation))
    }

    /// The server that answered last, if one did.
    pub fn last_server(&self) -> Option<Arc<D::Server>> {
        self.0.session.last_server()
    }

    /// The negotiated server; negotiates if necessary.
    ///
    /// # Errors
    /// As [`negotiate`](Self::negotiate).
    pub async fn server(&self) -> Result<Arc<D::Server>> {
        self.check_open(D::NEGOTIATE)?;
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
    ///
    /// # Errors
    /// Those of a call, and those of [`Dialect::understand`].
    pub async fn negotiate(&self) -> Result<Arc<D::Server>> {
        let site = self.site(D::NEGOTIATE);
        let answered = async {
            let request = Request::get(D::PROBE).unversioned().write(site, &self.0.authority, "")?;
            let response = self.exchange(site, request).await?;
            let (date, headers) = (date_of_daemon(response.headers()), response.headers().clone());
            Ok(Answer { headers, date, body: self.collect(site, response).await? })
        };
        let answer = self.within(site, self.0.deadline, answered).await?;
        let server = Arc::new(self.0.dialect.understand(site, &answer)?);
        let now = D::describe(&server);
        tracing::debug!(backend = %self.0.id, server = now, prefix = D::prefix(&server), "negotiated");
        if let Some(former) = self.0.session.answered(Arc::clone(&server)).map(|former| D::describe(&former))
            && former != now
        {
            tracing::info!(backend = %self.0.id, from = former, to = now, "another server answers");
        }
        Ok(server)
    }

    /// Forgets the negotiated server: the next call negotiates.
    pub fn forget(&self) {
        self.0.session.forget();
    }

    /// Checks that an HTTP server answers.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn ping(&self, operation: &'static str) -> Result<()> {
        self.open(operation, Request::get("/_ping").unversioned()).await.map(drop)
    }

    /// The whole answer, within `deadline`.
    ///
    /// # Errors
    /// `Unavailable` for a daemon that cannot be reached or a connection that broke, `Timeout`, `Cancelled` once the client was
    /// closed, `InvalidInput` for a request that cannot be written, `Protocol` for an answer that is none; else by the status of the
    /// answer, in the daemon's words.
    ///
    /// # Cancel safety
    /// A dropped future drops its request: the daemon may have carried it out.
    pub async fn call(&self, operation: &'static str, request: Request, deadline: Duration) -> Result<Bytes> {
        let site = self.site(operation);
        let answered = async {
            let response = self.exchange(site, self.write(site, request).await?).await?;
            self.collect(site, response).await
        };
        self.within(site, deadline, answered).await
    }

    /// The head of an answer within the client's deadline. Its body has no deadline: it is for downloads and for what goes on.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// A dropped future drops its request; a dropped body closes its connection.
    pub async fn open(&self, operation: &'static str, request: Request) -> Result<Response<Incoming>> {
        let answered = self.open_unbounded(operation, request);
        self.within(self.site(operation), self.0.deadline, answered).await
    }

    /// As [`open`](Self::open), without a deadline: for a head that comes after long work. The caller bounds it.
    ///
    /// # Errors
    /// As [`call`](Self::call), without `Timeout`.
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn open_unbounded(&self, operation: &'static str, request: Request) -> Result<Response<Incoming>> {
        let site = self.site(operation);
        self.exchange(site, self.write(site, request).await?).await
    }

    /// As [`open`](Self::open), on a connection of its own, for an answer that may take weeks.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn open_apart(&self, operation: &'static str, request: Request) -> Result<Response<Incoming>> {
        let site = self.site(operation);
        let answered = async {
            let request = of_path(self.write(site, request).await?);
            let (mut sender, connection) = self.shake(site).await?;
            // The task ends with the answer, also with one that is dropped.
            tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(|error| self.broken(site, as_io(error)))?;
            self.succeeded(site, response).await
        };
        self.within(site, self.0.deadline, answered).await
    }

    /// A connection that is upgraded to raw bytes, as exec and attach have it. The framing of the bytes is for the caller to know.
    ///
    /// # Errors
    /// As [`call`](Self::call); `Protocol` also for an answer that does not upgrade.
    ///
    /// # Cancel safety
    /// A dropped future closes the connection: the daemon may have started what was asked for.
    pub async fn hijack(&self, operation: &'static str, request: Request) -> Result<Hijacked> {
        let site = self.site(operation);
        let opened = async {
            let mut request = of_path(self.write(site, request).await?);
            hijack::ask(&mut request);
            let broken = |error| self.broken(site, as_io(error));
            let (mut sender, connection) = self.shake(site).await?;
            let mut connection = Driven::new(connection.with_upgrades());
            let response = connection.drive(sender.send_request(request)).await.map_err(broken)?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                // The body of an error needs the connection driven while it is read.
                connection.drive(self.succeeded(site, response)).await?;
                let why = "the daemon did not upgrade the connection (is a proxy in between?)";
                return Err(site.error(ErrorKind::Protocol, why));
            }
            let content_type = hijack::content_type(response.headers());
            let upgraded = connection.drive(upgrade::on(response)).await.map_err(broken)?;
            Hijacked::new(content_type, upgraded)
                .ok_or_else(|| site.error(ErrorKind::Unexpected, "the upgraded connection is another one"))
        };
        self.within(site, self.0.deadline, opened).await
    }

    /// The request as it is sent; negotiates if necessary.
    pub(crate) async fn write(&self, site: CallSite<'_>, request: Request) -> Result<hyper::Request<Body>> {
        self.check_open(site.operation())?;
        let prefix = if request.is_unversioned() { String::new() } else { D::prefix(self.server().await?.as_ref()) };
        tracing::trace!(operation = site.operation(), ?request, prefix, "request");
        request.write(site, &self.0.authority, &prefix)
    }

    /// A connection of its own.
    pub(crate) async fn shake(
        &self,
        site: CallSite<'_>,
    ) -> Result<(http1::SendRequest<Body>, http1::Connection<TokioIo<Link>, Body>)> {
        let link = self.0.connector.connect().await.map_err(|error| self.broken(site, error))?;
        http1::handshake(link).await.map_err(|error| self.broken(site, as_io(error)))
    }

    async fn exchange(&self, site: CallSite<'_>, request: hyper::Request<Body>) -> Result<Response<Incoming>> {
        self.check_open(site.operation())?;
        let response = self.0.pool.send(request).await.map_err(|error| self.broken(site, error))?;
        self.succeeded(site, response).await
    }

    /// Sends a request that another client of the daemon wrote, on the same connections.
    ///
    /// # Errors
    /// The error of the connection.
    pub async fn pass_on(&self, request: hyper::Request<Body>) -> io::Result<Response<Incoming>> {
        self.0.pool.send(request).await
    }

    async fn collect(&self, site: CallSite<'_>, response: Response<Incoming>) -> Result<Bytes> {
        let body = Limited::new(response.into_body(), WHOLE_ANSWER).collect().await;
        body.map(Collected::to_bytes).map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => of_io(site, &D::ADVICE, as_io(*error)),
            Err(error) if error.is::<LengthLimitError>() => {
                site.error(ErrorKind::Protocol, "the answer is longer than 1 GiB")
            }
            Err(_) => site.error(ErrorKind::Unavailable, "the connection broke"),
        })
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
        let body = Limited::new(response.into_body(), ERROR_BODY).collect().await;
        let body = body.map(Collected::to_bytes).unwrap_or_default();
        let message = serde_json::from_slice::<ErrorReply>(&body)
            .map_or_else(|_| String::from_utf8_lossy(&body).into_owned(), |body| body.message);
        if status == 400 && is_version_mismatch(&message) {
            self.forget();
        }
        Err(self.noted(of_answer(site, &D::ADVICE, status.as_u16(), &message)))
    }

    /// The error of an answer, with what its user should know of the server.
    pub fn noted(&self, error: Error) -> Error {
        match self.last_server().and_then(|server| D::note(&server)) {
            Some(note) => error.with_context("server", note),
            None => error,
        }
    }

    /// Classifies a broken connection. The server behind the next one may be another, so it is negotiated again.
    pub fn broken(&self, site: CallSite<'_>, error: io::Error) -> Error {
        self.forget();
        of_io(site, &D::ADVICE, error)
    }

    /// Runs a call within its deadline.
    ///
    /// # Errors
    /// `Timeout`; else the call's own.
    pub fn within<T>(
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
                    self.0.pool.reset();
                    self.forget();
                    Err(timeout)
                }
            }
        }
    }
}

/// Body of an error response. Both engines have the whole text in `message`; Podman has the innermost cause apart.
#[derive(Deserialize)]
struct ErrorReply {
    message: String,
}
