//! Sidecars: an instance with its network, started whole or not at all.

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
    /// One journaled operation; random and time-ordered.
    OperationId;
}

/// All or nothing: what a failed, dropped or killed start had made is undone; what existed before is left.
#[async_trait]
pub trait SidecarManager: Debug + Send + Sync {
    /// Ensures network and image, creates, starts, and returns once it is ready.
    async fn start_sidecar(&self, spec: &SidecarSpec) -> Result<Sidecar>;

    /// The instance, in full.
    async fn inspect(&self, sidecar: &Sidecar) -> Result<Arc<Instance>>;

    /// Stops and removes what `start_sidecar` made; what is gone already is `Unchanged`.
    async fn stop(&self, sidecar: &Sidecar) -> Result<Effect>;
}

/// Specification of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SidecarSpec {
    /// The instance.
    pub instance: InstanceSpec,
    /// Its network, made if it is not there.
    pub network: Option<NetworkSpec>,
    /// When the start counts as done.
    pub ready: Readiness,
    /// Bounds the whole start.
    pub deadline: Duration,
}

impl SidecarSpec {
    /// A sidecar without a network of its own.
    pub fn new(instance: InstanceSpec, ready: Readiness, deadline: Duration) -> Self {
        Self { instance, network: None, ready, deadline }
    }

    /// With a network of its own.
    #[must_use]
    pub fn with_network(mut self, network: NetworkSpec) -> Self {
        self.network = Some(network);
        self
    }
}

/// When a start counts as done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Readiness {
    /// It runs.
    Running,
    /// The runtime calls it healthy.
    Healthy,
    /// This TCP port accepts.
    Tcp(NonZeroU16),
    /// A plain GET is answered with success.
    Http {
        /// Inside the instance.
        port: NonZeroU16,
        /// With its leading slash.
        path: String,
    },
    /// This command, run inside, ends with 0.
    Command(Vec<String>),
    /// A line of its output contains this text.
    Log(String),
}

/// A started sidecar: enough to stop it from another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sidecar {
    /// The instance.
    pub id: InstanceId,
    /// The network, if one was asked for.
    pub network: Option<NetworkId>,
    /// The operation that created it.
    pub operation: OperationId,
}

impl Sidecar {
    /// The sidecar that was started, and its operation.
    pub fn new(id: InstanceId, network: Option<NetworkId>, operation: OperationId) -> Self {
        Self { id, network, operation }
    }
}
