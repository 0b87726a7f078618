//! [`Client`]: the engine's client with Podman's negotiation, and what its events are logged with.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use runtide_core::{Error, ErrorKind, Result, RuntimeKind, backend::CallSite};
use runtide_engine::{Answer, Dialect, Request, Settings, error::Advice, lenient};
use serde::Deserialize;

use crate::config::Config;

/// Begin of every path. Every Podman from 4.0 on answers it in the same form, later ones too.
const PREFIX: &str = "/v4.0.0/libpod";

/// Remedies in the words of `podman`'s users.
const ADVICE: Advice = Advice {
    socket: "run as its owner (a user's own service: systemctl --user start podman.socket)",
    use_tls: "use https://",
    is_tls: "and over tcp: is TLS meant, with https://?",
    ca: "Tls::with_ca",
    identity: "Tls::with_identity",
    no_tls: "is it plain http (tcp://), or another service?",
};

/// Characters of a path that have a meaning in an address.
const IN_ADDRESS: AsciiSet = CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#').add(b'[').add(b']');

/// Podman's part of the client.
#[derive(Debug)]
pub(crate) struct Podman;

/// A service that answered.
#[derive(Debug)]
pub(crate) struct Server {
    /// Podman's version, as `4.3.1`.
    pub(crate) version: String,
    /// The service's clock when it answered, to the second and never ahead; `None` for a proxy's clock.
    pub(crate) date: Option<SystemTime>,
    logger: OnceLock<EventLogger>,
}

impl Server {
    /// `true` if it is this major and minor version, or a later one. One that cannot be read is not.
    pub(crate) fn is_at_least(&self, (major, minor): (u32, u32)) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse::<u32>().ok());
        let (Some(Some(own_major)), Some(Some(own_minor))) = (parts.next(), parts.next()) else { return false };
        (own_major, own_minor) >= (major, minor)
    }
}

/// The place where events are kept, which decides what a watch can do (trap P4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventLogger {
    /// No event is reported: the watch polls.
    None,
    /// A file, the journal, or one that later versions have.
    Kept(String),
}

impl EventLogger {
    /// Messages are handed to journald, which writes them down later.
    pub(crate) fn is_journal(&self) -> bool {
        matches!(self, Self::Kept(logger) if logger == "journald")
    }
}

impl Dialect for Podman {
    type Server = Server;

    const NEGOTIATE: &'static str = "podman.negotiate";
    /// Its headers have every version. `/version` runs two programs first.
    const PROBE: &'static str = "/_ping";
    const ADVICE: Advice = ADVICE;

    fn understand(&self, site: CallSite<'_>, answer: &Answer) -> Result<Server> {
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let unsupported = |why: String| {
            site.error(ErrorKind::Unsupported, why.clone())
                .with_context("feature", "api_version")
                .with_context("reason", why)
        };
        let Some(version) = header("Libpod-API-Version") else {
            let server = header("Server").unwrap_or_default();
            if server.starts_with("Docker/") || header("Docker-Experimental").is_some() {
                let version =
                    server.strip_prefix("Docker/").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
                let why = format!("this is Docker Engine {version}, and not Podman: use runtide-docker for it");
                return Err(unsupported(why).with_context("server", server));
            }
            return Err(site.error(ErrorKind::Protocol, "the server does not report the version of its Podman API"));
        };
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match major {
            None => Err(site.error(ErrorKind::Protocol, "the server's API version is not a version")),
            Some(major) if major < 4 => {
                Err(unsupported(format!("the server is Podman {version}; at least 4.0 is needed")))
            }
            Some(_) => Ok(Server { version: version.to_owned(), date: answer.date, logger: OnceLock::new() }),
        }
    }

    fn prefix(_: &Server) -> String {
        PREFIX.to_owned()
    }

    /// Every Podman from 4.0 on has it. `--url` and `--remote` keep the command there from preparing containers of its own.
    fn dial_stdio(socket: Option<&str>) -> Option<Vec<String>> {
        let service = socket.map_or_else(
            || "--remote".to_owned(),
            |socket| format!("--url=unix://{}", utf8_percent_encode(socket, &IN_ADDRESS)),
        );
        Some(["podman".to_owned(), service, "system".to_owned(), "dial-stdio".to_owned()].into())
    }

    fn describe(server: &Server) -> String {
        format!("{} {}", RuntimeKind::Podman, server.version)
    }
}

/// One configured service. Cheap to clone; the first call connects. It is the engine's client, with what only Podman has.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    engine: runtide_engine::Client<Podman>,
    config: Arc<Config>,
}

