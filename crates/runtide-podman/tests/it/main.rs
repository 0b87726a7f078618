//! The backend against a service that a test scripts, and against a real Podman.
//!
//! `RUNTIDE_TEST_PODMAN` is the real one's address (`unix:///…`), `RUNTIDE_TEST_IMAGE` an image with busybox in it. Without an
//! address the tests that need it report themselves as skipped; with `RUNTIDE_REQUIRE_REAL=podman` that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![cfg(unix)]

mod bench;
mod lost_creates;
mod managers;
mod networks;
mod pods;
mod scripted;
mod volumes;
mod watch;
