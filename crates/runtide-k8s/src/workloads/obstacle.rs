//! The reasons for which a rollout does not go on: [`Obstacle`].

use std::{collections::BTreeMap, fmt};

use runtide_core::{Health, Instance, InstanceState};
use serde::Deserialize;

use super::{
    kind::WorkloadRef,
    object::Object,
    workload::{Rollout, Workload},
};
use crate::{
    client::Client,
    list::{Selectors, encoded, path, with_query},
    normalize::View,
    wire::{Page, Pod},
};

/// Pods, and events, that are looked at.
const MOST: &str = "500";
/// Characters of the longest message that is kept.
const LONGEST: usize = 1_000;
/// Obstacles, and characters of each, that an error names.
const NAMED: usize = 4;
const NAMED_LENGTH: usize = 400;

/// A reason for which a rollout does not go on, in the cluster's words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Obstacle {
    /// Name of the pod that it is about; `None`: the workload itself.
    pub pod: Option<String>,
    /// The cluster's word: `ProgressDeadlineExceeded`, `FailedCreate`, `Unschedulable`, `ImagePullBackOff`, `CrashLoopBackOff`, `NotReady`.
    pub reason: String,
    /// The cluster's text; empty where it has none.
    pub message: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pod) = &self.pod {
            write!(f, "{pod}: ")?;
        }
        f.write_str(&self.reason)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl Obstacle {
    fn new(pod: Option<&str>, reason: &str, message: &str) -> Self {
        let printable = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
        Self { pod: pod.map(str::to_owned), reason: printable(reason), message: printable(message) }
    }

    /// That of a pod; `None` for one that runs and is ready, or is ending.
    fn of_pod(pod: &Instance) -> Option<Self> {
        let reason = pod.reason.as_deref().unwrap_or_default();
        let (word, message) = reason.split_once(": ").unwrap_or((reason, ""));
        let word = match (pod.state, pod.health) {
            (InstanceState::Created | InstanceState::Stopping | InstanceState::Stopped, _)
            | (InstanceState::Running, None | Some(Health::Healthy)) => return None,
            (InstanceState::Running, _) if word.is_empty() => "NotReady",
            _ if word.is_empty() => "NotRunning",
            _ => word,
        };
        Some(Self::new(Some(&pod.name), word, message))
    }
}

/// The first of them, as a part of an error's text.
pub(super) fn named(all: &[Obstacle]) -> Option<String> {
    let texts = all.iter().take(NAMED).map(|one| one.to_string().chars().take(NAMED_LENGTH).collect::<String>());
    let text = texts.collect::<Vec<_>>().join("; ");
    let left = all.len().saturating_sub(NAMED);
    (!text.is_empty()).then(|| if left > 0 { format!("{text}; and {left} more") } else { text })
}

/// All of them. What cannot be read is left out: a reason is more than none.
pub(super) async fn of(
    client: &Client,
    operation: &'static str,
    reference: &WorkloadRef,
    object: &Object,
) -> Vec<Obstacle> {
    let workload = Workload::of(reference.kind, object);
    let mut all = Vec::new();
    if let Rollout::Failed { reason, message } = &workload.rollout {
        all.push(Obstacle::new(None, reason, message));
    }
    let failure = object.condition("ReplicaFailure").filter(|condition| condition.status == "True");
    match failure {
        Some(failure) => all.push(Obstacle::new(None, &failure.reason, &failure.message)),
        // StatefulSets and DaemonSets have no such condition.
        None if workload.current < workload.desired => {
            all.extend(failed_creations(client, operation, reference, object).await);
        }
        None => {}
    }
    all.extend(of_pods(client, operation, reference, object).await.unwrap_or_default());
    all
}

