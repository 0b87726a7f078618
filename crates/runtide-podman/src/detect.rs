//! [`detect`]: asks every address at which a service may listen, and reports each answer.

use std::{fmt, path::PathBuf, time::Duration};

use runtide_core::{Error, ErrorKind, Failure, Result};
use runtide_engine::Endpoint;

use crate::{client::Client, config::Config, environment::Environment, origin::Origin};

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

/// Outcome of asking one address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// A Podman answered.
    Answered {
        /// Version of the runtime.
        version: String,
    },
    /// No service answered, or none that this crate can use: the failure of a Docker names the crate for it.
    Failed(Failure),
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The failure of an invalid source names the variable or file itself.
        if let Some(endpoint) = &self.endpoint {
            write!(f, "{endpoint} ({}): ", self.origin)?;
        }
        match &self.outcome {
            Outcome::Answered { version } => write!(f, "podman {version}"),
            Outcome::Failed(failure) => f.write_str(&failure.message),
        }
    }
}

/// Asks every address at which a Podman service may listen for this user, each within `deadline`: the one that
/// [`Config::from_env`] would take from `CONTAINER_CONNECTION`, `CONTAINER_HOST` or the default connection, then the user's own
/// socket, the machine's, that of a `podman machine`, and Docker's. If an address is named, the others are reported and never
/// chosen.
///
/// ```no_run
/// # async fn example() -> runtide_core::Result<()> {
/// use std::time::Duration;
///
/// let found = runtide_podman::detect(Duration::from_secs(1)).await;
/// for candidate in &found.candidates {
///     println!("{candidate}"); // unix:///run/podman/podman.sock (default socket): podman 5.4.2
/// }
/// let backend = found.chosen.map(runtide_podman::PodmanBackend::new).transpose()?;
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
    let named = asked.iter().any(|(origin, _)| origin.is_named());
    let asking = asked.into_iter().map(async |(origin, config)| {
        let endpoint = config.as_ref().ok().map(|config| config.endpoint.clone());
        let answered = match config {
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
        let eligible = !named || candidate.origin.is_named();
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
    let server = client.negotiate().await?;
    Ok((Outcome::Answered { version: server.version.clone() }, config))
}

/// Every candidate in order of preference, each endpoint once.
fn candidates(environment: &Environment) -> Vec<(Origin, Result<Config>)> {
    let mut found: Vec<(Origin, Result<Config>)> = environment.named().into_iter().collect();
    let sockets = environment.sockets().into_iter().chain(
        environment
            .machine()
            .map(|path| (Origin::Machine, path))
            .into_iter()
            .chain([(Origin::Docker, PathBuf::from(Endpoint::DEFAULT_SOCKET))]),
    );
    for (origin, path) in sockets {
        let endpoint = Endpoint::Unix(path);
        if !found.iter().any(|(_, known)| known.as_ref().is_ok_and(|known| known.endpoint == endpoint)) {
            found.push((origin, Ok(Config::default().with_endpoint(endpoint))));
        }
    }
    found
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
            let message = format!("no Podman service answers: {}", outcomes.join("; "));
            Error::new(ErrorKind::Unavailable, "podman.detect", message)
        })
    }
}

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may")]
mod tests {
    use std::{
        ffi::OsStr,
        io::{Read, Write},
        os::unix::net::UnixListener,
        path::Path,
    };

    use super::*;

    const PODMAN: &str = "Libpod-API-Version: 5.4.2\r\nServer: Libpod/5.4.2 (linux)\r\n";
    const DOCKER: &str = "Api-Version: 1.41\r\nDocker-Experimental: false\r\nServer: Docker/20.10.24 (linux)\r\n";

