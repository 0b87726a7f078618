//! [`Access`]: the address of an API server, and the credentials for it. No form of it shows a secret.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use runtide_core::backend::setters;

/// A text that no `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// PEM blocks, in memory or in a file. A file is read whenever new connections are made, so that it may be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pem {
    /// The blocks themselves.
    Inline(Secret),
    /// The file that holds them.
    File(PathBuf),
}

/// A client certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The certificate, and those that lead from it to its authority.
    pub certificate: Pem,
    /// The private key.
    pub key: Pem,
}

impl Identity {
    /// A certificate with its key.
    pub fn new(certificate: Pem, key: Pem) -> Self {
        Self { certificate, key }
    }
}

/// The way in which requests say who sends them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum User {
    /// By the client certificate, or not at all.
    #[default]
    None,
    /// A bearer token.
    Token(Secret),
    /// A bearer token in a file that is read for each request, since it is replaced before it expires.
    TokenFile {
        /// The file.
        path: PathBuf,
        /// The token that is used while the file cannot be read.
        otherwise: Option<Secret>,
    },
    /// A name and a password.
    Basic {
        /// The name.
        name: String,
        /// The password.
        password: Secret,
    },
    /// A program that prints credentials.
    Exec(ExecPlugin),
}

/// A credential plugin, as a kubeconfig's `exec` names it.
///
/// It runs without a terminal and within [`Config::exec_deadline`](crate::Config::exec_deadline), again when its credentials expire,
/// and once when the server refuses them. No error shows what it printed.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecPlugin {
    /// The program: a path, or a name that `PATH` has.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables that are added to the process's own.
    pub env: Vec<(String, Secret)>,
    /// `client.authentication.k8s.io/v1` or `…/v1beta1`.
    pub api_version: String,
    /// Advice for a user who does not have the program.
    pub install_hint: Option<String>,
    /// `true` if it cannot work without a terminal.
    pub needs_terminal: bool,
    /// The description of the cluster that it is given, as JSON.
    pub cluster: Option<Secret>,
}

impl fmt::Debug for ExecPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments may hold secrets too.
        f.debug_struct("ExecPlugin").field("command", &self.command).finish_non_exhaustive()
    }
}

/// Another user, on whose behalf the requests are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Impersonation {
    /// Name of the user.
    pub user: String,
    /// Uid of the user.
    pub uid: Option<String>,
    /// Groups of the user.
    pub groups: Vec<String>,
    /// Further attributes.
    pub extra: BTreeMap<String, Vec<String>>,
}

setters!(Impersonation {
    /// Sets the name of the user.
    with_user: user: String;
    /// Sets the uid of the user.
    with_uid: uid = String;
    /// Sets the groups of the user.
    with_groups: groups: Vec<String>;
    /// Sets further attributes.
    with_extra: extra: BTreeMap<String, Vec<String>>;
});

/// The address of an API server, and the credentials for it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// The server, as `https://10.0.0.1:6443`; it may have a path.
    pub server: String,
    /// The authorities that the server's certificate is checked against; `None`: those of the machine.
    pub ca: Option<Pem>,
    /// The name that the server's certificate must have; `None`: that of the address.
    pub tls_server_name: Option<String>,
    /// `true`: any certificate is taken, so that an attacker on the way is not noticed.
    pub insecure: bool,
    /// The proxy, as `http://host:3128`, `https://…` or `socks5://…`; it may carry a password.
    pub proxy: Option<Secret>,
    /// The client certificate.
    pub identity: Option<Identity>,
    /// The way in which requests say who sends them.
    pub user: User,
    /// Another user, on whose behalf the requests are made.
    pub impersonate: Option<Impersonation>,
}

impl Access {
    /// The server at this address, without credentials.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            ca: None,
            tls_server_name: None,
            insecure: false,
            proxy: None,
            identity: None,
            user: User::None,
            impersonate: None,
        }
    }
}

setters!(Access {
    /// Sets the authorities that the server's certificate is checked against.
    with_ca: ca: Option<Pem>;
    /// Sets the name that the server's certificate must have.
    with_tls_server_name: tls_server_name = String;
    /// Takes any certificate of the server.
    with_insecure: insecure;
    /// Sets the proxy.
    with_proxy: proxy = Secret;
    /// Sets the client certificate.
    with_identity: identity: Option<Identity>;
    /// Sets the way in which requests say who sends them.
    with_user: user: User;
    /// Sets the user on whose behalf the requests are made.
    with_impersonate: impersonate: Option<Impersonation>;
});

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("server", &without_credentials(&self.server))
            .field("tls_server_name", &self.tls_server_name)
            .field("insecure", &self.insecure)
            .field("has_proxy", &self.proxy.is_some())
            .field("identity", &self.identity)
            .field("user", &self.user)
            .field("impersonate", &self.impersonate.as_ref().map(|other| &other.user))
            .finish_non_exhaustive()
    }
}

/// The address without a name and password in front of its host.
pub(crate) fn without_credentials(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if scheme.is_empty() { format!("{host}{path}") } else { format!("{scheme}://{host}{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_shows_a_secret() {
        let secret = || Secret::from("s3cret");
        let plugin = ExecPlugin {
            command: "aws".to_owned(),
            args: vec!["--password=s3cret".to_owned()],
            env: vec![("KEY".to_owned(), secret())],
            api_version: String::new(),
            install_hint: None,
            needs_terminal: false,
            cluster: Some(secret()),
        };
        for user in [
            User::Token(secret()),
            User::TokenFile { path: "/token".into(), otherwise: Some(secret()) },
            User::Basic { name: "me".to_owned(), password: secret() },
            User::Exec(plugin),
        ] {
            let access = Access::new("https://me:s3cret@host:6443/k8s")
                .with_user(user)
                .with_proxy(secret())
                .with_ca(Pem::Inline(secret()))
                .with_identity(Identity::new(Pem::Inline(secret()), Pem::Inline(secret())));
            let shown = format!("{access:?} {access:#?}");
            assert!(!shown.contains("s3cret") && shown.contains("https://host:6443/k8s"), "{shown}");
        }
    }
}
