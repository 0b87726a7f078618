//! Kubeconfig files, as kubectl reads, merges and uses them.
//!
//! The file's form is kube's; reading a list of files, merging them and choosing from them is ours: kube fails for a list with a missing
//! file, takes an empty `current-context` for a choice, prefers a token to the file that replaces it, and its errors may quote a line of
//! the file (trap K22).

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use kube::config::{AuthInfo, Cluster, ExecAuthCluster, ExecInteractiveMode, Kubeconfig, KubeconfigError};
use runtide_core::{Error, ErrorKind, Result, backend::setters};
use secrecy::ExposeSecret;

use crate::{
    access::{Access, ExecPlugin, Identity, Impersonation, Pem, Secret, User},
    config::{Config, Namespaces, is_label},
};

const OPERATION: &str = "k8s.kubeconfig";

/// Names of a kubeconfig that are used in place of those that it chooses itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection {
    /// The context; `None`: the current one.
    pub context: Option<String>,
    /// The cluster; `None`: that of the context.
    pub cluster: Option<String>,
    /// The user; `None`: that of the context.
    pub user: Option<String>,
}

setters!(Selection {
    /// Sets the context.
    with_context: context = String;
    /// Sets the cluster.
    with_cluster: cluster = String;
    /// Sets the user.
    with_user: user = String;
});

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, OPERATION, message)
}

/// The files merged: of two entries with one name the first counts. `None`: none of the files is there.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Option<Kubeconfig>> {
    let mut merged: Option<Kubeconfig> = None;
    for path in paths {
        if let Some(next) = read_one(path)? {
            merged = Some(match merged {
                Some(first) => merge(first, next),
                None => next,
            });
        }
    }
    Ok(merged)
}

