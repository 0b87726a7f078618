//! The laws bite: they find the bug in each backend, store and log that is broken on purpose. And the laws of the log, on it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, also in shared code"
)]

mod errors;
mod pinned;
mod runtime_mutants;
mod store_mutants;
mod wal;
mod wal_mutants;
mod wal_syncs;
