//! Options of a runtime in memory: [`RuntimeOptions`].

use std::time::{Duration, SystemTime};

use runtide_core::backend::setters;

/// Options of a runtime in memory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RuntimeOptions {
    /// The time of day at which it is made; the present one by default.
    pub base: SystemTime,
    /// Part of every id; 0 leaves it out: `mem-000001`.
    pub seed: u64,
    /// Number of events that it keeps, to resume streams from; 256 by default, as Docker. 0: it cannot resume.
    pub history: usize,
    /// Number of facts that it keeps for [`MemoryRuntime::history`](crate::MemoryRuntime::history), the newest; 1,000,000 by default.
    pub facts: usize,
    /// Number of events that may wait in one stream before it is broken off; 65,536 by default.
    pub stream_buffer: usize,
    /// Bytes of output that it keeps for each instance, the newest; 64 MiB by default. What is
    /// [`emitted`](crate::MemoryRuntime::emit_log) counts as nothing.
    pub log_bytes: usize,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            base: SystemTime::now(),
            seed: 0,
            history: 256,
            facts: 1_000_000,
            stream_buffer: 65_536,
            log_bytes: 64 << 20,
        }
    }
}

setters!(RuntimeOptions {
    /// The time of day at which it is made.
    with_base: base: SystemTime;
    /// Part of every id.
    with_seed: seed: u64;
    /// How many events it keeps.
    with_history: history: usize;
    /// Number of facts that it keeps.
    with_facts: facts: usize;
    /// Number of events that may wait in one stream.
    with_stream_buffer: stream_buffer: usize;
    /// Bytes of output that it keeps for each instance.
    with_log_bytes: log_bytes: usize;
});

impl RuntimeOptions {
    /// The same run for the same seed: a fixed time of day (2026-01-01T00:00:00Z), and the seed in every id.
    pub fn deterministic(seed: u64) -> Self {
        Self::default().with_base(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)).with_seed(seed)
    }
}
