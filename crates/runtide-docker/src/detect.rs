//! [`detect`]: asks every address at which a daemon may listen, and reports each answer.

use std::{fmt, path::PathBuf, time::Duration};

use runtide_core::{Error, Failure, Result, RuntimeKind};
use runtide_engine::Endpoint;

use crate::{client::Client, config::Config, environment::Environment};

/// The result of [`detect`](crate::detect()), which installs, starts and changes nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Detection {
    /// Every address that was asked, in order of preference.
    pub candidates: Vec<Candidate>,
    /// Configuration of the first one that answered.
    pub chosen: Option<Config>,
}

/// One address that was asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Candidate {
    /// The address; `None` if its source does not name a valid one.
    pub endpoint: Option<Endpoint>,
    /// Source of the address.
    pub origin: Origin,
    /// Its answer, or the failure.
    pub outcome: Outcome,
}

/// Source of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The variable `DOCKER_HOST`.
    Environment,
    /// `DOCKER_CONTEXT`, or the current docker context.
    Context,
    /// The daemon's default socket.
    System,
    /// The socket of this user's rootless daemon.
    Rootless,
    /// A socket of Docker Desktop.
    Desktop,
    /// A socket of Colima.
    Colima,
    /// The socket of Rancher Desktop.
    Rancher,
    /// The socket of OrbStack.
    OrbStack,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Environment => "DOCKER_HOST",
            Self::Context => "docker context",
            Self::System => "default socket",
            Self::Rootless => "rootless",
            Self::Desktop => "Docker Desktop",
            Self::Colima => "Colima",
            Self::Rancher => "Rancher Desktop",
            Self::OrbStack => "OrbStack",
        })
    }
}

/// Outcome of asking one address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// A daemon answered. Its kind is its own report: a Podman may listen on Docker's socket.
    Answered {
        /// Kind of the runtime.
        kind: RuntimeKind,
        /// Version of the runtime.
        version: String,
    },
    /// No daemon answered, or none that this crate can use.
    Failed(Failure),
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The failure of an invalid source names the variable or file itself.
        if let Some(endpoint) = &self.endpoint {
            write!(f, "{endpoint} ({}): ", self.origin)?;
        }
        match &self.outcome {
            Outcome::Answered { kind, version } => write!(f, "{kind} {version}"),
            Outcome::Failed(failure) => f.write_str(&failure.message),
        }
    }
}

/// Asks every address at which a Docker daemon of this user may listen, each within `deadline`: `DOCKER_HOST`, the docker
/// context, the default sockets, and those of rootless Docker, Docker Desktop, Colima, Rancher Desktop and OrbStack. An
/// address from `DOCKER_HOST` or a context goes first; if there is one, the others are reported and never chosen.
///
/// ```no_run
/// # async fn example() -> runtide_core::Result<()> {
/// use std::time::Duration;
///
/// let found = runtide_docker::detect(Duration::from_secs(1)).await;
/// for candidate in &found.candidates {
///     println!("{candidate}");
/// }
/// let backend = found.chosen.map(runtide_docker::DockerBackend::new).transpose()?;
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// A dropped future leaves no state behind.
pub async fn detect(deadline: Duration) -> Detection {
    detect_in(&Environment::of_process(), deadline).await
}

pub(crate) async fn detect_in(environment: &Environment, deadline: Duration) -> Detection {
    let asked = candidates(environment);
    let named = asked.iter().any(|(origin, _)| matches!(origin, Origin::Environment | Origin::Context));
    let asking = asked.into_iter().map(async |(origin, config)| {
        let endpoint = config.as_ref().ok().map(|config| config.endpoint.clone());
        let answered = match config.and_then(|config| environment.with_version(config)) {
            Ok(config) => ask(config, deadline).await,
            Err(error) => Err(error),
        };
        let (outcome, config) = match answered {
            Ok((outcome, config)) => (outcome, Some(config)),
            Err(error) => (Outcome::Failed(Failure::from(&error)), None),
        };
        (Candidate { endpoint, origin, outcome }, config)
    });
    let mut detection = Detection { candidates: Vec::new(), chosen: None };
    for (candidate, config) in futures_util::future::join_all(asking).await {
        let eligible = !named || matches!(candidate.origin, Origin::Environment | Origin::Context);
        if eligible && detection.chosen.is_none() {
            detection.chosen = config;
        }
        detection.candidates.push(candidate);
    }
    detection
}

async fn ask(config: Config, deadline: Duration) -> Result<(Outcome, Config)> {
    let connect_deadline = config.connect_deadline.min(deadline);
    let client = Client::new(config.clone().with_deadline(deadline).with_connect_deadline(connect_deadline))?;
    client.ping("docker.detect").await?;
    let server = client.negotiate().await?;
    Ok((Outcome::Answered { kind: server.kind.clone(), version: server.version.clone() }, config))
}

/// Every candidate in order of preference, each endpoint once.
fn candidates(environment: &Environment) -> Vec<(Origin, Result<Config>)> {
    let mut found: Vec<(Origin, Result<Config>)> = Vec::new();
    let host = environment.by_host().transpose();
    match host {
        Some(host) => found.push((Origin::Environment, host)),
        None => found.extend(environment.by_context().transpose().map(|context| (Origin::Context, context))),
    }
    for (origin, path) in sockets(environment) {
        let endpoint = Endpoint::Unix(path);
        if !found.iter().any(|(_, known)| known.as_ref().is_ok_and(|known| known.endpoint == endpoint)) {
            found.push((origin, Ok(Config::default().with_endpoint(endpoint))));
        }
    }
    found
}

