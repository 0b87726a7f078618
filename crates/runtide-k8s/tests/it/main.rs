//! The backend against an API server that a test scripts, and against a real one.
//!
//! `RUNTIDE_TEST_K8S` is the kubeconfig of a real server's administrator, `RUNTIDE_TEST_K8S_READER` that of a user without rights. Without
//! them the tests that need a server report themselves as skipped; with `RUNTIDE_REQUIRE_REAL=k8s` that is a failure.
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
mod listings;
mod scripted;
mod watch;
