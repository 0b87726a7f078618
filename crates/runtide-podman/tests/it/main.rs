//! The backend against a service that a test scripts, and against a real Podman.
//!
//! `RUNTIDE_TEST_PODMAN` is the real one's address (`unix:///…`), `RUNTIDE_TEST_IMAGE` an image with busybox in it. Without an
//! address the tests that need it report themselves as skipped; with `RUNTIDE_REQUIRE_REAL=podman` that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows what it measured"
)]
#![cfg(unix)]

mod activated;
mod attach;
mod bench;
#[path = "../conformance/event_log.rs"]
mod event_log;
mod exec;
mod exec_scripted;
mod identity;
mod images;
mod log_of_events;
mod logs;
mod lost_creates;
mod managers;
mod networks;
mod own_service;
mod pods;
mod races;
mod rootless;
mod rotation;
mod scripted;
mod secrets;
mod ssh;
mod stats;
mod volumes;
mod wait;
mod watch;
