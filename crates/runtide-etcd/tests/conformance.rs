//! The laws of stores, on one real member and on three: each law has members of its own, behind proxies that can cut them off
//! from their clients and from each other.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod cluster;
#[path = "conformance/harness.rs"]
mod harness;

/// One member.
mod one {
    runtide_conformance::store_suite!(crate::harness::one);
}

/// A cluster of three.
mod three {
    runtide_conformance::store_suite!(crate::harness::three);
}
