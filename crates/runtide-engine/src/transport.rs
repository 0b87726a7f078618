//! HTTP/1.1 to one daemon over a unix socket, TCP, TLS or `ssh`: a small pool for requests, and separate connections for streams.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{Request, Response, Uri, body::Incoming};
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use runtide_core::backend::{lock, poll_interval};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

use crate::{
    endpoint::Endpoint,
    ssh::{Ssh, SshConnector, SshLink},
};

/// An error of any type, of a body that is sent.
pub type BoxError = Box<dyn StdError + Send + Sync>;
/// A body that is sent.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Idle connections in the pool, as many as a bounded burst of inspections uses, and the time for which they stay.
const IDLE_CONNECTIONS: usize = 8;
const IDLE_FOR: Duration = Duration::from_secs(15);

/// Connects to the daemon, each time by its path or name (trap D12: a restart makes a new socket file).
#[derive(Clone)]
pub(crate) struct Connector(Arc<Target>);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({})", self.0.endpoint)
    }
}

struct Target {
    endpoint: Endpoint,
    ssh: Option<SshConnector>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

impl Connector {
    pub(crate) fn new(endpoint: Endpoint, tls: Option<(TlsConnector, ServerName<'static>)>, timeout: Duration) -> Self {
        Self(Arc::new(Target { endpoint, ssh: None, tls, timeout }))
    }

    /// `command` is what joins its input and output to the daemon's socket on the other machine.
    pub(crate) fn through_ssh(ssh: Ssh, command: &[String], timeout: Duration) -> Self {
        let connector = SshConnector::new(ssh.clone(), command);
        Self(Arc::new(Target { endpoint: Endpoint::Ssh(ssh), ssh: Some(connector), tls: None, timeout }))
    }

    /// Dials.
    pub(crate) async fn connect(&self) -> io::Result<TokioIo<Link>> {
        let dialled = tokio::time::timeout(self.0.timeout, self.dial()).await;
        let dialled = dialled.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)));
        dialled.map(TokioIo::new).map_err(|error| {
            let is_file = matches!(self.0.endpoint, Endpoint::Unix(_));
            match poll_interval(&error, is_file) {
                Some(interval) => io::Error::new(error.kind(), Unreached { interval, error }),
                None => error,
            }
        })
    }

    async fn dial(&self) -> io::Result<Link> {
        match &self.0.endpoint {
            #[cfg(unix)]
            Endpoint::Unix(path) => Ok(Link::Unix(tokio::net::UnixStream::connect(path).await?)),
            #[cfg(not(unix))]
            Endpoint::Unix(_) => Err(io::Error::from(io::ErrorKind::Unsupported)),
            Endpoint::Tcp { host, port, .. } => {
                // An unknown host name is an error without a kind of its own.
                let unknown = |error| io::Error::new(io::ErrorKind::HostUnreachable, error);
                let found: Vec<_> = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(unknown)?.collect();
                let tcp = TcpStream::connect(&found[..]).await?;
                tcp.set_nodelay(true)?;
                match &self.0.tls {
                    Some((tls, name)) => Ok(Link::Tls(Box::new(tls.connect(name.clone(), tcp).await?))),
                    None => Ok(Link::Tcp(tcp)),
                }
            }
            Endpoint::Ssh(_) => match &self.0.ssh {
                Some(ssh) => Ok(Link::Ssh(Box::new(ssh.connect(self.0.timeout).await?))),
                None => Err(io::Error::from(io::ErrorKind::Unsupported)),
            },
        }
    }
}

/// The error of a dial that reached no daemon. A connection that breaks may have an error of the same kind.
#[derive(Debug)]
pub(crate) struct Unreached {
    /// Interval at which the dial may be repeated.
    pub(crate) interval: Duration,
    error: io::Error,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for Unreached {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Link>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Link>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await })
    }
}

