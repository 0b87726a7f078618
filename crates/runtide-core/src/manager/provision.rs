//! Create instances from a description that is the same for every runtime.

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

/// Creates instances; never starts them.
#[async_trait]
pub trait ProvisionManager: Debug + Send + Sync {
    /// Creates an instance.
    ///
    /// # Errors
    /// `Unsupported` for a field that the runtime cannot honour and `InvalidInput` for one that makes no sense, both before
    /// anything is created; `AlreadyExists` for a name that is taken; `NotFound` for an image, network or volume that does not
    /// exist.
    async fn create(&self, spec: &InstanceSpec) -> Result<InstanceId>;
}

/// Description of an instance to create, the same for every runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct InstanceSpec {
    /// Name of the instance; the runtime picks one if `None`.
    pub name: Option<String>,
    /// Image that the instance is created from.
    pub image: Option<ImageRef>,
    /// Entry point, which replaces the image's; an empty one clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments of the main process; the image's own if empty.
    pub command: Vec<String>,
    /// Environment variables, which are added to the image's.
    pub env: BTreeMap<String, String>,
    /// User, and optionally group, as `user[:group]`, by names or numbers.
    pub user: Option<String>,
    /// Working directory inside the instance.
    pub working_dir: Option<String>,
    /// Labels that the user gives the instance.
    pub labels: Labels,
    /// Mounts of the instance: their sources, and their paths inside.
    pub mounts: Vec<Mount>,
    /// Exposed ports, and the host's ports that publish them; for a published port 0 the runtime picks one.
    pub ports: Vec<Port>,
    /// Networks that the instance joins; the runtime's default if empty.
    pub networks: Vec<NetworkId>,
    /// Memory limit in bytes.
    pub memory_bytes: Option<NonZeroU64>,
    /// CPU limit in thousandths of a core.
    pub milli_cpus: Option<NonZeroU32>,
    /// Limit of processes and threads.
    pub pids: Option<NonZeroU32>,
    /// Policy by which the runtime starts the instance again.
    pub restart: RestartPolicy,
    /// Signal that asks the instance to end.
    pub stop_signal: Option<UnixSignal>,
    /// Time after that signal until the instance is killed.
    pub stop_timeout: Option<Duration>,
    /// The runtime's own options by their keys, passed through; an unknown key is `InvalidInput`.
    pub native: BTreeMap<String, String>,
}

impl InstanceSpec {
    /// Makes a description with this image and nothing else.
    pub fn of_image(image: impl Into<ImageRef>) -> Self {
        Self { image: Some(image.into()), ..Self::default() }
    }
}

/// One mount of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mount {
    /// Source of the content.
    pub source: MountSource,
    /// Absolute path inside the instance.
    pub target: PathBuf,
    /// True if the instance may not write.
    #[serde(default)]
    pub read_only: bool,
}

impl Mount {
    /// Makes a mount that the instance can write to.
    pub fn new(source: MountSource, target: impl Into<PathBuf>) -> Self {
        Self { source, target: target.into(), read_only: false }
    }

    /// Makes the mount read-only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}

/// The source of a mount's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MountSource {
    /// A file or directory of the host, by its absolute path.
    Bind(PathBuf),
    /// A volume of the runtime.
    Volume(VolumeId),
    /// An empty file system in memory.
    Tmpfs,
}

/// The policy by which the runtime starts an instance again. The runtime carries it out, even after this process has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RestartPolicy {
    /// The runtime never starts it again.
    #[default]
    No,
    /// After it ended with a code other than 0.
    OnFailure {
        /// Most attempts; unlimited if `None`.
        attempts: Option<u32>,
    },
    /// Always, also when the runtime itself starts.
    Always,
    /// Always, except after a request to stop it.
    UnlessStopped,
}
