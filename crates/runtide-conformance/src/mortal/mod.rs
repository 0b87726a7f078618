//! A process that dies on purpose, at a chosen point: for tests of recovery.
//!
//! A [`Lifespan`] counts the points at which a process can die: before and after each verb of its [`MortalBackend`], and before
//! each write and sync of its [`MortalDisk`]. Once it is dead, its calls have no effect any more: every verb and every write
//! fails. Earlier effects stay, as the system keeps the files of a dead process.

mod backend;
mod disk;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub use self::{backend::MortalBackend, disk::MortalDisk};

/// The lifespan of a process, in points. Clones are the same process.
#[derive(Clone, Debug)]
pub struct Lifespan(Arc<Points>);

#[derive(Debug)]
struct Points {
    passed: AtomicU64,
    last: u64,
}

impl Lifespan {
    /// The process dies at this point; the first is 1.
    pub fn until(point: u64) -> Self {
        Self(Arc::new(Points { passed: AtomicU64::new(0), last: point }))
    }

    /// The process does not die.
    pub fn unending() -> Self {
        Self::until(u64::MAX)
    }

    /// `true` if the process is dead.
    pub fn is_over(&self) -> bool {
        self.passed() >= self.0.last
    }

    /// Number of points that the process has passed.
    pub fn passed(&self) -> u64 {
        self.0.passed.load(Ordering::Acquire)
    }

    /// Passes one more point; `true` if the process goes on.
    fn pass(&self) -> bool {
        self.0.passed.fetch_add(1, Ordering::AcqRel).saturating_add(1) < self.0.last
    }
}
