//! Credentials of requests: tokens, files that are replaced, and plugins (trap K21).

use std::{
    process::Stdio,
    time::{Duration, SystemTime},
};

use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use runtide_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use tokio::{io::AsyncReadExt, process::Command, sync::Mutex};

use crate::access::{Access, ExecPlugin, Identity, Impersonation, Pem, Secret, User};

const OPERATION: &str = "k8s.credentials";
/// Most bytes that a plugin may print.
const LONGEST: u64 = 1 << 20;
/// Time before the expiry at which a plugin's credentials are replaced.
const EARLIER: Duration = Duration::from_secs(30);

/// The credentials of one access.
#[derive(Debug)]
pub(crate) struct Credentials {
    user: User,
    identity: Option<Identity>,
    impersonation: Vec<(HeaderName, HeaderValue)>,
    deadline: Duration,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    /// The file's token that was read last.
    token: Option<Secret>,
    printed: Option<Printed>,
    /// Changes with the client certificate that a plugin printed.
    generation: u64,
}

/// Credentials that a plugin printed.
#[derive(Debug)]
struct Printed {
    token: Option<Secret>,
    identity: Option<Identity>,
    expires: Option<SystemTime>,
}

/// The client certificate to connect with, and the number that changes when it does.
pub(crate) struct Current {
    pub(crate) identity: Option<Identity>,
    pub(crate) generation: u64,
}

impl Credentials {
    /// `deadline` is that of a plugin.
    pub(crate) fn new(access: &Access, deadline: Duration) -> Result<Self> {
        Ok(Self {
            user: access.user.clone(),
            identity: access.identity.clone(),
            impersonation: access.impersonate.as_ref().map(headers).transpose()?.unwrap_or_default(),
            deadline,
            last: Mutex::default(),
        })
    }

    /// Runs the plugin if its credentials are missing or about to expire.
    pub(crate) async fn current(&self) -> Result<Current> {
        let User::Exec(plugin) = &self.user else {
            return Ok(Current { identity: self.identity.clone(), generation: 0 });
        };
        let mut last = self.last.lock().await;
        let is_due = last.printed.as_ref().is_none_or(|printed| {
            printed.expires.is_some_and(|at| SystemTime::now().checked_add(EARLIER).is_none_or(|soon| soon >= at))
        });
        if is_due {
            let printed = run(plugin, self.deadline).await?;
            if last.printed.as_ref().and_then(|old| old.identity.as_ref()) != printed.identity.as_ref() {
                last.generation += 1;
            }
            last.printed = Some(printed);
        }
        let printed = last.printed.as_ref().and_then(|printed| printed.identity.clone());
        Ok(Current { identity: printed.or_else(|| self.identity.clone()), generation: last.generation })
    }

    /// The server refused the credentials. Returns true if others may be had by asking again.
    pub(crate) async fn refused(&self) -> bool {
        match &self.user {
            User::Exec(_) => {
                self.last.lock().await.printed = None;
                true
            }
            // The next request reads the file again, and the client's certificate is read again with the connection.
            User::TokenFile { .. } => true,
            _ => matches!(&self.identity, Some(Identity { certificate: Pem::File(_), .. })),
        }
    }

    /// Puts the credentials into a request's headers.
    pub(crate) async fn authorize(&self, headers: &mut HeaderMap) -> Result<()> {
        let value = match &self.user {
            User::None => None,
            User::Token(token) => Some(bearer(token)?),
            User::TokenFile { path, otherwise } => {
                let read = tokio::fs::read_to_string(path).await;
                let mut last = self.last.lock().await;
                match read {
                    Ok(text) if !text.trim().is_empty() => last.token = Some(Secret::from(text.trim())),
                    // A file that is removed once the process has read it protects the token: the one that was read stays.
                    Ok(_) | Err(_) if last.token.is_some() || otherwise.is_some() => {}
                    Ok(_) => return Err(unreadable(path, "it is empty")),
                    Err(error) => return Err(unreadable(path, "it cannot be read").with_source(error)),
                }
                last.token.as_ref().or(otherwise.as_ref()).map(bearer).transpose()?
            }
            User::Basic { name, password } => {
                let login = format!("{name}:{}", password.reveal());
                Some(secret_header(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login)))?)
            }
            User::Exec(_) => {
                self.current().await?;
                let last = self.last.lock().await;
                last.printed.as_ref().and_then(|printed| printed.token.as_ref()).map(bearer).transpose()?
            }
        };
        if let Some(value) = value {
            headers.insert(AUTHORIZATION, value);
        }
        for (name, value) in &self.impersonation {
            headers.append(name, value.clone());
        }
        Ok(())
    }
}

