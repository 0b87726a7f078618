//! Server, namespaces and timeouts of one backend: [`Config`].

use std::time::Duration;

use runtide_core::{
    BackendId, Error, ErrorKind, Result,
    backend::{check_deadline, setters},
    watch::DriverOptions,
};

use crate::access::{Access, without_credentials};

/// Operation in the errors of a configuration.
const OPERATION: &str = "k8s.config";

/// The namespaces that a backend sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Namespaces {
    /// All of them, which needs the right to list pods in the whole cluster.
    #[default]
    All,
    /// These, each by requests of its own. One whose right is missing or withdrawn makes listings partial, and removes nothing.
    Only(Vec<String>),
}

impl Namespaces {
    /// One namespace.
    pub fn one(name: impl Into<String>) -> Self {
        Self::Only(vec![name.into()])
    }
}

/// The objects that are instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Granularity {
    /// Each pod; its id is the pod's uid.
    #[default]
    Pod,
    /// Each container of a pod, init and ephemeral ones included, in the group of its pod; its id is `<uid>/<name>`.
    Container,
}

/// Server, namespaces and timeouts of one backend.
///
/// ```
/// use std::time::Duration;
///
/// use runtide_k8s::{Access, Config, Namespaces, User};
///
/// let config = Config::new(Access::new("https://10.0.0.1:6443").with_user(User::Token("s3cret".into())))
///     .with_namespaces(Namespaces::one("web"))
///     .with_label_selector("tier=front")
///     .with_deadline(Duration::from_secs(5));
/// assert!(!format!("{config:?}").contains("s3cret"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The server, and the credentials for it.
    pub access: Access,
    /// Name of the context that the access is of; `None`: it is of no kubeconfig.
    pub context: Option<String>,
    /// Id of the backend; by default `k8s:<context>`, `k8s:in-cluster`, or `k8s:<host>`.
    pub id: Option<BackendId>,
    /// The namespaces that it sees; by default the one that the context or the pod's service account names, else all.
    pub namespaces: Namespaces,
    /// A label selector in the server's own syntax (`tier=front,track notin (canary)`): other pods do not exist for this backend, and
    /// one that ceases to match is removed.
    pub label_selector: Option<String>,
    /// A field selector in the server's own syntax (`spec.nodeName=n1`), as for labels.
    pub field_selector: Option<String>,
    /// The objects that are instances.
    pub granularity: Granularity,
    /// Prefix under which annotations are shown among the labels; `None`, the default: they are not.
    pub annotations: Option<String>,
    /// Deadline of each request, from its first byte to its last; 30 s. A watch has it until its answer begins.
    pub deadline: Duration,
    /// Deadline of a connection attempt, the TLS handshake and the proxy included; 5 s.
    pub connect_deadline: Duration,
    /// Deadline of a credential plugin; 60 s.
    pub exec_deadline: Duration,
    /// Longest silence of a healthy watch; 230 s, below the 240 s after which known load balancers drop a connection. The server is
    /// asked to end each watch some seconds earlier, and the next begins where it ended. At least 2 s.
    pub max_silence: Duration,
    /// Options of the watch driver.
    pub driver: DriverOptions,
}

setters!(Config {
    /// Sets the server and the credentials.
    with_access: access: Access;
    /// Sets the id of the backend.
    with_id: id: Option<BackendId>;
    /// Sets the namespaces that it sees.
    with_namespaces: namespaces: Namespaces;
    /// Sets the label selector.
    with_label_selector: label_selector = String;
    /// Sets the field selector.
    with_field_selector: field_selector = String;
    /// Sets what counts as an instance.
    with_granularity: granularity: Granularity;
    /// Sets the prefix under which annotations are shown among the labels.
    with_annotations: annotations = String;
    /// Sets the deadline of each request.
    with_deadline: deadline: Duration;
    /// Sets the deadline of a connection attempt.
    with_connect_deadline: connect_deadline: Duration;
    /// Sets the deadline of a credential plugin.
    with_exec_deadline: exec_deadline: Duration;
    /// Sets the longest silence of a healthy watch.
    with_max_silence: max_silence: Duration;
    /// Sets the options of the watch driver.
    with_driver: driver: DriverOptions;
});

