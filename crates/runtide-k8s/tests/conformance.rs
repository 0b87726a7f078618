//! The laws, on a real API server: `RUNTIDE_TEST_K8S` is the kubeconfig of its administrator, and `RUNTIDE_TESTBED` the tool that kills
//! it.
//!
//! For the laws of the watch the harness is the node: it binds its pods to one that it makes, and reports their states as a kubelet does.
//! For those of the managers the pods run on the testbed's real one, `RUNTIDE_TEST_K8S_NODE`. Without the kubeconfig each law reports itself
//! as skipped; with `RUNTIDE_REQUIRE_REAL=k8s` that is a failure. One law runs at a time, with any number of test threads.
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
#[path = "conformance/kubelet.rs"]
mod kubelet;
#[path = "conformance/name.rs"]
mod name;
#[path = "conformance/observe.rs"]
mod observe;
#[path = "conformance/server.rs"]
mod server;

runtide_conformance::runtime_suite!(harness::KubeHarness::start);

#[test]
fn only_pinned_laws_are_skipped_on_a_real_server() {
    let skipped: Vec<_> = harness::SKIPS.iter().map(|(law, _)| law.id()).collect();
    assert_eq!(skipped, ["M7"]);
}