fn unreadable(path: &std::path::Path, why: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, OPERATION, format!("no token in '{}': {why}", path.display()))
        .with_context("path", path.display())
}

fn bearer(token: &Secret) -> Result<HeaderValue> {
    secret_header(&format!("Bearer {}", token.reveal()))
}

fn secret_header(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        Error::new(ErrorKind::InvalidInput, OPERATION, "the token has characters that no header may have")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn headers(other: &Impersonation) -> Result<Vec<(HeaderName, HeaderValue)>> {
    let invalid = |what: &str| {
        Error::new(ErrorKind::InvalidInput, OPERATION, format!("the {what} to impersonate cannot be sent in a header"))
    };
    let value = |what: &str, text: &str| HeaderValue::try_from(text).map_err(|_| invalid(what));
    let mut all = Vec::new();
    if !other.user.is_empty() {
        all.push((HeaderName::from_static("impersonate-user"), value("user", &other.user)?));
    } else if *other != Impersonation::default() {
        let message = "a uid, group or attribute is impersonated only together with a user";
        return Err(Error::new(ErrorKind::InvalidInput, OPERATION, message));
    }
    if let Some(uid) = &other.uid {
        all.push((HeaderName::from_static("impersonate-uid"), value("uid", uid)?));
    }
    for group in &other.groups {
        all.push((HeaderName::from_static("impersonate-group"), value("group", group)?));
    }
    for (key, texts) in &other.extra {
        let name = format!("impersonate-extra-{}", utf8_percent_encode(&key.to_lowercase(), NON_ALPHANUMERIC));
        let name = HeaderName::try_from(name).map_err(|_| invalid("attribute"))?;
        for text in texts {
            all.push((name.clone(), value("attribute", text)?));
        }
    }
    Ok(all)
}

#[derive(Deserialize)]
struct ExecCredential {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    status: Option<ExecStatus>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ExecStatus {
    expiration_timestamp: Option<String>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Runs a plugin. It has no terminal: a login would take the keys of the application's user, or hang.
async fn run(plugin: &ExecPlugin, deadline: Duration) -> Result<Printed> {
    let failed = |why: String| {
        let message = format!("the credential plugin '{}' {why}", plugin.command);
        Error::new(ErrorKind::Unauthenticated, OPERATION, message)
    };
    if plugin.needs_terminal {
        let why = "it works on a terminal only (interactiveMode: Always), and Runtide gives it none";
        return Err(Error::new(
            ErrorKind::Unsupported,
            OPERATION,
            format!("the credential plugin '{}': {why}", plugin.command),
        )
        .with_context("feature", "interactiveMode")
        .with_context("reason", why));
    }
    let mut spec = serde_json::Map::new();
    spec.insert("interactive".to_owned(), false.into());
    if let Some(cluster) = &plugin.cluster {
        let cluster =
            serde_json::from_str(cluster.reveal()).map_err(|_| failed("cannot be given the cluster".to_owned()))?;
        spec.insert("cluster".to_owned(), cluster);
    }
    let info = serde_json::json!({ "apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec });
    let mut command = Command::new(&plugin.command);
    command
        .args(&plugin.args)
        .envs(plugin.env.iter().map(|(name, value)| (name, value.reveal())))
        .env("KUBERNETES_EXEC_INFO", info.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        let hint = plugin.install_hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        failed(format!("cannot be started{hint}")).with_source(error)
    })?;
    let reading = async {
        let mut printed = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(LONGEST).read_to_end(&mut printed).await?;
        }
        Ok::<_, std::io::Error>((printed, child.wait().await?))
    };
    let Ok(read) = tokio::time::timeout(deadline, reading).await else {
        let message = format!("the credential plugin '{}' did not end within {deadline:?}", plugin.command);
        return Err(Error::new(ErrorKind::Unavailable, OPERATION, message));
    };
    let (printed, status) = read.map_err(|error| failed("cannot be read".to_owned()).with_source(error))?;
    if !status.success() {
        return Err(failed(format!("failed ({status}); what it printed is not shown, since it may hold a credential")));
    }
    // Neither the text nor the parser's error, which may quote it, is shown.
    let answer: ExecCredential =
        serde_json::from_slice(&printed).map_err(|_| failed("printed no ExecCredential".to_owned()))?;
    if answer.api_version.as_deref() != Some(plugin.api_version.as_str()) {
        return Err(failed(format!("answered in another version than {}", plugin.api_version)));
    }
    let status = answer.status.ok_or_else(|| failed("printed no status".to_owned()))?;
    let expires = match status.expiration_timestamp {
        Some(text) => {
            let at: jiff::Timestamp = text.parse().map_err(|_| failed("printed an unreadable expiry".to_owned()))?;
            Some(SystemTime::from(at))
        }
        None => None,
    };
    let identity = match (status.client_certificate_data, status.client_key_data) {
        (Some(certificate), Some(key)) => {
            Some(Identity::new(Pem::Inline(Secret::from(certificate)), Pem::Inline(Secret::from(key))))
        }
        (None, None) => None,
        _ => return Err(failed("printed a certificate without its key, or a key alone".to_owned())),
    };
    let token = status.token.filter(|token| !token.is_empty()).map(Secret::from);
    if token.is_none() && identity.is_none() {
        return Err(failed("printed neither a token nor a certificate".to_owned()));
    }
    Ok(Printed { token, identity, expires })
}

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, reason = "helpers of tests may")]
mod tests {
    use std::path::PathBuf;

    use super::*;

    async fn header(credentials: &Credentials) -> Result<String> {
        let mut headers = HeaderMap::new();
        credentials.authorize(&mut headers).await?;
        Ok(headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default())
    }

    fn credentials(user: User) -> Credentials {
        Credentials::new(&Access::new("https://h").with_user(user), Duration::from_secs(60)).unwrap()
    }

    #[tokio::test]
    async fn a_token_file_is_read_again_and_a_removed_one_keeps_its_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let file = credentials(User::TokenFile { path: path.clone(), otherwise: None });
        assert_eq!(header(&file).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(header(&file).await.unwrap(), "Bearer one");
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(header(&file).await.unwrap(), "Bearer two");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(header(&file).await.unwrap(), "Bearer two");
        let otherwise = credentials(User::TokenFile { path, otherwise: Some(Secret::from("three")) });
        assert_eq!(header(&otherwise).await.unwrap(), "Bearer three");
    }

    /// A plugin that runs this script.
    fn plugin(script: &str) -> ExecPlugin {
        ExecPlugin {
            command: "sh".to_owned(),
            args: vec!["-c".to_owned(), script.to_owned()],
            env: Vec::new(),
            api_version: "client.authentication.k8s.io/v1".to_owned(),
            install_hint: Some("install it".to_owned()),
            needs_terminal: false,
            cluster: None,
        }
    }

    fn printing(status: &str) -> String {
        format!(
            r#"printf '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{status}}}'"#
        )
    }

    #[tokio::test]
    async fn a_plugin_runs_once_until_its_credentials_expire_or_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let count = folder.path().join("count");
        let script = |expiry: &str| {
            format!(
                "test -t 0 && exit 3; cat >/dev/null; echo >> {path}; n=$(wc -l < {path}); {}",
                printing(&format!(r#"{{"token":"t'"$n"'"{expiry}}}"#)),
                path = count.display()
            )
        };
        let lasting = credentials(User::Exec(plugin(&script(""))));
        assert_eq!(header(&lasting).await.unwrap(), "Bearer t1");
        assert_eq!(header(&lasting).await.unwrap(), "Bearer t1");
        assert!(lasting.refused().await);
        assert_eq!(header(&lasting).await.unwrap(), "Bearer t2");
        let expired = credentials(User::Exec(plugin(&script(r#","expirationTimestamp":"2020-01-01T00:00:00Z""#))));
        assert_eq!(header(&expired).await.unwrap(), "Bearer t3");
        assert_eq!(header(&expired).await.unwrap(), "Bearer t4");
    }

    #[tokio::test]
    async fn a_plugin_gets_no_terminal_and_the_cluster_that_it_is_for() {
        let mut informed = plugin(&format!(
            r#"case "$KUBERNETES_EXEC_INFO" in *'"interactive":false'*) ;; *) exit 1;; esac; case "$KUBERNETES_EXEC_INFO" in *https://h*) {};; esac"#,
            printing(r#"{"token":"'$A'"}"#)
        ));
        informed.cluster = Some(Secret::from(r#"{"server":"https://h"}"#));
        informed.env = vec![("A".to_owned(), Secret::from("b"))];
        assert_eq!(header(&credentials(User::Exec(informed))).await.unwrap(), "Bearer b");
    }

    #[tokio::test]
    async fn a_plugin_that_fails_is_named_and_its_output_is_not_shown() {
        let failing = |script: &str| credentials(User::Exec(plugin(script)));
        for (script, kind) in [
            ("echo s3cret; echo s3cret >&2; exit 1".to_owned(), ErrorKind::Unauthenticated),
            ("echo s3cret".to_owned(), ErrorKind::Unauthenticated),
            (printing("{}"), ErrorKind::Unauthenticated),
            (printing(r#"{"clientKeyData":"s3cret"}"#), ErrorKind::Unauthenticated),
            (printing(r#"{"token":"s3cret\n"}"#).replace("printf", "printf %s"), ErrorKind::InvalidInput),
        ] {
            let error = header(&failing(&script)).await.unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(error.kind() == kind && !shown.contains("s3cret"), "{script}: {shown}");
        }
        let mut missing = plugin("");
        missing.command = "/nonexistent/plugin".to_owned();
        let error = header(&credentials(User::Exec(missing))).await.unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/plugin") && error.to_string().contains("install it"),
            "{error}"
        );
        let mut terminal = plugin("");
        terminal.needs_terminal = true;
        assert_eq!(header(&credentials(User::Exec(terminal))).await.unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[tokio::test]
    async fn a_plugin_that_hangs_is_killed_at_its_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let pid: PathBuf = folder.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 1000", pid.display());
        let access = Access::new("https://h").with_user(User::Exec(plugin(&script)));
        let hanging = Credentials::new(&access, Duration::from_secs(2)).unwrap();
        let error = header(&hanging).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let pid = std::fs::read_to_string(&pid).unwrap();
        let proc = PathBuf::from(format!("/proc/{}/exe", pid.trim()));
        while std::fs::read_link(&proc).is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn another_user_is_impersonated_with_groups_and_attributes() {
        let mut other = Impersonation::default().with_user("robin").with_groups(vec!["a".to_owned(), "b".to_owned()]);
        other.extra.insert("Acme.com/Scope".to_owned(), vec!["x".to_owned()]);
        let credentials =
            Credentials::new(&Access::new("https://h").with_impersonate(other), Duration::from_secs(1)).unwrap();
        let mut headers = HeaderMap::new();
        credentials.authorize(&mut headers).await.unwrap();
        assert_eq!(headers["impersonate-user"], "robin");
        assert_eq!(headers.get_all("impersonate-group").iter().count(), 2);
        assert_eq!(headers["impersonate-extra-acme%2ecom%2fscope"], "x");
        let groups = Impersonation::default().with_groups(vec!["a".to_owned()]);
        assert!(Credentials::new(&Access::new("https://h").with_impersonate(groups), Duration::from_secs(1)).is_err());
    }
}
