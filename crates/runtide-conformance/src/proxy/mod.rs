//! A small proxy in front of a socket, which breaks connections on purpose.
//!
//! It passes bytes, and recognizes the first line of a request, so that a [`Rule`] can pick requests (`/events`) also on a
//! connection that carried others before. On a connection that begins as HTTP, that is the request line; on one that begins with
//! any other text, the first line of each piece that the client sends. A protocol that is no text has no requests to pick.
//!
//! While nothing listens at its target, the proxy does not listen either, so that a dial fails through it as it fails without it.

mod link;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// Interval at which a target is dialled at which nothing listens.
const POLL: Duration = Duration::from_millis(10);

/// The address of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A socket file.
    #[cfg(unix)]
    Unix(PathBuf),
    /// An address; with port 0 the system picks the port of a listener.
    Tcp(SocketAddr),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The action on the connections that a [`Rule`] matches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The connection is closed at once, with a reset where the socket supports it.
    Refuse,
    /// The connection is accepted and kept, and nothing passes in either direction.
    Swallow,
    /// These bytes are the answer, and the connection closes.
    Answer(Vec<u8>),
    /// The answer comes later by this time.
    Delay(Duration),
    /// The connection breaks after this many bytes of the answer.
    Cut(usize),
    /// These bytes are replaced, wherever they occur in the answer, by others of the same length.
    Replace(Vec<u8>, Vec<u8>),
}

/// An action, and the connections that it applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Text in the first line of the requests that the rule applies to; `None`: every connection from its first moment.
    pub request: Option<String>,
    /// `true` if the rule leaves alone the connections that come after it.
    pub existing_only: bool,
    /// The action on these connections.
    pub action: Action,
}

impl Rule {
    /// For every connection, old and new.
    pub fn all(action: Action) -> Self {
        Self { request: None, existing_only: false, action }
    }

    /// For requests whose first line contains this text.
    pub fn on(request: impl Into<String>, action: Action) -> Self {
        Self { request: Some(request.into()), existing_only: false, action }
    }

    /// Only for connections that are there now.
    #[must_use]
    pub fn existing_only(mut self) -> Self {
        self.existing_only = true;
        self
    }

    fn matches(&self, newest: u64, connection: u64, request: &str) -> bool {
        (!self.existing_only || connection <= newest)
            && self.request.as_ref().is_none_or(|wanted| request.contains(wanted.as_str()))
    }
}

/// A proxy that runs until it is dropped, which closes its connections too.
#[derive(Debug)]
pub struct Proxy {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: Endpoint,
    /// The rules, each with the newest connection when it was added.
    rules: Mutex<Vec<(Rule, u64)>>,
    changed: watch::Sender<()>,
    live: Mutex<BTreeMap<u64, Live>>,
    newest: AtomicU64,
    dials: Mutex<Vec<Instant>>,
    /// Replacements that were passed on.
    replaced: AtomicU64,
    /// Connections that were accepted, and whose dial found nothing that listens at the target.
    unserved: mpsc::UnboundedSender<Box<dyn Socket>>,
}

