//! Memory that a law allocates while it is tested: in a separate program, since nothing else may be counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, also in shared code"
)]

mod store;
mod wal;

use std::sync::{Mutex, MutexGuard, PoisonError};

use peak_alloc::PeakAlloc;
use runtide_conformance::wal::Meter;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The allocator of the whole process, which counts.
struct Counted;

impl Counted {
    /// Waits until no other test measures.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = vec![1_u8; 1 << 20];
        assert!(Self.reset() >= kept.len(), "it counts");
        alone
    }
}

impl Meter for Counted {
    fn reset(&self) -> usize {
        ALLOCATOR.reset_peak_usage();
        ALLOCATOR.current_usage()
    }

    fn peak(&self) -> usize {
        ALLOCATOR.peak_usage()
    }
}