fn sockets(environment: &Environment) -> Vec<(Origin, PathBuf)> {
    let mut sockets = vec![
        (Origin::System, PathBuf::from(Endpoint::DEFAULT_SOCKET)),
        (Origin::System, PathBuf::from("/run/docker.sock")),
    ];
    if let Some(runtime) = environment.path("XDG_RUNTIME_DIR") {
        sockets.push((Origin::Rootless, runtime.join("docker.sock")));
    }
    if let Some(home) = environment.home() {
        sockets.extend(
            [
                (Origin::Desktop, ".docker/run/docker.sock"),
                (Origin::Desktop, ".docker/desktop/docker.sock"),
                (Origin::Colima, ".colima/default/docker.sock"),
                (Origin::Colima, ".config/colima/default/docker.sock"),
                (Origin::Rancher, ".rd/docker.sock"),
                (Origin::OrbStack, ".orbstack/run/docker.sock"),
            ]
            .map(|(origin, below)| (origin, home.join(below))),
        );
    }
    sockets
}

impl Detection {
    /// The configuration of the first one that answered.
    ///
    /// # Errors
    /// `Unavailable` if none answered; the message lists every failure.
    pub fn into_config(self) -> Result<Config> {
        let Self { candidates, chosen } = self;
        chosen.ok_or_else(|| {
            let outcomes: Vec<String> = candidates.iter().map(ToString::to_string).collect();
            let message = format!("no Docker daemon answers: {}", outcomes.join("; "));
            Error::new(runtide_core::ErrorKind::Unavailable, "docker.detect", message)
        })
    }
}

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests may")]
mod tests {
    use std::{
        ffi::OsStr,
        io::{Read, Write},
        os::unix::net::UnixListener,
        path::Path,
    };

    use runtide_core::ErrorKind;

    use super::*;

    /// A Podman on Docker's socket that answers the two requests of a detection.
    fn podman(socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut request) {
                    let body = if request[..length].starts_with(b"GET /_ping") {
                        "OK"
                    } else {
                        r#"{"Version":"4.3.1","ApiVersion":"1.41","Components":[{"Name":"Podman Engine"}]}"#
                    };
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    if stream.write_all((head + body).as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
    }

    fn failure(outcome: &Outcome) -> ErrorKind {
        match outcome {
            Outcome::Failed(failure) => failure.kind,
            Outcome::Answered { .. } => panic!("it answered"),
        }
    }

    #[tokio::test]
    async fn every_address_is_asked_and_reports_its_failure() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".docker/run")).unwrap();
        std::fs::write(home.path().join(".docker/run/docker.sock"), "").unwrap();
        let _stalls = UnixListener::bind(home.path().join("docker.sock")).unwrap();
        std::fs::create_dir_all(home.path().join(".rd")).unwrap();
        podman(&home.path().join(".rd/docker.sock"));
        let environment =
            Environment::of([("HOME", home.path().as_os_str()), ("XDG_RUNTIME_DIR", home.path().as_os_str())]);
        let found = detect_in(&environment, Duration::from_millis(300)).await;
        let of = |origin| found.candidates.iter().find(|candidate| candidate.origin == origin).unwrap();
        assert_eq!(failure(&of(Origin::Rootless).outcome), ErrorKind::Timeout);
        assert_eq!(failure(&of(Origin::Desktop).outcome), ErrorKind::Unavailable);
        assert_eq!(failure(&of(Origin::OrbStack).outcome), ErrorKind::Unavailable);
        let answer = Outcome::Answered { kind: RuntimeKind::Podman, version: "4.3.1".to_owned() };
        assert_eq!(of(Origin::Rancher).outcome, answer);
        assert_eq!(found.candidates.len(), 9);
    }

    #[tokio::test]
    async fn a_named_address_is_never_replaced_by_a_found_one() {
        let home = tempfile::tempdir().unwrap();
        podman(&home.path().join("docker.sock"));
        let environment = Environment::of([
            ("DOCKER_HOST", OsStr::new("npipe:////./pipe/elsewhere")),
            ("XDG_RUNTIME_DIR", home.path().as_os_str()),
        ]);
        let found = detect_in(&environment, Duration::from_secs(5)).await;
        assert_eq!(failure(&found.candidates[0].outcome), ErrorKind::Unsupported);
        assert!(found.candidates.iter().any(|candidate| matches!(candidate.outcome, Outcome::Answered { .. })));
        assert!(found.chosen.is_none());
        let error = found.into_config().unwrap_err();
        assert!(error.to_string().contains("npipe:////./pipe/elsewhere"), "{error}");
        assert_eq!(error.to_string().matches("DOCKER_HOST").count(), 1, "{error}");
    }

    #[tokio::test]
    async fn the_requested_api_version_is_used_with_every_address() {
        let home = tempfile::tempdir().unwrap();
        podman(&home.path().join("docker.sock"));
        let asked = async |version: &str| {
            let runtime = ("XDG_RUNTIME_DIR", home.path().as_os_str());
            let environment = Environment::of([runtime, ("DOCKER_API_VERSION", OsStr::new(version))]);
            detect_in(&environment, Duration::from_secs(5)).await
        };
        let chosen = asked("1.41").await.candidates.into_iter().find(|one| one.origin == Origin::Rootless).unwrap();
        assert!(matches!(chosen.outcome, Outcome::Answered { .. }), "{chosen}");
        let error = asked("seven").await.into_config().unwrap_err();
        assert!(error.to_string().contains("DOCKER_API_VERSION"), "{error}");
    }
}
