//! [`Client`]: the engine's client with Docker's negotiation, and bollard for the verbs, all on one pool of connections.

use std::{ops::Deref, sync::Arc, time::SystemTime};

use http_body_util::BodyExt;
use runtide_core::{Error, ErrorKind, Result, RuntimeKind, backend::CallSite};
use runtide_engine::{
    Answer, Body, BoxError, Dialect, Settings,
    error::{Advice, is_version_mismatch},
    lenient, log_left_out,
};
use serde::Deserialize;

use crate::{
    config::Config,
    error::{ADVICE, of_verb},
    version::ApiVersion,
};

/// Seconds until bollard gives up. Longer than any call: it counts whole seconds, and the deadlines are ours (trap D18).
const BOLLARD_TIMEOUT: u64 = 365 * 24 * 3600;

/// Docker's part of the client.
#[derive(Debug)]
pub(crate) struct Docker {
    max_api_version: Option<ApiVersion>,
}

/// A server that answered, with the negotiated API.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: RuntimeKind,
    pub(crate) version: String,
    pub(crate) api: ApiVersion,
    /// The daemon's own clock when it answered, to the second and never ahead; `None` for a proxy's clock.
    pub(crate) date: Option<SystemTime>,
}

impl Dialect for Docker {
    type Server = Server;

    const NEGOTIATE: &'static str = "docker.negotiate";
    const PROBE: &'static str = "/version";
    const ADVICE: Advice = ADVICE;

    fn understand(&self, site: CallSite<'_>, version: &Answer) -> Result<Server> {
        let (reply, left_out): (VersionReply, _) =
            lenient(&String::from_utf8_lossy(&version.body), |json| serde_json::from_str(json))
                .map_err(|error| site.undecodable(error))?;
        log_left_out(&site.owner().into(), "version", &left_out);
        let parsed = |text: &str| {
            text.parse::<ApiVersion>().map_err(|error| {
                site.error(ErrorKind::Protocol, "the server's API version is not a version").with_source(error)
            })
        };
        let offered = reply.api_version.as_deref().filter(|text| !text.is_empty());
        let Some(offered) = offered else {
            return Err(site.error(ErrorKind::Protocol, "the server does not report its API version"));
        };
        // One that cannot be read refuses nothing: the server will, if it has to.
        let minimum = reply.min_api_version.as_deref().filter(|text| !text.is_empty()).and_then(|text| {
            parsed(text)
                .inspect_err(|_| {
                    tracing::warn!(
                        backend = site.owner(),
                        field = "MinAPIVersion",
                        value = text,
                        "left out: it is no version"
                    );
                })
                .ok()
        });
        let api = ApiVersion::negotiate(parsed(offered)?, minimum, self.max_api_version).map_err(|why| {
            site.error(ErrorKind::Unsupported, why.clone())
                .with_context("feature", "api_version")
                .with_context("reason", why)
        })?;
        Ok(Server {
            kind: reply.kind(),
            version: reply.version.as_deref().unwrap_or_default().to_owned(),
            api,
            date: version.date,
        })
    }

    fn dial_stdio(socket: Option<&str>) -> Option<Vec<String>> {
        let host = socket.map(|socket| format!("--host=unix://{socket}"));
        let words = ["docker".to_owned()].into_iter().chain(host).chain(["system".to_owned(), "dial-stdio".to_owned()]);
        Some(words.collect())
    }

    fn prefix(server: &Server) -> String {
        format!("/v{}", server.api)
    }

    fn note(server: &Server) -> Option<String> {
        let version = &server.version;
        (server.kind == RuntimeKind::Podman)
            .then(|| format!("Podman {version} on Docker's API: runtide-podman speaks its own"))
    }

    fn describe(server: &Server) -> String {
        format!("{} {}", server.kind, server.version)
    }
}

/// One configured daemon. Cheap to clone; the first call connects. It is the engine's client, with what only Docker has.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    engine: runtide_engine::Client<Docker>,
    config: Arc<Config>,
}

