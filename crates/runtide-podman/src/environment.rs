//! The process's environment: `CONTAINER_*` variables and the command's connections, read and never changed.

use std::{env, ffi::OsString, path::PathBuf};

use runtide_core::{Error, ErrorKind, Result};
use runtide_engine::{Endpoint, without_credentials};

use crate::{
    config::{Config, ROOTFUL, rootless},
    connections::Connections,
    origin::Origin,
};

type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// Source of the variables.
pub(crate) struct Environment {
    lookup: Box<Lookup>,
    /// The user's id; root's service is the machine's own.
    user: u32,
}

impl Environment {
    pub(crate) fn of_process() -> Self {
        Self { lookup: Box::new(|name| env::var_os(name)), user: user() }
    }

    /// An environment of these variables only.
    #[cfg(test)]
    pub(crate) fn of<const N: usize>(is_root: bool, variables: [(&str, &std::ffi::OsStr); N]) -> Self {
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let lookup =
            move |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        // A user who has no folder in /run/user.
        Self { lookup: Box::new(lookup), user: if is_root { 0 } else { u32::MAX } }
    }

    /// The variable's value. An empty one counts as unset, as for `podman`.
    fn os(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &'static str) -> Result<Option<String>> {
        let text = |value: OsString| {
            value.into_string().map_err(|value| invalid(name, &value.to_string_lossy(), "it is not UTF-8"))
        };
        self.os(name).map(text).transpose()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.os(name).map(PathBuf::from)
    }

    /// The folder of the user's `containers.conf`.
    fn user_folder(&self) -> Option<PathBuf> {
        let config = self.path("XDG_CONFIG_HOME").or_else(|| Some(self.path("HOME")?.join(".config")))?;
        Some(config.join("containers"))
    }

    fn connections(&self) -> Result<Connections> {
        let user = self.user_folder();
        let toml = if let Some(named) = self.path("CONTAINERS_CONF") {
            vec![named]
        } else {
            let of_user = user.as_ref().map(|folder| folder.join("containers.conf"));
            [Some(PathBuf::from("/etc/containers/containers.conf")), of_user].into_iter().flatten().collect()
        };
        let json = self.path("PODMAN_CONNECTIONS_CONF").or_else(|| Some(user?.join("podman-connections.json")));
        Connections::read(&toml, json.as_deref())
    }

    /// The configuration that `CONTAINER_CONNECTION`, else `CONTAINER_HOST`, else the default connection names; `None`: none does.
    pub(crate) fn named(&self) -> Option<(Origin, Result<Config>)> {
        const CONNECTION: &str = "CONTAINER_CONNECTION";
        const HOST: &str = "CONTAINER_HOST";
        if let Some(name) = self.text(CONNECTION).transpose() {
            return Some((Origin::Connection, name.and_then(|name| self.connection(CONNECTION, &name))));
        }
        if let Some(uri) = self.text(HOST).transpose() {
            return Some((Origin::Environment, uri.and_then(|uri| config(HOST, &uri))));
        }
        let name = self.connections().map(|connections| connections.default_name().map(str::to_owned)).transpose()?;
        Some((Origin::DefaultConnection, name.and_then(|name| self.connection("default connection", &name))))
    }

    /// The connection of this name.
    fn connection(&self, source: &'static str, name: &str) -> Result<Config> {
        let connections = self.connections()?;
        let uri = connections.get(name).ok_or_else(|| {
            invalid(source, name, "there is no such connection; `podman system connection list` lists them")
        })?;
        config(source, uri)
    }

    /// The user's runtime folder, as `podman` finds it without the variable as well.
    fn runtime_folder(&self) -> Option<PathBuf> {
        let of_user = || Some(PathBuf::from(format!("/run/user/{}", self.user))).filter(|folder| folder.is_dir());
        self.path("XDG_RUNTIME_DIR").or_else(of_user)
    }

    /// The sockets of this user's services, in order of preference. It is not known if anything listens there.
    pub(crate) fn sockets(&self) -> Vec<(Origin, PathBuf)> {
        let of_user = self.runtime_folder().filter(|_| self.user != 0).map(|runtime| rootless(&runtime));
        let of_user = of_user.map(|socket| (Origin::Rootless, socket));
        of_user.into_iter().chain([(Origin::System, PathBuf::from(ROOTFUL))]).collect()
    }

    /// The socket of a `podman machine`.
    pub(crate) fn machine(&self) -> Option<PathBuf> {
        Some(self.path("HOME")?.join(".local/share/containers/podman/machine/podman.sock"))
    }

    /// The configuration with which `podman --remote` would find its service.
    pub(crate) fn config(&self) -> Result<Config> {
        if let Some((_, config)) = self.named() {
            return config;
        }
        let socket = self.sockets().into_iter().next().map_or_else(|| PathBuf::from(ROOTFUL), |(_, socket)| socket);
        Ok(Config::default().with_endpoint(Endpoint::unix(socket)))
    }
}

#[cfg(unix)]
fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
fn user() -> u32 {
    u32::MAX
}

impl Config {
    /// The configuration with which the `podman` command would find a service: `CONTAINER_CONNECTION`, else `CONTAINER_HOST`, else
    /// the default connection, else the user's own socket (`$XDG_RUNTIME_DIR/podman/podman.sock`), for root the machine's
    /// (`/run/podman/podman.sock`). Connections are those of `podman system connection`: `podman-connections.json`, and
    /// `containers.conf` for older versions, which prefer `CONTAINER_HOST` where both variables are set. It connects to no service.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported`, with the variable (or file) and its value.
    pub fn from_env() -> Result<Self> {
        Environment::of_process().config()
    }
}

