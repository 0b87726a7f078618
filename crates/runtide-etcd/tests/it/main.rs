//! The store on real members of etcd: the laws, and its own behavior. Each test has its own members, or its own prefix on the
//! testbed's, so that no test disturbs another.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails by panicking, also in what tests share, and says what it counted"
)]

mod access;
mod alarm;
mod cluster;
mod conformance;
mod member;
mod three;