/// `None`: there is no such file.
fn read_one(path: &Path) -> Result<Option<Kubeconfig>> {
    let refuse = |why: String| Err(invalid(format!("{}: {why}", path.display())).with_context("path", path.display()));
    match Kubeconfig::read_from(path) {
        Ok(config) => Ok(Some(config)),
        Err(KubeconfigError::ReadConfig(error, _)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(KubeconfigError::ReadConfig(error, _)) => refuse(error.to_string()),
        // The parser's own text may quote the file, which holds tokens and keys.
        Err(KubeconfigError::Parse(error)) => refuse(match error.location() {
            Some(place) => format!("it is no kubeconfig: see line {}", place.line()),
            None => "it is no kubeconfig".to_owned(),
        }),
        Err(_) => refuse("it is no kubeconfig".to_owned()),
    }
}

fn merge(mut first: Kubeconfig, next: Kubeconfig) -> Kubeconfig {
    fn append<T>(entries: &mut Vec<T>, next: Vec<T>, name: impl Fn(&T) -> &String) {
        let known: HashSet<String> = entries.iter().map(|entry| name(entry).clone()).collect();
        entries.extend(next.into_iter().filter(|entry| !known.contains(name(entry))));
    }
    append(&mut first.clusters, next.clusters, |entry| &entry.name);
    append(&mut first.auth_infos, next.auth_infos, |entry| &entry.name);
    append(&mut first.contexts, next.contexts, |entry| &entry.name);
    first.current_context = present(first.current_context).or(next.current_context);
    first
}

/// An empty text counts as none, as for kubectl.
fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// The configuration that the selection, else the files, choose. `proxy` is the one of the environment for an address.
pub(crate) fn choose(
    files: &Kubeconfig,
    selection: &Selection,
    proxy: impl Fn(&str) -> Option<Secret>,
) -> Result<Config> {
    let name = present(selection.context.clone()).or_else(|| present(files.current_context.clone()));
    let context = match &name {
        Some(name) => {
            let context = files.contexts.iter().find(|entry| entry.name == *name);
            let context = context.and_then(|entry| entry.context.clone());
            Some(context.ok_or_else(|| {
                let known: Vec<_> = files.contexts.iter().map(|entry| entry.name.as_str()).collect();
                invalid(format!("there is no context '{name}'; there are: {}", known.join(", ")))
            })?)
        }
        None => None,
    };
    let cluster_name = present(selection.cluster.clone())
        .or_else(|| present(context.as_ref().map(|context| context.cluster.clone())))
        .ok_or_else(|| invalid("no context is current: `kubectl config use-context` chooses one"))?;
    let cluster = files.clusters.iter().find(|entry| entry.name == cluster_name);
    let cluster = cluster.and_then(|entry| entry.cluster.as_ref());
    let cluster = cluster.ok_or_else(|| invalid(format!("there is no cluster '{cluster_name}'")))?;
    let user_name =
        present(selection.user.clone()).or_else(|| present(context.as_ref().and_then(|context| context.user.clone())));
    let user = match &user_name {
        Some(name) => {
            let user = files.auth_infos.iter().find(|entry| entry.name == *name);
            let user = user.ok_or_else(|| invalid(format!("there is no user '{name}'")))?;
            user.auth_info.clone().unwrap_or_default()
        }
        None => AuthInfo::default(),
    };

    let mut access = of_cluster(&cluster_name, cluster)?;
    access.proxy = match present(cluster.proxy_url.clone()) {
        Some(url) => Some(Secret::from(url)),
        None => proxy(&access.server),
    };
    access.identity = identity(&user)?;
    access.user = of_user(user_name.as_deref().unwrap_or_default(), &user, cluster)?;
    access.impersonate = impersonation(&user);

    let mut config = Config::new(access);
    if let Some(namespace) = present(context.and_then(|context| context.namespace)) {
        if !is_label(&namespace) {
            return Err(invalid(format!("'{}' is no name of a namespace", namespace.escape_debug())));
        }
        config.namespaces = Namespaces::one(namespace);
    }
    config.context = name.or(Some(cluster_name));
    Ok(config)
}

fn of_cluster(name: &str, cluster: &Cluster) -> Result<Access> {
    let server = present(cluster.server.clone()).ok_or_else(|| invalid(format!("cluster '{name}' has no server")))?;
    let mut access = Access::new(server);
    access.insecure = cluster.insecure_skip_tls_verify.unwrap_or(false);
    access.tls_server_name = present(cluster.tls_server_name.clone());
    access.ca = pem(cluster.certificate_authority_data.as_deref(), cluster.certificate_authority.as_ref())
        .map_err(|()| invalid(format!("certificate-authority-data of cluster '{name}' is not base64")))?;
    Ok(access)
}

/// Data in the file counts more than the name of another one.
fn pem(data: Option<&str>, file: Option<&String>) -> std::result::Result<Option<Pem>, ()> {
    use base64::Engine as _;
    match data.filter(|data| !data.is_empty()) {
        Some(data) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(data).map_err(|_| ())?;
            Ok(Some(Pem::Inline(Secret::from(String::from_utf8(bytes).map_err(|_| ())?))))
        }
        None => Ok(file.filter(|file| !file.is_empty()).map(|file| Pem::File(PathBuf::from(file)))),
    }
}

