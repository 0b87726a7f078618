//! Snapshots of an instance: create, list, restore, delete.

use std::{fmt::Debug, time::SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{error::Result, instance::InstanceId, manager::Effect, names::names};

names! {
    /// Name of a snapshot, unique within its instance.
    SnapshotId;
}

/// Manages the snapshots of an instance. `restore` replaces its state as a whole or not at all.
#[async_trait]
pub trait SnapshotManager: Debug + Send + Sync {
    /// Takes a snapshot of the instance.
    async fn create(&self, id: &InstanceId, snapshot: &SnapshotId, scope: SnapshotScope) -> Result<SnapshotInfo>;

    /// Lists every snapshot of the instance, oldest first.
    async fn list(&self, id: &InstanceId) -> Result<Vec<SnapshotInfo>>;

    /// Restores the instance's state from a snapshot.
    async fn restore(&self, id: &InstanceId, snapshot: &SnapshotId) -> Result<()>;

    /// Deletes a snapshot; `Unchanged` if it is already gone.
    async fn delete(&self, id: &InstanceId, snapshot: &SnapshotId) -> Result<Effect>;
}

/// The parts of an instance's state that a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SnapshotScope {
    /// Disk and configuration.
    Disk,
    /// Memory as well, which needs a running instance.
    DiskAndMemory,
}

/// One snapshot, as the runtime reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Name of the snapshot.
    pub id: SnapshotId,
    /// Parts of the instance's state that it holds.
    pub scope: SnapshotScope,
    /// Time at which it was taken.
    #[serde(default, with = "crate::time::option")]
    pub created_at: Option<SystemTime>,
}

impl SnapshotInfo {
    /// Makes the information of a snapshot from its parts.
    pub fn new(id: SnapshotId, scope: SnapshotScope, created_at: Option<SystemTime>) -> Self {
        Self { id, scope, created_at }
    }
}
