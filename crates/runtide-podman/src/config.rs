//! Address, TLS files and timeouts of a Podman service: [`Config`].

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

/// Socket of the machine's own service, and the link to it that old systems have.
pub(crate) const ROOTFUL: &str = "/run/podman/podman.sock";

/// Address, TLS files and timeouts of a Podman service.
///
/// ```
/// use std::time::Duration;
///
/// use runtide_podman::{Config, Endpoint};
///
/// let config = Config::default()
///     .with_endpoint(Endpoint::unix("/run/user/1000/podman/podman.sock"))
///     .with_deadline(Duration::from_secs(5));
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The service's address; by default `unix:///run/podman/podman.sock`, the machine's own service.
    /// [`from_env`](Self::from_env) finds a user's.
    pub endpoint: Endpoint,
    /// Files for `https`; `None`: the machine's root certificates, and no client certificate.
    pub tls: Option<Tls>,
    /// Id of the backend; by default `podman:local` for the machine's own service, else `podman:host:port`, `podman:/path` or
    /// `podman:ssh://…`.
    pub id: Option<BackendId>,
    /// Deadline of a request, from its first byte to its last; 30 s. The event stream has none.
    pub deadline: Duration,
    /// Deadline of a connection attempt, the TLS handshake included; 5 s. `ssh` has it for reaching the host, in whole seconds, and
    /// [`deadline`](Self::deadline) for its login.
    pub connect_deadline: Duration,
    /// Longest silence of the event stream; after half of it the stream is proven or replaced, and everything is listed. 60 s.
    pub max_silence: Duration,
    /// Interval between two listings of a service whose event logger is `none`; 1 s. At most half of
    /// [`max_silence`](Self::max_silence) is used: listings are all that such a service is heard by.
    pub poll_interval: Duration,
    /// Most inspections under way at once; 8.
    pub inspect_concurrency: NonZeroUsize,
    /// File in which credentials for registries are stored, as `podman login` does; `None`: `REGISTRY_AUTH_FILE`, else
    /// `$XDG_RUNTIME_DIR/containers/auth.json`, then `~/.config/containers/auth.json`, then the `docker` command's, each read when a
    /// registry is used.
    pub auth_file: Option<PathBuf>,
    /// Options of the watch driver.
    pub driver: DriverOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::unix(ROOTFUL),
            tls: None,
            id: None,
            deadline: Duration::from_secs(30),
            connect_deadline: Duration::from_secs(5),
            max_silence: Duration::from_secs(60),
            poll_interval: Duration::from_secs(1),
            inspect_concurrency: NonZeroUsize::MIN.saturating_add(7),
            auth_file: None,
            driver: DriverOptions::default(),
        }
    }
}

setters!(Config {
    /// Sets the service's address.
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
    /// Sets the interval between two listings of a service without an event logger.
    with_poll_interval: poll_interval: Duration;
    /// Sets the most inspections under way at once.
    with_inspect_concurrency: inspect_concurrency: NonZeroUsize;
    /// Sets the file in which credentials for registries are stored.
    with_auth_file: auth_file = PathBuf;
    /// Sets the options of the watch driver.
    with_driver: driver: DriverOptions;
});

impl Config {
    pub(crate) fn backend_id(&self) -> BackendId {
        self.id.clone().unwrap_or_else(|| match &self.endpoint {
            Endpoint::Unix(path) if is_rootful(path) => BackendId::new("podman:local"),
            Endpoint::Unix(path) => BackendId::from(format!("podman:{}", path.display())),
            Endpoint::Ssh(ssh) => BackendId::from(format!("podman:{ssh}")),
            other => BackendId::from(format!("podman:{}", other.authority())),
        })
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check_deadline("podman.config", "deadline", self.deadline)?;
        check_deadline("podman.config", "connect_deadline", self.connect_deadline)?;
        for (key, time) in [("max_silence", self.max_silence), ("poll_interval", self.poll_interval)] {
            if time < Duration::from_millis(10) {
                return Err(
                    Error::new(ErrorKind::InvalidInput, "podman.config", "less than 10 ms").with_context("key", key)
                );
            }
        }
        Ok(())
    }
}

fn is_rootful(path: &Path) -> bool {
    path == Path::new(ROOTFUL) || path == Path::new("/var").join("run/podman/podman.sock")
}

/// The socket of a user's service below their runtime folder.
pub(crate) fn rootless(runtime: &Path) -> PathBuf {
    runtime.join("podman/podman.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_named_after_its_service() {
        let id = |endpoint: &str| {
            Config::default().with_endpoint(endpoint.parse::<Endpoint>().unwrap()).backend_id().to_string()
        };
        assert_eq!(Config::default().backend_id().to_string(), "podman:local");
        assert_eq!(id("unix:///run/user/1000/podman/podman.sock"), "podman:/run/user/1000/podman/podman.sock");
        assert_eq!(id("tcp://build-7:8080"), "podman:build-7:8080");
        assert_eq!(id("ssh://me@h/run/p.sock"), "podman:ssh://me@h/run/p.sock");
    }

    #[test]
    fn times_that_leave_no_time_are_refused() {
        for config in [
            Config::default().with_deadline(Duration::ZERO),
            Config::default().with_connect_deadline(Duration::ZERO),
            Config::default().with_max_silence(Duration::from_millis(9)),
            Config::default().with_poll_interval(Duration::ZERO),
        ] {
            assert_eq!(config.validate().unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        Config::default().validate().unwrap();
    }
}
