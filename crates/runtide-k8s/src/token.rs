//! The token of a position: the cluster, and a resource version for each namespace (traps K2 and K8).
//!
//! A resource version is text that only compares for equality. It counts within one installation: the cluster's mark in front of it
//! tells a cluster that was installed again from the one that gave it (law R24).

use std::collections::BTreeMap;

use runtide_core::event::ResumeToken;
use serde::{Deserialize, Serialize};

/// A position in the server's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    #[serde(rename = "c")]
    pub(crate) cluster: Cluster,
    /// A hash of the selectors: under others, other pods are there.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(crate) selectors: Option<String>,
    /// Versions by namespace; all namespaces together have the name "".
    #[serde(rename = "v")]
    pub(crate) versions: BTreeMap<String, String>,
}

/// Identity of one installation of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cluster {
    /// Uid of the object by which the server schedules this user's requests. It comes with each answer, and asks no right.
    #[serde(rename = "f")]
    FlowSchema(String),
    /// Uid of the namespace `kube-system`.
    #[serde(rename = "n")]
    Namespace(String),
    /// Only the address, for a user who may read neither.
    #[serde(rename = "a")]
    Address(String),
}

impl Position {
    pub(crate) fn to_token(&self) -> Option<ResumeToken> {
        serde_json::to_string(self).ok().map(ResumeToken::new)
    }

    pub(crate) fn of_token(token: &ResumeToken) -> Option<Self> {
        serde_json::from_str(token.as_str()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back() {
        let position = Position {
            cluster: Cluster::FlowSchema("u1".to_owned()),
            selectors: Some("ab".to_owned()),
            versions: [(String::new(), "opaque\"7".to_owned())].into(),
        };
        let token = position.to_token().unwrap();
        assert_eq!(Position::of_token(&token), Some(position));
        for foreign in ["", "7", "{}", r#"{"c":{"x":""},"v":{}}"#] {
            assert_eq!(Position::of_token(&ResumeToken::new(foreign)), None, "{foreign}");
        }
    }
}
