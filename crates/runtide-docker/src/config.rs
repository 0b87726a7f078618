//! Address, TLS files and timeouts of a daemon: [`Config`].

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use runtide_core::{
    BackendId, Error, ErrorKind, Result,
    backend::{check_deadline, setters},
    watch::DriverOptions,
};
use runtide_engine::{Endpoint, Tls};

use crate::version::ApiVersion;

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
    /// Id of the backend; by default `docker:local`, `docker:host:port`, `docker:/path` or `docker:ssh://…`.
    pub id: Option<BackendId>,
    /// Deadline of a request, from its first byte to its last; 30 s. The event stream has none.
    pub deadline: Duration,
    /// Deadline of a connection attempt, the TLS handshake included; 5 s. `ssh` has it for reaching the host, in whole seconds, and
    /// [`deadline`](Self::deadline) for its login.
    pub connect_deadline: Duration,
    /// Longest silence of the event stream; after half of it the stream is proven or replaced. 60 s.
    pub max_silence: Duration,
    /// Most inspections under way at once; 8.
    pub inspect_concurrency: NonZeroUsize,
    /// Newest API version to speak; by default the newest that both sides know.
    pub max_api_version: Option<ApiVersion>,
    /// Folder of the `docker` command's configuration, where credentials for registries are stored; `None`: `DOCKER_CONFIG`, else
    /// `~/.docker`, with `DOCKER_AUTH_CONFIG` in front, each read when a registry is used.
    pub client_folder: Option<PathBuf>,
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
            client_folder: None,
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
    /// Sets the folder of the `docker` command's configuration.
    with_client_folder: client_folder = PathBuf;
    /// Sets the options of the watch driver.
    with_driver: driver: DriverOptions;
});

impl Config {
    pub(crate) fn backend_id(&self) -> BackendId {
        self.id.clone().unwrap_or_else(|| match &self.endpoint {
            Endpoint::Unix(path) if is_default_socket(path) => BackendId::new("docker:local"),
            Endpoint::Unix(path) => BackendId::from(format!("docker:{}", path.display())),
            Endpoint::Ssh(ssh) => BackendId::from(format!("docker:{ssh}")),
            other => BackendId::from(format!("docker:{}", other.authority())),
        })
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

fn is_default_socket(path: &Path) -> bool {
    path == Path::new(Endpoint::DEFAULT_SOCKET) || path == Path::new("/run/docker.sock")
}
