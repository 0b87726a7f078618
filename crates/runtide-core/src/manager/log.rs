//! Read an instance's output.

use std::{fmt::Debug, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    instance::InstanceId,
    names::{setters, streams},
};

/// Output, byte for byte, to the end.
#[async_trait]
pub trait LogManager: Debug + Send + Sync {
    /// Opens the output.
    ///
    /// # Behavior
    /// * Stdout and stderr are kept apart where the runtime keeps them apart; else they are `Console`.
    /// * Without `follow` the stream ends at what is there now; with it, at the end of the instance's output.
    /// * A stream that breaks off ends with an `Err`, never as if it were complete.
    async fn logs(&self, id: &InstanceId, options: LogOptions) -> Result<LogStream>;
}

/// Output to read. By default everything that is there.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LogOptions {
    /// Go on with what comes.
    pub follow: bool,
    /// Ask the runtime for the time of each line.
    pub timestamps: bool,
    /// Only so many lines of what is there.
    pub tail: Option<u64>,
    /// From this time on, inclusive, by the runtime's clock.
    pub since: Option<SystemTime>,
    /// Up to this time, exclusive.
    pub until: Option<SystemTime>,
    /// Only these; none means all.
    pub sources: Vec<LogSource>,
}

setters!(LogOptions {
    /// Go on with what comes.
    with_follow: follow;
    /// Ask the runtime for the time of each line.
    with_timestamps: timestamps;
    /// Only so many lines of what is there.
    with_tail: tail: Option<u64>;
    /// From this time on, inclusive.
    with_since: since: Option<SystemTime>;
    /// Up to this time, exclusive.
    with_until: until: Option<SystemTime>;
    /// Only these.
    with_sources: sources: Vec<LogSource>;
});

/// One piece of output, framed as the runtime frames it, its newline included where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogLine {
    /// Which output.
    pub source: LogSource,
    /// The runtime's clock.
    #[serde(default, with = "crate::time::option")]
    pub at: Option<SystemTime>,
    /// The bytes.
    pub bytes: Bytes,
}

impl LogLine {
    /// A piece of output.
    pub fn new(source: LogSource, at: Option<SystemTime>, bytes: Bytes) -> Self {
        Self { source, at, bytes }
    }
}

/// Which output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The outputs cannot be distinguished.
    Console,
}

streams! {
    /// Output as it comes; back-pressure reaches the runtime.
    LogStream => LogLine;
}
