//! [`RegistryAuth`]: a user of a registry, from the engine client's own configuration or from a value, and as the header that the
//! engine reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use runtide_core::{
    Error, ErrorKind, Result,
    backend::{CallSite, saturating_add},
    manager::Secret,
};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, time::Instant};

use super::helper;

/// Key of the default registry in the client's configuration: the address that its index once had.
const INDEX: &str = "https://index.docker.io/v1/";
/// Largest configuration file that is read, in bytes.
const LARGEST_FILE: u64 = 4 << 20;
/// Helpers that run at a time.
const AT_ONCE: usize = 8;

/// The proof of a user at a registry.
#[derive(Clone, Default)]
pub struct RegistryAuth {
    username: String,
    /// Password, or token in place of one.
    password: Option<Secret>,
    identity_token: Option<Secret>,
    registry_token: Option<Secret>,
    /// The registry's key in the configuration.
    server: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth").field("server", &self.server).finish_non_exhaustive()
    }
}

impl RegistryAuth {
    /// A user and a password, or a token in place of one.
    pub fn password(registry: &str, username: String, password: Secret) -> Self {
        Self { username, password: Some(password), server: key(registry).to_owned(), ..Self::default() }
    }

    /// An identity token, as a registry gives out at a login.
    pub fn identity_token(registry: &str, token: Secret) -> Self {
        Self { identity_token: Some(token), server: key(registry).to_owned(), ..Self::default() }
    }

    /// The value of `X-Registry-Auth`: JSON in base64 of the URL-safe alphabet, with padding. The engine takes what it cannot
    /// decode for no credentials, and says nothing.
    pub fn header(&self) -> Secret {
        encode(&self.wire())
    }

    fn wire(&self) -> Wire<'_> {
        Wire {
            username: &self.username,
            password: exposed(self.password.as_ref()),
            identitytoken: exposed(self.identity_token.as_ref()),
            registrytoken: exposed(self.registry_token.as_ref()),
            serveraddress: &self.server,
        }
    }
}

/// The value of `X-Registry-Config`, with which a build pulls: the credentials of each registry.
pub fn config_header(all: &BTreeMap<String, RegistryAuth>) -> Secret {
    encode(&all.iter().map(|(server, auth)| (server.as_str(), auth.wire())).collect::<BTreeMap<_, _>>())
}

#[derive(Serialize)]
struct Wire<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    password: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    identitytoken: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    registrytoken: &'a str,
    serveraddress: &'a str,
}

fn exposed(secret: Option<&Secret>) -> &str {
    secret.map_or("", Secret::expose)
}

fn encode(value: &impl Serialize) -> Secret {
    // Text and maps of text: there is nothing that JSON cannot hold.
    Secret::new(URL_SAFE.encode(serde_json::to_vec(value).unwrap_or_default()))
}

/// The registry's key in the client's configuration.
fn key(registry: &str) -> &str {
    if registry == "docker.io" || registry == "index.docker.io" { INDEX } else { registry }
}

/// The part of the client's `config.json` that is about credentials, and the variable that may stand in for it.
#[derive(Deserialize, Default)]
pub struct ClientConfig {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    /// The file, for errors.
    #[serde(skip)]
    path: String,
    /// Folder of the helpers; `None`: those on the `PATH`.
    #[serde(skip)]
    programs: Option<PathBuf>,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

/// One registry in the configuration.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    /// `user:password` in base64.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl ClientConfig {
    /// Reads `config.json` in the folder; a missing one is an empty configuration.
    ///
    /// # Errors
    /// `InvalidInput` for a file that cannot be read, with its position and never its text.
    pub async fn read(site: CallSite<'_>, folder: &Path) -> Result<Self> {
        Self::read_file(site, &folder.join("config.json")).await
    }