#[derive(Debug)]
struct Live {
    kill: CancellationToken,
    /// The first line of the request under way.
    request: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens, and passes each connection on to the target. A socket file that is there already is replaced.
    ///
    /// # Errors
    /// If it cannot listen. The target is dialled for each connection, and may be down: the connection that finds nothing there
    /// is closed, and further ones are refused until the target listens again. A rule that refuses or swallows every connection
    /// needs no target, and they are accepted.
    pub async fn start(listen: Endpoint, target: Endpoint) -> io::Result<Self> {
        let listener = Listener::bind(&listen).await?;
        let endpoint = listener.endpoint(listen)?;
        let (changed, _) = watch::channel(());
        let (unserved, closing) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            target,
            rules: Mutex::default(),
            changed,
            live: Mutex::default(),
            newest: AtomicU64::new(0),
            dials: Mutex::default(),
            replaced: AtomicU64::new(0),
            unserved,
        });
        let accepting = tokio::spawn(run(listener, endpoint.clone(), closing, Arc::clone(&shared)));
        Ok(Self { endpoint, shared, accepting })
    }

    /// The address that the proxy listens on.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Adds a rule, in force until [`Proxy::heal`]. Of several rules that match a connection, the first counts.
    pub fn add(&self, rule: Rule) {
        let newest = self.shared.newest.load(Ordering::Acquire);
        lock(&self.shared.rules).push((rule, newest));
        self.shared.changed.send_replace(());
    }

    /// Removes every rule. Connections from which bytes were withheld are closed.
    pub fn heal(&self) {
        lock(&self.shared.rules).clear();
        self.shared.changed.send_replace(());
    }

    /// Breaks every connection; new ones are accepted.
    pub fn sever(&self) {
        for live in lock(&self.shared.live).values() {
            live.kill.cancel();
        }
    }

    /// Breaks the connections whose request under way contains this text.
    pub fn sever_requests(&self, request: &str) {
        for live in lock(&self.shared.live).values().filter(|live| live.request.contains(request)) {
            live.kill.cancel();
        }
    }

    /// Number of open connections.
    pub fn live(&self) -> usize {
        lock(&self.shared.live).len()
    }

    /// The first line of the request under way on each connection; empty where none came yet.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.live).values().map(|live| live.request.clone()).collect()
    }

    /// How many times [`Action::Replace`] has replaced its bytes so far, in answers that the clients' sockets took.
    pub fn replaced(&self) -> u64 {
        self.shared.replaced.load(Ordering::Acquire)
    }

    /// Times of the dials that were accepted, oldest first.
    pub fn dials(&self) -> Vec<Instant> {
        lock(&self.shared.dials).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.sever();
        #[cfg(unix)]
        if let Endpoint::Unix(path) = &self.endpoint {
            // Another process may have removed it before us.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Shared {
    /// The action on a connection now.
    fn action(&self, connection: u64, request: &str) -> Option<Action> {
        let rules = lock(&self.rules);
        rules
            .iter()
            .find(|(rule, newest)| rule.matches(*newest, connection, request))
            .map(|(rule, _)| rule.action.clone())
    }

    /// Returns true if a rule ends or keeps every new connection before the target is dialled.
    fn needs_no_target(&self) -> bool {
        matches!(self.action(u64::MAX, ""), Some(Action::Refuse | Action::Swallow))
    }
}

/// Accepts connections, except while nothing listens at the target.
async fn run(
    mut listener: Listener,
    endpoint: Endpoint,
    mut unserved: mpsc::UnboundedReceiver<Box<dyn Socket>>,
    shared: Arc<Shared>,
) {
    loop {
        let client = tokio::select! {
            client = unserved.recv() => client,
            () = accept(&listener, &shared) => None,
        };
        drop(listener);
        #[cfg(unix)]
        if let Endpoint::Unix(path) = &endpoint {
            // Another process may have removed it before us.
            let _ = std::fs::remove_file(path);
        }
        // The client dials again once it sees the end of this connection, and is refused.
        drop(client);
        listener = listen_again(&endpoint, &mut unserved, &shared).await;
    }
}

/// Waits until the target listens, or until a rule needs no target, and listens again.
async fn listen_again(
    endpoint: &Endpoint,
    unserved: &mut mpsc::UnboundedReceiver<Box<dyn Socket>>,
    shared: &Shared,
) -> Listener {
    loop {
        tokio::time::sleep(POLL).await;
        // Closes the connections that were accepted as well, and found the same.
        while unserved.try_recv().is_ok() {}
        let is_served = shared.needs_no_target() || is_there(&shared.target).await;
        // Another process may have the port for a moment: the next round may find it free.
        if is_served && let Ok(listener) = Listener::bind(endpoint).await {
            return listener;
        }
    }
}

/// Accepts connections until it is dropped.
async fn accept(listener: &Listener, shared: &Arc<Shared>) {
    loop {
        let Ok(client) = listener.accept().await else {
            // Out of descriptors, most likely: the next round may find some.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        lock(&shared.dials).push(Instant::now());
        let id = shared.newest.fetch_add(1, Ordering::AcqRel) + 1;
        let kill = CancellationToken::new();
        lock(&shared.live).insert(id, Live { kill: kill.clone(), request: String::new() });
        tokio::spawn(link::carry(client, id, kill, Arc::clone(shared)));
    }
}

/// A socket of either kind.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the close that follows a reset, where the socket supports it.
    fn reset_on_close(&self) {}
}

impl Socket for TcpStream {
    fn reset_on_close(&self) {
        // If the peer is gone already there is nothing to reset.
        let _ = self.set_zero_linger();
    }
}

#[cfg(unix)]
impl Socket for tokio::net::UnixStream {}

/// Sets no delay: small messages are passed on as they come, since waiting for more of them would cost 40 ms each time.
fn at_once(stream: TcpStream) -> TcpStream {
    // A socket without that option is slower, no more.
    let _ = stream.set_nodelay(true);
    stream
}

async fn dial(target: &Endpoint) -> io::Result<Box<dyn Socket>> {
    Ok(match target {
        #[cfg(unix)]
        Endpoint::Unix(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
        Endpoint::Tcp(address) => Box::new(at_once(TcpStream::connect(address).await?)),
    })
}

/// Returns true unless nothing listens at the target. The system limits the time of a dial.
async fn is_there(target: &Endpoint) -> bool {
    dial(target).await.err().is_none_or(|error| !is_absent(&error))
}

/// Returns true if a dial failed like this because nothing listens at the address.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

enum Listener {
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    async fn bind(at: &Endpoint) -> io::Result<Self> {
        Ok(match at {
            #[cfg(unix)]
            Endpoint::Unix(path) => {
                if path.exists() {
                    std::fs::remove_file(path)?;
                }
                Self::Unix(tokio::net::UnixListener::bind(path)?)
            }
            Endpoint::Tcp(address) => Self::Tcp(TcpListener::bind(address).await?),
        })
    }

    fn endpoint(&self, asked: Endpoint) -> io::Result<Endpoint> {
        Ok(match self {
            #[cfg(unix)]
            Self::Unix(_) => asked,
            Self::Tcp(listener) => Endpoint::Tcp(listener.local_addr()?),
        })
    }

    async fn accept(&self) -> io::Result<Box<dyn Socket>> {
        Ok(match self {
            #[cfg(unix)]
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(at_once(listener.accept().await?.0)),
        })
    }
}
