//! Address, TLS files and timeouts of a daemon: [`Config`], [`Endpoint`], [`Tls`].

use std::{fmt, num::NonZeroUsize, path::PathBuf, str::FromStr, time::Duration};

use runtide_core::{
    BackendId, Error, ErrorKind, Result,
    backend::{check_deadline, setters},
    watch::DriverOptions,
};

use crate::version::ApiVersion;

/// The daemon's address, as `unix:///run/docker.sock` or `tcp://host:2375`. It carries no credential.
///
/// ```
/// use runtide_docker::Endpoint;
///
/// let endpoint: Endpoint = "tcp://build-7:2375".parse()?;
/// assert_eq!(endpoint.to_string(), "tcp://build-7:2375");
/// # Ok::<(), runtide_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A unix socket. In a container, mount its directory: a restarted daemon makes a new file.
    Unix(PathBuf),
    /// TCP, in the clear or over TLS.
    Tcp {
        /// Name or address, IPv6 without brackets.
        host: String,
        /// Port; 2375 by default, 2376 with TLS.
        port: u16,
        /// `https`: the connection is encrypted.
        tls: bool,
    },
}

impl Endpoint {
    /// The daemon's default socket.
    pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
    const HOST: &str = "localhost";
    const PORT: u16 = 2375;
    const TLS_PORT: u16 = 2376;

    /// The address of a unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(path.into())
    }

    /// `host:port`, for the `Host` header and the pool.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }

    pub(crate) fn backend_id(&self) -> BackendId {
        match self {
            Self::Unix(path) if is_default_socket(path) => BackendId::new("docker:local"),
            Self::Unix(path) => BackendId::from(format!("docker:{}", path.display())),
            Self::Tcp { .. } => BackendId::from(format!("docker:{}", self.authority())),
        }
    }

    /// The default of a docker command that is to use TLS.
    pub(crate) fn default_with_tls() -> Self {
        Self::Tcp { host: Self::HOST.to_owned(), port: Self::TLS_PORT, tls: true }
    }

    /// The same address over TLS; a unix socket stays as it is.
    pub(crate) fn with_tls(self) -> Self {
        match self {
            Self::Tcp { host, port, .. } => Self::Tcp { host, port, tls: true },
            unix @ Self::Unix(_) => unix,
        }
    }

    fn tcp(authority: &str, tls: bool) -> std::result::Result<Self, String> {
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains('@') {
            return Err("an endpoint carries no credentials".to_owned());
        }
        if authority.contains(['/', '?', '#']) || authority.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("expected host or host:port, without a path".to_owned());
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| "the brackets hold no IPv6 address")?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or("expected a colon")?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let host = if host.is_empty() { Self::HOST } else { host };
        let port = match port {
            None | Some("") => {
                if tls {
                    Self::TLS_PORT
                } else {
                    Self::PORT
                }
            }
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port != 0 => port,
                _ => return Err("the port is not a number from 1 to 65535".to_owned()),
            },
        };
        Ok(Self::Tcp { host: host.to_owned(), port, tls })
    }
}

fn is_default_socket(path: &std::path::Path) -> bool {
    path == std::path::Path::new(Endpoint::DEFAULT_SOCKET) || path == std::path::Path::new("/run/docker.sock")
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::unix(Self::DEFAULT_SOCKET)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { tls: true, .. } => write!(f, "https://{}", self.authority()),
            Self::Tcp { .. } => write!(f, "tcp://{}", self.authority()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// Reads an address as the `docker` command does: blanks around it do not count, `host:port` is TCP, and what is left out is
    /// `localhost`, 2375, or the default socket (`tcp://`, `:2375`, `unix://`). `http` and `https`, which that command does not
    /// take, are TCP in the clear and over TLS.
    ///
    /// # Errors
    /// `Unsupported` for `ssh://`, `npipe://` and `fd://`; `InvalidInput` for any other text that is no address, also for one with
    /// a path behind the port.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let shown = without_credentials(text);
        let invalid = |why: &str| {
            Error::new(
                ErrorKind::InvalidInput,
                "docker.endpoint",
                format!(
                    "'{shown}' is not an endpoint: {why}; expected unix:///path, tcp://host:port or https://host:port"
                ),
            )
        };
        let unsupported = |why: &str| {
            Error::new(ErrorKind::Unsupported, "docker.endpoint", format!("'{shown}' cannot be reached: {why}"))
                .with_context("feature", "endpoint")
                .with_context("reason", why)
        };
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        match scheme.to_ascii_lowercase().as_str() {
            "unix" if rest.is_empty() => Ok(Self::default()),
            "unix" if rest.contains("://") => Err(invalid("it has two schemes")),
            "unix" if rest.contains('\0') => Err(invalid("the path has a NUL in it")),
            "unix" => Ok(Self::unix(rest)),
            "tcp" => Self::tcp(rest.strip_prefix("tcp://").unwrap_or(rest), false).map_err(|why| invalid(&why)),
            "http" => Self::tcp(rest, false).map_err(|why| invalid(&why)),
            "https" => Self::tcp(rest, true).map_err(|why| invalid(&why)),
            "ssh" => Err(unsupported(
                "ssh is not supported; forward the socket instead (ssh -L ./docker.sock:/var/run/docker.sock)",
            )),
            "npipe" => Err(unsupported("named pipes are not supported; let the daemon listen on tcp")),
            "fd" => Err(unsupported("fd:// is the daemon's side of socket activation")),
            _ => Err(invalid("the scheme is unknown")),
        }
    }
}

