//! A process that dies on purpose, at a point of one's choice: for whoever tests what recovers from it.
//!
//! A [`Lifespan`] counts the points at which a process can die: before and after each verb of its [`MortalBackend`], and before
//! each write and sync of its [`MortalDisk`]. Once it is dead, nothing that it does has an effect any more: every verb and
//! every write fails. What it had done stays, as the system keeps the files of a dead process.

mod backend;
mod disk;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub use self::{backend::MortalBackend, disk::MortalDisk};

/// One life of a process. Clones are the same life.
#[derive(Clone, Debug)]
pub struct Lifespan(Arc<Points>);

#[derive(Debug)]
struct Points {
    passed: AtomicU64,
    last: u64,
}

impl Lifespan {
    /// Dies at this point; the first is 1.
    pub fn until(point: u64) -> Self {
        Self(Arc::new(Points { passed: AtomicU64::new(0), last: point }))
    }

    /// Does not die.
    pub fn unending() -> Self {
        Self::until(u64::MAX)
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.passed() >= self.0.last
    }

    /// How many points it has passed.
    pub fn passed(&self) -> u64 {
        self.0.passed.load(Ordering::Acquire)
    }

    /// One more point; whether it goes on.
    fn pass(&self) -> bool {
        self.0.passed.fetch_add(1, Ordering::AcqRel).saturating_add(1) < self.0.last
    }
}