/// One connection over any of the transports.
#[derive(Debug)]
pub(crate) enum Link {
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Ssh(Box<SshLink>),
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

macro_rules! each_link {
    ($link:expr, $inner:ident => $call:expr) => {
        match $link {
            #[cfg(unix)]
            Link::Unix($inner) => $call,
            Link::Tcp($inner) => $call,
            Link::Tls($inner) => $call,
            Link::Ssh($inner) => $call,
        }
    };
}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each_link!(&mut *self, link => Pin::new(link).poll_read(cx, buf))
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each_link!(&mut *self, link => Pin::new(link).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_link!(&mut *self, link => Pin::new(link).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_link!(&mut *self, link => Pin::new(link).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each_link!(&mut *self, link => Pin::new(link).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each_link!(self, link => link.is_write_vectored())
    }
}

type PooledClient = legacy::Client<Connector, Body>;

/// The pool. A failed request resets it, since the other idle connections lead to the same dead peer.
pub(crate) struct Pool {
    connector: Connector,
    client: Mutex<PooledClient>,
}

impl Pool {
    pub(crate) fn new(connector: Connector) -> Self {
        let client = Mutex::new(Self::build(&connector));
        Self { connector, client }
    }

    fn build(connector: &Connector) -> PooledClient {
        legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector.clone())
    }

    /// Closes the idle connections; one in use is closed after its request.
    pub(crate) fn reset(&self) {
        *lock(&self.client) = Self::build(&self.connector);
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> io::Result<Response<Incoming>> {
        let client = lock(&self.client).clone();
        match client.request(request).await {
            Ok(response) => Ok(response),
            Err(error) => {
                self.reset();
                Err(as_io(Beneath(error)))
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// Shows the source of hyper-util's error in place of the error itself, which only names a step (`client error (Connect)`).
#[derive(Debug)]
struct Beneath(legacy::Error);

impl fmt::Display for Beneath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(beneath) => write!(f, "{beneath}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl StdError for Beneath {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source().and_then(StdError::source)
    }
}

/// An error and all of its causes. `io::Error::source` skips the error that it wraps; this iterator does not.
pub(crate) fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&current| {
        if let Some(wrapped) = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            return Some(wrapped);
        }
        match current.downcast_ref::<Beneath>() {
            Some(Beneath(hidden)) => hidden.source(),
            None => current.source(),
        }
    })
}

/// Wraps the error as an I/O error, with the kind of the first I/O error among its causes.
pub fn as_io(error: impl StdError + Send + Sync + 'static) -> io::Error {
    let kind = causes(&error).find_map(|cause| match cause.downcast_ref::<hyper::Error>() {
        Some(http) => http.is_parse().then_some(io::ErrorKind::InvalidData),
        None => cause.downcast_ref::<io::Error>().map(io::Error::kind),
    });
    io::Error::new(kind.unwrap_or(io::ErrorKind::ConnectionAborted), error)
}

#[cfg(test)]
mod tests {
    use runtide_core::{BackendId, Retry, backend::CallSite};

    use super::*;
    use crate::error::{Advice, of_io};

    const ADVICE: Advice = Advice { socket: "", use_tls: "", is_tls: "", ca: "", identity: "", no_tls: "" };

    async fn retry_of(endpoint: Endpoint) -> Retry {
        let failed = Connector::new(endpoint, None, Duration::from_secs(60)).connect().await.err().unwrap();
        let id = BackendId::from("engine:test");
        of_io(CallSite::new("engine.test", &id), &ADVICE, as_io(failed)).retry()
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_dial_that_reaches_no_daemon_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        let file = Retry::Poll(Duration::from_millis(50));
        assert_eq!(retry_of(Endpoint::unix(&socket)).await, file, "no such file");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert_eq!(retry_of(Endpoint::unix(&socket)).await, file, "a file without a listener");

        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let tcp = |host: &str| Endpoint::Tcp { host: host.to_owned(), port, tls: false };
        assert_eq!(retry_of(tcp("127.0.0.1")).await, Retry::Poll(Duration::from_millis(250)), "a port that refuses");
        assert_eq!(retry_of(tcp("no-such-host.invalid")).await, Retry::Backoff, "a name that cannot be resolved");
    }

    #[test]
    fn a_connection_that_breaks_has_reached_a_daemon() {
        let id = BackendId::from("engine:test");
        for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof] {
            assert_eq!(
                of_io(CallSite::new("engine.test", &id), &ADVICE, kind.into()).retry(),
                Retry::Backoff,
                "{kind}"
            );
        }
    }
}
