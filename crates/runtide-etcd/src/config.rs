//! Configuration of a store: [`Config`], [`Tls`].

use std::{path::PathBuf, time::Duration};

use runtide_core::{Error, ErrorKind, Result, backend::setters, manager::Secret};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::keys;

pub(crate) const OPERATION: &str = "etcd.config";

/// Files for TLS, all PEM. The server is always verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// Certificate authority of the members; `None`: the machine's own roots.
    pub ca: Option<PathBuf>,
    /// Certificate and key of the client, if the members require one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Name in the members' certificates, if it is not the host of the endpoint.
    pub server_name: Option<String>,
}

impl Tls {
    /// With this certificate authority.
    #[must_use]
    pub fn with_ca(mut self, ca: impl Into<PathBuf>) -> Self {
        self.ca = Some(ca.into());
        self
    }

    /// With this client certificate and key.
    #[must_use]
    pub fn with_identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// With this name in the members' certificates.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

/// Members of etcd, prefix, credentials and deadlines of a store.
///
/// ```
/// use runtide_etcd::Config;
///
/// let config = Config::default()
///     .with_endpoints(["http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://10.0.0.3:2379"])
///     .with_prefix("/runtide/staging/")
///     .with_user("runtide", "secret");
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The members, as `host:port`, `http://host:port` or `https://host:port`; `127.0.0.1:2379`. Calls go to one member until it
    /// fails, then to the next.
    pub endpoints: Vec<String>,
    /// Prefix of all keys; `/runtide/`. Stores with different prefixes share nothing but revisions.
    pub prefix: String,
    /// Name and password.
    pub user: Option<(String, Secret)>,
    /// Files for `https`; `None`: the machine's own roots, and no client certificate. With files, `host:port` means `https`.
    pub tls: Option<Tls>,
    /// Deadline of connecting, the TLS handshake included; 2 s.
    pub connect_timeout: Duration,
    /// Deadline of a call with all its attempts; 15 s. An attempt at one of several members gets a third of it at most. In a snapshot
    /// and a restore, which make many requests, each of them has this deadline.
    pub request_timeout: Duration,
    /// Longest silence of a watch; 30 s. After a third of it the watch requests progress, after all of it the link is replaced.
    pub max_silence: Duration,
    /// Shortest interval of a watch's `Bookmark`s, which are sent if the revision has advanced; 5 s.
    pub bookmark_interval: Duration,
    /// The members' `--max-request-bytes`; 1.5 MiB. The largest document is 8 KiB below it.
    pub max_request_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            prefix: "/runtide/".to_owned(),
            user: None,
            tls: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(15),
            max_silence: Duration::from_secs(30),
            bookmark_interval: Duration::from_secs(5),
            max_request_bytes: 3 << 19,
        }
    }
}

setters!(Config {
    /// With this prefix of all keys.
    with_prefix: prefix: String;
    /// With these files for TLS.
    with_tls: tls: Option<Tls>;
    /// With this deadline of connecting.
    with_connect_timeout: connect_timeout: Duration;
    /// With this deadline of a call with all its attempts.
    with_request_timeout: request_timeout: Duration;
    /// With this longest silence of a watch.
    with_max_silence: max_silence: Duration;
    /// With this shortest interval of bookmarks.
    with_bookmark_interval: bookmark_interval: Duration;
    /// With the members' `--max-request-bytes`.
    with_max_request_bytes: max_request_bytes: usize;
});

