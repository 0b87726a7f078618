//! Read and follow an instance's output.

use std::{fmt::Debug, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    instance::InstanceId,
    names::{setters, streams},
};

/// Reads the output of an instance, byte for byte, to its end.
#[async_trait]
pub trait LogManager: Debug + Send + Sync {
    /// Opens the output of an instance.
    ///
    /// # Behavior
    /// * Stdout and stderr are separate where the runtime keeps them separate; otherwise both are `Console`.
    /// * Without `follow` the stream ends with the output that exists now; with it, at the end of the instance's output.
    /// * A stream that breaks off ends with an `Err`, never as if it were complete.
    /// * A follow outlasts a connection that breaks and a daemon that is started again, where the runtime keeps the output: it goes on
    ///   behind the last line, without loss or repetition. It ends with the error once the daemon was away for two minutes, with
    ///   `NotFound` if the instance is gone by then, and with `Unexpected` where the runtime has dropped lines that were not read.
    async fn logs(&self, id: &InstanceId, options: LogOptions) -> Result<LogStream>;
}

/// The part of the output to read. By default all existing output.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LogOptions {
    /// True to go on with new output as it is written.
    pub follow: bool,
    /// True to ask the runtime for the time of each line.
    pub timestamps: bool,
    /// Number of existing lines to read, counted from the end; all if `None`.
    pub tail: Option<u64>,
    /// Time from which on to read, inclusive, by the runtime's clock.
    pub since: Option<SystemTime>,
    /// Time up to which to read, exclusive, by the runtime's clock.
    pub until: Option<SystemTime>,
    /// Outputs to read; all if empty.
    pub sources: Vec<LogSource>,
}

setters!(LogOptions {
    /// Goes on with new output as it is written.
    with_follow: follow;
    /// Asks the runtime for the time of each line.
    with_timestamps: timestamps;
    /// Reads only this number of existing lines, counted from the end.
    with_tail: tail: Option<u64>;
    /// Reads from this time on, inclusive.
    with_since: since: Option<SystemTime>;
    /// Reads up to this time, exclusive.
    with_until: until: Option<SystemTime>;
    /// Reads only these outputs.
    with_sources: sources: Vec<LogSource>;
});

/// One piece of output, framed as the runtime frames it, its newline included if there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogLine {
    /// The output that it was written to.
    pub source: LogSource,
    /// Time of the line by the runtime's clock, if the options asked for it.
    #[serde(default, with = "crate::time::option")]
    pub at: Option<SystemTime>,
    /// The bytes, with the newline if there is one.
    pub bytes: Bytes,
}

impl LogLine {
    /// Makes a piece of output from its parts.
    pub fn new(source: LogSource, at: Option<SystemTime>, bytes: Bytes) -> Self {
        Self { source, at, bytes }
    }
}

/// One of an instance's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Both outputs in one: the runtime does not keep them separate.
    Console,
}

streams! {
    /// Stream of output; back-pressure reaches the runtime.
    LogStream => LogLine;
}
