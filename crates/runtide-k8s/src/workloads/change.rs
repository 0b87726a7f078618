//! Changes: the number of pods, and their replacement.

use jiff::Timestamp;
use runtide_core::{Error, ErrorKind, Result, Retry};
use serde::Deserialize;
use serde_json::json;

use super::{
    decode,
    kind::{WorkloadKind, WorkloadRef},
    look,
    options::ScaleOptions,
    workload::{Rollout, Workload},
};
use crate::client::Client;

const SCALE: &str = "k8s.workloads.scale";
const RESTART: &str = "k8s.workloads.restart";

/// The reasons why there are no such verbs.
const OF_NODES: &str = "a DaemonSet has one pod for each node that it is for";
const NO_REPLACEMENT: &str = "a ReplicaSet's pods stay when its template changes";
const BY_HAND: &str = "its strategy is OnDelete: the cluster replaces no pod by itself";

/// The annotation of a template that kubectl sets for a restart.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// The largest number of pods that the API has a place for.
const MOST: u32 = i32::MAX.unsigned_abs();

/// How often a workload is looked at again, because it changed before its new number arrived.
const ATTEMPTS: usize = 10;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Scale {
    metadata: super::object::Meta,
    spec: ScaleSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ScaleSpec {
    replicas: u32,
}

fn unsupported(client: &Client, operation: &'static str, workload: &WorkloadRef, reason: &'static str) -> Error {
    let error = client.site(operation).error(ErrorKind::Unsupported, reason);
    error.with_context("feature", operation).with_context("reason", reason).with_context("workload", workload)
}

/// The error of a change. Without an answer it may be done, or be done later.
fn of_change(error: Error, workload: &WorkloadRef) -> Error {
    let error = error.with_context("workload", workload);
    let is_open = error.fact("status").is_none()
        && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Protocol)
        && !matches!(error.retry(), Retry::Poll(_));
    if is_open { error.with_context("outcome", "unknown") } else { error }
}

pub(super) async fn scale(
    client: &Client,
    workload: &WorkloadRef,
    replicas: u32,
    options: &ScaleOptions,
) -> Result<String> {
    client.check_open(SCALE)?;
    let site = client.site(SCALE);
    workload.check(site)?;
    if workload.kind == WorkloadKind::DaemonSet {
        return Err(unsupported(client, SCALE, workload, OF_NODES));
    }
    if replicas > MOST {
        let message = format!("more pods than {MOST}, which the API has no place for");
        return Err(site.error(ErrorKind::InvalidInput, message).with_context("workload", workload));
    }
    let path = workload.path("/scale");
    for _ in 0..ATTEMPTS {
        let version = match options.current {
            Some(current) => Some(version_with(client, workload, &path, current, options).await?),
            None => options.version.clone(),
        };
        let mut change = json!({ "spec": { "replicas": replicas } });
        if let (Some(version), Some(change)) = (version, change.as_object_mut()) {
            change.insert("metadata".to_owned(), json!({ "resourceVersion": version }));
        }
        let answer = client.merge(SCALE, &path, change.to_string().as_bytes()).await;
        let body = match answer {
            // Its status has changed since the look, or its number: the next look tells.
            Err(error) if error.kind() == ErrorKind::Conflict && options.looks_again() => continue,
            answer => answer.map_err(|error| of_change(error, workload))?,
        };
        let scale: Scale =
            serde_json::from_slice(&body).map_err(|error| of_change(site.undecodable(error), workload))?;
        return Ok(scale.metadata.resource_version);
    }
    let message = format!("it changed {ATTEMPTS} times during the call");
    Err(site.error(ErrorKind::Conflict, message).with_context("workload", workload))
}

/// The version at which it names this number of pods.
async fn version_with(
    client: &Client,
    workload: &WorkloadRef,
    path: &str,
    current: u32,
    options: &ScaleOptions,
) -> Result<String> {
    let site = client.site(SCALE);
    let (_, body) = client.get(SCALE, path).await.map_err(|error| error.with_context("workload", workload))?;
    let now: Scale = serde_json::from_slice(&body).map_err(|error| site.undecodable(error))?;
    let seen = now.metadata.resource_version;
    if now.spec.replicas != current || options.version.as_ref().is_some_and(|version| *version != seen) {
        let message = format!("it names {} pods, at version {seen}", now.spec.replicas);
        return Err(site.error(ErrorKind::Conflict, message).with_context("workload", workload));
    }
    Ok(seen)
}

pub(super) async fn restart(client: &Client, workload: &WorkloadRef) -> Result<Workload> {
    client.check_open(RESTART)?;
    if workload.kind == WorkloadKind::ReplicaSet {
        return Err(unsupported(client, RESTART, workload, NO_REPLACEMENT));
    }
    let before = Workload::of(workload.kind, &look(client, RESTART, workload).await?);
    if before.rollout == Rollout::Manual {
        return Err(unsupported(client, RESTART, workload, BY_HAND));
    }
    if before.is_paused {
        return Err(paused(client, workload, "it is paused, and would replace no pod"));
    }
    let annotations = json!({ RESTARTED_AT: Timestamp::now().to_string() });
    let change = json!({ "metadata": { "uid": before.uid }, "spec": { "template": { "metadata": { "annotations": annotations } } } });
    let answer = client.merge(RESTART, &workload.path(""), change.to_string().as_bytes()).await;
    let body = answer.map_err(|error| of_change(error, workload))?;
    let after = decode(client, RESTART, &body).map_err(|error| of_change(error, workload))?;
    let after = Workload::of(workload.kind, &after);
    if after.is_paused {
        let message = "it was paused meanwhile: its pods are replaced once it is resumed";
        return Err(paused(client, workload, message));
    }
    Ok(after)
}

fn paused(client: &Client, workload: &WorkloadRef, message: &'static str) -> Error {
    let error = client.site(RESTART).error(ErrorKind::Conflict, message);
    error.with_context("reason", "DeploymentPaused").with_context("workload", workload)
}
