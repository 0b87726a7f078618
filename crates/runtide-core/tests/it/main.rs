//! All tests of core from outside, in one program: linking is most of the cost of a test program.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, also in shared code, and prints its counts"
)]

mod golden;
mod hostile;
#[cfg(unix)]
mod kill;
