//! Read the resource usage of an instance.

use std::{
    fmt::Debug,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{error::Result, instance::InstanceId, names::streams};

/// Reads resource usage, as totals that the kernel counts; the caller computes rates from them.
#[async_trait]
pub trait StatsManager: Debug + Send + Sync {
    /// Reads the usage once.
    ///
    /// # Errors
    /// `Conflict` if the instance does not run.
    async fn usage(&self, id: &InstanceId) -> Result<Usage>;

    /// Reads the usage once per period, to the end of the incarnation.
    async fn usage_stream(&self, id: &InstanceId, every: Duration) -> Result<UsageStream>;
}

/// One reading: totals since the incarnation began. A field that is `None` is unknown, not zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// Time of the reading.
    #[serde(with = "crate::time")]
    pub at: SystemTime,
    /// CPU time of all cores together.
    pub cpu: Option<Duration>,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory limit, in bytes.
    pub memory_limit: Option<u64>,
    /// Bytes received over all networks.
    pub received_bytes: Option<u64>,
    /// Bytes sent over all networks.
    pub sent_bytes: Option<u64>,
    /// Bytes read from block devices.
    pub read_bytes: Option<u64>,
    /// Bytes written to block devices.
    pub written_bytes: Option<u64>,
    /// Number of processes and threads.
    pub pids: Option<u64>,
}

impl Usage {
    /// Makes a reading whose totals are all unknown.
    pub fn new(at: SystemTime) -> Self {
        Self {
            at,
            cpu: None,
            memory_bytes: None,
            memory_limit: None,
            received_bytes: None,
            sent_bytes: None,
            read_bytes: None,
            written_bytes: None,
            pids: None,
        }
    }
}

streams! {
    /// Stream of readings, one per period, to the end of the incarnation.
    UsageStream => Usage;
}
