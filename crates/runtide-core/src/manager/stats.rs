//! Resource usage.

use std::{
    fmt::Debug,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{error::Result, instance::InstanceId, names::streams};

/// Readings as the kernel counts them; rates are the caller's to compute.
#[async_trait]
pub trait StatsManager: Debug + Send + Sync {
    /// One reading.
    ///
    /// # Errors
    /// `Conflict` if it does not run.
    async fn usage(&self, id: &InstanceId) -> Result<Usage>;

    /// One reading per period, to the end of the run.
    async fn usage_stream(&self, id: &InstanceId, every: Duration) -> Result<UsageStream>;
}

/// One reading: totals since the run began. Absent is not zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// When it was read.
    #[serde(with = "crate::time")]
    pub at: SystemTime,
    /// CPU time of all cores.
    pub cpu: Option<Duration>,
    /// Memory in use.
    pub memory_bytes: Option<u64>,
    /// Memory allowed.
    pub memory_limit: Option<u64>,
    /// Over all networks.
    pub received_bytes: Option<u64>,
    /// Over all networks.
    pub sent_bytes: Option<u64>,
    /// Block devices.
    pub read_bytes: Option<u64>,
    /// Block devices.
    pub written_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Usage {
    /// A reading in which nothing is known.
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
    /// Readings, one per period, to the end of the run.
    UsageStream => Usage;
}
