//! The laws bite: backends, stores and logs that are broken on purpose. And the laws of the log, on the log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, also in what tests share"
)]

mod pinned;
mod runtime_mutants;
mod store_mutants;
mod wal;
mod wal_mutants;
mod wal_syncs;
