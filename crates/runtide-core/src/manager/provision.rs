//! Create instances from a description that is the same for every runtime.

mod attachment;
mod health_check;
mod process;

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
    manager::VolumeId,
    names::setters,
};

pub use self::{
    attachment::{Dns, ExtraHost, HostAddress, NetworkAttachment},
    health_check::{HealthCheck, HealthTest},
    process::{Ulimit, is_capability},
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
///
/// ```
/// use std::num::{NonZeroU16, NonZeroU64};
///
/// use runtide_core::{Port, Protocol, manager::{InstanceSpec, Mount, MountSource, RestartPolicy}};
///
/// let http = Port::new(NonZeroU16::new(80).unwrap(), Protocol::Tcp).published_at("127.0.0.1:8080".parse().unwrap());
/// let spec = InstanceSpec::of_image("nginx:1.27")
///     .with_name("web")
///     .with_command(["nginx", "-g", "daemon off;"])
///     .with_env([("TZ", "UTC")])
///     .with_label("tier", "front")
///     .with_mounts([Mount::new(MountSource::Volume("pages".into()), "/usr/share/nginx/html").read_only()])
///     .with_ports([http])
///     .with_memory_bytes(NonZeroU64::new(256 << 20))
///     .with_restart(RestartPolicy::OnFailure { attempts: Some(3) });
/// assert_eq!(spec.command.len(), 3);
/// // Then: backend.provision() … create(&spec).await, and lifecycle() … start(&id).await.
/// ```
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
    /// Networks that the instance joins, each with further names and an address in it; the runtime's default if empty.
    pub networks: Vec<NetworkAttachment>,
    /// Host names that resolve to these addresses inside the instance, before any name server is asked.
    pub extra_hosts: Vec<ExtraHost>,
    /// Resolution of names inside the instance; the runtime's own where it is empty.
    pub dns: Dns,
    /// Memory limit in bytes.
    pub memory_bytes: Option<NonZeroU64>,
    /// CPU limit in thousandths of a core.
    pub milli_cpus: Option<NonZeroU32>,
    /// Limit of processes and threads.
    pub pids: Option<NonZeroU32>,
    /// Resource limits of each process.
    pub ulimits: Vec<Ulimit>,
    /// Kernel capabilities that the instance has beyond the runtime's default, as `NET_ADMIN`; `ALL` adds every one.
    pub cap_add: Vec<String>,
    /// Kernel capabilities of the runtime's default that the instance does not have; `ALL` drops every one.
    pub cap_drop: Vec<String>,
    /// True if the instance may not write to its root file system; its mounts stay as they are.
    pub read_only_root: bool,
    /// True to run the runtime's own small init as the first process, which forwards signals and reaps orphans.
    pub init: bool,
    /// Check by which the runtime decides whether the instance is healthy; the image's own if `None`.
    pub health_check: Option<HealthCheck>,
    /// Policy by which the runtime starts the instance again.
    pub restart: RestartPolicy,
    /// Signal that asks the instance to end.
    pub stop_signal: Option<UnixSignal>,
    /// Time after that signal until the instance is killed.
    pub stop_timeout: Option<Duration>,
    /// The runtime's own options by their keys, passed through; an unknown key is `InvalidInput`.
    pub native: BTreeMap<String, String>,
}

setters!(InstanceSpec {
    /// Sets the name.
    with_name: name = String;
    /// Sets the image.
    with_image: image = ImageRef;
    /// Sets the user, and optionally group, as `user[:group]`.
    with_user: user = String;
    /// Sets the working directory inside the instance.
    with_working_dir: working_dir = String;
    /// Sets the user's labels.
    with_labels: labels: Labels;
    /// Sets the mounts.
    with_mounts: mounts: Vec<Mount>;
    /// Sets the exposed ports.
    with_ports: ports: Vec<Port>;
    /// Sets the host names that resolve to given addresses.
    with_extra_hosts: extra_hosts: Vec<ExtraHost>;
    /// Sets how names are resolved inside the instance.
    with_dns: dns: Dns;
    /// Sets the memory limit, in bytes.
    with_memory_bytes: memory_bytes: Option<NonZeroU64>;
    /// Sets the CPU limit, in thousandths of a core.
    with_milli_cpus: milli_cpus: Option<NonZeroU32>;
    /// Sets the limit of processes and threads.
    with_pids: pids: Option<NonZeroU32>;
    /// Sets the resource limits of each process.
    with_ulimits: ulimits: Vec<Ulimit>;
    /// Forbids writes to the root file system.
    with_read_only_root: read_only_root;
    /// Runs the runtime's own init as the first process.
    with_init: init;
    /// Sets the health check.
    with_health_check: health_check: Option<HealthCheck>;
    /// Sets the policy by which the runtime starts the instance again.
    with_restart: restart: RestartPolicy;
    /// Sets the signal that asks the instance to end.
    with_stop_signal: stop_signal: Option<UnixSignal>;
    /// Sets the time after that signal until the instance is killed.
    with_stop_timeout: stop_timeout: Option<Duration>;
});