impl Config {
    /// All pods of the server at this address.
    pub fn new(access: Access) -> Self {
        Self {
            access,
            context: None,
            id: None,
            namespaces: Namespaces::All,
            label_selector: None,
            field_selector: None,
            granularity: Granularity::Pod,
            annotations: None,
            deadline: Duration::from_secs(30),
            connect_deadline: Duration::from_secs(5),
            exec_deadline: Duration::from_secs(60),
            max_silence: Duration::from_secs(230),
            driver: DriverOptions::default(),
        }
    }

    pub(crate) fn backend_id(&self) -> BackendId {
        self.id.clone().unwrap_or_else(|| {
            let name = self.context.clone().unwrap_or_else(|| {
                let address = without_credentials(&self.access.server);
                address.split_once("://").map_or(address.clone(), |(_, host)| host.trim_end_matches('/').to_owned())
            });
            BackendId::from(format!("k8s:{name}"))
        })
    }

    /// The time after which the server is asked to end a watch, in whole seconds; the rest of `max_silence` is the margin.
    pub(crate) fn window(&self) -> Duration {
        let margin = (self.max_silence / 4).clamp(Duration::from_secs(1), Duration::from_secs(10));
        Duration::from_secs(self.max_silence.saturating_sub(margin).as_secs().max(1))
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check_deadline(OPERATION, "deadline", self.deadline)?;
        check_deadline(OPERATION, "connect_deadline", self.connect_deadline)?;
        check_deadline(OPERATION, "exec_deadline", self.exec_deadline)?;
        if self.max_silence < Duration::from_secs(2) {
            return Err(invalid("less than 2 s, and a watch lasts whole seconds").with_context("key", "max_silence"));
        }
        if let Namespaces::Only(names) = &self.namespaces {
            if names.is_empty() {
                return Err(invalid("no namespace is named").with_context("key", "namespaces"));
            }
            for (n, name) in names.iter().enumerate() {
                if !is_label(name) || names.iter().take(n).any(|earlier| earlier == name) {
                    let message = format!("'{}' is no name of a namespace, or is named twice", name.escape_debug());
                    return Err(invalid(message).with_context("key", "namespaces"));
                }
            }
        }
        Ok(())
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, OPERATION, message)
}

/// A name as RFC 1123 has it: at most 63 small letters, digits and dashes between letters or digits.
pub(crate) fn is_label(name: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(is_alphanumeric)
        && bytes.last().is_some_and(is_alphanumeric)
        && bytes.iter().all(|byte| is_alphanumeric(byte) || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(Access::new("https://me:pw@host:6443/"))
    }

    #[test]
    fn a_backend_is_named_after_its_context_or_its_server() {
        assert_eq!(config().backend_id().to_string(), "k8s:host:6443");
        let named = Config { context: Some("prod".to_owned()), ..config() };
        assert_eq!(named.backend_id().to_string(), "k8s:prod");
    }

    #[test]
    fn a_watch_ends_before_its_silence_does() {
        for (silence, window) in [(230, 220), (60, 50), (8, 6), (2, 1)] {
            let config = config().with_max_silence(Duration::from_secs(silence));
            assert_eq!(config.window(), Duration::from_secs(window), "{silence}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let only = |names: &[&str]| {
            config().with_namespaces(Namespaces::Only(names.iter().map(|&name| name.to_owned()).collect()))
        };
        for config in [
            config().with_deadline(Duration::ZERO),
            config().with_max_silence(Duration::from_secs(1)),
            only(&[]),
            only(&["a", "a"]),
            only(&["../kube-system"]),
            only(&["A"]),
            only(&["-a"]),
            only(&[""]),
        ] {
            assert_eq!(config.validate().unwrap_err().kind(), ErrorKind::InvalidInput, "{config:?}");
        }
        only(&["a", "kube-system"]).validate().unwrap();
    }
}
