//! The laws, on a real systemd: `RUNTIDE_TEST_SYSTEMD` is its address, `RUNTIDE_TEST_SYSTEMD_ROOT` the root of its
//! files as seen from here, `RUNTIDE_TESTBED` the program that kills it, and `RUNTIDE_TEST_SYSTEMD_IS` its name, if it
//! is not `systemd`.
//!
//! Without the address each law reports itself as skipped; with `RUNTIDE_REQUIRE_REAL=systemd` that is a failure. One
//! law runs at a time, with any number of test threads, since some of them kill the machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![cfg(unix)]

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "conformance/bus.rs"]
mod bus;
#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/machine.rs"]
mod machine;
#[path = "conformance/name.rs"]
mod name;
#[path = "conformance/observe.rs"]
mod observe;

runtide_conformance::runtime_suite!(harness::SystemdHarness::start);

#[test]
fn only_what_is_pinned_here_is_skipped_on_a_real_systemd() {
    let skipped: Vec<_> = harness::SKIPS.iter().map(|(law, _)| law.id()).collect();
    assert_eq!(skipped, ["M7"]);
}
