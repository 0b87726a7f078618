//! Chaos on a real Podman: `RUNTIDE_TEST_PODMAN` is its address, `RUNTIDE_TESTBED` the tool that kills it. `cargo xtask chaos podman` runs
//! it for longer, with another seed.
//!
//! A separate program, since the run counts what its process holds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![cfg(unix)]

#[allow(dead_code, reason = "shared with the laws")]
#[path = "conformance/event_log.rs"]
mod event_log;
#[allow(dead_code, reason = "shared with the laws")]
#[path = "conformance/harness.rs"]
mod harness;
#[allow(dead_code, reason = "shared with the laws")]
#[path = "conformance/name.rs"]
mod name;
#[allow(dead_code, reason = "shared with the laws")]
#[path = "conformance/observe.rs"]
mod observe;

#[test]
fn chaos() {
    runtide_conformance::chaos::test(harness::PodmanHarness::start);
}