impl InstanceSpec {
    /// Makes a description with this image and nothing else.
    pub fn of_image(image: impl Into<ImageRef>) -> Self {
        Self { image: Some(image.into()), ..Self::default() }
    }

    /// Sets the arguments of the main process.
    #[must_use]
    pub fn with_command(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the entry point, which replaces the image's; an empty one clears it.
    #[must_use]
    pub fn with_entrypoint(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.entrypoint = Some(words.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the environment variables.
    #[must_use]
    pub fn with_env(mut self, variables: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>) -> Self {
        self.env = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self
    }

    /// Sets the networks that the instance joins.
    ///
    /// ```
    /// use runtide_core::manager::{InstanceSpec, NetworkAttachment};
    ///
    /// let plain = InstanceSpec::of_image("nginx:1.27").with_networks(["front", "back"]);
    /// let back = NetworkAttachment::new("back").with_aliases(["db"]).with_address("10.89.7.5".parse().unwrap());
    /// let named = InstanceSpec::of_image("postgres:17").with_networks([back]);
    /// assert_eq!((plain.networks.len(), named.networks[0].aliases.len()), (2, 1));
    /// ```
    #[must_use]
    pub fn with_networks(mut self, networks: impl IntoIterator<Item = impl Into<NetworkAttachment>>) -> Self {
        self.networks = networks.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the kernel capabilities beyond the runtime's default.
    #[must_use]
    pub fn with_cap_add(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.cap_add = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the kernel capabilities of the runtime's default that the instance does not have.
    #[must_use]
    pub fn with_cap_drop(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.cap_drop = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the runtime's own options, by their keys.
    #[must_use]
    pub fn with_native(mut self, options: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>) -> Self {
        self.native = options.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        self
    }

    /// Adds a label, or replaces the one of this key. To set many, collect them for [`with_labels`](Self::with_labels).
    #[must_use]
    pub fn with_label(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.labels.insert(key, value);
        self
    }

    /// Names of the fields that ask for something, in their order. A backend compares them with those that it honours, so that a
    /// field which is added here later is refused there, and not dropped in silence.
    ///
    /// ```
    /// use runtide_core::manager::InstanceSpec;
    ///
    /// assert_eq!(InstanceSpec::of_image("nginx:1.27").with_init().given(), ["image", "init"]);
    /// ```
    pub fn given(&self) -> Vec<&'static str> {
        // Every field by its name: one that is added does not compile until it is listed.
        let Self {
            name,
            image,
            entrypoint,
            command,
            env,
            user,
            working_dir,
            labels,
            mounts,
            ports,
            networks,
            extra_hosts,
            dns,
            memory_bytes,
            milli_cpus,
            pids,
            ulimits,
            cap_add,
            cap_drop,
            read_only_root,
            init,
            health_check,
            restart,
            stop_signal,
            stop_timeout,
            native,
        } = self;
        let fields = [
            ("name", name.is_some()),
            ("image", image.is_some()),
            ("entrypoint", entrypoint.is_some()),
            ("command", !command.is_empty()),
            ("env", !env.is_empty()),
            ("user", user.is_some()),
            ("working_dir", working_dir.is_some()),
            ("labels", !labels.is_empty()),
            ("mounts", !mounts.is_empty()),
            ("ports", !ports.is_empty()),
            ("networks", !networks.is_empty()),
            ("extra_hosts", !extra_hosts.is_empty()),
            ("dns", *dns != Dns::default()),
            ("memory_bytes", memory_bytes.is_some()),
            ("milli_cpus", milli_cpus.is_some()),
            ("pids", pids.is_some()),
            ("ulimits", !ulimits.is_empty()),
            ("cap_add", !cap_add.is_empty()),
            ("cap_drop", !cap_drop.is_empty()),
            ("read_only_root", *read_only_root),
            ("init", *init),
            ("health_check", health_check.is_some()),
            ("restart", *restart != RestartPolicy::No),
            ("stop_signal", stop_signal.is_some()),
            ("stop_timeout", stop_timeout.is_some()),
            ("native", !native.is_empty()),
        ];
        fields.into_iter().filter_map(|(field, is_given)| is_given.then_some(field)).collect()
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
