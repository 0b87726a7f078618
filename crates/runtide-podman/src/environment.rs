//! The process's environment: `CONTAINER_*` variables and the command's connections, read and never changed.

use std::{env, ffi::OsString, path::PathBuf};

use runtide_core::{Error, ErrorKind, Result};
use runtide_engine::{Endpoint, without_credentials};

use crate::{
    config::{Config, ROOTFUL, rootless},
    connections::{Connections, Destination},
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
            let destination = |uri| self.destination(HOST, &Destination { uri, ..Destination::default() });
            return Some((Origin::Environment, uri.and_then(destination)));
        }
        let name = self.connections().map(|connections| connections.default_name().map(str::to_owned)).transpose()?;
        Some((Origin::DefaultConnection, name.and_then(|name| self.connection("default connection", &name))))
    }

    /// The configuration for one connection. `CONTAINER_SSHKEY` is the key of those that name none.
    fn destination(&self, source: &'static str, destination: &Destination) -> Result<Config> {
        let mut found = config(source, &destination.uri)?;
        if let Endpoint::Ssh(ssh) = found.endpoint {
            let identity = match destination.identity.clone().filter(|path| !path.is_empty()) {
                Some(path) => Some(path),
                None => self.text("CONTAINER_SSHKEY")?,
            };
            let ssh = ssh.with_identity(identity.as_deref()).map_err(|why| invalid(source, &destination.uri, &why))?;
            found.endpoint = Endpoint::Ssh(ssh.with_local_machine(destination.is_machine));
        }
        Ok(found)
    }

    /// The files in which the command stores credentials for registries, in its order.
    pub(crate) fn auth_files(&self) -> Vec<PathBuf> {
        const NAME: &str = "containers/auth.json";
        let first = self.path("REGISTRY_AUTH_FILE").unwrap_or_else(|| match self.path("XDG_RUNTIME_DIR") {
            Some(runtime) => runtime.join(NAME),
            None => PathBuf::from(format!("/run/containers/{}/auth.json", self.user)),
        });
        let of_user = self.user_folder().map(|folder| folder.join("auth.json"));
        let dockers = self.path("DOCKER_CONFIG").or_else(|| Some(self.path("HOME")?.join(".docker")));
        [Some(first), of_user, dockers.map(|folder| folder.join("config.json"))].into_iter().flatten().collect()
    }

    /// The connection of this name.
    fn connection(&self, source: &'static str, name: &str) -> Result<Config> {
        let connections = self.connections()?;
        let destination = connections.get(name).ok_or_else(|| {
            invalid(source, name, "there is no such connection; `podman system connection list` lists them")
        })?;
        self.destination(source, destination)
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
        "ssh" => without_secure(uri).parse::<Endpoint>(),
        _ => return Err(invalid(source, uri, "expected unix:///path, tcp://host:port or ssh://user@host:port/path")),
    };
    let endpoint = endpoint.map_err(|error| {
        let value = without_credentials(uri);
        let message = format!("{source}: {}", error.message());
        Error::new(error.kind(), "podman.config", message).with_context("key", source).with_context("value", value)
    })?;
    Ok(Config::default().with_endpoint(endpoint))
}

/// The address without `?secure=…`, by which the command is told to check the host's key: here it always is.
fn without_secure(uri: &str) -> &str {
    match uri.split_once('?') {
        Some((address, query)) if query.starts_with("secure=") && !query.contains(['&', '#']) => address,
        _ => uri,
    }
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
    fn a_service_on_another_machine_is_reached_through_ssh() {
        let found = |value| endpoint(true, [("CONTAINER_HOST", value), ("HOME", "/nonexistent"), ("X", "")]).unwrap();
        let plain = "ssh://me@h:2222/run/user/1000/podman/podman.sock";
        assert_eq!(found(plain), plain);
        let secure = format!("{plain}?secure=True");
        assert_eq!(endpoint(true, [("CONTAINER_HOST", &secure), ("HOME", "/nonexistent"), ("X", "")]).unwrap(), plain);
        assert_eq!(found("ssh://h"), "ssh://h");
        let of = |variables: [(&str, &str); 3]| {
            let variables = variables.map(|(name, value)| (name, OsStr::new(value)));
            Environment::of(true, variables).config()
        };
        let with_key = |key| of([("CONTAINER_HOST", "ssh://h"), ("CONTAINER_SSHKEY", key), ("HOME", "/nonexistent")]);
        let ssh = "ssh://h".parse::<Endpoint>().unwrap();
        let Endpoint::Ssh(ssh) = ssh else { panic!("{ssh}") };
        let expected = Endpoint::Ssh(ssh.clone().with_identity(Some("/my/key")).unwrap());
        assert_eq!(with_key("/my/key").unwrap().endpoint, expected);
        assert_eq!(with_key("/${HOME}/key").unwrap_err().kind(), ErrorKind::InvalidInput);

        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("connections.json");
        let text = r#"{"Connection":{"Default":"m","Connections":{"m":{"URI":"ssh://core@127.0.0.1:1234/run/podman/podman.sock","Identity":"/machine","IsMachine":true}}}}"#;
        fs::write(&conf, text).unwrap();
        let conf = conf.to_str().unwrap();
        let machine =
            of([("PODMAN_CONNECTIONS_CONF", conf), ("CONTAINERS_CONF", "/nonexistent"), ("CONTAINER_SSHKEY", "/k")]);
        let ssh = "ssh://core@127.0.0.1:1234/run/podman/podman.sock".parse::<Endpoint>().unwrap();
        let Endpoint::Ssh(ssh) = ssh else { panic!("{ssh}") };
        let expected = ssh.with_identity(Some("/machine")).unwrap().with_local_machine(true);
        assert_eq!(machine.unwrap().endpoint, Endpoint::Ssh(expected), "its own key comes first");
    }

    #[test]
    fn credentials_are_looked_for_where_the_command_stores_them() {
        let files = |variables: [(&str, &str); 3]| {
            let variables = variables.map(|(name, value)| (name, OsStr::new(value)));
            let files = Environment::of(false, variables).auth_files();
            files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            files([("XDG_RUNTIME_DIR", "/r"), ("HOME", "/h"), ("X", "")]),
            ["/r/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"]
        );
        assert_eq!(
            files([("REGISTRY_AUTH_FILE", "/a"), ("XDG_CONFIG_HOME", "/c"), ("DOCKER_CONFIG", "/d")]),
            ["/a", "/c/containers/auth.json", "/d/config.json"]
        );
        let none = files([("X", ""), ("Y", ""), ("Z", "")]);
        assert!(none[0].starts_with("/run/containers/") && none.len() == 1, "{none:?}");
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
            ("ssh://me:s3cret@host:22/run/podman/podman.sock", ErrorKind::InvalidInput),
            ("ssh://-oProxyCommand=x/run/podman/podman.sock", ErrorKind::InvalidInput),
            ("ssh://$(x)@host/run/podman/podman.sock", ErrorKind::InvalidInput),
            ("ssh://host/run/podman/podman.sock?x=1", ErrorKind::InvalidInput),
        ] {
            let error = endpoint(true, [("CONTAINER_HOST", value), ("X", ""), ("Y", "")]).unwrap_err();
            assert_eq!(error.kind(), kind, "{value}");
            assert!(error.to_string().contains("CONTAINER_HOST"), "{error}");
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
