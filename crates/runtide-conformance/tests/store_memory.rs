//! S10 with an allocator that counts: a process of its own, so that nothing else is counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking, and the mutants use the rest"
)]

#[path = "store_mutants/bugs.rs"]
mod bugs;
#[path = "store_mutants/journal.rs"]
mod journal;
#[path = "store_mutants/plain.rs"]
mod plain;

use std::{num::NonZeroUsize, sync::Arc};

use async_trait::async_trait;
use bugs::Bug;
use peak_alloc::PeakAlloc;
use plain::Plain;
use runtide_conformance::{
    Clock, Done,
    run::block_on,
    store::{Meter, Overrun, StoreHarness, StoreLaw, StoreLawResult, StoreTuning, check, write_past},
};
use runtide_core::store::{Revision, StoreBackend};
use runtide_memory::{MemoryStore, StoreOptions};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const HISTORY: usize = 512;

struct Counted;

impl Meter for Counted {
    fn reset(&self) -> usize {
        ALLOCATOR.reset_peak_usage();
        ALLOCATOR.current_usage()
    }

    fn peak(&self) -> usize {
        ALLOCATOR.peak_usage()
    }
}

struct Metered(Arc<dyn StoreBackend>);

#[async_trait]
impl StoreHarness for Metered {
    fn name(&self) -> &'static str {
        "metered"
    }

    fn tuning(&self) -> StoreTuning {
        StoreTuning::LOCAL
    }

    fn store(&self) -> Arc<dyn StoreBackend> {
        Arc::clone(&self.0)
    }

    async fn expire(&self, _revision: Revision) -> Done<()> {
        write_past(&*self.0, HISTORY as u64).await
    }

    fn overrun(&self) -> Done<Overrun> {
        Ok(Overrun { changes: HISTORY as u64 + 1, counted: true })
    }

    fn meter(&self) -> Option<&dyn Meter> {
        Some(&Counted)
    }
}

fn bounded(store: impl StoreBackend) -> StoreLawResult {
    block_on(Clock::Real, check(StoreLaw::S10, &Metered(Arc::new(store)))).unwrap()
}

#[test]
fn stores_are_bounded_also_by_what_the_allocator_counts() {
    let kept = vec![1_u8; 1 << 20];
    assert!(Counted.reset() >= kept.len(), "it counts");
    let few = StoreOptions::default().with_history(NonZeroUsize::new(HISTORY).unwrap());
    bounded(MemoryStore::with_options(few)).unwrap();
    // In the same test, since nothing else may run meanwhile.
    bounded(Plain::new(HISTORY, None)).unwrap();
    let broken = bounded(Plain::new(HISTORY, Some(Bug::UnboundedQueue))).unwrap_err();
    assert!(broken.to_string().contains("bodies to be held"), "a queue without an end is found: {broken}");
}
