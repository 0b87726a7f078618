//! The examples, run as a user runs them.
// Shared code of tests is not itself a test, so the allowance for tests in clippy.toml does not reach it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, also in what tests share, and says what it counted"
)]

mod cli;
#[cfg(unix)]
mod exec;
#[cfg(unix)]
mod foreground;
#[cfg(unix)]
mod killed;
#[cfg(unix)]
mod podman;
#[cfg(unix)]
mod sidecar;
mod store;
mod usage;
mod wal;
