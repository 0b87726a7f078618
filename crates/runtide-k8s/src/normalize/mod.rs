//! The server's pods in, Runtide's instances out: pure functions, no I/O. The README has the table of states.

mod container;
mod fields;
mod pod;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use runtide_core::{BackendId, ExitStatus, Instance};

use crate::{
    config::{Config, Granularity},
    wire::{ContainerSpec, ContainerStatus, Pod},
};

pub(crate) use self::fields::{exit as exit_of, time};

/// The part of a configuration that decides how a pod is shown.
#[derive(Clone, Debug)]
pub(crate) struct View {
    backend: BackendId,
    granularity: Granularity,
    annotations: Option<String>,
}

/// An instance, and the runs that the answer tells of.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) instance: Arc<Instance>,
    /// Number of the present or last run, from 0.
    pub(crate) run: u32,
    /// Exit of the run before it.
    pub(crate) previous_exit: Option<ExitStatus>,
}

impl View {
    pub(crate) fn of(config: &Config) -> Self {
        Self { backend: config.backend_id(), granularity: config.granularity, annotations: config.annotations.clone() }
    }

    /// The instances of a pod: itself, or its containers.
    pub(crate) fn instances(&self, pod: &Pod<'_>) -> Vec<Seen> {
        match self.granularity {
            Granularity::Pod => vec![pod::instance(self, pod)],
            Granularity::Container => container::instances(self, pod),
        }
    }
}

/// The pod's uid in an instance's id.
pub(crate) fn uid_of(id: &str) -> &str {
    id.split('/').next().unwrap_or(id)
}

/// The container of this name with its state; the one that the pod is about, if none is named.
pub(crate) fn container_of<'p, 'a>(
    pod: &'p Pod<'a>,
    name: Option<&str>,
) -> Option<(&'p ContainerSpec<'a>, Option<&'p ContainerStatus<'a>>)> {
    let (spec, status) = (&pod.spec, &pod.status);
    let container = match name {
        None => fields::main(pod)?,
        Some(name) => {
            let mut all = spec.containers.iter().chain(&spec.init_containers).chain(&spec.ephemeral_containers);
            all.find(|container| container.name == name)?
        }
    };
    let statuses = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let own = statuses.into_iter().find_map(|all| fields::status_of(all, &container.name));
    Some((container, own))
}
