//! Capabilities of a backend, as connected, verb by verb.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// Support of one verb by a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Support {
    /// Not known before the first contact.
    #[default]
    Unknown,
    /// The verb works, for this connection.
    Yes,
    /// The verb fails with `Unsupported`.
    No {
        /// Reason, for people.
        reason: Cow<'static, str>,
    },
}

impl Support {
    /// `No`, with this reason.
    pub fn no(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::No { reason: reason.into() }
    }

    /// `true` for `Yes`.
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Yes)
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Yes => f.write_str("yes"),
            Self::No { reason } => write!(f, "no: {reason}"),
        }
    }
}

/// Way in which a backend gets changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WatchSupport {
    /// Not known before the first contact.
    #[default]
    Unknown,
    /// The backend polls.
    Polled,
    /// The runtime reports changes as they happen.
    Pushed,
    /// The runtime reports changes, and can replay its history.
    Resumable,
}

macro_rules! capabilities {
    ($($(#[$doc:meta])* $verb:ident,)*) => {
        /// Capabilities of a backend, as connected: flat, `<manager>_<verb>`.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        #[non_exhaustive]
        pub struct Capabilities {
            /// Way in which the backend gets changes.
            pub watch: WatchSupport,
            $( $(#[$doc])* pub $verb: Support, )*
        }

        impl Capabilities {
            /// Every verb with its support, in order.
            pub fn verbs(&self) -> impl Iterator<Item = (&'static str, &Support)> {
                [$( (stringify!($verb), &self.$verb), )*].into_iter()
            }

            /// Every verb with its support, mutable.
            pub fn verbs_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Support)> {
                [$( (stringify!($verb), &mut self.$verb), )*].into_iter()
            }
        }
    };
}

capabilities! {
    /// Start.
    lifecycle_start,
    /// Stop, with the instance's own signal.
    lifecycle_stop,
    /// Stop, with a signal that the caller chooses.
    lifecycle_stop_signal,
    /// Send a signal.
    lifecycle_kill,
    /// Restart.
    lifecycle_restart,
    /// Freeze and thaw.
    lifecycle_pause,
    /// Wait for the end of a run.
    lifecycle_wait,
    /// Give another name.
    lifecycle_rename,
    /// Remove.
    lifecycle_remove,
    /// Create from an `InstanceSpec`.
    provision_create,
    /// Read the output so far.
    logs_read,
    /// Follow the output.
    logs_follow,
    /// Run a process inside.
    exec_run,
    /// Attach to the main process.
    exec_attach,
    /// Resize a terminal.
    exec_resize,
    /// List, inspect, tag, remove and prune images.
    images_manage,
    /// Pull from a registry.
    images_pull,
    /// Import an archive.
    images_import,
    /// Save images as an archive.
    images_save,
    /// Build from a context.
    images_build,
    /// Create, list and remove networks.
    networks_manage,
    /// Connect and disconnect instances.
    networks_connect,
    /// Create, list and remove volumes.
    volumes_manage,
    /// Export and import a volume's contents.
    volumes_transfer,
    /// Start composed sidecars.
    sidecars_start,
    /// Create, list, restore and delete snapshots.
    snapshots_manage,
    /// Snapshots with memory.
    snapshots_memory,
    /// Read resource usage.
    stats_read,
}

impl Capabilities {
    /// Every verb `No`, for this reason: the base on which a backend sets its own verbs.
    pub fn none(reason: impl Into<Cow<'static, str>>) -> Self {
        let reason = reason.into();
        let mut all = Self::default();
        for (_, support) in all.verbs_mut() {
            *support = Support::No { reason: reason.clone() };
        }
        all
    }
}
