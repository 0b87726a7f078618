//! Snapshots: what an instance was made from and has become since (labels, ports, addresses, command, environment, …), all
//! but its name and its run.

use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    manager::{Effect, SnapshotId, SnapshotInfo, SnapshotScope},
};

use super::{Blueprint, State, check_name};
use crate::fault::Call;

#[derive(Debug)]
pub(super) struct Kept {
    info: SnapshotInfo,
    design: Blueprint,
}

impl State {
    pub(crate) fn take_snapshot(
        &mut self,
        id: &InstanceId,
        snapshot: &SnapshotId,
        scope: SnapshotScope,
    ) -> Result<SnapshotInfo> {
        if scope != SnapshotScope::Disk {
            self.check_verb(Call::Snapshots, "snapshots_memory")?;
        }
        check_name(snapshot.as_str())?;
        let design = self.record(id, Call::Snapshots)?.design.clone();
        let info = SnapshotInfo::new(snapshot.clone(), scope, Some(self.wall()));
        let kept = self.snapshots.entry(id.clone()).or_default();
        if kept.iter().any(|kept| kept.info.id == *snapshot) {
            let taken = Error::new(ErrorKind::AlreadyExists, Call::Snapshots.operation(), "this name is taken");
            return Err(taken.with_context("snapshot", snapshot));
        }
        kept.push(Kept { info: info.clone(), design });
        Ok(info)
    }

    pub(crate) fn list_snapshots(&self, id: &InstanceId) -> Result<Vec<SnapshotInfo>> {
        self.record(id, Call::Snapshots)?;
        Ok(self.snapshots.get(id).into_iter().flatten().map(|kept| kept.info.clone()).collect())
    }

    pub(crate) fn restore_snapshot(&mut self, id: &InstanceId, snapshot: &SnapshotId) -> Result<()> {
        self.record(id, Call::Snapshots)?;
        let kept = self.snapshots.get(id).and_then(|kept| kept.iter().find(|kept| kept.info.id == *snapshot));
        let design = kept.map(|kept| kept.design.clone()).ok_or_else(|| {
            let gone = Error::new(ErrorKind::NotFound, Call::Snapshots.operation(), "there is no such snapshot");
            gone.with_context("instance", id).with_context("snapshot", snapshot)
        })?;
        self.edit(id, "*", |now| *now = Blueprint { name: std::mem::take(&mut now.name), ..design })
    }

    pub(crate) fn delete_snapshot(&mut self, id: &InstanceId, snapshot: &SnapshotId) -> Effect {
        let Some(kept) = self.snapshots.get_mut(id) else { return Effect::Unchanged };
        let before = kept.len();
        kept.retain(|kept| kept.info.id != *snapshot);
        if kept.len() < before { Effect::Changed } else { Effect::Unchanged }
    }
}