async fn of_pods(
    client: &Client,
    operation: &'static str,
    reference: &WorkloadRef,
    object: &Object,
) -> Option<Vec<Obstacle>> {
    let labels = object.spec.selector.as_ref()?.query()?;
    let selectors = Selectors { labels: Some(labels), fields: None };
    let path = path(Some(&reference.namespace), &selectors, &[("limit", MOST)]);
    let (_, body) = client.get(operation, &path).await.ok()?;
    let page: Page<'_> = serde_json::from_slice(&body).ok()?;
    let view = View::of(client.config());
    let pods = page.items.iter().filter_map(|item| serde_json::from_str::<Pod<'_>>(item.get()).ok());
    let seen = pods.flat_map(|pod| view.instances(&pod));
    Some(seen.filter_map(|seen| Obstacle::of_pod(&seen.instance)).collect())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Event {
    reason: String,
    message: String,
    last_timestamp: Option<String>,
    #[serde(rename = "eventTime")]
    created: Option<String>,
}

/// The events of creations that failed, the last one first, each text once.
async fn failed_creations(
    client: &Client,
    operation: &'static str,
    reference: &WorkloadRef,
    object: &Object,
) -> Vec<Obstacle> {
    let fields = format!("involvedObject.uid={},reason=FailedCreate,type=Warning", object.metadata.uid);
    let namespace = encoded(&reference.namespace).replace("%2D", "-");
    let path = with_query(
        format!("/api/v1/namespaces/{namespace}/events"),
        &[("fieldSelector", fields.as_str()), ("limit", MOST)],
    );
    let Ok((_, body)) = client.get(operation, &path).await else { return Vec::new() };
    let Ok(page) = serde_json::from_slice::<Page<'_>>(&body) else { return Vec::new() };
    let events = page.items.iter().filter_map(|item| serde_json::from_str::<Event>(item.get()).ok());
    let mut latest: BTreeMap<String, (String, String)> = BTreeMap::new();
    for event in events {
        let at = event.last_timestamp.or(event.created).unwrap_or_default();
        let known = latest.entry(event.message).or_default();
        if at >= known.0 {
            *known = (at, event.reason);
        }
    }
    let mut all: Vec<_> = latest.into_iter().map(|(message, (at, reason))| (at, reason, message)).collect();
    all.sort_by(|one, other| other.0.cmp(&one.0));
    all.iter().map(|(_, reason, message)| Obstacle::new(None, reason, message)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use runtide_core::{BackendId, InstanceKind};

    use super::*;

    #[test]
    fn a_pod_that_runs_or_is_ending_is_no_obstacle_and_any_other_is_one_with_its_words() {
        let of = |state, reason: Option<&str>, health| {
            let mut pod = Instance::new(BackendId::from("k8s:test"), "uid", "web-0", InstanceKind::Pod, state);
            (pod.reason, pod.health) = (reason.map(Arc::from), health);
            Obstacle::of_pod(&pod).map(|obstacle| obstacle.to_string())
        };
        for state in [InstanceState::Running, InstanceState::Stopping, InstanceState::Created] {
            assert_eq!(of(state, Some("Terminating"), None), None);
        }
        let text = |text: &str| Some(format!("web-0: {text}"));
        assert_eq!(of(InstanceState::Running, None, Some(Health::Healthy)), None);
        assert_eq!(of(InstanceState::Running, None, Some(Health::Unhealthy)), text("NotReady"));
        assert_eq!(
            of(InstanceState::Starting, Some("Unschedulable: 0/1 nodes: x"), None),
            text("Unschedulable: 0/1 nodes: x")
        );
        assert_eq!(of(InstanceState::Starting, None, None), text("NotRunning"));
        assert_eq!(of(InstanceState::Restarting, Some("CrashLoopBackOff"), None), text("CrashLoopBackOff"));
    }

    #[test]
    fn an_error_names_the_first_and_counts_the_rest() {
        let all: Vec<_> =
            (0..6).map(|n| Obstacle::new(Some(&format!("p{n}")), "NotReady", &"x".repeat(2_000))).collect();
        let text = named(&all).unwrap();
        assert!(text.starts_with("p0: NotReady: x") && text.ends_with("; and 2 more") && text.len() < 1_700, "{text}");
        assert_eq!(named(&[]), None);
    }
}
