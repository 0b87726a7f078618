//! Start, stop, kill, pause, wait, remove.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::{
    error::Result,
    instance::{ExitStatus, InstanceId, UnixSignal},
    manager::Effect,
    names::setters,
};

/// The verbs of an instance's lifecycle. The module of managers has the guarantees of every verb.
#[async_trait]
pub trait LifecycleManager: Debug + Send + Sync {
    /// Starts it; returns once it runs, or ran and ended.
    async fn start(&self, id: &InstanceId) -> Result<Effect>;

    /// Stops it and returns once it ended. What the runtime cannot honour of the options is `Unsupported`, before anything is sent.
    async fn stop(&self, id: &InstanceId, options: StopOptions) -> Result<Effect>;

    /// Delivers a signal, which need not end anything.
    ///
    /// # Errors
    /// `Conflict` if it does not run.
    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Result<()>;

    /// Stops it if it runs, and starts it.
    async fn restart(&self, id: &InstanceId, options: StopOptions) -> Result<()>;

    /// Freezes every process of it.
    async fn pause(&self, id: &InstanceId) -> Result<Effect>;

    /// Thaws it.
    async fn unpause(&self, id: &InstanceId) -> Result<Effect>;

    /// The exit of the present run, at once if it is over; `None`: it ended and the runtime does not report how.
    ///
    /// Has no deadline of its own. Dropping it stops waiting and nothing else.
    ///
    /// # Errors
    /// `Conflict` if it never ran; `NotFound` if it is gone before its end was seen.
    async fn wait(&self, id: &InstanceId) -> Result<Option<ExitStatus>>;

    /// Removes it; what is gone already is `Unchanged`.
    ///
    /// # Errors
    /// `Conflict` if it runs and the options do not say `kill`.
    async fn remove(&self, id: &InstanceId, options: RemoveOptions) -> Result<Effect>;
}

/// How to stop. `None`: the instance's own signal and time-out.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StopOptions {
    /// The signal that asks it to end.
    pub signal: Option<UnixSignal>,
    /// How long to wait before it is killed.
    pub timeout: Option<Duration>,
}

setters!(StopOptions {
    /// The signal that asks it to end.
    with_signal: signal: Option<UnixSignal>;
    /// How long to wait before it is killed.
    with_timeout: timeout: Option<Duration>;
});

/// How to remove. By default a running instance is `Conflict`, and volumes stay.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub kill: bool,
    /// Remove the volumes that were made for it alone.
    pub anonymous_volumes: bool,
}

setters!(RemoveOptions {
    /// Kill it first if it runs.
    with_kill: kill;
    /// Remove the volumes that were made for it alone.
    with_anonymous_volumes: anonymous_volumes;
});
