//! Start, stop, kill, pause, wait, rename, remove.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::{
    error::Result,
    instance::{ExitStatus, InstanceId, UnixSignal},
    manager::Effect,
    names::setters,
};

/// The verbs of an instance's lifecycle. The [module](crate::manager) lists the promises that hold for every verb.
#[async_trait]
pub trait LifecycleManager: Debug + Send + Sync {
    /// Starts the instance; returns once it runs, or ran and ended.
    async fn start(&self, id: &InstanceId) -> Result<Effect>;

    /// Stops the instance; returns once it ended. An option that the runtime cannot honour is `Unsupported`, before anything is
    /// sent.
    async fn stop(&self, id: &InstanceId, options: StopOptions) -> Result<Effect>;

    /// Delivers a signal, which need not end the instance.
    ///
    /// # Errors
    /// `Conflict` if the instance does not run.
    async fn kill(&self, id: &InstanceId, signal: UnixSignal) -> Result<()>;

    /// Stops the instance if it runs, and starts it.
    async fn restart(&self, id: &InstanceId, options: StopOptions) -> Result<()>;

    /// Freezes every process of the instance.
    async fn pause(&self, id: &InstanceId) -> Result<Effect>;

    /// Lets the processes of a paused instance go on.
    async fn unpause(&self, id: &InstanceId) -> Result<Effect>;

    /// Waits for the end of the present incarnation, and returns at once if it has ended; `None` if it ended and the runtime does
    /// not report how.
    ///
    /// It has no deadline. Dropping the future stops waiting and nothing else.
    ///
    /// # Errors
    /// `Conflict` if the instance never ran; `NotFound` if it is gone before its end was reported.
    async fn wait(&self, id: &InstanceId) -> Result<Option<ExitStatus>>;

    /// Gives the instance another name, also while it runs; `Unchanged` if it has that name already.
    ///
    /// # Errors
    /// `AlreadyExists` for a name that is taken, `InvalidInput` for one that the runtime does not allow.
    async fn rename(&self, id: &InstanceId, name: &str) -> Result<Effect>;

    /// Removes the instance; `Unchanged` if it is already gone.
    ///
    /// # Errors
    /// `Conflict` if the instance runs and [`RemoveOptions::kill`] is not set.
    async fn remove(&self, id: &InstanceId, options: RemoveOptions) -> Result<Effect>;
}

/// Options of a stop. A field that is `None` stands for the instance's own signal or time-out.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StopOptions {
    /// Signal that asks the instance to end.
    pub signal: Option<UnixSignal>,
    /// Time after the signal until the instance is killed.
    pub timeout: Option<Duration>,
}

setters!(StopOptions {
    /// Sets the signal that asks the instance to end.
    with_signal: signal: Option<UnixSignal>;
    /// Sets the time after the signal until the instance is killed.
    with_timeout: timeout: Option<Duration>;
});

/// Options of a removal. By default a running instance is a `Conflict`, and its volumes are kept.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RemoveOptions {
    /// True to kill the instance first if it runs.
    pub kill: bool,
    /// True to remove also the volumes that were made for this instance alone.
    pub anonymous_volumes: bool,
}

setters!(RemoveOptions {
    /// Kills the instance first if it runs.
    with_kill: kill;
    /// Removes also the volumes that were made for this instance alone.
    with_anonymous_volumes: anonymous_volumes;
});