impl Deref for Client {
    type Target = runtide_engine::Client<Docker>;

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
        let engine = runtide_engine::Client::new(Docker { max_api_version: config.max_api_version }, settings)?;
        Ok(Self { engine, config: Arc::new(config) })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The same client, whose calls go on after the close: to remove what was created before it.
    pub(crate) fn undoing(&self) -> Self {
        Self { engine: self.engine.outliving_close(), config: Arc::clone(&self.config) }
    }

    /// Classifies a verb's error; if the server's API has changed, the next call negotiates again.
    pub(crate) fn error(&self, operation: &'static str, error: bollard::errors::Error) -> Error {
        if let bollard::errors::Error::DockerResponseServerError { status_code: 400, message } = &error
            && is_version_mismatch(message)
        {
            self.forget();
        }
        let is_answer = matches!(error, bollard::errors::Error::DockerResponseServerError { .. });
        let error = of_verb(self.site(operation), error);
        if is_answer { self.noted(error) } else { error }
    }

    /// bollard on our connections (one pool and one TLS configuration), with the negotiated version. It has no deadline: callers set
    /// one, most of them [`deadline`](runtide_engine::Client::deadline).
    pub(crate) async fn bollard(&self) -> Result<bollard::Docker> {
        let api = self.server().await?.api;
        let engine = self.engine.clone();
        let transport = move |request: bollard::BollardRequest| {
            let engine = engine.clone();
            async move {
                let request = request.map(|body| Body::new(body.map_err(BoxError::from)));
                engine.pass_on(request).await.map_err(|err| bollard::errors::Error::IOError { err })
            }
        };
        let address = format!("http://{}", self.authority());
        bollard::Docker::connect_with_custom_transport(transport, Some(address), BOLLARD_TIMEOUT, &api.to_bollard())
            .map_err(|error| of_verb(self.site(Docker::NEGOTIATE), error))
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct VersionReply {
    version: Option<String>,
    api_version: Option<String>,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: Option<String>,
    components: Option<Vec<Component>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Component {
    name: Option<String>,
}

impl VersionReply {
    /// The kind of runtime. Podman listens on Docker's socket too, and names itself among the components.
    fn kind(&self) -> RuntimeKind {
        let names = self.components.iter().flatten().filter_map(|component| component.name.as_deref());
        if names.into_iter().any(|name| name.to_ascii_lowercase().contains("podman")) {
            RuntimeKind::Podman
        } else {
            RuntimeKind::Docker
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_but_the_version_itself_is_needed_to_speak_to_a_server() {
        let id = runtide_core::BackendId::from("docker:test");
        let understood = |json: &'static str| {
            let answer = Answer { body: json.into(), ..Answer::default() };
            let docker = Docker { max_api_version: None };
            docker.understand(CallSite::new("test", &id), &answer).map(|server| server.api.to_string())
        };
        let odd = r#"{"Version":20.10,"ApiVersion":"1.41","MinAPIVersion":"1.99999","Components":[{"Name":7},3]}"#;
        assert_eq!(understood(odd).unwrap(), "1.41");
        assert_eq!(understood(r#"{"ApiVersion":1.41}"#).unwrap_err().kind(), ErrorKind::Protocol);
        assert_eq!(understood(r#"{"ApiVersion":"1.99999"}"#).unwrap_err().kind(), ErrorKind::Protocol);
    }

    #[test]
    fn a_podman_behind_dockers_socket_is_named_with_the_crate_for_it() {
        let server = |kind| Server { kind, version: "4.3.1".to_owned(), api: ApiVersion::OLDEST, date: None };
        let note = Docker::note(&server(RuntimeKind::Podman)).unwrap();
        assert!(note.contains("Podman 4.3.1") && note.contains("runtide-podman"), "{note}");
        assert_eq!(Docker::note(&server(RuntimeKind::Docker)), None);
    }

    #[test]
    fn the_servers_kind_is_read_from_its_components() {
        let kind = |json| serde_json::from_str::<VersionReply>(json).unwrap().kind();
        assert_eq!(kind(r#"{"Components":[{"Name":"Engine"},{"Name":"containerd"}]}"#), RuntimeKind::Docker);
        assert_eq!(kind(r#"{"Components":[{"Name":"Podman Engine"},{"Name":"Conmon"}]}"#), RuntimeKind::Podman);
        assert_eq!(kind(r#"{"Components":null}"#), RuntimeKind::Docker);
    }
}
