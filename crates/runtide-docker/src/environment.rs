//! The process's environment: `DOCKER_*` variables and the docker contexts, read and never changed.

use std::{
    env,
    ffi::OsString,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use ring::digest;
use runtide_core::{Error, ErrorKind, Result};
use runtide_engine::{Endpoint, Tls, without_credentials};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{config::Config, version::ApiVersion};

type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// Source of the variables.
pub(crate) struct Environment {
    lookup: Box<Lookup>,
}

impl Environment {
    pub(crate) fn of_process() -> Self {
        Self { lookup: Box::new(|name| env::var_os(name)) }
    }

    /// An environment of these variables only.
    #[cfg(test)]
    pub(crate) fn of<const N: usize>(variables: [(&str, &std::ffi::OsStr); N]) -> Self {
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            lookup: Box::new(move |name| {
                variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            }),
        }
    }

    /// The variable's value. An empty one counts as unset, as for `docker`.
    fn os(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    pub(crate) fn text(&self, name: &'static str) -> Result<Option<String>> {
        self.os(name)
            .map(|value| {
                value.into_string().map_err(|value| invalid(name, &value.to_string_lossy(), "it is not UTF-8"))
            })
            .transpose()
    }

    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.os(name).map(PathBuf::from)
    }

    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.path("HOME").or_else(|| self.path("USERPROFILE"))
    }

    pub(crate) fn docker_folder(&self) -> Option<PathBuf> {
        self.path("DOCKER_CONFIG").or_else(|| Some(self.home()?.join(".docker")))
    }

    /// The configuration with which `docker` would find its daemon.
    pub(crate) fn config(&self) -> Result<Config> {
        let config = match self.by_host()? {
            Some(config) => config,
            None => self.by_context()?.unwrap_or_default(),
        };
        self.with_version(config)
    }

    /// `DOCKER_TLS_VERIFY` or `DOCKER_TLS` is set: the command uses TLS with every address but a socket's.
    fn wants_tls(&self) -> bool {
        ["DOCKER_TLS_VERIFY", "DOCKER_TLS"].into_iter().any(|name| self.os(name).is_some())
    }

    /// The configuration for this address with the variables for TLS.
    fn secured(&self, endpoint: Endpoint) -> Result<Config> {
        let endpoint = if self.wants_tls() { endpoint.with_tls() } else { endpoint };
        if !matches!(endpoint, Endpoint::Tcp { tls: true, .. }) {
            return Ok(Config::default().with_endpoint(endpoint));
        }
        if self.wants_tls() && self.os("DOCKER_TLS_VERIFY").is_none() {
            const TLS: &str = "DOCKER_TLS";
            let why = "it asks for TLS without verifying the server; set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the server's CA";
            return Err(Error::new(ErrorKind::Unsupported, "docker.config", format!("{TLS}: {why}"))
                .with_context("key", TLS)
                .with_context("feature", "skip_tls_verify")
                .with_context("reason", why));
        }
        Ok(Config::default().with_endpoint(endpoint).with_tls(self.tls()?))
    }

    /// The configuration that `DOCKER_HOST` names; `None` if it is unset.
    pub(crate) fn by_host(&self) -> Result<Option<Config>> {
        const HOST: &str = "DOCKER_HOST";
        let Some(host) = self.text(HOST)? else { return Ok(None) };
        if host.trim().is_empty() {
            return self.default_address().map(|config| Some(config.unwrap_or_default()));
        }
        self.secured(named(host.parse::<Endpoint>(), HOST, host.trim())?).map(Some)
    }

    /// The default address that the variables for TLS change; `None`: the default socket.
    fn default_address(&self) -> Result<Option<Config>> {
        self.wants_tls().then(|| self.secured(Endpoint::default_with_tls())).transpose()
    }

    /// `ca.pem`, `cert.pem` and `key.pem` of `DOCKER_CERT_PATH`, else of the docker folder.
    fn tls(&self) -> Result<Option<Tls>> {
        let Some(folder) = self.path("DOCKER_CERT_PATH") else {
            return self.docker_folder().map(|folder| tls_files(&folder)).transpose();
        };
        if !folder.is_dir() {
            return Err(invalid("DOCKER_CERT_PATH", &folder.to_string_lossy(), "there is no such folder"));
        }
        tls_files(&folder).map(Some)
    }

    /// The configuration of `DOCKER_CONTEXT`, or of the current context; `None`: the default context, on the default socket.
    pub(crate) fn by_context(&self) -> Result<Option<Config>> {
        const CONTEXT: &str = "DOCKER_CONTEXT";
        let folder = self.docker_folder();
        let (name, source) = match (self.text(CONTEXT)?, &folder) {
            (Some(name), _) => (name, CONTEXT),
            (None, None) => return self.default_address(),
            (None, Some(folder)) => match current_context(&folder.join("config.json"))? {
                Some(name) => (name, "currentContext"),
                None => return self.default_address(),
            },
        };
        if name == "default" {
            return self.default_address();
        }
        let Some(folder) = folder else {
            return Err(invalid(source, &name, "there is no home folder to look for contexts in"));
        };
        context(&folder.join("contexts"), source, &name).map(Some)
    }

    pub(crate) fn with_version(&self, config: Config) -> Result<Config> {
        const VERSION: &str = "DOCKER_API_VERSION";
        let Some(text) = self.text(VERSION)? else { return Ok(config) };
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        let version = named(text.strip_prefix('v').unwrap_or(text).parse::<ApiVersion>(), VERSION, text)?;
        if version < ApiVersion::OLDEST {
            let why = format!("{} is the oldest version that is supported", ApiVersion::OLDEST);
            return Err(invalid(VERSION, text, &why));
        }
        Ok(config.with_max_api_version(version))
    }
}

