//! Everything of core that is tested from outside, in one program: linking is most of what a program of tests costs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, also in what tests share, and says what it counted"
)]

mod golden;
mod hostile;
#[cfg(unix)]
mod kill;
