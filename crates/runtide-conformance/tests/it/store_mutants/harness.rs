//! The harness that gives the laws a [`Plain`] store.

use std::sync::Arc;

use async_trait::async_trait;
use runtide_conformance::{
    Done, Obstacle,
    store::{ModelDisk, Overrun, StoreHarness, StoreTuning, write_past},
};
use runtide_core::store::{Revision, StoreBackend};

use super::{bugs::Bug, journal::Journal, plain::Plain};

/// Number of changes that the store keeps.
const HISTORY: u64 = 512;

pub(crate) struct PlainHarness {
    store: Plain,
    bug: Option<Bug>,
    tuning: StoreTuning,
}

impl PlainHarness {
    pub(crate) fn new(bug: Option<Bug>, tuning: StoreTuning) -> Self {
        Self { store: plain(bug), bug, tuning }
    }
}

fn plain(bug: Option<Bug>) -> Plain {
    Plain::new(usize::try_from(HISTORY).unwrap(), bug)
}

#[async_trait]
impl StoreHarness for PlainHarness {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn tuning(&self) -> StoreTuning {
        self.tuning
    }

    fn store(&self) -> Arc<dyn StoreBackend> {
        Arc::new(self.store.clone())
    }

    async fn foreign(&self) -> Done<Arc<dyn StoreBackend>> {
        Ok(Arc::new(plain(self.bug)))
    }

    async fn expire(&self, _revision: Revision) -> Done<()> {
        write_past(&self.store, HISTORY).await
    }

    fn overrun(&self) -> Done<Overrun> {
        Ok(Overrun { changes: HISTORY + 1, counted: true })
    }

    async fn open_on(&self, disk: &ModelDisk) -> Done<Arc<dyn StoreBackend>> {
        let journal = Journal::open(disk, self.bug).map_err(Obstacle::failed)?;
        let history = usize::try_from(HISTORY).unwrap();
        Ok(Arc::new(Plain::with_journal(journal, history, self.bug).map_err(Obstacle::failed)?))
    }
}
