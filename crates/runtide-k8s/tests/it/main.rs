//! The backend against an API server that a test scripts, and against a real one.
//!
//! The tests of `real.rs` need the testbed's server and its node: `RUNTIDE_TEST_K8S` is the kubeconfig of the administrator, `…_TOKEN` one
//! with a token, `…_READER` that of a user who may read one namespace. Without them they report themselves as skipped; with
//! `RUNTIDE_REQUIRE_REAL=k8s` that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows what it measured"
)]
#![allow(clippy::needless_pass_by_value, reason = "objects are written where they are used")]
#![cfg(unix)]

mod access;
mod attach;
mod exec;
mod forward;
mod listings;
mod logs;
mod managers;
mod real;
mod real_forward;
mod real_resume;
mod real_workloads;
mod scripted;
#[path = "../conformance/server.rs"]
mod server;
mod stats;
mod store;
mod watch;
mod workloads;
