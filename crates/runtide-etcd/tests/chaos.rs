//! Chaos on three members of etcd, its own, where `RUNTIDE_TEST_ETCD3` says that etcd can be met. `cargo xtask chaos etcd` runs it for
//! longer, with another seed.
//!
//! A separate program, since the run counts what its process holds.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking, also in what tests share"
)]

/// Members and harness, shared with the other tests.
#[allow(dead_code, reason = "they use the rest")]
mod it {
    pub mod cluster;
    pub mod conformance {
        pub mod harness;
    }
}

use std::time::Duration;

use it::{cluster, conformance::harness};

/// The deadline of a call.
const DEADLINE: Duration = Duration::from_secs(9);

#[test]
fn chaos() {
    runtide_conformance::chaos::store::test(DEADLINE, || harness::three_within(DEADLINE));
}
