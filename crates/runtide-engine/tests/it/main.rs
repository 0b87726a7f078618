//! The client against a daemon that a test scripts, over a unix socket.
#![cfg(unix)]
// Shared code of tests is not itself a test, so the allowance for tests in clippy.toml does not reach it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, also in what tests share"
)]

mod client;
mod feed;
mod hijack;
mod scripted;
mod ssh;
