//! [`Endpoint`] and [`Tls`]: the address of a daemon, and the files for TLS.

use std::{fmt, path::PathBuf, str::FromStr};

use runtide_core::{Error, ErrorKind, Result};

use crate::{port::port_of, ssh::Ssh};

/// Operation in the errors of an address that cannot be read.
const OPERATION: &str = "endpoint";

/// The daemon's address, as `unix:///run/docker.sock`, `tcp://host:2375` or `ssh://user@host`. It carries no credential.
///
/// ```
/// use runtide_engine::Endpoint;
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
    /// Through the system's `ssh`.
    Ssh(Ssh),
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
    pub fn authority(&self) -> String {
        match self {
            Self::Unix(_) | Self::Ssh(_) => "localhost".to_owned(),
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }

    /// The default of a docker command that is to use TLS.
    pub fn default_with_tls() -> Self {
        Self::Tcp { host: Self::HOST.to_owned(), port: Self::TLS_PORT, tls: true }
    }

    /// The same address over TLS; a unix socket stays as it is, and so does one that `ssh` reaches.
    #[must_use]
    pub fn with_tls(self) -> Self {
        match self {
            Self::Tcp { host, port, .. } => Self::Tcp { host, port, tls: true },
            other @ (Self::Unix(_) | Self::Ssh(_)) => other,
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
            Some(text) => port_of(text)?,
        };
        Ok(Self::Tcp { host: host.to_owned(), port, tls })
    }
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
            Self::Ssh(ssh) => write!(f, "{ssh}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// Reads an address as the `docker` command does: blanks around it do not count, `host:port` is TCP, and what is left out is
    /// `localhost`, 2375, or the default socket (`tcp://`, `:2375`, `unix://`). `http` and `https`, which that command does not
    /// take, are TCP in the clear and over TLS. Behind `ssh://`, user and path may be escaped.
    ///
    /// # Errors
    /// `Unsupported` for `npipe://` and `fd://`; `InvalidInput` for any other text that is no address, also for one over TCP with a
    /// path behind the port, and for a user or a host that `ssh` or a shell could take for something else.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let shown = without_credentials(text);
        let invalid = |why: &str| {
            Error::new(
                ErrorKind::InvalidInput,
                OPERATION,
                format!(
                    "'{shown}' is not an endpoint: {why}; expected unix:///path, tcp://host:port, https://host:port or \
                     ssh://user@host:port"
                ),
            )
        };
        let unsupported = |why: &str| {
            Error::new(ErrorKind::Unsupported, OPERATION, format!("'{shown}' cannot be reached: {why}"))
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
            "ssh" => Ssh::parse(rest).map(Self::Ssh).map_err(|why| invalid(&why)),
            "npipe" => Err(unsupported("named pipes are not supported; let the daemon listen on tcp")),
            "fd" => Err(unsupported("fd:// is the daemon's side of socket activation")),
            _ => Err(invalid("the scheme is unknown")),
        }
    }
}

/// Hides a `user:password@` that a caller put into an address, so that no error shows a credential.
pub fn without_credentials(text: &str) -> String {
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