/// Hides a `user:password@` that a caller put into an address, so that no error shows a credential.
pub(crate) fn without_credentials(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, Some((_, host))) => format!("***@{host}"),
        _ => text.to_owned(),
    }
}

/// Files for TLS, all in PEM. The server is always verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// CA that signed the server's certificate; `None`: the machine's root certificates.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its key, for a server that requires one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Sets the CA.
    #[must_use]
    pub fn with_ca(mut self, ca: impl Into<PathBuf>) -> Self {
        self.ca = Some(ca.into());
        self
    }

    /// Sets the client's certificate and key.
    #[must_use]
    pub fn with_identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }
}

/// Address, TLS files and timeouts of a daemon.
///
/// ```
/// use std::time::Duration;
///
/// use runtide_docker::{Config, Endpoint};
///
/// let config = Config::default()
///     .with_endpoint(Endpoint::unix("/run/user/1000/docker.sock"))
///     .with_deadline(Duration::from_secs(5));
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The daemon's address; `unix:///var/run/docker.sock` by default.
    pub endpoint: Endpoint,
    /// Files for `https`; `None`: the machine's root certificates, and no client certificate.
    pub tls: Option<Tls>,
    /// Id of the backend; by default `docker:local`, `docker:host:port` or `docker:/path`.
    pub id: Option<BackendId>,
    /// Deadline of a request, from its first byte to its last; 30 s. The event stream has none.
    pub deadline: Duration,
    /// Deadline of a connection attempt, the TLS handshake included; 5 s.
    pub connect_deadline: Duration,
    /// Longest silence of the event stream; after half of it the stream is proven or replaced. 60 s.
    pub max_silence: Duration,
    /// Most inspections under way at once; 8.
    pub inspect_concurrency: NonZeroUsize,
    /// Newest API version to speak; by default the newest that both sides know.
    pub max_api_version: Option<ApiVersion>,
    /// Options of the watch driver.
    pub driver: DriverOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::default(),
            tls: None,
            id: None,
            deadline: Duration::from_secs(30),
            connect_deadline: Duration::from_secs(5),
            max_silence: Duration::from_secs(60),
            inspect_concurrency: NonZeroUsize::MIN.saturating_add(7),
            max_api_version: None,
            driver: DriverOptions::default(),
        }
    }
}

setters!(Config {
    /// Sets the daemon's address.
    with_endpoint: endpoint: Endpoint;
    /// Sets the files for TLS.
    with_tls: tls: Option<Tls>;
    /// Sets the backend's id.
    with_id: id: Option<BackendId>;
    /// Sets the deadline of a request.
    with_deadline: deadline: Duration;
    /// Sets the deadline of a connection attempt.
    with_connect_deadline: connect_deadline: Duration;
    /// Sets the longest silence of the event stream.
    with_max_silence: max_silence: Duration;
    /// Sets the most inspections under way at once.
    with_inspect_concurrency: inspect_concurrency: NonZeroUsize;
    /// Sets the newest API version to speak.
    with_max_api_version: max_api_version: Option<ApiVersion>;
    /// Sets the options of the watch driver.
    with_driver: driver: DriverOptions;
});

impl Config {
    pub(crate) fn backend_id(&self) -> BackendId {
        self.id.clone().unwrap_or_else(|| self.endpoint.backend_id())
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let invalid = |key: &'static str, why: &str| {
            Err(Error::new(ErrorKind::InvalidInput, "docker.config", why).with_context("key", key))
        };
        check_deadline("docker.config", "deadline", self.deadline)?;
        check_deadline("docker.config", "connect_deadline", self.connect_deadline)?;
        if self.max_silence < Duration::from_millis(10) {
            return invalid("max_silence", "less than 10 ms leaves no time to prove the link");
        }
        match self.max_api_version {
            Some(version) if version < ApiVersion::OLDEST => invalid(
                "max_api_version",
                &format!("{version} is older than {}, the oldest supported", ApiVersion::OLDEST),
            ),
            _ => Ok(()),
        }
    }
}
