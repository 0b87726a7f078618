//! The store on real members of etcd: the laws, and what is particular to it. Each test has members of its own, or a prefix of its
//! own on the testbed's, so that none disturbs another.
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
mod cluster;
mod conformance;
mod member;
mod three;
