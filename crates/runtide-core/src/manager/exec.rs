//! Run processes inside an instance, and attach to its main one.

use std::{collections::BTreeMap, fmt, num::NonZeroU16, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    instance::{ExitStatus, InstanceId},
    manager::{ByteWriter, LogStream},
    names::setters,
};

/// Runs argv, never a shell.
#[async_trait]
pub trait ExecManager: fmt::Debug + Send + Sync {
    /// Starts a process inside.
    async fn exec(&self, id: &InstanceId, options: ExecOptions) -> Result<ExecSession>;

    /// Attaches to the main process; what it wrote before is not repeated.
    async fn attach(&self, id: &InstanceId) -> Result<ExecSession>;

    /// Attaches, then starts: nothing of the first output is missed.
    async fn start_attached(&self, id: &InstanceId) -> Result<ExecSession>;

    /// Resizes the main process's terminal.
    async fn resize(&self, id: &InstanceId, size: TtySize) -> Result<()>;
}

/// One process's pipes.
///
/// Output is one ordered stream tagged by source, so that an unread pipe cannot starve the other. Dropping the session detaches.
pub struct ExecSession {
    /// Only if it was asked for.
    pub stdin: Option<ByteWriter>,
    /// Both outputs.
    pub output: LogStream,
    /// Resize and wait, usable while `output` is read.
    pub control: Arc<dyn ExecControl>,
}

impl fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSession").field("stdin", &self.stdin.is_some()).finish_non_exhaustive()
    }
}

/// Usable while the output is read.
#[async_trait]
pub trait ExecControl: Send + Sync {
    /// Resizes the process's terminal.
    async fn resize(&self, size: TtySize) -> Result<()>;

    /// The process's end; `None`: it ended and the runtime does not say how.
    async fn wait(&self) -> Result<Option<ExitStatus>>;
}

/// Process to run.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ExecOptions {
    /// Program and arguments, passed as they are.
    pub argv: Vec<String>,
    /// Added to the instance's environment.
    pub env: BTreeMap<String, String>,
    /// `user[:group]`; `None`: the instance's own.
    pub user: Option<String>,
    /// `None`: the instance's own.
    pub working_dir: Option<String>,
    /// With a terminal of this size, which merges the outputs into `Console`.
    pub tty: Option<TtySize>,
    /// With an open standard input.
    pub stdin: bool,
}

setters!(ExecOptions {
    /// Program and arguments.
    with_argv: argv: Vec<String>;
    /// Added to the instance's environment.
    with_env: env: BTreeMap<String, String>;
    /// `user[:group]`.
    with_user: user: Option<String>;
    /// Working directory.
    with_working_dir: working_dir: Option<String>;
    /// With a terminal.
    with_tty: tty: Option<TtySize>;
    /// With an open standard input.
    with_stdin: stdin;
});

/// A terminal's size in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TtySize {
    /// Across.
    pub columns: NonZeroU16,
    /// Down.
    pub rows: NonZeroU16,
}

impl TtySize {
    /// Columns across, rows down.
    pub fn new(columns: NonZeroU16, rows: NonZeroU16) -> Self {
        Self { columns, rows }
    }
}
