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
    run::block_on,
    store::{Meter, Overrun, StoreHarness, StoreLaw, StoreLawResult, StoreTuning, check, write_past},
};
use runtide_core::{Revision, StoreBackend};
use runtide_memory::{MemoryStore, StoreOptions};

use crate::Counted;

const HISTORY: usize = 512;

struct Metered<'a>(Arc<dyn StoreBackend>, &'a Counted);

#[async_trait]
impl StoreHarness for Metered<'_> {
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
        Some(self.1)
    }
}

fn bounded(store: impl StoreBackend, counted: &Counted) -> StoreLawResult {
    block_on(Clock::Real, check(StoreLaw::S10, &Metered(Arc::new(store), counted))).unwrap()
}

#[test]
fn stores_are_bounded_also_by_what_the_allocator_counts() {
    let counted = Counted::alone();
    let few = StoreOptions::default().with_history(NonZeroUsize::new(HISTORY).unwrap());
    bounded(MemoryStore::with_options(few), &counted).unwrap();
    bounded(Plain::new(HISTORY, None), &counted).unwrap();
    let broken = bounded(Plain::new(HISTORY, Some(Bug::UnboundedQueue)), &counted).unwrap_err();
    assert!(broken.to_string().contains("bodies to be held"), "a queue without an end is found: {broken}");
}
