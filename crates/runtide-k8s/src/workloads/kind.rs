//! Kinds of workloads, and the name of one: [`WorkloadKind`], [`WorkloadRef`].

use std::fmt;

use runtide_core::{ErrorKind, Result, backend::CallSite};

use crate::{
    config::is_label,
    list::{encoded, with_query},
};

/// Characters of the longest name of an object.
const LONGEST: usize = 253;

/// A kind of objects that keep pods running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum WorkloadKind {
    /// Pods that are all alike, replaced by and by when their template changes.
    Deployment,
    /// Pods with a number each, replaced one after the other.
    StatefulSet,
    /// One pod for each node that it is for. It cannot be scaled.
    DaemonSet,
    /// Pods that are all alike, and stay when their template changes: it cannot be restarted.
    ReplicaSet,
}

impl WorkloadKind {
    /// Its name in the API: `Deployment`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
        }
    }

    /// Its name in paths.
    fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
            Self::ReplicaSet => "replicasets",
        }
    }

    /// Path of a listing of one namespace, or of all.
    pub(super) fn path(self, namespace: Option<&str>, query: &[(&str, &str)]) -> String {
        let path = match namespace {
            // Dashes are the only characters of a namespace that would be encoded.
            Some(name) => format!("/apis/apps/v1/namespaces/{}/{}", encoded(name).replace("%2D", "-"), self.plural()),
            None => format!("/apis/apps/v1/{}", self.plural()),
        };
        with_query(path, query)
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Kind, namespace and name of a workload. Another one may come under the same name: the uid of a [`Workload`](super::Workload) tells
/// them apart.
///
/// ```
/// use runtide_k8s::{WorkloadKind, WorkloadRef};
///
/// let web = WorkloadRef::new(WorkloadKind::Deployment, "shop", "web");
/// assert_eq!(web.to_string(), "Deployment shop/web");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadRef {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl WorkloadRef {
    /// A workload of this kind. Names that no object can have are refused with the first call.
    pub fn new(kind: WorkloadKind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// # Errors
    /// `InvalidInput` for a name that no object can have: it would be a part of a path.
    pub(super) fn check(&self, site: CallSite<'_>) -> Result<()> {
        if is_label(&self.namespace) && is_name(&self.name) {
            return Ok(());
        }
        let message = "no workload can have such a name, or be in a namespace of such a name";
        let name = format!("{}/{}", self.namespace, self.name).chars().take(LONGEST).collect::<String>();
        Err(site.error(ErrorKind::InvalidInput, message).with_context("workload", name.escape_debug()))
    }

    /// Path of the object, or of a part of it.
    pub(super) fn path(&self, part: &str) -> String {
        let name = encoded(&self.name).replace("%2D", "-").replace("%2E", ".");
        format!("{}/{name}{part}", self.kind.path(Some(&self.namespace), &[]))
    }

    /// Path of a listing, or of a watch, of this object alone.
    pub(super) fn alone(&self, query: &[(&str, &str)]) -> String {
        let fields = format!("metadata.name={}", self.name);
        let own = [("fieldSelector", fields.as_str())];
        let all: Vec<_> = query.iter().copied().chain(own).collect();
        self.kind.path(Some(&self.namespace), &all)
    }
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A name as RFC 1123 has it for subdomains: labels of small letters, digits and dashes, with dots between them.
fn is_name(name: &str) -> bool {
    name.len() <= LONGEST && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use runtide_core::BackendId;

    use super::*;

    #[test]
    fn a_path_has_the_names_as_they_are_and_others_are_refused() {
        let web = WorkloadRef::new(WorkloadKind::StatefulSet, "my-shop", "web-1.eu");
        let id = BackendId::from("k8s:test");
        web.check(CallSite::new("k8s.workloads.get", &id)).unwrap();
        assert_eq!(web.path("/scale"), "/apis/apps/v1/namespaces/my-shop/statefulsets/web-1.eu/scale");
        assert_eq!(
            web.alone(&[("watch", "1")]),
            "/apis/apps/v1/namespaces/my-shop/statefulsets?watch=1&fieldSelector=metadata%2Ename%3Dweb%2D1%2Eeu"
        );
        assert_eq!(WorkloadKind::DaemonSet.path(None, &[]), "/apis/apps/v1/daemonsets");
        for (namespace, name) in
            [("a", ".."), ("..", "a"), ("a", ""), ("", "a"), ("a", "b/scale"), ("a", "b?x"), ("a", "B"), ("a\n", "b")]
        {
            let error = WorkloadRef::new(WorkloadKind::Deployment, namespace, name);
            let error = error.check(CallSite::new("k8s.workloads.get", &id)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{namespace} {name}");
        }
    }
}
