//! The interfaces of the capability managers, one per file. A backend returns a manager or `None`, never a stub.
//!
//! # Behavior of every verb
//! * `Ok` means that the effect has taken place. A verb towards a state that already holds returns [`Effect::Unchanged`].
//! * A call connects lazily and ends within the backend's deadline (`Timeout`: the outcome is unknown).
//! * A call may be dropped at any await without harm to the backend; the runtime may still carry out a request that was sent.
//! * Managers are stateless handles: the scope is passed with each call.

mod exec;
mod image;
mod lifecycle;
mod log;
mod network;
mod provision;
mod sidecar;
mod snapshot;
mod stats;
mod volume;

use std::{fmt, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::{
    exec::{AttachOptions, ExecControl, ExecManager, ExecOptions, ExecSession, TtySize},
    image::{
        BuildContext, BuildOptions, Credentials, ImageInfo, ImageManager, ImageProgress, ImageStream, LayerStep,
        PruneOptions, Pruned, PullOptions,
    },
    lifecycle::{LifecycleManager, RemoveOptions, StopOptions},
    log::{LogLine, LogManager, LogOptions, LogSource, LogStream},
    network::{ConnectOptions, NetworkId, NetworkInfo, NetworkManager, NetworkSpec, Subnet},
    provision::{
        Dns, ExtraHost, HealthCheck, HealthTest, HostAddress, InstanceSpec, Mount, MountSource, NetworkAttachment,
        ProvisionManager, RestartPolicy, Ulimit, is_capability,
    },
    sidecar::{OperationId, Readiness, Sidecar, SidecarManager, SidecarSpec},
    snapshot::{SnapshotId, SnapshotInfo, SnapshotManager, SnapshotScope},
    stats::{StatsManager, Usage, UsageStream},
    volume::{VolumeId, VolumeInfo, VolumeManager, VolumeSpec},
};

/// A stream of bytes from the runtime. It is bounded: a reader that stops holds the runtime back instead of filling memory.
pub type ByteReader = Pin<Box<dyn AsyncRead + Send>>;

/// A stream of bytes to the runtime. Shutting it down half-closes the connection: the other direction stays open.
pub type ByteWriter = Pin<Box<dyn AsyncWrite + Send>>;

/// The effect of a verb that reaches a state: changed, or there already. Either way the state now holds, so that it may be
/// ignored: the errors are in the `Result` around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The call brought the state about.
    Changed,
    /// The state held before the call.
    Unchanged,
}

/// A password or token: no `Display`, no serde, and `Debug` is redacted.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps the text of a password or token.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Returns the text. For the wire only: never log or display it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
