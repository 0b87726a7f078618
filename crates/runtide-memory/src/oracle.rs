//! The runtime's instances and facts in Runtide's words, read past the wire and past every fault: the reference for a
//! backend's reports.

use runtide_core::{BackendId, Detail, Instance, InstanceState};

use crate::{
    config::Config,
    normalize,
    runtime::{Fact, MemoryRuntime},
};

/// # The true state
impl MemoryRuntime {
    /// Every instance as it is, with every field known, in order of id, as a backend of the default [`Config`] names it.
    pub fn truth(&self) -> Vec<Instance> {
        self.truth_as(&Config::default().id)
    }

    /// As [`truth`](Self::truth), for a backend of this name.
    pub fn truth_as(&self, backend: &BackendId) -> Vec<Instance> {
        let config = Config::default().with_id(backend.clone());
        self.records().iter().map(|record| normalize::instance(&config, record, Detail::Full)).collect()
    }
}

impl Fact {
    /// The state that it led to (for `Removed`: the last one).
    pub fn state(&self) -> InstanceState {
        normalize::state(self.phase)
    }
}
