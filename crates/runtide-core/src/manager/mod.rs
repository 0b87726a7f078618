//! The capability managers' interfaces, one per file. A backend hands out a manager or `None`; no stub exists.
//!
//! # Behavior of every verb
//! * `Ok` means that the effect is there. A verb towards a state that holds already is [`Effect::Unchanged`].
//! * It connects lazily and ends within the backend's deadline (`Timeout`: the outcome is unknown).
//! * It may be dropped at any await without harm to the backend; the runtime may still do what it was asked.
//! * Managers are stateless handles: scope is passed per call.

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
    exec::{ExecControl, ExecManager, ExecOptions, ExecSession, TtySize},
    image::{BuildContext, BuildOptions, ImageInfo, ImageManager, ImageProgress, ImageStream, PullOptions},
    lifecycle::{LifecycleManager, RemoveOptions, StopOptions},
    log::{LogLine, LogManager, LogOptions, LogSource, LogStream},
    network::{ConnectOptions, NetworkId, NetworkInfo, NetworkManager, NetworkSpec},
    provision::{InstanceSpec, Mount, MountSource, ProvisionManager, RestartPolicy},
    sidecar::{OperationId, Readiness, Sidecar, SidecarManager, SidecarSpec},
    snapshot::{SnapshotId, SnapshotInfo, SnapshotManager, SnapshotScope},
    stats::{StatsManager, Usage, UsageStream},
    volume::{VolumeId, VolumeInfo, VolumeManager, VolumeSpec},
};

/// Bounded: a reader that stops holds the runtime back instead of filling memory.
pub type ByteReader = Pin<Box<dyn AsyncRead + Send>>;

/// Shutting it down is half-close.
pub type ByteWriter = Pin<Box<dyn AsyncWrite + Send>>;

/// Effect of a verb; the wanted state holds in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Effect {
    /// It was brought about.
    Changed,
    /// It held already.
    Unchanged,
}

/// A password or token: no `Display`, no serde, and `Debug` is redacted.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text: for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
