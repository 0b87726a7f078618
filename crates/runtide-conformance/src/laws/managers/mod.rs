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

/// The lifecycle manager, without which none of these laws applies.
fn lifecycle(backend: &dyn RuntimeBackend, law: Law) -> Result<&dyn LifecycleManager, Violation> {
    backend.lifecycle().ok_or_else(|| Violation::of(law, "a lifecycle manager (or a skip)", "none"))
}

/// The verb's value; an error breaks the law.
fn ok<T>(law: Law, what: &str, result: Result<T, Error>) -> Result<T, Violation> {
    result.map_err(|error| Violation::of(law, format!("{what} to succeed"), error.to_string()))
}

/// One instance, inspected from outside.
async fn seen(h: &dyn Harness, id: &InstanceId) -> Done<Option<Instance>> {
    Ok(h.truth().await?.into_iter().find(|instance| instance.id == *id))
}

/// An instance's state, inspected from outside.
async fn state(h: &dyn Harness, id: &InstanceId) -> Done<InstanceState> {
    match seen(h, id).await? {
        Some(instance) => Ok(instance.state),
        None => Err(Obstacle::failed(format!("{id} is not there"))),
    }
}
