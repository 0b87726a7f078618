//! Points in time of one instance.

use std::{fmt::Debug, time::SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{error::Result, instance::InstanceId, manager::Effect, names::names};

names! {
    /// Unique within its instance.
    SnapshotId;
}

/// Points in time of one instance; `restore` replaces its state whole or not at all.
#[async_trait]
pub trait SnapshotManager: Debug + Send + Sync {
    /// Takes one.
    async fn create(&self, id: &InstanceId, snapshot: &SnapshotId, scope: SnapshotScope) -> Result<SnapshotInfo>;

    /// Every snapshot of the instance, oldest first.
    async fn list(&self, id: &InstanceId) -> Result<Vec<SnapshotInfo>>;

    /// Goes back to one.
    async fn restore(&self, id: &InstanceId, snapshot: &SnapshotId) -> Result<()>;

    /// Deletes one; what is gone already is `Unchanged`.
    async fn delete(&self, id: &InstanceId, snapshot: &SnapshotId) -> Result<Effect>;
}

/// Contents of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SnapshotScope {
    /// Disk and configuration.
    Disk,
    /// Memory as well, which needs a running instance.
    DiskAndMemory,
}

/// One snapshot, as the runtime kept it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Its name.
    pub id: SnapshotId,
    /// Its contents.
    pub scope: SnapshotScope,
    /// When it was taken.
    #[serde(default, with = "crate::time::option")]
    pub created_at: Option<SystemTime>,
}

impl SnapshotInfo {
    /// A snapshot.
    pub fn new(id: SnapshotId, scope: SnapshotScope, created_at: Option<SystemTime>) -> Self {
        Self { id, scope, created_at }
    }
}
