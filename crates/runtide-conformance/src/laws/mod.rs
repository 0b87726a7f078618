//! The laws, each a free async function over a harness, by subject.

pub mod boot;
pub mod bracket;
pub mod contract;
pub mod edges;
pub mod gap;
pub mod link;
pub mod looks;
pub mod managers;
pub mod resources;
pub mod resume;
pub mod retry;
pub mod slow;
pub mod truth;

use std::sync::Arc;

use runtide_core::{InstanceId, RuntimeBackend};

use crate::{Done, Harness, Law, Obstacle, Subscriber, Violation, Workload};

/// A backend with the harness's usual tuning.
async fn backend(h: &dyn Harness) -> Done<Arc<dyn RuntimeBackend>> {
    h.backend(&h.timing().tuning()).await
}

/// An instance that runs until it is stopped.
async fn running(h: &dyn Harness, name: &str) -> Done<InstanceId> {
    let id = h.create(name, &Workload::Idle).await?;
    h.start(&id).await?;
    Ok(id)
}

/// An instance that begins, ends and is removed. No later listing shows that it was there: only its edges do, or the admission
/// that some are missing.
async fn passing(h: &dyn Harness, name: &str) -> Done<InstanceId> {
    let id = running(h, name).await?;
    h.stop(&id).await?;
    h.remove(&id).await?;
    Ok(id)
}

/// The edges of an instance that was [`passing`].
const PASSED: [&str; 3] = ["started", "stopped", "removed"];

/// Reads until the stream has accounted for an instance that was [`passing`] since the `from`th event: it reports each edge, in
/// order, or it resyncs and says why. A listing that agrees with the stream does not count.
async fn accounts_for(
    h: &dyn Harness,
    law: Law,
    subscriber: &mut Subscriber,
    id: &InstanceId,
    from: usize,
) -> Result<(), Violation> {
    let reports = |one: &Subscriber| h.dialect().edges && one.edges_of(id, from).eq(PASSED);
    let accounts = |one: &Subscriber| reports(one) || one.gaps(from).next().is_some();
    subscriber.until(h, law, &format!("{PASSED:?} of {id}, or a resync"), accounts).await
}

/// The value, or `None`, noted in `without`, where the runtime lacks the feature; a failure ends the law.
fn done<T>(what: &str, result: Done<T>, without: &mut Vec<String>) -> Result<Option<T>, Violation> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Obstacle::Unsupported(reason)) => {
            without.push(format!("{what}: {reason}"));
            Ok(None)
        }
        Err(failed) => Err(Violation::harness(what, failed)),
    }
}

/// Causes a fault that the law is about: where the harness cannot, the law does not apply.
macro_rules! need_fault {
    ($h:expr, $fault:expr) => {
        if let $crate::Supported::No(reason) = $h.fault(&$fault).await {
            return $crate::Verdict::not_applicable(reason);
        }
    };
}

/// Causes a fault that one part of the law is about; `true` if the harness could.
macro_rules! try_fault {
    ($h:expr, $fault:expr, $without:expr) => {
        match $h.fault(&$fault).await {
            $crate::Supported::Yes => true,
            $crate::Supported::No(reason) => {
                $without.push(format!("{}: {reason}", stringify!($fault)));
                false
            }
        }
    };
}

use {need_fault, try_fault};
