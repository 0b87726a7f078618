//! S10 with an allocator that counts.

#[path = "../it/store_mutants/bugs.rs"]
#[allow(dead_code, reason = "the mutants use the rest")]
mod bugs;
#[path = "../it/store_mutants/journal.rs"]
#[allow(dead_code, reason = "the mutants use the rest")]
mod journal;
#[path = "../it/store_mutants/plain.rs"]
#[allow(dead_code, reason = "the mutants use the rest")]
mod plain;

use std::{num::NonZeroUsize, sync::Arc};

use async_trait::async_trait;
use bugs::Bug;
use plain::Plain;
use runtide_conformance::{
    Clock, Done,
    run::{block_on, check},
    store::{Meter, Overrun, StoreHarness, StoreLaw, StoreLawResult, StoreTuning, write_past},
};
use runtide_core::store::{Revision, StoreBackend};
use runtide_memory::{MemoryStore, StoreOptions};

use crate::Counted;

const HISTORY: usize = 512;

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
    block_on(Clock::Real, check(StoreLaw::S10, Clock::Real, &Metered(Arc::new(store)))).unwrap()
}

#[test]
fn stores_are_bounded_in_allocated_memory() {
    let _alone = Counted::alone();
    let few = StoreOptions::default().with_history(NonZeroUsize::new(HISTORY).unwrap());
    bounded(MemoryStore::with_options(few)).unwrap();
    bounded(Plain::new(HISTORY, None)).unwrap();
    let broken = bounded(Plain::new(HISTORY, Some(Bug::UnboundedQueue))).unwrap_err();
    assert!(broken.to_string().contains("bodies to be held"), "a queue without an end is found: {broken}");
}