    /// A service that answers a ping with these headers.
    fn service(socket: &Path, headers: &'static str) {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = [0; 4096];
                while let Ok(1..) = stream.read(&mut request) {
                    let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\nOK");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
    }

    fn failure(outcome: &Outcome) -> &Failure {
        match outcome {
            Outcome::Failed(failure) => failure,
            Outcome::Answered { .. } => panic!("it answered"),
        }
    }

    #[tokio::test]
    async fn a_service_of_the_user_is_found_and_every_other_address_reports_its_failure() {
        let runtime = tempfile::tempdir().unwrap();
        service(&runtime.path().join("podman/podman.sock"), PODMAN);
        let environment = Environment::of(
            false,
            [("XDG_RUNTIME_DIR", runtime.path().as_os_str()), ("HOME", OsStr::new("/nonexistent"))],
        );
        let found = detect_in(&environment, Duration::from_secs(30)).await;
        let origins: Vec<_> = found.candidates.iter().map(|candidate| candidate.origin).collect();
        assert_eq!(origins, [Origin::Rootless, Origin::System, Origin::Machine, Origin::Docker]);
        assert_eq!(found.candidates[0].outcome, Outcome::Answered { version: "5.4.2".to_owned() });
        assert_eq!(failure(&found.candidates[2].outcome).kind, ErrorKind::Unavailable);
        assert!(found.candidates[2].to_string().contains("/nonexistent/.local"), "{}", found.candidates[2]);
        let chosen = found.chosen.unwrap().endpoint.to_string();
        assert!(
            chosen.ends_with("/podman/podman.sock") && chosen.contains(runtime.path().to_str().unwrap()),
            "{chosen}"
        );
    }

    #[tokio::test]
    async fn a_docker_behind_podmans_socket_is_not_chosen_and_its_crate_is_named() {
        let runtime = tempfile::tempdir().unwrap();
        service(&runtime.path().join("podman/podman.sock"), DOCKER);
        let named = format!("unix://{}/podman/podman.sock", runtime.path().display());
        let environment =
            Environment::of(true, [("CONTAINER_HOST", OsStr::new(&named)), ("HOME", OsStr::new("/nonexistent"))]);
        let found = detect_in(&environment, Duration::from_secs(30)).await;
        assert_eq!(found.candidates[0].origin, Origin::Environment);
        let message = &failure(&found.candidates[0].outcome).message;
        assert!(message.contains("Docker Engine 20.10.24") && message.contains("runtide-docker"), "{message}");
        assert!(found.into_config().unwrap_err().to_string().contains("runtide-docker"));
    }

    #[tokio::test]
    async fn a_named_address_is_never_replaced_by_a_found_one() {
        let runtime = tempfile::tempdir().unwrap();
        service(&runtime.path().join("podman/podman.sock"), PODMAN);
        let (runtime, home) = (("XDG_RUNTIME_DIR", runtime.path().as_os_str()), ("HOME", OsStr::new("/nonexistent")));
        for (name, value, origin) in [
            ("CONTAINER_HOST", "unix:///nonexistent/podman.sock", Origin::Environment),
            ("CONTAINER_CONNECTION", "elsewhere", Origin::Connection),
        ] {
            let environment = Environment::of(false, [runtime, home, (name, OsStr::new(value))]);
            let found = detect_in(&environment, Duration::from_secs(30)).await;
            assert_eq!(found.candidates[0].origin, origin);
            assert!(matches!(found.candidates[1].outcome, Outcome::Answered { .. }), "{}", found.candidates[1]);
            assert!(found.chosen.is_none());
            let error = found.into_config().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[tokio::test]
    async fn the_default_connection_is_asked_first() {
        let home = tempfile::tempdir().unwrap();
        service(&home.path().join("dev.sock"), PODMAN);
        let folder = home.path().join(".config/containers");
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!(
            r#"{{"Connection":{{"Default":"dev","Connections":{{"dev":{{"URI":"unix://{}/dev.sock"}}}}}}}}"#,
            home.path().display()
        );
        std::fs::write(folder.join("podman-connections.json"), text).unwrap();
        let environment =
            Environment::of(true, [("HOME", home.path().as_os_str()), ("CONTAINERS_CONF", OsStr::new("/nonexistent"))]);
        let found = detect_in(&environment, Duration::from_secs(30)).await;
        assert_eq!(found.candidates[0].origin, Origin::DefaultConnection);
        assert!(found.chosen.unwrap().endpoint.to_string().ends_with("/dev.sock"));
    }
}
