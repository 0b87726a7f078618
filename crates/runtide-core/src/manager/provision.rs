//! Create instances from a description in the common words.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    instance::{ImageRef, InstanceId, Port, UnixSignal},
    labels::Labels,
    manager::{NetworkId, VolumeId},
};

/// Creates, never starts.
#[async_trait]
pub trait ProvisionManager: Debug + Send + Sync {
    /// Creates an instance.
    ///
    /// # Errors
    /// `Unsupported` for a field that the runtime cannot honour and `InvalidInput` for one that makes no sense, both before
    /// anything is created; `AlreadyExists` for a name that is taken; `NotFound` for an image, network or volume that is not there.
    async fn create(&self, spec: &InstanceSpec) -> Result<InstanceId>;
}

/// Specification of an instance, in terms common to all runtimes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct InstanceSpec {
    /// No name: the runtime picks one.
    pub name: Option<String>,
    /// Image that it is created from.
    pub image: Option<ImageRef>,
    /// Replaces the image's entry point; empty clears it.
    pub entrypoint: Option<Vec<String>>,
    /// The arguments; empty: the image's own.
    pub command: Vec<String>,
    /// The environment, added to the image's.
    pub env: BTreeMap<String, String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// Inside the instance.
    pub working_dir: Option<String>,
    /// The user's labels.
    pub labels: Labels,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Exposed ports, and where the host publishes them; a published port 0 lets the runtime pick.
    pub ports: Vec<Port>,
    /// Networks to join; none: the runtime's default.
    pub networks: Vec<NetworkId>,
    /// Memory limit in bytes.
    pub memory_bytes: Option<NonZeroU64>,
    /// CPU limit in thousandths of a core.
    pub milli_cpus: Option<NonZeroU32>,
    /// Limit of processes and threads.
    pub pids: Option<NonZeroU32>,
    /// When the runtime starts it again.
    pub restart: RestartPolicy,
    /// Signal that asks it to end.
    pub stop_signal: Option<UnixSignal>,
    /// How long it is given to end.
    pub stop_timeout: Option<Duration>,
    /// The runtime's own keys, passed through; an unknown one is `InvalidInput`.
    pub native: BTreeMap<String, String>,
}

impl InstanceSpec {
    /// A spec of this image, to be filled in.
    pub fn of_image(image: impl Into<ImageRef>) -> Self {
        Self { image: Some(image.into()), ..Self::default() }
    }
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mount {
    /// Source of its content.
    pub source: MountSource,
    /// An absolute path inside the instance.
    pub target: PathBuf,
    /// True if the instance may not write.
    #[serde(default)]
    pub read_only: bool,
}

impl Mount {
    /// A mount that can be written to.
    pub fn new(source: MountSource, target: impl Into<PathBuf>) -> Self {
        Self { source, target: target.into(), read_only: false }
    }

    /// A mount that cannot be written to.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}

/// Source of a mount's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MountSource {
    /// An absolute path of the host.
    Bind(PathBuf),
    /// A volume.
    Volume(VolumeId),
    /// Memory.
    Tmpfs,
}

/// When the runtime starts an instance again; the runtime's to carry out, also when we are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it ended with a code other than 0.
    OnFailure {
        /// At most so often; `None`: without end.
        attempts: Option<u32>,
    },
    /// Always, also when the runtime starts.
    Always,
    /// Always, unless somebody stopped it.
    UnlessStopped,
}
