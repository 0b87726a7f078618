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
    async fn exec(&self, id: &InstanceId, options: ExecOptions) -> Result<ExecSession>;

    /// Attaches to the main process; its earlier output is not repeated.
    async fn attach(&self, id: &InstanceId) -> Result<ExecSession>;

    /// Attaches to the instance, then starts it, so that none of its first output is missed.
    async fn start_attached(&self, id: &InstanceId) -> Result<ExecSession>;

    /// Resizes the main process's terminal.
    async fn resize(&self, id: &InstanceId, size: TtySize) -> Result<()>;
}

/// The pipes of one process.
///
/// Output is one ordered stream tagged by source, so that an unread pipe cannot starve the other. Dropping the session detaches.
pub struct ExecSession {
    /// Standard input; `None` unless [`ExecOptions::stdin`] asked for it.
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

/// Controls one process; usable while its output is read.
#[async_trait]
pub trait ExecControl: Send + Sync {
    /// Resizes the process's terminal.
    async fn resize(&self, size: TtySize) -> Result<()>;

    /// Waits for the end of the process; `None` if it ended and the runtime does not report how.
    async fn wait(&self) -> Result<Option<ExitStatus>>;
}

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
