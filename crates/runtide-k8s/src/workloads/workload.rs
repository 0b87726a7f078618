//! A workload as it is, and how far its rollout is: [`Workload`], [`Rollout`]. Pure functions, no I/O.

use runtide_core::Labels;

use super::{
    kind::{WorkloadKind, WorkloadRef},
    object::{Object, Status},
};

/// A workload at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Workload {
    /// Its kind, namespace and name.
    pub reference: WorkloadRef,
    /// The object's uid: another one that comes under its name has another.
    pub uid: String,
    /// The object's `resourceVersion`, for [`ScaleOptions::version`](super::ScaleOptions::version). It is opaque, and changes with the status too.
    pub version: String,
    /// The object's own labels, not those of its pods.
    pub labels: Labels,
    /// Pods that it is to have; of a DaemonSet, the nodes that it is for.
    pub desired: u32,
    /// Pods that it has, those of earlier templates included. Pods that are ending are not counted, but for those of a StatefulSet.
    pub current: u32,
    /// Pods of the present template; of a ReplicaSet, all.
    pub updated: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods that have been ready for as long as the workload asks; `None` where the server does not say so: a StatefulSet before 1.22.
    pub available: Option<u32>,
    /// `true` for a Deployment whose changes of the template are not rolled out.
    pub is_paused: bool,
    /// How far the rollout is.
    pub rollout: Rollout,
}

/// How far a rollout is: of the template, and of the number of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rollout {
    /// The controller has seen the newest object, and all pods are of its template, in the number that it names, and available.
    Complete,
    /// It is under way: what is missing.
    Progressing(String),
    /// The cluster says that it goes no further. It may go on all the same, once the reason is gone.
    Failed {
        /// The cluster's word: `ProgressDeadlineExceeded`, `DeploymentPaused`.
        reason: String,
        /// The cluster's text.
        message: String,
    },
    /// The cluster replaces no pod by itself, as the strategy `OnDelete` asks: it cannot be waited for.
    Manual,
}

const EXCEEDED: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const ON_DELETE: &str = "OnDelete";

impl Workload {
    pub(super) fn of(kind: WorkloadKind, object: &Object) -> Self {
        let (meta, status) = (&object.metadata, &object.status);
        let of_nodes = kind == WorkloadKind::DaemonSet;
        let mut labels = Labels::new();
        for (key, value) in meta.labels.iter().flatten() {
            labels.insert(key, value);
        }
        let mut workload = Self {
            reference: WorkloadRef::new(kind, &meta.namespace, &meta.name),
            uid: meta.uid.clone(),
            version: meta.resource_version.clone(),
            labels,
            desired: if of_nodes { status.desired_number_scheduled } else { object.spec.replicas.unwrap_or(1) },
            current: if of_nodes { status.current_number_scheduled } else { status.replicas },
            updated: match kind {
                WorkloadKind::DaemonSet => status.updated_number_scheduled,
                WorkloadKind::ReplicaSet => status.replicas,
                WorkloadKind::Deployment | WorkloadKind::StatefulSet => status.updated_replicas,
            },
            ready: if of_nodes { status.number_ready } else { status.ready_replicas },
            available: match kind {
                WorkloadKind::DaemonSet => Some(status.number_available),
                // Others leave out a 0.
                WorkloadKind::Deployment | WorkloadKind::ReplicaSet => Some(status.available_replicas.unwrap_or(0)),
                WorkloadKind::StatefulSet => status.available_replicas,
            },
            is_paused: object.spec.paused,
            rollout: Rollout::Manual,
        };
        workload.rollout = workload.rollout(object);
        workload
    }

