//! The managers' laws.

pub mod cancel;
pub mod deadline;
pub mod effect;
pub mod exit;
pub mod names;
mod objects;
pub mod output;
pub mod undone;

use std::time::Duration;

use runtide_core::{Error, ErrorKind, Instance, InstanceId, InstanceState, RuntimeBackend, manager::LifecycleManager};
use tokio::time::Instant;

use crate::{Done, Fact, Happened, Harness, Law, Obstacle, Violation};

/// The lifecycle manager, without which none of these laws applies.
fn lifecycle(backend: &dyn RuntimeBackend, law: Law) -> Result<&dyn LifecycleManager, Violation> {
    backend.lifecycle().ok_or_else(|| Violation::of(law, "a lifecycle manager (or a skip)", "none"))
}

/// The verb's value; an error breaks the law.
fn ok<T>(law: Law, what: &str, result: Result<T, Error>) -> Result<T, Violation> {
    result.map_err(|error| Violation::of(law, format!("{what} to succeed"), error.to_string()))
}

/// True for an answer to hostile input that does no harm.
fn is_refused(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound | ErrorKind::Unsupported)
}

/// One instance, inspected from outside.
async fn seen(h: &dyn Harness, id: &InstanceId) -> Done<Option<Instance>> {
    Ok(h.truth().await?.into_iter().find(|instance| instance.id == *id))
}

/// Number of runs of an instance that an outside observer has seen begin, once it has seen `least`.
async fn runs_of(h: &dyn Harness, law: Law, id: &InstanceId, least: usize) -> Result<usize, Violation> {
    let deadline = Instant::now() + h.timing().timeout;
    loop {
        let facts = h.facts().await?;
        let began = |fact: &&Fact| fact.id == *id && matches!(fact.what, Happened::Started { .. });
        let runs = facts.iter().filter(began).count();
        if runs >= least {
            return Ok(runs);
        }
        if Instant::now() >= deadline {
            return Err(Violation::of(law, format!("{least} runs that an outside observer sees"), format!("{runs}")));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An instance's state, inspected from outside.
async fn state(h: &dyn Harness, id: &InstanceId) -> Done<InstanceState> {
    match seen(h, id).await? {
        Some(instance) => Ok(instance.state),
        None => Err(Obstacle::failed(format!("{id} is not there"))),
    }
}
