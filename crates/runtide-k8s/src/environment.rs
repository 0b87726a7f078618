//! The process's environment: `KUBECONFIG`, the user's own file, the pod's service account, and proxies; read and never changed.

use std::{env, ffi::OsString, path::PathBuf};

use runtide_core::{Error, ErrorKind, Result};

use crate::{
    access::{Access, Pem, Secret, User},
    config::{Config, Namespaces},
    kubeconfig::{self, Selection},
    proxy,
};

const OPERATION: &str = "k8s.environment";
/// Folder in which a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

impl Config {
    /// The configuration that `kubectl` would use: the current context of the files that `KUBECONFIG` lists, merged, else of
    /// `~/.kube/config`, else the service account of the pod that this process runs in.
    ///
    /// ```no_run
    /// use runtide_k8s::{Config, KubeBackend};
    ///
    /// let backend = KubeBackend::new(Config::from_env()?)?;
    /// # Ok::<(), runtide_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotFound` if nothing names a cluster, `InvalidInput` for a file that cannot be read or a name that is not in it, `Unsupported`
    /// for credentials of an `auth-provider`.
    pub fn from_env() -> Result<Self> {
        Environment::of_process().config(&Selection::default())
    }

    /// As [`from_env`](Self::from_env), with another context, cluster or user than the files choose.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_env_with(selection: &Selection) -> Result<Self> {
        Environment::of_process().config(selection)
    }

    /// The service account of the pod that this process runs in. The token is read for each request, since it is replaced before it
    /// expires.
    ///
    /// # Errors
    /// `NotFound` outside a pod.
    pub fn in_cluster() -> Result<Self> {
        Environment::of_process().in_cluster()
    }
}

/// Source of the variables.
pub(crate) struct Environment {
    lookup: Box<Lookup>,
    service_account: PathBuf,
}

impl Environment {
    pub(crate) fn of_process() -> Self {
        Self { lookup: Box::new(|name| env::var_os(name)), service_account: PathBuf::from(SERVICE_ACCOUNT) }
    }

    /// An environment of these variables only.
    #[cfg(test)]
    pub(crate) fn of<const N: usize>(service_account: &std::path::Path, variables: [(&str, &str); N]) -> Self {
        let variables = variables.map(|(name, value)| (name.to_owned(), OsString::from(value)));
        let lookup =
            move |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        Self { lookup: Box::new(lookup), service_account: service_account.to_owned() }
    }

    /// The variable's value. An empty one counts as unset, as for kubectl.
    fn os(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.os(name)?.into_string().ok()
    }

    /// The files that may hold a configuration, in order.
    fn files(&self) -> Vec<PathBuf> {
        let listed = self.os("KUBECONFIG").map(|list| env::split_paths(&list).collect::<Vec<_>>());
        let listed =
            listed.map(|paths| paths.into_iter().filter(|path| !path.as_os_str().is_empty()).collect::<Vec<_>>());
        listed.filter(|paths| !paths.is_empty()).unwrap_or_else(|| {
            let home = self.os("HOME").or_else(|| self.os("USERPROFILE"));
            home.map(|home| PathBuf::from(home).join(".kube").join("config")).into_iter().collect()
        })
    }

    /// The configuration that kubectl would use.
    pub(crate) fn config(&self, selection: &Selection) -> Result<Config> {
        let files = self.files();
        if let Some(merged) = kubeconfig::read(&files)? {
            // A file without a single entry chooses nothing, as one that is not there.
            if !merged.clusters.is_empty() || !merged.contexts.is_empty() {
                return kubeconfig::choose(&merged, selection, |server| self.proxy(server));
            }
        }
        if self.is_in_pod() {
            return self.in_cluster();
        }
        let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
        let message = if files.is_empty() {
            "neither KUBECONFIG nor HOME is set, and this is no pod".to_owned()
        } else {
            format!("no cluster is configured in {}, and this is no pod", files.join(", "))
        };
        Err(Error::new(ErrorKind::NotFound, OPERATION, message))
    }

    fn is_in_pod(&self) -> bool {
        self.os("KUBERNETES_SERVICE_HOST").is_some() && self.service_account.join("token").exists()
    }