    fn rollout(&self, object: &Object) -> Rollout {
        let (meta, status) = (&object.metadata, &object.status);
        if is_manual(object) {
            return Rollout::Manual;
        }
        if status.observed_generation < meta.generation || (status.observed_generation == 0 && meta.generation > 0) {
            let seen = status.observed_generation;
            return Rollout::Progressing(format!("the controller has seen generation {seen} of {}", meta.generation));
        }
        let missing = match self.reference.kind {
            WorkloadKind::Deployment => self.missing_of_deployment(),
            WorkloadKind::StatefulSet => self.missing_of_stateful_set(object, status),
            WorkloadKind::DaemonSet => self.missing_of_daemon_set(),
            WorkloadKind::ReplicaSet => self.missing_of_number().or_else(|| self.missing_of_availability()),
        };
        let Some(missing) = missing else { return Rollout::Complete };
        if self.is_paused && self.current > self.updated {
            let message = format!("it is paused, with pods of an earlier template: {}", self.current - self.updated);
            return Rollout::Failed { reason: PAUSED.to_owned(), message };
        }
        match object.condition("Progressing").filter(|condition| condition.reason == EXCEEDED) {
            Some(condition) => Rollout::Failed { reason: EXCEEDED.to_owned(), message: condition.message.clone() },
            None => Rollout::Progressing(missing),
        }
    }

    fn missing_of_deployment(&self) -> Option<String> {
        let (updated, desired) = (self.updated, self.desired);
        if updated < desired {
            return Some(format!("{updated} of {desired} pods are of the present template"));
        }
        if self.current > updated {
            return Some(format!("pods of an earlier template are to end: {}", self.current - updated));
        }
        self.missing_of_number().or_else(|| self.missing_of_availability())
    }

    fn missing_of_stateful_set(&self, object: &Object, status: &Status) -> Option<String> {
        let strategy = object.spec.update_strategy.as_ref();
        let partition = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition).unwrap_or(0);
        let to_update = self.desired.saturating_sub(partition);
        // Once all are of the new revision, the controller makes it the current one.
        let is_updated =
            self.updated >= to_update || (partition == 0 && status.current_revision == status.update_revision);
        self.missing_of_number().or_else(|| self.missing_of_availability()).or_else(|| {
            (!is_updated).then(|| format!("{} of {to_update} pods are of the present template", self.updated))
        })
    }

    fn missing_of_daemon_set(&self) -> Option<String> {
        let (updated, desired) = (self.updated, self.desired);
        let missing = || format!("{updated} of {desired} nodes have a pod of the present template");
        (updated < desired).then(missing).or_else(|| self.missing_of_availability())
    }

    fn missing_of_number(&self) -> Option<String> {
        (self.current != self.desired).then(|| format!("it has {} pods in place of {}", self.current, self.desired))
    }

    fn missing_of_availability(&self) -> Option<String> {
        let desired = self.desired;
        match self.available {
            _ if self.reference.kind == WorkloadKind::StatefulSet && self.ready < desired => {
                Some(format!("{} of {desired} pods are ready", self.ready))
            }
            Some(available) if available < desired => Some(format!("{available} of {desired} pods are available")),
            _ => None,
        }
    }
}