    /// Reads a file of that form, as `auth.json`; a missing one is an empty configuration.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_file(site: CallSite<'_>, path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let shown = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || {
            use std::io::Read;
            let mut bytes = Vec::new();
            std::fs::File::open(path)?.take(LARGEST_FILE).read_to_end(&mut bytes)?;
            std::io::Result::Ok(bytes)
        });
        let invalid = |message: String| site.error(ErrorKind::InvalidInput, message).with_context("path", &shown);
        let bytes = match read.await.unwrap_or_else(|failed| Err(std::io::Error::other(failed))) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(invalid(format!("'{shown}' cannot be read")).with_source(error)),
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let mut config = Self::parse(&bytes)
            .map_err(|position| invalid(format!("'{shown}' is not what the client writes, at {position}")))?;
        config.path = shown;
        Ok(config)
    }

    /// The credentials in the value of `DOCKER_AUTH_CONFIG`.
    ///
    /// # Errors
    /// `InvalidInput` for a value that cannot be read, with its position and never its text.
    pub fn of_variable(site: CallSite<'_>, value: &str) -> Result<Self> {
        const VARIABLE: &str = "DOCKER_AUTH_CONFIG";
        let mut config = Self::parse(value.as_bytes()).map_err(|position| {
            let message = format!("{VARIABLE} is not what the client reads, at {position}");
            site.error(ErrorKind::InvalidInput, message).with_context("key", VARIABLE)
        })?;
        (config.store, config.helpers, config.path) = (None, None, VARIABLE.to_owned());
        Ok(config)
    }

    /// serde's text may quote the file, which holds secrets: only the position is kept.
    fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("line {}, column {}", error.line(), error.column()))
    }

    /// The credentials for a registry: from the helper that is named for it, else from the store, else from the file. `None`: there
    /// are none.
    ///
    /// # Errors
    /// `InvalidInput` for an entry that cannot be read or a helper that is not there, `Unauthenticated` for a helper that fails,
    /// `Timeout` for one that does not answer within 30 s.
    ///
    /// # Cancel safety
    /// A dropped future ends the helper.
    pub async fn auth(&self, site: CallSite<'_>, registry: &str) -> Result<Option<RegistryAuth>> {
        let key = key(registry);
        match self.helper(key) {
            Some(name) => self.ask(site, name, key).await,
            None => self.listed(site, key),
        }
    }

    /// The credentials for a repository, as `quay.io/a/b`, as Podman finds them: from the helper that has its registry's, else from
    /// the entry of the repository, of the closest namespace that it is in, or of its registry. `None`: there are none.
    ///
    /// # Errors
    /// As [`auth`](Self::auth).
    ///
    /// # Cancel safety
    /// As [`auth`](Self::auth).
    pub async fn auth_of_repository(&self, site: CallSite<'_>, repository: &str) -> Result<Option<RegistryAuth>> {
        let registry = repository.split_once('/').map_or(repository, |(registry, _)| registry);
        if let Some(name) = self.helpers.as_ref().and_then(|helpers| helpers.get(registry)) {
            return self.ask(site, name, registry).await;
        }
        let namespaces = std::iter::successors(Some(repository), |key| key.rsplit_once('/').map(|(above, _)| above));
        for key in namespaces {
            if let Some(entry) = self.auths.as_ref().and_then(|auths| auths.get(key))
                && let Some(auth) = self.read_entry(site, registry, entry)?
            {
                return Ok(Some(auth));
            }
        }
        // Addresses are those of registries, as old logins wrote them. A namespace of another one is none.
        let hosts =
            if registry == "docker.io" { &["index.docker.io", "registry-1.docker.io"][..] } else { &[registry] };
        let is_address = |key: &str| key.contains("://") && hosts.contains(&host_of(key));
        if let Some((_, entry)) = self.auths.iter().flatten().find(|(key, _)| is_address(key))
            && let Some(auth) = self.read_entry(site, registry, entry)?
        {
            return Ok(Some(auth));
        }
        match self.store.as_deref().filter(|store| !store.is_empty()) {
            Some(store) => self.ask(site, store, key(registry)).await,
            None => Ok(None),
        }
    }

    /// The credentials of every registry that the configurations know, as a build needs them; of two, the first one's count. Helpers are
    /// asked at once, some of them at a time. One that fails or an entry that cannot be read is left out, and named in the log, as are
    /// those that have not answered within 30 s in all.
    pub async fn all(site: CallSite<'_>, configs: &[Self]) -> BTreeMap<String, RegistryAuth> {
        Self::all_within(site, configs, helper::DEADLINE).await
    }

    async fn all_within(site: CallSite<'_>, configs: &[Self], deadline: Duration) -> BTreeMap<String, RegistryAuth> {
        let until = saturating_add(Instant::now(), deadline);
        let mut found: BTreeMap<String, (usize, RegistryAuth)> = BTreeMap::new();
        let mut note = |key: String, rank: usize, auth: Result<Option<RegistryAuth>>| match auth {
            Ok(Some(auth)) => {
                let known = found.entry(key).or_insert_with(|| (rank, auth.clone()));
                if rank < known.0 {
                    *known = (rank, auth);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, registry = key, "its credentials are left out"),
        };
        let mut keys = Vec::with_capacity(configs.len());
        for config in configs {
            keys.push(config.keys(site, until));
        }
        let keys = join_all(keys).await;
        let permits = Semaphore::new(AT_ONCE);
        let mut answers = FuturesUnordered::new();
        for (rank, (config, keys)) in configs.iter().zip(keys).enumerate() {
            for key in keys {
                let Some(name) = config.helper(&key) else {
                    let auth = config.listed(site, &key);
                    note(key, rank, auth);
                    continue;
                };
                let permits = &permits;
                answers.push(async move {
                    let _permit = permits.acquire().await;
                    let auth = config.ask(site, name, &key).await;
                    (key, rank, auth)
                });
            }
        }
        loop {
            match tokio::time::timeout_at(until, answers.next()).await {
                Ok(Some((key, rank, auth))) => note(key, rank, auth),
                Ok(None) => break,
                Err(_) => {
                    tracing::warn!("credential helpers did not answer within {deadline:?}: what they have is left out");
                    break;
                }
            }
        }
        drop(answers);
        found.into_iter().map(|(key, (_, auth))| (key, auth)).collect()
    }

    /// The registries that the configuration knows.
    async fn keys(&self, site: CallSite<'_>, until: Instant) -> BTreeSet<String> {
        let mut keys: BTreeSet<String> = self.auths.iter().flatten().map(|(key, _)| key.clone()).collect();
        keys.extend(self.helpers.iter().flatten().map(|(key, _)| key.clone()));
        if let Some(store) = self.store.as_deref().filter(|store| !store.is_empty()) {
            let listed = helper::list(site, self.programs.as_deref(), store);
            match tokio::time::timeout_at(until, listed).await {
                Ok(Ok(listed)) => keys.extend(listed),
                Ok(Err(error)) => tracing::warn!(%error, "the credentials' store cannot be listed"),
                Err(_) => tracing::warn!(store, "the credentials' store was not listed in time"),
            }
        }
        keys
    }

    /// Name of the program that has this registry's credentials.
    fn helper(&self, key: &str) -> Option<&str> {
        let own = self.helpers.as_ref().and_then(|helpers| helpers.get(key));
        own.or(self.store.as_ref()).map(String::as_str).filter(|name| !name.is_empty())
    }

    async fn ask(&self, site: CallSite<'_>, name: &str, key: &str) -> Result<Option<RegistryAuth>> {
        let answer = helper::get(site, self.programs.as_deref(), name, key)
            .await
            .map_err(|error| error.with_context("path", &self.path))?;
        Ok(answer.map(|helper::Credentials { username, secret }| {
            // The name that a helper gives to an identity token.
            let is_token = username == "<token>";
            let auth = RegistryAuth { server: key.to_owned(), ..RegistryAuth::default() };
            if is_token {
                RegistryAuth { identity_token: Some(secret), ..auth }
            } else {
                RegistryAuth { username, password: Some(secret), ..auth }
            }
        }))
    }

    /// From the file: under its key, or under an address of the same host.
    fn listed(&self, site: CallSite<'_>, key: &str) -> Result<Option<RegistryAuth>> {
        let Some(auths) = &self.auths else { return Ok(None) };
        let entry = auths
            .get(key)
            .or_else(|| auths.iter().find(|(address, _)| host_of(address) == key).map(|(_, entry)| entry));
        entry.map_or(Ok(None), |entry| self.read_entry(site, key, entry))
    }

    /// The credentials in an entry; `None`: it has none.
    fn read_entry(&self, site: CallSite<'_>, key: &str, entry: &Entry) -> Result<Option<RegistryAuth>> {
        let secret = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Secret::new);
        let mut auth = RegistryAuth {
            username: entry.username.clone().unwrap_or_default(),
            password: secret(&entry.password),
            identity_token: secret(&entry.identitytoken),
            registry_token: secret(&entry.registrytoken),
            server: key.to_owned(),
        };
        if let Some(encoded) = entry.auth.as_deref().filter(|encoded| !encoded.is_empty()) {
            let (username, password) = decode(encoded).ok_or_else(|| self.unreadable(site, key))?;
            (auth.username, auth.password) = (username, Some(password));
        }
        let is_empty = auth.username.is_empty() && auth.identity_token.is_none() && auth.registry_token.is_none();
        Ok((!is_empty).then_some(auth))
    }

    fn unreadable(&self, site: CallSite<'_>, key: &str) -> Error {
        let message =
            format!("the entry of '{}' in '{}' is not user:password in base64", key.escape_debug(), self.path);
        site.error(ErrorKind::InvalidInput, message).with_context("path", &self.path).with_context("registry", key)
    }
}

