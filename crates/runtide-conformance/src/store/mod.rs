//! The laws of stores, S1 to S12.
//!
//! A store is any [`StoreBackend`](runtide_core::store::StoreBackend); a [`StoreHarness`] gives it to the laws and does what the
//! interface cannot: expire positions, cut the power, break links. Everything else is done through the interface, by many
//! clients at once, and compared with the answers that they got: each write that changes something has a revision, so that the
//! writes of all clients together are the one history that every reader and every watcher must have seen a part of.
//!
//! The scope of each law, and the amount that it checks, is in `docs/guarantees.md` of the repository. That the laws bite is
//! shown by mutants (`tests/it/store_mutants.rs`).

mod check;
mod harness;
mod law;
mod laws;
mod linear;
mod truth;
mod watcher;

pub use self::{
    harness::{Disturbance, Overrun, StoreHarness, StoreTuning},
    law::{StoreLaw, StoreLawResult},
    laws::{EXPIRY, write_past},
};
pub use crate::wal::{Effort, Meter, ModelDisk};