impl Config {
    /// The configuration with which the `docker` command would find its daemon: `DOCKER_HOST`, else `DOCKER_CONTEXT`, else the
    /// current context of `DOCKER_CONFIG` (`~/.docker`), else the default socket; with `DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH`
    /// and `DOCKER_API_VERSION`, the newest version to speak. TLS without an address is `localhost:2376`; an address without a
    /// port has 2375, also with TLS. `DOCKER_TLS` alone asks not to verify the server, which is `Unsupported`. It connects to no daemon; [`detect`](crate::detect()) does.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported`, with the variable (or file) and its value.
    pub fn from_env() -> Result<Self> {
        Environment::of_process().config()
    }
}

fn invalid(name: &'static str, value: &str, why: &str) -> Error {
    let value = without_credentials(value);
    Error::new(ErrorKind::InvalidInput, "docker.config", format!("{name}={value}: {why}"))
        .with_context("key", name)
        .with_context("value", value)
}

/// Adds the variable's name and value to an error.
fn named<T>(parsed: Result<T>, name: &'static str, value: &str) -> Result<T> {
    parsed.map_err(|error| {
        let value = without_credentials(value);
        let message = format!("{name}: {}", error.message());
        Error::new(error.kind(), "docker.config", message).with_context("key", name).with_context("value", value)
    })
}

/// Those of the three files that exist. An existing file that cannot be read is reported by the TLS setup.
fn tls_files(folder: &Path) -> Result<Tls> {
    let there = |name: &str| {
        let path = folder.join(name);
        let missing = path.metadata().is_err_and(|error| is_missing(&error));
        if missing { Err(path) } else { Ok(path) }
    };
    let identity = match (there("cert.pem"), there("key.pem")) {
        (Ok(certificate), Ok(key)) => Some((certificate, key)),
        (Err(_), Err(_)) => None,
        (Ok(_), Err(missing)) | (Err(missing), Ok(_)) => {
            let message =
                format!("a client certificate takes cert.pem and key.pem, and '{}' is missing", missing.display());
            return Err(
                Error::new(ErrorKind::InvalidInput, "docker.config", message).with_context("path", missing.display())
            );
        }
    };
    let mut tls = Tls::default();
    (tls.ca, tls.identity) = (there("ca.pem").ok(), identity);
    Ok(tls)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// `None`: the file does not exist.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let located =
        |kind, message: String| Error::new(kind, "docker.config", message).with_context("path", path.display());
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => {
            return Err(
                located(ErrorKind::InvalidInput, format!("'{}' cannot be read", path.display())).with_source(error)
            );
        }
    };
    let parsed = serde_json::from_slice(&bytes).map_err(|error| {
        // serde's text may quote the file, which can hold a secret: only the position is shown.
        let position = format!("line {}, column {}", error.line(), error.column());
        located(ErrorKind::InvalidInput, format!("'{}' is not what docker writes, at {position}", path.display()))
    })?;
    Ok(Some(parsed))
}

fn current_context(path: &Path) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct File {
        #[serde(rename = "currentContext", default)]
        current_context: Option<String>,
    }
    let file: Option<File> = read_json(path)?;
    Ok(file.and_then(|file| file.current_context).filter(|name| !name.is_empty()))
}

/// `meta/<sha256 of the name>/meta.json` and `tls/<the same>/docker/*.pem`.
fn context(store: &Path, source: &'static str, name: &str) -> Result<Config> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Meta {
        endpoints: Endpoints,
    }
    #[derive(Deserialize)]
    struct Endpoints {
        docker: Option<DockerEndpoint>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct DockerEndpoint {
        #[serde(default)]
        host: String,
        #[serde(default, rename = "SkipTLSVerify")]
        skip_tls_verify: bool,
    }
    const NO_CONTEXT: &str = "there is no such docker context; `docker context ls` lists the existing ones";
    let folder = sha256(name);
    let path = store.join("meta").join(&folder).join("meta.json");
    let meta: Meta =
        read_json(&path)?.ok_or_else(|| invalid(source, name, NO_CONTEXT).with_context("path", path.display()))?;
    let Some(docker) = meta.endpoints.docker else {
        return Err(invalid(source, name, "this docker context has no docker endpoint"));
    };
    if docker.host.is_empty() {
        return Ok(Config::default());
    }
    if docker.skip_tls_verify {
        let why = "it asks not to verify the server (SkipTLSVerify); give the context the server's CA instead";
        return Err(Error::new(ErrorKind::Unsupported, "docker.config", format!("{source}={name}: {why}"))
            .with_context("key", source)
            .with_context("feature", "skip_tls_verify")
            .with_context("reason", why));
    }
    let endpoint = named(docker.host.parse::<Endpoint>(), source, &docker.host)?;
    let tls_folder = store.join("tls").join(&folder).join("docker");
    let tls = tls_folder.is_dir().then(|| tls_files(&tls_folder)).transpose()?;
    let endpoint = if tls.is_some() { endpoint.with_tls() } else { endpoint };
    Ok(Config::default().with_endpoint(endpoint).with_tls(tls))
}

fn sha256(text: &str) -> String {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
