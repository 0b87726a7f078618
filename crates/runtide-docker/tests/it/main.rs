//! The Docker backend, apart from the laws: on daemons in this process, whose every answer is written here, and on a real one where
//! the testbed gives its address.
//!
//! `RUNTIDE_TEST_DOCKER` is the address (`unix:///…`), `RUNTIDE_TEST_IMAGE` an image with busybox in it. Without an address
//! the tests that need one say so and pass. Tests that kill the daemon have it alone, the others share it.
//!
//! The laws are in a separate program, `tests/conformance.rs`: they count the resources of their process.
#![cfg(unix)]
// Shared code of tests is not itself a test, so the allowance for tests in clippy.toml does not reach it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, also in what tests share, and says what it counted"
)]

mod churn;
mod docker_command;
mod fake_daemon;
mod images;
mod managers;
#[path = "../conformance/name.rs"]
mod name;
mod resumed;
mod scripted_daemon;
mod ssh;
mod tls;
mod watch;
