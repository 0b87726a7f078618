//! The connections of the `podman` command: `podman-connections.json` (since 5.0), and `containers.conf`, where older versions keep
//! them.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use runtide_core::{Error, ErrorKind, Result};
use serde::Deserialize;

/// One connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Destination {
    /// The service's address.
    pub(crate) uri: String,
    /// File with the key for `ssh`.
    pub(crate) identity: Option<String>,
    /// It leads to a machine of `podman machine`.
    pub(crate) is_machine: bool,
}

/// The connections that are known by name.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    named: BTreeMap<String, Destination>,
    /// The one that is used where none is named.
    default: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Json {
    #[serde(rename = "Connection")]
    connection: JsonConnections,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct JsonConnections {
    default: Option<String>,
    connections: BTreeMap<String, JsonDestination>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JsonDestination {
    #[serde(rename = "URI")]
    uri: String,
    #[serde(default)]
    identity: Option<String>,
    #[serde(default)]
    is_machine: bool,
}

impl From<JsonDestination> for Destination {
    fn from(JsonDestination { uri, identity, is_machine }: JsonDestination) -> Self {
        Self { uri, identity, is_machine }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Toml {
    engine: Engine,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Engine {
    active_service: Option<String>,
    service_destinations: BTreeMap<String, TomlDestination>,
}

#[derive(Deserialize)]
struct TomlDestination {
    uri: String,
    #[serde(default)]
    identity: Option<String>,
    #[serde(default)]
    is_machine: bool,
}

impl From<TomlDestination> for Destination {
    fn from(TomlDestination { uri, identity, is_machine }: TomlDestination) -> Self {
        Self { uri, identity, is_machine }
    }
}

impl Connections {
    /// Reads the files that exist: those in `toml`, the later ones of which win, and then `json`, which wins over them.
    pub(crate) fn read(toml: &[PathBuf], json: Option<&Path>) -> Result<Self> {
        let mut found = Self::default();
        for path in toml {
            let Some(text) = read(path)? else { continue };
            let file: Toml = toml::from_str(&text).map_err(|error| {
                // The parser's text may quote the file, which can hold a secret.
                let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or_default().lines().count());
                unreadable(path, &format!("it is not what podman reads, at line {line}"))
            })?;
            let destinations = file.engine.service_destinations;
            found.named.extend(destinations.into_iter().map(|(name, destination)| (name, destination.into())));
            found.default = file.engine.active_service.filter(|name| !name.is_empty()).or(found.default);
        }
        if let Some((path, text)) = json.map(|path| Ok::<_, Error>((path, read(path)?))).transpose()?
            && let Some(text) = text
        {
            let file: Json = serde_json::from_str(&text).map_err(|error| {
                let position = format!("line {}, column {}", error.line(), error.column());
                unreadable(path, &format!("it is not what podman writes, at {position}"))
            })?;
            let connections = file.connection.connections;
            found.named.extend(connections.into_iter().map(|(name, connection)| (name, connection.into())));
            found.default = file.connection.default.filter(|name| !name.is_empty()).or(found.default);
        }
        Ok(found)
    }

    /// The connection of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Destination> {
        self.named.get(name)
    }

    /// The default connection's name, if there is one.
    pub(crate) fn default_name(&self) -> Option<&str> {
        self.default.as_deref()
    }
}

/// `None`: the file does not exist.
fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(unreadable(path, "it cannot be read").with_source(error)),
    }
}

fn unreadable(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, "podman.config", format!("'{}': {why}", path.display()))
        .with_context("path", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_own_files_are_read_and_the_newer_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        let (conf, json) = (folder.path().join("containers.conf"), folder.path().join("podman-connections.json"));
        fs::write(
            &conf,
            "[containers]\nlog_driver = \"k8s-file\"\n[engine]\nactive_service = \"old\"\n[engine.service_destinations]\n  \
             [engine.service_destinations.old]\n    uri = \"unix:///old.sock\"\n    identity = \"/key\"\n  \
             [engine.service_destinations.both]\n    uri = \"unix:///a.sock\"\n",
        )
        .unwrap();
        let files = [folder.path().join("missing.conf"), conf];
        let found = Connections::read(&files, Some(&json)).unwrap();
        let uri = |found: &Connections, name| found.get(name).map(|destination| destination.uri.clone());
        assert_eq!((found.default_name(), uri(&found, "old").as_deref()), (Some("old"), Some("unix:///old.sock")));
        assert_eq!(found.get("old").unwrap().identity.as_deref(), Some("/key"));
        assert_eq!((uri(&found, "both").as_deref(), found.get("new")), (Some("unix:///a.sock"), None));

        let text = r#"{"Connection":{"Default":"new","Connections":{"new":{"URI":"ssh://core@127.0.0.1:1234/run/user/1000/podman/podman.sock","Identity":"/key","IsMachine":true},"both":{"URI":"unix:///b.sock"}}},"Farm":{}}"#;
        fs::write(&json, text).unwrap();
        let found = Connections::read(&files, Some(&json)).unwrap();
        assert_eq!((found.default_name(), uri(&found, "both").as_deref()), (Some("new"), Some("unix:///b.sock")));
        let machine = found.get("new").unwrap();
        assert!(machine.is_machine && machine.identity.as_deref() == Some("/key"), "{machine:?}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let (conf, json) = (folder.path().join("containers.conf"), folder.path().join("podman-connections.json"));
        fs::write(&conf, "[engine]\nservice_destinations = \"s3cret\"\n").unwrap();
        fs::write(&json, r#"{"Connection": "s3cret"}"#).unwrap();
        for error in [
            Connections::read(&[conf], None).unwrap_err(),
            Connections::read(&[], Some(&json)).unwrap_err(),
            Connections::read(&[folder.path().to_path_buf()], None).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