/// `user:password` in base64.
fn decode(encoded: &str) -> Option<(String, Secret)> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    (!username.is_empty()).then(|| (username.to_owned(), Secret::new(password.trim_matches('\0'))))
}

/// The host of an address, with its port.
fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use runtide_core::BackendId;
    use serde_json::Value;

    use super::*;

    fn config(json: &str) -> ClientConfig {
        ClientConfig::parse(json.as_bytes()).unwrap()
    }

    async fn auth(config: &ClientConfig, registry: &str) -> Result<Option<RegistryAuth>> {
        let id = BackendId::from("engine:test");
        config.auth(CallSite::new("engine.pull", &id), registry).await
    }

    fn decoded(header: &Secret) -> Value {
        let text = header.expose();
        assert!(!text.contains(['+', '/']) && text.len().is_multiple_of(4), "{text}");
        serde_json::from_slice(&URL_SAFE.decode(text).unwrap()).unwrap()
    }

    #[test]
    fn the_header_is_what_a_strict_decoder_reads() {
        // Passwords whose JSON gives '+' or '/' in the standard alphabet, and each length of the padding.
        for password in ["abc>>>def", "abc???def", "ÿÿÿ", "a", "ab", "abc", "\"\\\n"] {
            let auth = RegistryAuth::password("localhost:5000", "me".to_owned(), Secret::new(password));
            let read = decoded(&auth.header());
            assert_eq!(
                (&read["password"], &read["username"], &read["serveraddress"]),
                (&password.into(), &"me".into(), &"localhost:5000".into())
            );
            let all = BTreeMap::from([("localhost:5000".to_owned(), auth.clone())]);
            assert_eq!(decoded(&config_header(&all))["localhost:5000"], read);
            assert!(!format!("{auth:?}{:?}", auth.header()).contains(password) || password == "a" || password == "ab");
        }
        let token = RegistryAuth::identity_token("docker.io", Secret::new("t"));
        assert_eq!(decoded(&token.header()), serde_json::json!({"identitytoken": "t", "serveraddress": INDEX}));
    }

    #[tokio::test]
    async fn an_entry_is_found_by_its_host_and_the_default_registry_by_its_index() {
        // `me:it:self` and `hub:x`, as the client writes them.
        let config = config(&format!(
            r#"{{"auths": {{"localhost:5000": {{"auth": "bWU6aXQ6c2VsZg=="}}, "{INDEX}": {{"auth": "aHViOng="}},
                "https://legacy.example/v2/": {{"username": "u", "password": "p"}}, "t.example": {{"auth": "", "identitytoken": "tok"}},
                "empty.example": {{}}, "odd.example": {{"auth": "%%%"}}, "nameless.example": {{"auth": "OnA="}}}},
                "HttpHeaders": {{"a": "b"}}}}"#
        ));
        for (registry, username, password) in
            [("localhost:5000", "me", "it:self"), ("docker.io", "hub", "x"), ("legacy.example", "u", "p")]
        {
            let found = auth(&config, registry).await.unwrap().unwrap();
            assert_eq!((found.username.as_str(), exposed(found.password.as_ref())), (username, password), "{registry}");
        }
        assert_eq!(decoded(&auth(&config, "t.example").await.unwrap().unwrap().header())["identitytoken"], "tok");
        for registry in ["localhost", "empty.example", "other.example"] {
            assert!(auth(&config, registry).await.unwrap().is_none(), "{registry}");
        }
        for registry in ["odd.example", "nameless.example"] {
            let error = auth(&config, registry).await.unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains(registry), "{error}");
        }
        let id = BackendId::from("engine:test");
        let all = ClientConfig::all(CallSite::new("engine.build", &id), &[config]).await;
        assert_eq!(
            all.keys().map(String::as_str).collect::<Vec<_>>(),
            [INDEX, "https://legacy.example/v2/", "localhost:5000", "t.example"]
        );
    }

    #[tokio::test]
    async fn a_file_that_is_missing_or_empty_has_no_credentials_and_a_broken_one_shows_none() {
        let (folder, id) = (tempfile::tempdir().unwrap(), BackendId::from("engine:test"));
        let site = CallSite::new("engine.pull", &id);
        let file = folder.path().join("config.json");
        for text in [None, Some(""), Some("{}"), Some(r#"{"auths": null}"#)] {
            if let Some(text) = text {
                std::fs::write(&file, text).unwrap();
            }
            let config = ClientConfig::read(site, folder.path()).await.unwrap();
            assert!(auth(&config, "localhost:5000").await.unwrap().is_none());
        }
        std::fs::write(&file, r#"{"auths": {"a.b": {"password": "hunter2", "#).unwrap();
        let error = ClientConfig::read(site, folder.path()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidInput && !format!("{error:?}").contains("hunter2"), "{error:?}");
        let error = ClientConfig::of_variable(site, r#"{"auths": {"a.b": "hunter2"}}"#).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidInput && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    /// A configuration with helpers of these registries, which run this script, and an entry of another one.
    #[cfg(unix)]
    fn helped(script: &str, registries: usize) -> (tempfile::TempDir, ClientConfig) {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker-credential-fake");
        std::fs::write(&path, format!("#!/bin/sh\nread -r host\ncd \"${{0%/*}}\"\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let helpers = (0..registries).map(|at| format!(r#""r{at}.example":"fake""#)).collect::<Vec<_>>().join(",");
        let mut config =
            config(&format!(r#"{{"auths":{{"z.example":{{"auth":"dTpw"}}}},"credHelpers":{{{helpers}}}}}"#));
        config.programs = Some(folder.path().to_owned());
        (folder, config)
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn helpers_are_asked_at_once_and_the_first_configuration_counts() {
        // None answers before all of them run.
        let script = r#"touch "begun-$host"; while [ "$(ls begun-* | wc -l)" -lt 6 ]; do sleep 0.05; done
            echo "{\"Username\":\"helper\",\"Secret\":\"of $host\"}""#;
        let (_folder, helped) = helped(script, 6);
        let other = config(r#"{"auths":{"r0.example":{"auth":"dTpw"},"y.example":{"auth":"dTpw"}}}"#);
        let id = BackendId::from("engine:test");
        let all = ClientConfig::all(CallSite::new("engine.build", &id), &[helped, other]).await;
        assert_eq!(all.len(), 8, "{all:?}");
        assert_eq!(all["r0.example"].username, "helper");
        assert_eq!(exposed(all["r5.example"].password.as_ref()), "of r5.example");
        assert_eq!((all["y.example"].username.as_str(), all["z.example"].username.as_str()), ("u", "u"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn helpers_that_do_not_answer_are_bounded_together_and_hide_no_entry() {
        let (folder, helped) = helped("touch \"begun-$host\"; exec sleep 1000", 40);
        let id = BackendId::from("engine:test");
        let site = CallSite::new("engine.build", &id);
        let all = ClientConfig::all_within(site, &[helped], Duration::from_secs(2)).await;
        assert_eq!(all.keys().collect::<Vec<_>>(), ["z.example"]);
        let begun = std::fs::read_dir(folder.path()).unwrap().count() - 1;
        assert!(begun <= AT_ONCE, "{begun} of them were asked, one after another");
    }

    #[tokio::test]
    async fn the_entry_of_the_closest_namespace_is_a_repositorys() {
        // `of:repo`, `of:space`, `of:host` and `of:hub`, as `podman login` writes them.
        let config = config(
            r#"{"auths": {"q.example/a/b": {"auth": "b2Y6cmVwbw=="}, "q.example/a": {"auth": "b2Y6c3BhY2U="},
                "q.example": {"auth": "b2Y6aG9zdA=="}, "docker.io": {"auth": "b2Y6aHVi"}, "q.example/e": {},
                "https://old.example/v1/": {"auth": "b2Y6aG9zdA=="}, "n.example/a": {"auth": "b2Y6c3BhY2U="}}}"#,
        );
        let id = BackendId::from("engine:test");
        for (repository, password) in [
            ("q.example/a/b", Some("repo")),
            ("q.example/a/b/c", Some("repo")),
            ("q.example/a/c", Some("space")),
            ("q.example/c", Some("host")),
            ("q.example/e/f", Some("host")),
            ("docker.io/library/x", Some("hub")),
            ("old.example/a", Some("host")),
            ("n.example/a", Some("space")),
            ("n.example/b", None),
            ("other.example/a", None),
        ] {
            let found = config.auth_of_repository(CallSite::new("engine.pull", &id), repository).await.unwrap();
            assert_eq!(found.as_ref().map(|auth| exposed(auth.password.as_ref())), password, "{repository}");
            assert!(found.is_none_or(|auth| !auth.server.contains("/a")), "{repository}");
        }
    }
}
