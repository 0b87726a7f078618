//! The managers: on a daemon whose every answer is written here, and on a real one where the testbed gives its address.
//!
//! `RUNTIDE_TEST_DOCKER` is the address (`unix:///…`), `RUNTIDE_TEST_IMAGE` an image with busybox in it. Without an address
//! the tests that need one say so and pass.

#![cfg(unix)]
// Shared code of tests is not itself a test, so the allowance for tests in clippy.toml does not reach it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

#[path = "managers/bench.rs"]
mod bench;
#[path = "managers/fake.rs"]
mod fake;
#[path = "managers/lifecycle.rs"]
mod lifecycle;
#[path = "managers/log.rs"]
mod log;
#[path = "managers/provision.rs"]
mod provision;
#[path = "managers/scripted.rs"]
mod scripted;
#[path = "managers/wait.rs"]
mod wait;