impl Config {
    /// With these members.
    #[must_use]
    pub fn with_endpoints(mut self, endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// With this name and password.
    #[must_use]
    pub fn with_user(mut self, name: impl Into<String>, password: impl Into<Box<str>>) -> Self {
        self.user = Some((name.into(), Secret::new(password)));
        self
    }

    /// Most bytes of a document: what fits into a request.
    pub fn largest_document(&self) -> usize {
        self.max_request_bytes.saturating_sub(keys::OVERHEAD).min(runtide_core::store::Document::MAX_BYTES)
    }

    /// The endpoints, validated, each with its scheme.
    pub(crate) fn urls(&self) -> Result<Vec<String>> {
        if self.endpoints.is_empty() {
            return Err(invalid("there are no endpoints").with_context("key", "endpoints"));
        }
        self.endpoints.iter().map(|endpoint| url(endpoint, self.tls.is_some())).collect()
    }

    /// Name of the store: its endpoints and its prefix.
    pub(crate) fn name(&self) -> Result<String> {
        let urls = self.urls()?;
        let hosts: Vec<&str> =
            urls.iter().map(|url| url.split_once("://").map_or(url.as_str(), |(_, host)| host)).collect();
        Ok(format!("etcd:{}{}", hosts.join(","), self.prefix))
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let refused = |key: &'static str, why: &str| Err(invalid(why).with_context("key", key));
        for (key, duration) in [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("bookmark_interval", self.bookmark_interval),
        ] {
            if duration.is_zero() {
                return refused(key, "a deadline of zero can never be met");
            }
        }
        if self.max_silence < Duration::from_millis(30) {
            return refused("max_silence", "less than 30 ms leaves no time for a progress message");
        }
        if self.largest_document() == 0 {
            return refused("max_request_bytes", "no document fits into that");
        }
        if self.prefix.len() > keys::LONGEST_PREFIX || self.prefix.chars().any(char::is_control) {
            return refused("prefix", "a prefix has at most 255 bytes, and no control characters");
        }
        if !self.prefix.ends_with('/') {
            return refused("prefix", "a prefix ends with a slash, so that no other begins with it by chance");
        }
        Ok(())
    }

    /// Settings for TLS. The files are read here, so that a bad one is reported when the store is made.
    pub(crate) fn tls_settings(&self) -> Result<ClientTlsConfig> {
        let tls = self.tls.clone().unwrap_or_default();
        let mut settings = ClientTlsConfig::new();
        settings = match &tls.ca {
            Some(ca) => settings.ca_certificate(Certificate::from_pem(pem(ca, "CERTIFICATE")?)),
            None => settings.with_native_roots(),
        };
        if let Some((certificate, key)) = &tls.identity {
            settings =
                settings.identity(Identity::from_pem(pem(certificate, "CERTIFICATE")?, pem(key, "PRIVATE KEY")?));
        }
        if let Some(name) = tls.server_name {
            settings = settings.domain_name(name);
        }
        Ok(settings)
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, OPERATION, message)
}

/// Bytes of a PEM file that has such a section. No error quotes them: they may be a key.
fn pem(path: &std::path::Path, what: &str) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|error| {
        invalid("a file for TLS cannot be read").with_context("path", path.display()).with_source(error)
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let begins = |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{what}-----"));
    if text.lines().any(begins) {
        return Ok(bytes);
    }
    Err(invalid(format!("there is no {what} in PEM in this file")).with_context("path", path.display()))
}

fn url(endpoint: &str, tls: bool) -> Result<String> {
    let refused = |why: &str| {
        // The part before the host may be a user and a password.
        let shown = endpoint.rsplit_once('@').map_or(endpoint, |(_, host)| host);
        let message = format!("'{shown}' is not an endpoint: {why}");
        Err(invalid(message).with_context("key", "endpoints"))
    };
    if endpoint.contains('@') {
        return refused("an endpoint carries no credentials");
    }
    let (scheme, host) = match endpoint.split_once("://") {
        None => (if tls { "https" } else { "http" }, endpoint),
        Some((scheme @ ("http" | "https"), host)) => (scheme, host),
        Some(_) => return refused("only http:// and https:// are supported"),
    };
    let host = host.strip_suffix('/').unwrap_or(host);
    let has_port = host.rsplit_once(':').is_some_and(|(name, port)| {
        let bare = !name.contains(':') || name.starts_with('[') && name.ends_with(']');
        !name.is_empty() && bare && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if !has_port || host.contains(['/', '?', '#']) || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return refused("expected host:port, http://host:port or https://host:port");
    }
    if tls && scheme == "http" {
        return refused("files for TLS are given, and it is not https");
    }
    Ok(format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_etcdctl_reads_them() {
        assert_eq!(url("a:2379", false).unwrap(), "http://a:2379");
        assert_eq!(url("a:2379", true).unwrap(), "https://a:2379");
        assert_eq!(url("https://[::1]:2379/", false).unwrap(), "https://[::1]:2379");
        for bad in
            ["", "a", "a:0", "a:x", "::1:2379", "unix:///x", "http://a:1/path", "http://user:secret@a:1", "a b:1"]
        {
            let error = url(bad, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
            assert!(!format!("{error:?}").contains("secret"));
        }
        assert!(url("http://a:1", true).is_err(), "TLS was wanted");
    }

    #[test]
    fn settings_that_can_never_work_are_refused_and_named() {
        let table = [
            (Config::default().with_prefix("a"), "prefix"),
            (Config::default().with_prefix("a/".repeat(200)), "prefix"),
            (Config::default().with_endpoints([] as [&str; 0]), "endpoints"),
            (Config::default().with_request_timeout(Duration::ZERO), "request_timeout"),
            (Config::default().with_max_silence(Duration::ZERO), "max_silence"),
            (Config::default().with_max_request_bytes(100usize), "max_request_bytes"),
        ];
        for (config, key) in table {
            let error = config.validate().and_then(|()| config.urls().map(drop)).unwrap_err();
            assert!(error.fact("key") == Some(key), "{error}");
        }
        assert!(Config::default().validate().is_ok());
    }

    #[test]
    fn files_that_cannot_be_used_are_named_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, junk) = (folder.path().join("missing.pem"), folder.path().join("junk.pem"));
        std::fs::write(&junk, "hunter2").unwrap();
        for tls in [
            Tls::default().with_ca(&missing),
            Tls::default().with_ca(&junk),
            Tls::default().with_identity(&junk, &missing),
        ] {
            let error = Config::default().with_tls(tls).tls_settings().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(".pem") && !format!("{error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_name_has_the_members_and_the_prefix() {
        let config = Config::default().with_endpoints(["https://a:1", "b:2"]).with_user("u", "secret");
        assert_eq!(config.name().unwrap(), "etcd:a:1,b:2/runtide/");
    }
}
