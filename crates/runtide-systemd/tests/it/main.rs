//! The systemd backend, apart from the laws, on a separate machine, `RUNTIDE_TEST_SYSTEMD2`: tests that kill it, reload
//! its manager or count calls have it alone, the others share it.
//!
//! The laws are separate programs: they count the resources of their process (`tests/conformance.rs`), and are run on
//! each systemd of the testbed (that one, and `tests/store_conformance.rs`).
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test fails by panicking, also in shared helpers, and prints its counts"
)]

#[path = "../conformance/bus.rs"]
#[allow(dead_code, reason = "the harness of the laws uses the rest")]
mod bus;
mod freeze;
#[path = "../conformance/machine.rs"]
#[allow(dead_code, reason = "the harness of the laws uses the rest")]
mod machine;
mod many;
#[cfg(target_os = "linux")]
mod store_boot;
#[cfg(target_os = "linux")]
mod store_kill;
#[cfg(target_os = "linux")]
#[path = "../store/machine.rs"]
#[allow(dead_code, reason = "the laws of stores use the rest")]
mod store_machine;
#[cfg(target_os = "linux")]
mod store_units;
mod storm;
mod units;
