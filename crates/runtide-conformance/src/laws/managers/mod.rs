//! The managers' laws.

pub mod cancel;
pub mod deadline;
pub mod effect;
pub mod exit;
pub mod names;
pub mod output;
pub mod undone;

use runtide_core::{Error, Instance, InstanceId, InstanceState, RuntimeBackend, manager::LifecycleManager};

use crate::{Done, Harness, Law, Obstacle, Violation};

/// The lifecycle manager, without which nothing of these laws applies.
fn lifecycle(backend: &dyn RuntimeBackend, law: Law) -> Result<&dyn LifecycleManager, Violation> {
    backend.lifecycle().ok_or_else(|| Violation::of(law, "a lifecycle manager (or a skip)", "none"))
}

/// What the verb gave; an error breaks the law.
fn ok<T>(law: Law, what: &str, result: Result<T, Error>) -> Result<T, Violation> {
    result.map_err(|error| Violation::of(law, format!("{what} to succeed"), error.to_string()))
}

/// One instance as it is, seen from outside.
async fn seen(h: &dyn Harness, id: &InstanceId) -> Done<Option<Instance>> {
    Ok(h.truth().await?.into_iter().find(|instance| instance.id == *id))
}

/// Its state, seen from outside.
async fn state(h: &dyn Harness, id: &InstanceId) -> Done<InstanceState> {
    match seen(h, id).await? {
        Some(instance) => Ok(instance.state),
        None => Err(Obstacle::failed(format!("{id} is not there"))),
    }
}
