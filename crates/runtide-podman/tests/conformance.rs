//! The laws, on a real Podman service: `RUNTIDE_TEST_PODMAN` is its address, `RUNTIDE_TESTBED` the tool that kills it, and
//! `RUNTIDE_TEST_PODMAN_IS` its name, if it is not `podman`.
//!
//! Without the address each law reports itself as skipped; with `RUNTIDE_REQUIRE_REAL=podman` that is a failure. One law runs
//! at a time, with any number of test threads, since some of them kill the service.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![cfg(unix)]

#[path = "conformance/event_log.rs"]
mod event_log;
#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/name.rs"]
mod name;
#[path = "conformance/observe.rs"]
mod observe;

runtide_conformance::runtime_suite!(harness::PodmanHarness::start);

#[test]
fn only_pinned_laws_are_skipped_on_a_real_daemon() {
    let skipped: Vec<_> = harness::SKIPS.iter().map(|(law, _)| law.id()).collect();
    assert_eq!(skipped, [""; 0]);
}