/// `true` if the cluster replaces no pod by itself.
fn is_manual(object: &Object) -> bool {
    object.spec.update_strategy.as_ref().is_some_and(|strategy| strategy.kind == ON_DELETE)
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "objects are written where they are used")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rollout(kind: WorkloadKind, spec: Value, status: Value) -> Rollout {
        let object = json!({ "metadata": { "name": "web", "namespace": "shop", "generation": 2 }, "spec": spec, "status": status });
        Workload::of(kind, &serde_json::from_value(object).unwrap()).rollout
    }

    fn is_progressing(rollout: &Rollout, text: &str) -> bool {
        matches!(rollout, Rollout::Progressing(missing) if missing.contains(text))
    }

    #[test]
    fn a_deployment_is_rolled_out_once_its_controller_saw_it_and_every_pod_is_new_wanted_and_available() {
        let of = |status: Value| rollout(WorkloadKind::Deployment, json!({ "replicas": 3 }), status);
        let whole = json!({ "observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3 });
        assert_eq!(of(whole.clone()), Rollout::Complete);
        let with = |key: &str, value: Value| {
            let mut status = whole.clone();
            status[key] = value;
            of(status)
        };
        for (key, value, text) in [
            ("observedGeneration", json!(1), "generation 1 of 2"),
            ("updatedReplicas", json!(1), "1 of 3 pods are of the present template"),
            ("replicas", json!(4), "pods of an earlier template are to end: 1"),
            ("availableReplicas", json!(2), "2 of 3 pods are available"),
        ] {
            let rollout = with(key, value);
            assert!(is_progressing(&rollout, text), "{key}: {rollout:?}");
        }
        // After fewer are wanted, the numbers of the status are those of before for a while.
        let fewer = rollout(WorkloadKind::Deployment, json!({ "replicas": 1 }), whole.clone());
        assert!(is_progressing(&fewer, "it has 3 pods in place of 1"), "{fewer:?}");
        assert_eq!(
            rollout(WorkloadKind::Deployment, json!({ "replicas": 0 }), json!({ "observedGeneration": 2 })),
            Rollout::Complete
        );
        let none = of(Value::Null);
        assert!(is_progressing(&none, "generation 0 of 2"), "{none:?}");
    }

    #[test]
    fn a_deployment_that_the_cluster_gave_up_has_its_words_unless_it_is_complete() {
        let exceeded = json!([{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "ReplicaSet \"web-1\" has timed out progressing." }]);
        let mut status =
            json!({ "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "conditions": exceeded });
        let failed = rollout(WorkloadKind::Deployment, json!({ "replicas": 1 }), status.clone());
        assert!(
            matches!(&failed, Rollout::Failed { reason, message } if reason == EXCEEDED && message.contains("web-1")),
            "{failed:?}"
        );
        status["availableReplicas"] = json!(1);
        assert_eq!(rollout(WorkloadKind::Deployment, json!({ "replicas": 1 }), status), Rollout::Complete);
        let paused = rollout(
            WorkloadKind::Deployment,
            json!({ "replicas": 2, "paused": true }),
            json!({ "observedGeneration": 2, "replicas": 2, "availableReplicas": 2 }),
        );
        assert!(matches!(&paused, Rollout::Failed { reason, .. } if reason == PAUSED), "{paused:?}");
    }

    #[test]
    fn a_stateful_set_is_rolled_out_up_to_its_partition() {
        let rolling = |partition: u32| json!({ "replicas": 3, "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": partition } } });
        let at = |updated: u32, revision: &str| json!({ "observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": updated, "currentRevision": "a", "updateRevision": revision });
        let of = |partition, status| rollout(WorkloadKind::StatefulSet, rolling(partition), status);
        assert_eq!(of(0, at(3, "a")), Rollout::Complete);
        assert_eq!(of(0, at(0, "a")), Rollout::Complete);
        assert_eq!(of(2, at(1, "b")), Rollout::Complete);
        assert!(is_progressing(&of(0, at(1, "b")), "1 of 3 pods are of the present template"));
        assert!(is_progressing(&of(2, at(0, "b")), "0 of 1 pods"));
        let mut unready = at(3, "a");
        unready["readyReplicas"] = json!(2);
        assert!(is_progressing(&of(0, unready), "2 of 3 pods are ready"));
        let mut unavailable = at(3, "a");
        unavailable["availableReplicas"] = json!(1);
        assert!(is_progressing(&of(0, unavailable), "1 of 3 pods are available"));
        let by_hand = json!({ "replicas": 3, "updateStrategy": { "type": "OnDelete" } });
        assert_eq!(rollout(WorkloadKind::StatefulSet, by_hand, at(3, "a")), Rollout::Manual);
    }

    #[test]
    fn daemon_sets_and_replica_sets_have_their_own_numbers() {
        let nodes = |updated: u32, available: u32| json!({ "observedGeneration": 2, "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "updatedNumberScheduled": updated, "numberReady": 2, "numberAvailable": available });
        let of = |status| rollout(WorkloadKind::DaemonSet, json!({}), status);
        assert_eq!(of(nodes(2, 2)), Rollout::Complete);
        assert!(is_progressing(&of(nodes(1, 2)), "1 of 2 nodes"));
        assert!(is_progressing(&of(nodes(2, 1)), "1 of 2 pods are available"));
        let set = |available: u32| json!({ "observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "availableReplicas": available });
        let of = |status| rollout(WorkloadKind::ReplicaSet, json!({ "replicas": 2 }), status);
        assert_eq!(of(set(2)), Rollout::Complete);
        assert!(is_progressing(&of(set(0)), "0 of 2 pods are available"));
    }
}
