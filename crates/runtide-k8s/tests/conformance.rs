//! The laws, on a real API server: `RUNTIDE_TEST_K8S` is the kubeconfig of its administrator, and `RUNTIDE_TESTBED` the tool that kills
//! it.
//!
//! The harness is the node: it binds its pods to one that it makes, and reports their states as a kubelet does. Without the kubeconfig
//! each law reports itself as skipped; with `RUNTIDE_REQUIRE_REAL=k8s` that is a failure. One law runs at a time, with any number of
//! test threads.
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
#[path = "conformance/observe.rs"]
mod observe;
#[path = "conformance/server.rs"]
mod server;

runtide_conformance::runtime_suite!(harness::KubeHarness::start);

#[test]
fn only_pinned_laws_are_skipped_on_a_real_server() {
    let skipped: Vec<_> = harness::SKIPS.iter().map(|(law, _)| law.id()).collect();
    assert_eq!(skipped, ["M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8"]);
}
