//! Snapshots of one instance.

use async_trait::async_trait;
use runtide_core::{
    InstanceId, Result,
    manager::{Effect, SnapshotId, SnapshotInfo, SnapshotManager, SnapshotScope},
};

use crate::{client::Client, fault::Call};

#[async_trait]
impl SnapshotManager for Client {
    async fn create(&self, id: &InstanceId, snapshot: &SnapshotId, scope: SnapshotScope) -> Result<SnapshotInfo> {
        self.ask(Call::Snapshots, |state| state.take_snapshot(id, snapshot, scope)).await
    }

    async fn list(&self, id: &InstanceId) -> Result<Vec<SnapshotInfo>> {
        self.ask(Call::Snapshots, |state| state.list_snapshots(id)).await
    }

    async fn restore(&self, id: &InstanceId, snapshot: &SnapshotId) -> Result<()> {
        self.ask(Call::Snapshots, |state| state.restore_snapshot(id, snapshot)).await
    }

    async fn delete(&self, id: &InstanceId, snapshot: &SnapshotId) -> Result<Effect> {
        self.ask(Call::Snapshots, |state| Ok(state.delete_snapshot(id, snapshot))).await
    }
}
