//! Sidecars: an instance with its network, started as a whole or not at all.

use std::{fmt::Debug, num::NonZeroU16, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    instance::{Instance, InstanceId},
    manager::{Effect, InstanceSpec, NetworkId, NetworkSpec},
    names::names,
};

names! {
    /// Id of one journaled operation; random and time-ordered.
    OperationId;
}

/// Starts sidecars, all or nothing: everything that a failed, dropped or killed start had created is removed again, and
/// everything that existed before is kept.
#[async_trait]
pub trait SidecarManager: Debug + Send + Sync {
    /// Ensures that network and image exist, creates and starts the instance, and returns once it is ready.
    async fn start_sidecar(&self, spec: &SidecarSpec) -> Result<Sidecar>;

    /// Inspects the sidecar's instance.
    async fn inspect(&self, sidecar: &Sidecar) -> Result<Arc<Instance>>;

    /// Stops and removes everything that `start_sidecar` created; `Unchanged` if it is already gone.
    async fn stop(&self, sidecar: &Sidecar) -> Result<Effect>;
}

/// Description of a sidecar to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SidecarSpec {
    /// Description of the instance.
    pub instance: InstanceSpec,
    /// Description of its network, which is created if it does not exist; no network if `None`.
    pub network: Option<NetworkSpec>,
    /// Condition for the start to be complete.
    pub ready: Readiness,
    /// Time limit of the whole start.
    pub deadline: Duration,
}

impl SidecarSpec {
    /// Makes the description of a sidecar without its own network.
    pub fn new(instance: InstanceSpec, ready: Readiness, deadline: Duration) -> Self {
        Self { instance, network: None, ready, deadline }
    }

    /// Gives the sidecar its own network.
    #[must_use]
    pub fn with_network(mut self, network: NetworkSpec) -> Self {
        self.network = Some(network);
        self
    }
}

/// The condition for a start to be complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Readiness {
    /// The instance runs.
    Running,
    /// The runtime reports it healthy.
    Healthy,
    /// This TCP port of the instance accepts a connection.
    Tcp(NonZeroU16),
    /// A plain HTTP GET is answered with success.
    Http {
        /// Port inside the instance.
        port: NonZeroU16,
        /// Path of the request, with its leading slash.
        path: String,
    },
    /// This command, run inside the instance, exits with 0.
    Command(Vec<String>),
    /// A line of the instance's output contains this text.
    Log(String),
}

/// A started sidecar. These fields suffice to stop it from another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sidecar {
    /// Id of the instance.
    pub id: InstanceId,
    /// Id of the network, if the description had one.
    pub network: Option<NetworkId>,
    /// Id of the operation that started it.
    pub operation: OperationId,
}

impl Sidecar {
    /// Makes a sidecar from its ids.
    pub fn new(id: InstanceId, network: Option<NetworkId>, operation: OperationId) -> Self {
        Self { id, network, operation }
    }
}
