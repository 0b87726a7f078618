//! Usage of a simulated process: one twentieth of a core, and as much memory as the script says.

use std::time::Duration;

use runtide_core::{InstanceId, Result, manager::Usage};

use super::{Look, MemoryRuntime, State, conflict};
use crate::fault::Call;

impl State {
    pub(crate) fn usage(&self, id: &InstanceId) -> Result<Usage> {
        let record = self.record(id, Call::Stats)?;
        if !record.phase.is_alive() {
            return Err(conflict(id, Call::Stats, "it does not run"));
        }
        let at = self.wall();
        let mut usage = Usage::new(at);
        usage.cpu = record.started_at.and_then(|began| at.duration_since(began).ok()).map(|ran| ran / 20);
        usage.memory_bytes = Some(record.memory);
        usage.memory_limit = record.design.memory_limit;
        usage.pids = Some(1);
        Ok(usage)
    }

    /// Number of the present run; `Conflict` if the instance does not run.
    pub(crate) fn life(&self, id: &InstanceId, call: Call) -> Result<u64> {
        let record = self.record(id, call)?;
        if record.phase.is_alive() { Ok(record.life) } else { Err(conflict(id, call, "it does not run")) }
    }
}

impl MemoryRuntime {
    /// Waits for the end of this run.
    pub(crate) async fn life_over(&self, id: &InstanceId, life: u64) {
        let over = |state: &mut State| state.life(id, Call::Wait).ok() != Some(life);
        self.inner.until(|state| Look::ready_if(over(state))).await;
    }

    /// The next reading, after this time; `None` if the run is over first.
    pub(crate) async fn next_usage(&self, id: &InstanceId, life: u64, after: Duration) -> Option<Usage> {
        tokio::select! {
            biased;
            () = self.life_over(id, life) => return None,
            () = tokio::time::sleep(after) => {}
        }
        self.with(|state| state.usage(id)).ok()
    }
}
