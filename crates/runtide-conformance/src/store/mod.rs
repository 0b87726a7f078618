//! The laws of stores, S1 to S12.
//!
//! A store is any [`StoreBackend`](runtide_core::store::StoreBackend); a [`StoreHarness`] gives it to the laws and drives it to where
//! the interface cannot: places that expire, power cuts, broken links. Everything else is done through the interface, by many
//! clients at once, and compared with what they were told: each write that changes something has a revision, so that the
//! writes of all clients together are the one history that every reader and every watcher must have seen a part of.
//!
//! What each law looks at, and at how much of it, is in `docs/guarantees.md` of the repository. That the laws bite is shown by
//! mutants (`tests/store_mutants.rs`).

mod harness;
mod law;
mod laws;
mod linear;
mod run;
mod suite;
mod truth;
mod watcher;

pub use self::{
    harness::{Disturbance, Overrun, StoreHarness, StoreTuning},
    law::{Kept, StoreLaw, StoreLawResult, StoreVerdict},
    laws::{EXPIRY, write_past},
    run::{check, run, test},
};
pub use crate::wal::{Effort, Looked, Meter, ModelDisk};