/// The configuration for an address in Podman's form. Nothing of it may be left out.
fn config(source: &'static str, uri: &str) -> Result<Config> {
    let uri = uri.trim();
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    let endpoint = match scheme {
        // The command reads a path without its first slash as well.
        "unix" if !rest.is_empty() && !rest.contains('\0') => {
            Ok(Endpoint::unix(if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") }))
        }
        "tcp" | "http" | "https" if !has_port(rest) => {
            return Err(invalid(source, uri, "it has no port; expected tcp://host:port"));
        }
        "tcp" | "http" | "https" => uri.parse::<Endpoint>(),
        "ssh" => {
            let why = "ssh is not supported: forward the socket (ssh -L ./podman.sock:/run/podman/podman.sock)";
            let value = without_credentials(uri);
            return Err(Error::new(ErrorKind::Unsupported, "podman.config", format!("{source}={value}: {why}"))
                .with_context("key", source)
                .with_context("value", value)
                .with_context("feature", "endpoint")
                .with_context("reason", why));
        }
        _ => return Err(invalid(source, uri, "expected unix:///path or tcp://host:port")),
    };
    let endpoint = endpoint.map_err(|error| {
        let value = without_credentials(uri);
        let message = format!("{source}: {}", error.message());
        Error::new(error.kind(), "podman.config", message).with_context("key", source).with_context("value", value)
    })?;
    Ok(Config::default().with_endpoint(endpoint))
}

fn has_port(authority: &str) -> bool {
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn invalid(name: &'static str, value: &str, why: &str) -> Error {
    let value = without_credentials(value);
    Error::new(ErrorKind::InvalidInput, "podman.config", format!("{name}={}: {why}", value.escape_debug()))
        .with_context("key", name)
        .with_context("value", value.escape_debug())
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, fs};

    use super::*;

    fn endpoint(is_root: bool, variables: [(&str, &str); 3]) -> Result<String> {
        let variables = variables.map(|(name, value)| (name, OsStr::new(value)));
        Environment::of(is_root, variables).config().map(|config| config.endpoint.to_string())
    }

    #[test]
    fn a_service_is_found_where_the_command_would_find_it() {
        let none = ("HOME", "/nonexistent");
        let runtime = ("XDG_RUNTIME_DIR", "/run/user/7");
        let found = |is_root, variable| endpoint(is_root, [none, runtime, variable]).unwrap();
        assert_eq!(found(false, ("X", "")), "unix:///run/user/7/podman/podman.sock");
        assert_eq!(found(true, ("X", "")), "unix:///run/podman/podman.sock");
        assert_eq!(found(false, ("CONTAINER_HOST", " unix:///a.sock\n")), "unix:///a.sock");
        assert_eq!(found(false, ("CONTAINER_HOST", "unix://run/a.sock")), "unix:///run/a.sock", "as podman repairs it");
        assert_eq!(found(false, ("CONTAINER_HOST", "tcp://host:8080")), "tcp://host:8080");
        let named = Environment::of(false, [("HOME", OsStr::new("/nonexistent"))]).config().unwrap();
        assert_eq!(named.endpoint.to_string(), "unix:///run/podman/podman.sock", "no runtime folder");
    }

    #[test]
    fn a_connection_is_looked_up_by_its_name() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/containers");
        fs::create_dir_all(&folder).unwrap();
        let text = r#"{"Connection":{"Default":"dev","Connections":{"dev":{"URI":"unix:///dev.sock"},"ci":{"URI":"tcp://ci:80"}}}}"#;
        fs::write(folder.join("podman-connections.json"), text).unwrap();
        let home = ("HOME", home.path().to_str().unwrap());
        let found = |name, value| endpoint(true, [home, ("CONTAINERS_CONF", "/nonexistent"), (name, value)]);
        assert_eq!(found("X", "").unwrap(), "unix:///dev.sock");
        assert_eq!(found("CONTAINER_CONNECTION", "ci").unwrap(), "tcp://ci:80");
        assert_eq!(found("CONTAINER_HOST", "unix:///a.sock").unwrap(), "unix:///a.sock");
        let error = found("CONTAINER_CONNECTION", "prod").unwrap_err();
        assert!(error.to_string().contains("prod"), "{error}");
    }

    #[test]
    fn an_address_that_cannot_be_used_is_an_error_with_variable_and_value() {
        for (value, kind) in [
            ("host", ErrorKind::InvalidInput),
            ("unix://", ErrorKind::InvalidInput),
            ("tcp://host", ErrorKind::InvalidInput),
            ("tcp://[::1]", ErrorKind::InvalidInput),
            ("npipe:////./pipe/podman", ErrorKind::InvalidInput),
            ("tcp://me:s3cret@host:80", ErrorKind::InvalidInput),
            ("ssh://me:s3cret@host:22/run/podman/podman.sock", ErrorKind::Unsupported),
        ] {
            let error = endpoint(true, [("CONTAINER_HOST", value), ("X", ""), ("Y", "")]).unwrap_err();
            assert_eq!(error.kind(), kind, "{value}");
            assert!(error.to_string().contains("CONTAINER_HOST"), "{error}");
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