impl Deref for Client {
    type Target = runtide_engine::Client<Podman>;

    fn deref(&self) -> &Self::Target {
        &self.engine
    }
}

impl Client {
    pub(crate) fn new(config: Config) -> Result<Self> {
        config.validate()?;
        let settings = Settings {
            id: config.backend_id(),
            endpoint: config.endpoint.clone(),
            tls: config.tls.clone(),
            deadline: config.deadline,
            connect_deadline: config.connect_deadline,
        };
        let engine = runtide_engine::Client::new(Podman, settings)?;
        Ok(Self { engine, config: Arc::new(config) })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Time for a request that the messages of a stream wait for: two of them fit into the time after which the stream is proven.
    pub(crate) fn patience(&self) -> Duration {
        self.deadline().min(self.config.max_silence / 4)
    }

    /// The same client, whose calls go on after the close: to remove what was created before it.
    pub(crate) fn undoing(&self) -> Self {
        Self { engine: self.engine.outliving_close(), config: Arc::clone(&self.config) }
    }

    /// The event logger of the service that answers now.
    pub(crate) async fn logger(&self) -> Result<EventLogger> {
        const OPERATION: &str = "podman.info";
        let server = self.server().await?;
        if let Some(logger) = server.logger.get() {
            return Ok(logger.clone());
        }
        let body = self.call(OPERATION, Request::get("/info"), self.deadline()).await?;
        let (info, _): (Info, _) = lenient(&String::from_utf8_lossy(&body), |json| serde_json::from_str(json))
            .map_err(|error| self.site(OPERATION).undecodable(error))?;
        let logger = match info.host.event_logger.as_str() {
            "none" | "null" => EventLogger::None,
            kept => EventLogger::Kept(kept.to_owned()),
        };
        Ok(server.logger.get_or_init(|| logger).clone())
    }

    /// The event logger, as far as it is known without a request.
    pub(crate) fn known_logger(&self) -> Option<EventLogger> {
        self.last_server()?.logger.get().cloned()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Info {
    host: Host,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Host {
    event_logger: String,
}

/// The service answered with this status.
pub(crate) fn is_status(refusal: &Error, status: &str) -> bool {
    refusal.context().iter().any(|(key, value)| key == "status" && value == status)
}

pub(crate) use runtide_engine::error::is_answer;

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, header::HeaderName};
    use runtide_core::BackendId;

    use super::*;

    fn understood(headers: &[(&str, &str)]) -> Result<String, Error> {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect();
        let id = BackendId::from("podman:test");
        let answer = Answer { headers, ..Answer::default() };
        Podman.understand(CallSite::new("test", &id), &answer).map(|server| server.version)
    }

    #[test]
    fn every_podman_from_four_on_is_understood() {
        for version in ["4.0.0", "4.3.1", "5.4.2", "6.0.0-dev"] {
            assert_eq!(understood(&[("Libpod-API-Version", version), ("Api-Version", "1.41")]).unwrap(), version);
        }
        for (headers, kind) in [
            (&[("Libpod-API-Version", "3.4.7")][..], ErrorKind::Unsupported),
            (&[("Libpod-API-Version", "new")], ErrorKind::Protocol),
            (&[("Server", "nginx")], ErrorKind::Protocol),
        ] {
            assert_eq!(understood(headers).unwrap_err().kind(), kind);
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        let at_least = |version: &str| {
            let server = Server { version: version.to_owned(), date: None, logger: OnceLock::new() };
            server.is_at_least((5, 6))
        };
        assert!(at_least("5.6.0") && at_least("5.10.1") && at_least("6.0.0-dev"));
        assert!(!at_least("5.4.2") && !at_least("4.9.4") && !at_least("5"));
    }

    #[test]
    fn a_docker_behind_podmans_socket_is_named() {
        let error = understood(&[("Api-Version", "1.41"), ("Server", "Docker/20.10.24 (linux)")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let text = error.to_string();
        assert!(text.contains("Docker Engine 20.10.24") && text.contains("runtide-docker"), "{text}");
    }

    #[test]
    fn the_command_there_is_given_the_socket_as_an_address() {
        let words = |socket| Podman::dial_stdio(socket).unwrap().join(" ");
        assert_eq!(words(None), "podman --remote system dial-stdio");
        assert_eq!(
            words(Some("/run/podman/podman.sock")),
            "podman --url=unix:///run/podman/podman.sock system dial-stdio"
        );
        assert_eq!(words(Some("/a b/50%?x#y")), "podman --url=unix:///a%20b/50%25%3Fx%23y system dial-stdio");
    }
}
