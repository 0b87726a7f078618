//! The laws, on a real dockerd: `RUNTIDE_TEST_DOCKER` is its address, `RUNTIDE_TESTBED` the tool that kills it, and
//! `RUNTIDE_TEST_DOCKER_IS` its name, if it is not `docker`.
//!
//! Without the address each law reports itself as skipped; with `RUNTIDE_REQUIRE_REAL=docker` that is a failure. One law runs
//! at a time, with any number of test threads, since some of them kill the daemon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![cfg(unix)]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/name.rs"]
mod name;
#[path = "conformance/observe.rs"]
mod observe;

runtide_conformance::runtime_suite!(harness::DockerHarness::start);

#[test]
fn only_pinned_laws_are_skipped_on_a_real_daemon() {
    let skipped: Vec<_> = harness::SKIPS.iter().map(|(law, _)| law.id()).collect();
    assert!(skipped.is_empty(), "{skipped:?}");
}
