//! The laws of stores, on the store in memory.

use std::{num::NonZeroUsize, sync::Arc};

use async_trait::async_trait;
use runtide_conformance::{
    Absent, Done,
    store::{Overrun, StoreHarness, StoreLaw, StoreTuning, write_past},
};
use runtide_core::store::{Revision, StoreBackend};
use runtide_memory::{MemoryStore, StoreOptions};

use crate::store_laws;

/// Number of writes that the store keeps for watchers: few, so that positions expire soon.
const HISTORY: u16 = 512;

struct Memory(MemoryStore);

fn empty() -> MemoryStore {
    MemoryStore::with_options(
        StoreOptions::default().with_history(NonZeroUsize::from(std::num::NonZeroU16::new(HISTORY).unwrap())),
    )
}

fn start() -> impl Future<Output = Result<Memory, Absent>> {
    std::future::ready(Ok(Memory(empty())))
}

#[async_trait]
impl StoreHarness for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn tuning(&self) -> StoreTuning {
        StoreTuning::LOCAL
    }

    fn skips(&self) -> &'static [(StoreLaw, &'static str)] {
        &[(StoreLaw::S9, "it is gone with its process; a `JournaledStore` around it is not")]
    }

    fn store(&self) -> Arc<dyn StoreBackend> {
        Arc::new(self.0.clone())
    }

    async fn foreign(&self) -> Done<Arc<dyn StoreBackend>> {
        Ok(Arc::new(empty()))
    }

    async fn expire(&self, _revision: Revision) -> Done<()> {
        write_past(&self.0, u64::from(HISTORY)).await
    }

    fn overrun(&self) -> Done<Overrun> {
        Ok(Overrun { changes: u64::from(HISTORY) + 1, counted: true })
    }
}

runtide_conformance::store_suite!(start, store_laws::as_much_as_the_book_says);

#[test]
fn one_law_is_skipped() {
    assert_eq!(Memory(empty()).skips().len(), 1);
}
