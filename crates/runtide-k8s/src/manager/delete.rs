//! Stops and removals: both delete the pod, by its uid.

use std::time::Duration;

use runtide_core::{
    ErrorKind, InstanceState, Result,
    manager::{Effect, RemoveOptions, StopOptions},
};
use serde::Serialize;

use super::subject::{Seen, Subject};
use crate::normalize::uid_of;

/// Shortest grace period. Without one the server forgets the pod at once, and its processes may go on (trap K19).
const SHORTEST: Duration = Duration::from_secs(1);
/// How often a pod is looked at again, because it changed before its removal arrived.
const ATTEMPTS: usize = 10;

/// The pod that may be deleted.
enum If<'a> {
    Same,
    /// It is in the very state of this look.
    Unchanged(&'a Seen),
}

/// The outcome of a request to delete.
enum Deletion {
    Accepted,
    /// The pod has changed, or is gone, and another has its name.
    Refused,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeleteOptions<'a> {
    kind: &'static str,
    api_version: &'static str,
    propagation_policy: &'static str,
    /// `None`: the pod's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_period_seconds: Option<u64>,
    preconditions: Preconditions<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Preconditions<'a> {
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'a str>,
}

async fn delete(subject: &Subject, grace: Option<Duration>, only: If<'_>) -> Result<Deletion> {
    let seconds = grace.map(|grace| {
        // A part of a second is a second more.
        let grace = grace.max(SHORTEST);
        grace.as_secs().saturating_add(u64::from(grace.subsec_nanos() > 0)).min(i64::MAX.unsigned_abs())
    });
    let version = match only {
        If::Same => None,
        If::Unchanged(seen) => Some(seen.version.as_str()),
    };
    let options = DeleteOptions {
        kind: "DeleteOptions",
        api_version: "v1",
        propagation_policy: "Background",
        grace_period_seconds: seconds,
        preconditions: Preconditions { uid: uid_of(subject.id.as_str()), resource_version: version },
    };
    let options = serde_json::to_vec(&options).map_err(|error| subject.site().undecodable(error))?;
    match subject.client.delete(subject.operation, &subject.path(), &options).await {
        Ok(()) => Ok(Deletion::Accepted),
        Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(Deletion::Refused),
        Err(error) => Err(error),
    }
}

/// Deletes the pod with its grace period, and waits until its containers have ended.
pub(super) async fn stop(subject: &Subject, options: &StopOptions) -> Result<Effect> {
    let (site, deadline) = (subject.site(), subject.client.config().deadline);
    let Some(seen) = site.within(deadline, subject.look()).await? else { return Err(subject.is_gone()) };
    if seen.is_over() {
        return Ok(Effect::Unchanged);
    }
    let grace = options.timeout.unwrap_or(seen.grace).max(SHORTEST);
    site.within(deadline.saturating_add(grace), async {
        // One that is being deleted already is given no more time than it has; less, where the caller asks for it.
        if (!seen.is_deleted || options.timeout.is_some())
            && let Deletion::Refused = delete(subject, options.timeout, If::Same).await?
        {
            return Ok(Effect::Unchanged);
        }
        subject.until(|seen| seen.is_none_or(|seen| seen.is_deleted && seen.has_ended()).then_some(())).await?;
        Ok(Effect::Changed)
    })
    .await
}

/// True if the pod has processes, or may have.
fn runs(seen: &Seen) -> bool {
    !matches!(
        seen.state,
        InstanceState::Created | InstanceState::Starting | InstanceState::Stopped | InstanceState::Failed
    )
}

/// Deletes the pod, and waits until the server no longer has it.
pub(super) async fn remove(subject: &Subject, options: &RemoveOptions) -> Result<Effect> {
    let (site, deadline) = (subject.site(), subject.client.config().deadline);
    let mut held = Vec::new();
    let removed = site.within(deadline.saturating_add(SHORTEST), async {
        for _ in 0..ATTEMPTS {
            let Some(seen) = subject.look().await? else { return Ok(Effect::Unchanged) };
            held.clone_from(&seen.finalizers);
            if !options.kill && runs(&seen) {
                let message = format!("it is {}, and is not to be killed", seen.state);
                return Err(subject.error(ErrorKind::Conflict, message));
            }
            // A pod that is about to start must not be one that runs by the time that the request arrives.
            let only = if options.kill { If::Same } else { If::Unchanged(&seen) };
            if let Deletion::Refused = delete(subject, Some(SHORTEST), only).await? {
                continue;
            }
            let gone = subject.until(|seen| {
                if let Some(seen) = seen {
                    held.clone_from(&seen.finalizers);
                }
                seen.is_none().then_some(())
            });
            gone.await?;
            return Ok(Effect::Changed);
        }
        Err(subject.error(ErrorKind::Conflict, format!("it changed {ATTEMPTS} times during the call")))
    });
    let removed = removed.await;
    removed.map_err(|error| match error.kind() {
        ErrorKind::Timeout if !held.is_empty() => error.with_context("finalizers", held.join(", ")),
        _ => error,
    })
}