fn identity(user: &AuthInfo) -> Result<Option<Identity>> {
    let certificate = pem(user.client_certificate_data.as_deref(), user.client_certificate.as_ref())
        .map_err(|()| invalid("client-certificate-data is not base64"))?;
    let key = user.client_key_data.as_ref().map(ExposeSecret::expose_secret);
    let key = pem(key, user.client_key.as_ref()).map_err(|()| invalid("client-key-data is not base64"))?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(Identity::new(certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(invalid("a client certificate without its key")),
        (None, Some(_)) => Err(invalid("a client key without its certificate")),
    }
}

fn of_user(name: &str, user: &AuthInfo, cluster: &Cluster) -> Result<User> {
    let token = user.token.as_ref().map(|token| Secret::from(token.expose_secret().to_owned()));
    let token = token.filter(|token| !token.reveal().is_empty());
    if let Some(path) = present(user.token_file.clone()) {
        return Ok(User::TokenFile { path: PathBuf::from(path), otherwise: token });
    }
    if let Some(token) = token {
        return Ok(User::Token(token));
    }
    if let Some(user_name) = present(user.username.clone()) {
        let password = user.password.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
        return Ok(User::Basic { name: user_name, password: Secret::from(password.to_owned()) });
    }
    if let Some(exec) = &user.exec {
        let command =
            present(exec.command.clone()).ok_or_else(|| invalid(format!("the plugin of '{name}' has no command")))?;
        let api_version = exec.api_version.clone().unwrap_or_default();
        if !matches!(api_version.as_str(), "client.authentication.k8s.io/v1" | "client.authentication.k8s.io/v1beta1") {
            let message = format!(
                "the plugin of '{name}' has apiVersion '{}': v1 and v1beta1 are known",
                api_version.escape_debug()
            );
            return Err(invalid(message));
        }
        let described = if exec.provide_cluster_info { Some(describe(cluster)?) } else { None };
        let variables = exec.env.iter().flatten();
        let variables =
            variables.filter_map(|one| Some((one.get("name")?.clone(), Secret::from(one.get("value")?.clone()))));
        return Ok(User::Exec(ExecPlugin {
            command,
            args: exec.args.clone().unwrap_or_default(),
            env: variables.collect(),
            api_version,
            install_hint: present(exec.install_hint.clone()),
            needs_terminal: exec.interactive_mode == Some(ExecInteractiveMode::Always),
            cluster: described,
        }));
    }
    if let Some(provider) = &user.auth_provider {
        let why = format!("auth-provider '{}' was removed from Kubernetes; its exec plugin replaces it", provider.name);
        return Err(Error::new(ErrorKind::Unsupported, OPERATION, why.clone())
            .with_context("feature", "auth-provider")
            .with_context("reason", why));
    }
    Ok(User::None)
}

/// The cluster as a plugin is given it.
fn describe(cluster: &Cluster) -> Result<Secret> {
    let failed = || invalid("the cluster cannot be described to the plugin: its certificate-authority cannot be read");
    let described = ExecAuthCluster::try_from(cluster).map_err(|_| failed())?;
    serde_json::to_string(&described).map(Secret::from).map_err(|_| failed())
}

fn impersonation(user: &AuthInfo) -> Option<Impersonation> {
    let name = present(user.impersonate.clone());
    let (groups, uid) = (user.impersonate_groups.clone().unwrap_or_default(), present(user.impersonate_uid.clone()));
    let extra = user.impersonate_user_extra.clone().unwrap_or_default().into_iter().collect();
    let other = Impersonation { user: name.unwrap_or_default(), uid, groups, extra };
    (other != Impersonation::default()).then_some(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = r#"
apiVersion: v1
kind: Config
current-context: ""
clusters:
- {name: one, cluster: {server: "https://one:6443", certificate-authority: ca.pem, tls-server-name: kubernetes}}
contexts:
- {name: a, context: {cluster: one, user: u, namespace: web}}
users:
- {name: u, user: {token: first, tokenFile: token}}
"#;
    const SECOND: &str = r#"
current-context: b
clusters:
- {name: one, cluster: {server: "https://other:6443"}}
- {name: two, cluster: {server: "https://two:6443", insecure-skip-tls-verify: true, proxy-url: "socks5://me:pw@proxy:1080"}}
contexts:
- {name: b, context: {cluster: two, user: v}}
users:
- {name: u, user: {token: second}}
- {name: v, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: bin/plugin, args: [x], provideClusterInfo: true, interactiveMode: Never, env: [{name: A, value: B}]}, as: robin, as-groups: [dev], as-user-extra: {scopes: [a, b]}}}
"#;

    fn files() -> (tempfile::TempDir, Kubeconfig) {
        let folder = tempfile::tempdir().unwrap();
        let [first, missing, second] = ["first", "missing", "second"].map(|name| folder.path().join(name));
        std::fs::write(&first, FIRST).unwrap();
        std::fs::write(&second, SECOND).unwrap();
        let merged = read(&[first, missing, second]).unwrap().unwrap();
        (folder, merged)
    }

    fn no_proxy(_: &str) -> Option<Secret> {
        None
    }

    #[test]
    fn files_are_merged_the_first_of_a_name_counts_and_an_empty_current_context_is_none() {
        let (folder, files) = files();
        let config = choose(&files, &Selection::default(), no_proxy).unwrap();
        assert_eq!((config.context.as_deref(), config.access.server.as_str()), (Some("b"), "https://two:6443"));
        assert_eq!(config.namespaces, Namespaces::All);
        assert!(config.access.insecure);
        assert_eq!(config.access.proxy.as_ref().unwrap().reveal(), "socks5://me:pw@proxy:1080");
        let other = config.access.impersonate.unwrap();
        assert_eq!((other.user.as_str(), other.groups.as_slice()), ("robin", ["dev".to_owned()].as_slice()));
        assert_eq!(other.extra["scopes"], ["a", "b"]);
        let User::Exec(plugin) = config.access.user else { panic!("{:?}", config.access.user) };
        assert_eq!(plugin.command, folder.path().join("bin/plugin").to_str().unwrap(), "relative to its file");
        assert_eq!((plugin.args.as_slice(), plugin.env[0].0.as_str()), (["x".to_owned()].as_slice(), "A"));
        assert!(plugin.cluster.unwrap().reveal().contains("https://two:6443"));

        let config = choose(&files, &Selection::default().with_context("a"), no_proxy).unwrap();
        assert_eq!((config.access.server.as_str(), config.namespaces), ("https://one:6443", Namespaces::one("web")));
        assert_eq!(config.access.ca, Some(Pem::File(folder.path().join("ca.pem"))), "relative to its file");
        assert_eq!(config.access.tls_server_name.as_deref(), Some("kubernetes"));
        let User::TokenFile { path, otherwise } = config.access.user else { panic!("{:?}", config.access.user) };
        assert_eq!((path, otherwise), (folder.path().join("token"), Some(Secret::from("first"))));
    }

    #[test]
    fn cluster_and_user_are_chosen_by_name() {
        let (_folder, files) = files();
        let chosen = Selection::default().with_context("a").with_cluster("two").with_user("v");
        let config = choose(&files, &chosen, no_proxy).unwrap();
        assert_eq!(config.access.server, "https://two:6443");
        assert!(matches!(config.access.user, User::Exec(_)));
        for (selection, named) in [
            (Selection::default().with_context("none"), "there are: a, b"),
            (Selection::default().with_cluster("none"), "'none'"),
            (Selection::default().with_user("none"), "'none'"),
        ] {
            let error = choose(&files, &selection, no_proxy).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn the_proxy_of_the_environment_is_for_clusters_that_name_none() {
        let (_folder, files) = files();
        let proxy = |server: &str| Some(Secret::from(format!("http://for/{server}")));
        let config = choose(&files, &Selection::default().with_context("a"), proxy).unwrap();
        assert_eq!(config.access.proxy.unwrap().reveal(), "http://for/https://one:6443");
        let config = choose(&files, &Selection::default(), proxy).unwrap();
        assert_eq!(config.access.proxy.unwrap().reveal(), "socks5://me:pw@proxy:1080");
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_refused_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, "users:\n- name: u\n  user: {token: [s3cret, s3cret]}\n").unwrap();
        let error = read(std::slice::from_ref(&path)).unwrap_err();
        let shown = format!("{error} {error:#} {error:?}");
        assert!(shown.contains(path.to_str().unwrap()) && !shown.contains("s3cret"), "{shown}");
        assert!(read(&[folder.path().join("missing")]).unwrap().is_none());
    }

    #[test]
    fn credentials_that_cannot_work_are_refused() {
        let of = |user: &str| {
            let text = format!(
                "current-context: a\nclusters: [{{name: c, cluster: {{server: 'https://h'}}}}]\ncontexts: [{{name: a, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {user}}}]\n"
            );
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("config");
            std::fs::write(&path, text).unwrap();
            choose(&read(&[path]).unwrap().unwrap(), &Selection::default(), no_proxy)
        };
        let kind = |user: &str| of(user).unwrap_err().kind();
        assert_eq!(kind("{client-certificate: c.pem}"), ErrorKind::InvalidInput);
        assert_eq!(kind("{client-key-data: '!'}"), ErrorKind::InvalidInput);
        assert_eq!(kind("{auth-provider: {name: gcp, config: {}}}"), ErrorKind::Unsupported);
        assert_eq!(
            kind("{exec: {command: x, apiVersion: client.authentication.k8s.io/v1alpha1}}"),
            ErrorKind::InvalidInput
        );
        assert_eq!(
            of("{username: me, password: pw}").unwrap().access.user,
            User::Basic { name: "me".into(), password: "pw".into() }
        );
        assert_eq!(of("{}").unwrap().access.user, User::None);
    }
}