    /// The pod's own service account.
    pub(crate) fn in_cluster(&self) -> Result<Config> {
        let missing = |what: &str| Error::new(ErrorKind::NotFound, OPERATION, format!("this is no pod: {what}"));
        let host = self.text("KUBERNETES_SERVICE_HOST").ok_or_else(|| missing("KUBERNETES_SERVICE_HOST is not set"))?;
        let port = self.text("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        let token = self.service_account.join("token");
        if !token.exists() {
            return Err(missing("it has no service account's token").with_context("path", token.display()));
        }
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let access = Access::new(format!("https://{host}:{port}"))
            .with_ca(Pem::File(self.service_account.join("ca.crt")))
            .with_user(User::TokenFile { path: token, otherwise: None });
        let mut config = Config::new(access);
        config.context = Some("in-cluster".to_owned());
        if let Ok(namespace) = std::fs::read_to_string(self.service_account.join("namespace")) {
            config.namespaces = Namespaces::one(namespace.trim());
        }
        Ok(config)
    }

    /// The proxy for this address, as Go's programs choose it.
    fn proxy(&self, server: &str) -> Option<Secret> {
        let (upper, lower) =
            if server.starts_with("http://") { ("HTTP_PROXY", "http_proxy") } else { ("HTTPS_PROXY", "https_proxy") };
        let url = self.text(upper).or_else(|| self.text(lower))?;
        let except = self.text("NO_PROXY").or_else(|| self.text("no_proxy")).unwrap_or_default();
        if proxy::is_excepted(server, &except) {
            return None;
        }
        Some(Secret::from(if url.contains("://") { url } else { format!("http://{url}") }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn kubeconfig(server: &str) -> String {
        format!(
            "current-context: a\nclusters: [{{name: c, cluster: {{server: '{server}'}}}}]\ncontexts: [{{name: a, context: {{cluster: c}}}}]\n"
        )
    }

    fn pod() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("token", "t0ken"), ("ca.crt", "x"), ("namespace", "web\n")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn the_list_counts_before_the_users_file_and_both_before_the_pod() {
        let (home, account) = (tempfile::tempdir().unwrap(), pod());
        std::fs::create_dir(home.path().join(".kube")).unwrap();
        std::fs::write(home.path().join(".kube/config"), kubeconfig("https://home")).unwrap();
        let listed = home.path().join("listed");
        std::fs::write(&listed, kubeconfig("https://listed")).unwrap();
        let list = format!("/nonexistent/a:{}:", listed.display());
        let home = home.path().to_str().unwrap();
        let in_pod = ("KUBERNETES_SERVICE_HOST", "fd00::1");
        let server = |environment: Environment| environment.config(&Selection::default()).unwrap().access.server;
        assert_eq!(
            server(Environment::of(account.path(), [("KUBECONFIG", &list), ("HOME", home), in_pod])),
            "https://listed"
        );
        assert_eq!(
            server(Environment::of(account.path(), [("KUBECONFIG", ""), ("HOME", home), in_pod])),
            "https://home"
        );
        assert_eq!(
            server(Environment::of(account.path(), [("KUBECONFIG", "/nonexistent/a"), ("HOME", home), in_pod])),
            "https://[fd00::1]:443"
        );
        let nothing = Environment::of(Path::new("/nonexistent"), [("KUBECONFIG", "/nonexistent/a"), in_pod]);
        let error = nothing.config(&Selection::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("/nonexistent/a"), "{error}");
    }

    #[test]
    fn a_pod_uses_its_service_account_and_sees_its_namespace() {
        let account = pod();
        let environment = Environment::of(
            account.path(),
            [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("KUBERNETES_SERVICE_PORT", "6443")],
        );
        let config = environment.in_cluster().unwrap();
        assert_eq!(
            (config.access.server.as_str(), config.backend_id().as_str()),
            ("https://10.0.0.1:6443", "k8s:in-cluster")
        );
        assert_eq!(config.namespaces, Namespaces::one("web"));
        assert_eq!(config.access.user, User::TokenFile { path: account.path().join("token"), otherwise: None });
        assert_eq!(config.access.ca, Some(Pem::File(account.path().join("ca.crt"))));
        let outside = Environment::of(Path::new("/nonexistent"), []).in_cluster().unwrap_err();
        assert_eq!(outside.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn the_environments_proxy_is_used_except_where_it_says_not_to() {
        let proxy = |server: &str, except: &str| {
            let environment =
                Environment::of(Path::new("/nonexistent"), [("HTTPS_PROXY", "proxy:3128"), ("NO_PROXY", except)]);
            environment.proxy(server).map(|url| url.reveal().to_owned())
        };
        assert_eq!(proxy("https://api.example.com:6443", "").as_deref(), Some("http://proxy:3128"));
        assert_eq!(proxy("https://api.example.com:6443", "example.com"), None);
        assert_eq!(proxy("http://api.example.com", ""), None, "HTTP_PROXY is another variable");
    }
}
