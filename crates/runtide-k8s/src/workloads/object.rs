//! The parts of the server's objects that are read.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::wire::nullable;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Object {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub(super) spec: Spec,
    #[serde(deserialize_with = "nullable")]
    pub(super) status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
    pub(super) generation: i64,
    pub(super) labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub(super) replicas: Option<u32>,
    pub(super) paused: bool,
    pub(super) selector: Option<Selector>,
    /// Of a Deployment: its `strategy` has no type in which nothing is replaced.
    pub(super) update_strategy: Option<Strategy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Strategy {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) rolling_update: Option<RollingUpdate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RollingUpdate {
    /// Pods with a lower number stay as they are.
    pub(super) partition: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Selector {
    pub(super) match_labels: Option<BTreeMap<String, String>>,
    pub(super) match_expressions: Option<Vec<Expression>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Expression {
    pub(super) key: String,
    pub(super) operator: String,
    pub(super) values: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) observed_generation: i64,
    pub(super) replicas: u32,
    pub(super) updated_replicas: u32,
    pub(super) ready_replicas: u32,
    /// A StatefulSet of a server before 1.22 has none.
    pub(super) available_replicas: Option<u32>,
    pub(super) desired_number_scheduled: u32,
    pub(super) current_number_scheduled: u32,
    pub(super) updated_number_scheduled: u32,
    pub(super) number_ready: u32,
    pub(super) number_available: u32,
    pub(super) current_revision: String,
    pub(super) update_revision: String,
    pub(super) conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Object {
    pub(super) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().flatten().find(|condition| condition.kind == kind)
    }
}

impl Selector {
    /// The selector in the syntax of a query; `None` where it selects nothing, or has an operator that is not known.
    pub(super) fn query(&self) -> Option<String> {
        let equal = self.match_labels.iter().flatten().map(|(key, value)| Some(format!("{key}={value}")));
        let others = self.match_expressions.iter().flatten().map(Expression::query);
        let all: Vec<String> = equal.chain(others).collect::<Option<_>>()?;
        (!all.is_empty()).then(|| all.join(","))
    }
}

impl Expression {
    fn query(&self) -> Option<String> {
        let key = &self.key;
        let values = self.values.as_deref().unwrap_or_default().join(",");
        match self.operator.as_str() {
            "In" => Some(format!("{key} in ({values})")),
            "NotIn" => Some(format!("{key} notin ({values})")),
            "Exists" => Some(key.clone()),
            "DoesNotExist" => Some(format!("!{key}")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_written_as_a_query_or_not_at_all() {
        let of = |text: &str| serde_json::from_str::<Selector>(text).unwrap().query();
        let all = r#"{"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "x", "operator": "DoesNotExist"}, {"key": "y", "operator": "Exists"}, {"key": "z", "operator": "NotIn", "values": ["c"]}]}"#;
        assert_eq!(of(all).as_deref(), Some("app=web,tier in (a,b),!x,y,z notin (c)"));
        assert_eq!(of("{}"), None, "it selects nothing, and as a query all");
        assert_eq!(of(r#"{"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "n", "operator": "Gt"}]}"#), None);
    }
}
