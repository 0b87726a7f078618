//! Options of a runtime in memory: [`RuntimeOptions`].

use std::time::{Duration, SystemTime};

use runtide_core::backend::setters;

/// Options of a runtime in memory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RuntimeOptions {
    /// The time of day at which it is made; the present one by default.
    pub base: SystemTime,
    /// Names the runtime in every id and every resume token. `None`, the default: at random, so that a runtime of another process,
    /// or another one of this process, gives no id or token that this one gave. `Some`: the same script gives the same run, and
    /// two runtimes of the same seed cannot be told apart, so that it is for tests only. With 0, ids are short: `mem-000001`.
    pub seed: Option<u64>,
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
            seed: None,
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
    /// Names the runtime in every id and token; `None`: at random.
    with_seed: seed: Option<u64>;
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
    /// The same run for the same seed: a fixed time of day (2026-01-01T00:00:00Z), and the seed in every id and
    /// token. Runtimes of one process that are to be told apart need different seeds.
    pub fn deterministic(seed: u64) -> Self {
        Self::default().with_base(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)).with_seed(seed)
    }
}
