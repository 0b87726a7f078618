//! The laws, on a runtime in memory, on a paused clock, in each dialect of the field's runtimes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "conformance/harness.rs"]
#[allow(dead_code, reason = "the mutants of the conformance crate use the rest")]
mod harness;

use harness::MemoryHarness;

mod edges {
    runtide_conformance::runtime_suite!(virtual_time, super::MemoryHarness::edges);
}

mod lean {
    runtide_conformance::runtime_suite!(virtual_time, super::MemoryHarness::lean);
}

mod hints {
    runtide_conformance::runtime_suite!(virtual_time, super::MemoryHarness::hints);
}

mod states {
    runtide_conformance::runtime_suite!(virtual_time, super::MemoryHarness::states);
}

#[tokio::test]
async fn nothing_is_skipped() {
    use runtide_conformance::Harness;

    for name in [harness::EDGES, harness::LEAN, harness::HINTS, harness::STATES] {
        assert_eq!(MemoryHarness::speaking(name).skips().len(), 0, "{name}");
    }
}
