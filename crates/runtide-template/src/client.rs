//! The requests of the runtime. Every one has a deadline, ends when the backend is closed, and names its backend in its errors.

use std::{fmt, io, sync::Arc, time::Duration};

use runtide_core::{
    Capabilities, Error, ErrorKind, Gap, InstanceId, Result, Retry,
    backend::{CallSite, Session, poll_interval},
    capabilities::WatchSupport,
    event::ResumeToken,
    watch::Opened,
};

use crate::{config::Config, transport::Connection};

pub(crate) const CONNECT: &str = "template.connect";
pub(crate) const EVENTS: &str = "template.events";
pub(crate) const INSPECT: &str = "template.inspect";
pub(crate) const LIST: &str = "template.list";

/// Bytes that the longest answer takes in memory; a longer one is an error, so that no peer decides how much is used.
const LONGEST: usize = 256 << 20;

/// A server that answered.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) version: String,
    pub(crate) capabilities: Capabilities,
}

/// A cheap handle on one backend's connections.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) config: Arc<Config>,
    /// Closed or open, and the server that answered last.
    pub(crate) session: Arc<Session<Server>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("backend", &self.config.id).finish_non_exhaustive()
    }
}

/// The error of a step that the author of the backend has to write.
pub(crate) fn fork(operation: &'static str, step: &str) -> Error {
    Error::new(ErrorKind::Unexpected, operation, format!("FORK: {step}"))
}

impl Client {
    pub(crate) fn new(config: Config) -> Self {
        Self { config: Arc::new(config), session: Arc::default() }
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.session.last_server().map(|server| server.capabilities.clone()).unwrap_or_default()
    }

    pub(crate) fn site(&self, operation: &'static str) -> CallSite<'_> {
        CallSite::new(operation, &self.config.id)
    }

    /// An error of the socket.
    pub(crate) fn broken(&self, operation: &'static str, error: io::Error) -> Error {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            io::ErrorKind::InvalidData => ErrorKind::Protocol,
            _ => ErrorKind::Unavailable,
        };
        self.site(operation).error(kind, "the connection to the runtime failed").with_source(error)
    }

    /// Every await on the runtime goes through here.
    pub(crate) async fn within<T>(
        &self,
        operation: &'static str,
        limit: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let site = self.site(operation);
        let located = async {
            work.await.map_err(|error| {
                let is_located = error.context().iter().any(|(key, _)| *key == "backend");
                if is_located { error } else { error.with_context("backend", &self.config.id) }
            })
        };
        tokio::select! {
            biased;
            () = self.session.closed() => Err(site.closed()),
            done = site.within(limit, located) => done,
        }
    }

    /// Opens a connection and sends one request on it.
    async fn request(&self, operation: &'static str, request: &str) -> Result<Connection> {
        let mut connection = Connection::dial(&self.config.socket).await.map_err(|error| {
            // Only the error of `connect` proves that no daemon was reached. FORK: `false` for an address of a network.
            let interval = poll_interval(&error, true);
            let error = self.broken(operation, error);
            match interval {
                Some(interval) => error.with_retry(Retry::Poll(interval)),
                None => error,
            }
        })?;
        connection.send(request).await.map_err(|error| self.broken(operation, error))?;
        Ok(connection)
    }

    /// One request, and the lines of its answer.
    pub(crate) async fn call(&self, operation: &'static str, request: &str) -> Result<Vec<Vec<u8>>> {
        let answered = async {
            let mut connection = self.request(operation, request).await?;
            let (mut lines, mut size) = (Vec::new(), 0);
            while let Some(line) = connection.line().await.map_err(|error| self.broken(operation, error))? {
                size += line.len() + size_of::<Vec<u8>>(); // an empty line takes memory too
                if size > LONGEST {
                    return Err(self.site(operation).error(ErrorKind::Protocol, "the answer is too long"));
                }
                // FORK: the answer's end, and the refusals: each of the runtime's own is one `ErrorKind`. An answer that breaks off is
                // `Protocol`, or `Unavailable` before its first byte, and never a short answer.
                lines.push(line);
            }
            Ok(lines)
        };
        self.within(operation, self.config.deadline, answered).await
    }

    /// The runtime's version, and what it can do; asked for by `connect` and by each new event stream.
    pub(crate) async fn identify(&self) -> Result<Arc<Server>> {
        let answer = self.call(CONNECT, &unwritten(CONNECT, "the request for the version")?).await?;
        // FORK: read the version. Begin from `none`, and raise the verbs that this server has.
        let mut capabilities = Capabilities::none("FORK: this runtime has no such verb");
        capabilities.watch = WatchSupport::Pushed;
        let version = String::from_utf8_lossy(&answer.concat()).into_owned();
        let server = Arc::new(Server { version, capabilities });
        self.session.answered(Arc::clone(&server));
        Ok(server)
    }

    /// Every item, undecoded: one that cannot be decoded hides no other.
    pub(crate) async fn list(&self) -> Result<Vec<Vec<u8>>> {
        self.call(LIST, &unwritten(LIST, "the request that lists every instance")?).await
    }

    /// The item of this id; `None` if the runtime says that it is not there.
    pub(crate) async fn inspect(&self, id: &InstanceId) -> Result<Option<Vec<u8>>> {
        let answer = self.call(INSPECT, &unwritten(INSPECT, &format!("the request that inspects {id}"))?).await?;
        // FORK: only the runtime's own word proves that an instance is absent; any other refusal is an error.
        Ok(answer.into_iter().next())
    }

    /// Subscribes: when it returns, nothing that happens from now on is missed.
    pub(crate) async fn events(&self, after: Option<&ResumeToken>) -> Result<(Connection, Opened)> {
        let subscribed = async {
            let _ = after; // FORK: part of the request
            let mut connection = self.request(EVENTS, &unwritten(EVENTS, "the request that subscribes")?).await?;
            // FORK: read up to the line that says that the subscription holds. `Resumed` only with proof that nothing after the token
            // is missing; otherwise `Fresh`, with the reason. A token names the runtime's boot: a number alone comes again once the
            // runtime has begun to count again, and then proves nothing. Without a history it is `Fresh` always.
            match connection.line().await.map_err(|error| self.broken(EVENTS, error))? {
                Some(_) => Ok((connection, Opened::Fresh(Gap::Initial))),
                None => Err(self.site(EVENTS).error(ErrorKind::Unavailable, "no answer to the subscription")),
            }
        };
        self.within(EVENTS, self.config.deadline, subscribed).await
    }

    /// A verb on one instance, and its answer.
    pub(crate) async fn verb(&self, operation: &'static str, id: &InstanceId) -> Result<Vec<Vec<u8>>> {
        // FORK: an id is never pasted into a request unchecked: one that the runtime cannot have is `NotFound` for an inspection, and
        // `InvalidInput` or `NotFound` for a verb.
        self.call(operation, &unwritten(operation, &format!("the request for {id}"))?).await
    }
}

/// The text of a request. FORK: once the last one is written, remove this.
fn unwritten(operation: &'static str, request: &str) -> Result<String> {
    Err(fork(operation, &format!("write {request}")))
}
