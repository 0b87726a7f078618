//! Run processes inside an instance, and attach to its main process.

use std::{collections::BTreeMap, fmt, num::NonZeroU16, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    instance::{ExitStatus, InstanceId},
    manager::{ByteWriter, LogStream},
    names::setters,
};

/// Runs processes inside an instance. The arguments are passed as they are, never through a shell.
#[async_trait]
pub trait ExecManager: fmt::Debug + Send + Sync {
    /// Starts a process inside the instance.
    ///
    /// # Behavior
    /// * A program that cannot be run is no error of this call: the process ends with code 126 or 127, as in a shell, and the
    ///   runtime's reason is its output.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for an instance that does not run, or is paused; `InvalidInput` for options that no process can have.
    ///
    /// # Cancel safety
    /// A dropped future may leave the process running, without a session.
    async fn exec(&self, id: &InstanceId, options: ExecOptions) -> Result<ExecSession>;

    /// Starts a process inside the instance and leaves it to itself: its output is discarded and its input is empty.
    ///
    /// # Errors
    /// As [`exec`](Self::exec); `InvalidInput` also for [`ExecOptions::stdin`]. A program that cannot be run is an error here,
    /// where the runtime reports it: there is no output to carry the reason.
    ///
    /// # Cancel safety
    /// A dropped future may leave the process running.
    async fn exec_detached(&self, id: &InstanceId, options: ExecOptions) -> Result<Arc<dyn ExecControl>>;

    /// Attaches to the main process; its earlier output is not repeated. The session ends with the present run.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for an instance that does not run, or is paused; `InvalidInput` for an input that is not open.
    async fn attach(&self, id: &InstanceId, options: AttachOptions) -> Result<ExecSession>;

    /// Attaches to the instance, then starts it, so that none of its first output is missed. The session ends with the run that
    /// it started.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), but `Conflict` for an instance that runs already. A start that fails leaves no session behind.
    async fn start_attached(&self, id: &InstanceId, options: AttachOptions) -> Result<ExecSession>;

    /// Resizes the main process's terminal.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for an instance that does not run, or has no terminal.
    async fn resize(&self, id: &InstanceId, size: TtySize) -> Result<()>;
}

/// The pipes of one process.
///
/// # Behavior
/// * Output is one ordered stream tagged by source, so that an unread pipe cannot starve the other. It is bounded: a reader that
///   stops holds the process back.
/// * The output ends without an error only if the process ended as well. A connection that breaks, or a runtime that no longer knows
///   the process, is an `Err`.
/// * A runtime may close the connection before it knows that the process is over; then a process that runs at the end of its output is
///   given a time to end, 10 s with Docker. So there, what something in between (a proxy, `ssh`) cuts off within the last 10 s of a process
///   cannot be told from the end, and is an end without an error. The backend's documentation says where that is so.
/// * Dropping the session detaches. A process that goes on without its session, as on most runtimes, is not blocked by the missing
///   reader; the backend's documentation says whether it goes on.
pub struct ExecSession {
    /// Standard input; `None` unless the options asked for it. Shutting it down, or dropping it where there is no terminal, is the
    /// end of the input. With a terminal the end is the character that a user types for it (Ctrl-D).
    pub stdin: Option<ByteWriter>,
    /// Standard output and standard error, as one stream.
    pub output: LogStream,
    /// Handle to resize the terminal and to wait for the end; usable while `output` is read.
    pub control: Arc<dyn ExecControl>,
}

impl fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSession").field("stdin", &self.stdin.is_some()).finish_non_exhaustive()
    }
}

/// Controls one process; usable while its output is read. Dropping it leaves the process alone.
#[async_trait]
pub trait ExecControl: Send + Sync {
    /// Resizes the process's terminal.
    ///
    /// # Errors
    /// `Conflict` for a process without a terminal, or one that ended.
    async fn resize(&self, size: TtySize) -> Result<()>;

    /// Waits for the end of the process, or of the instance. `None` if how it ended was not seen by the runtime: the instance was
    /// removed under it, or the runtime was restarted and no longer knows it.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; it may be called again, also after the end.
    async fn wait(&self) -> Result<Option<ExitStatus>>;
}

/// The streams to attach to. By default the output alone.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AttachOptions {
    /// True to open the standard input. The instance must have been created with an open input.
    pub stdin: bool,
}

setters!(AttachOptions {
    /// Opens the standard input.
    with_stdin: stdin;
});

/// The process to run, and its environment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ExecOptions {
    /// Program and arguments, passed as they are.
    pub argv: Vec<String>,
    /// Variables that are added to the instance's environment.
    pub env: BTreeMap<String, String>,
    /// User, and optionally group, as `user[:group]`; the instance's own if `None`.
    pub user: Option<String>,
    /// Working directory inside the instance; the instance's own if `None`.
    pub working_dir: Option<String>,
    /// Size of the terminal to run with, which merges both outputs into `Console`; no terminal if `None`.
    pub tty: Option<TtySize>,
    /// True to open the standard input.
    pub stdin: bool,
}

setters!(ExecOptions {
    /// Sets the program and its arguments.
    with_argv: argv: Vec<String>;
    /// Sets the variables that are added to the instance's environment.
    with_env: env: BTreeMap<String, String>;
    /// Sets the user, and optionally the group, as `user[:group]`.
    with_user: user: Option<String>;
    /// Sets the working directory inside the instance.
    with_working_dir: working_dir: Option<String>;
    /// Runs the process with a terminal of this size.
    with_tty: tty: Option<TtySize>;
    /// Opens the standard input.
    with_stdin: stdin;
});

/// A terminal's size in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TtySize {
    /// Width, in character cells.
    pub columns: NonZeroU16,
    /// Height, in character cells.
    pub rows: NonZeroU16,
}

impl TtySize {
    /// Makes a size of this number of columns and rows.
    pub fn new(columns: NonZeroU16, rows: NonZeroU16) -> Self {
        Self { columns, rows }
    }
}
