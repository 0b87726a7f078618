//! The laws of stores, on the store in memory behind the log: in a folder, and on a disk of which every power cut is known.

use std::{
    num::{NonZeroU64, NonZeroUsize},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use runtide_conformance::{
    Absent, Done, Obstacle,
    store::{Effort, ModelDisk, Overrun, StoreHarness, StoreTuning, write_past},
};
use runtide_core::{
    store::{Revision, StoreBackend},
    wal::WalOptions,
};
use runtide_journal::{JournalOptions, JournaledStore};
use runtide_memory::{MemoryStore, StoreOptions};
use tempfile::TempDir;

use crate::store_laws;

/// Number of writes that the store keeps for watchers: few, so that positions expire soon.
const HISTORY: usize = 512;

/// The folder of the log on a disk in memory.
const DIR: &str = "/store";

type Store = JournaledStore<MemoryStore>;

/// Opens with the smallest segments and frequent checkpoints, so that the log is always changing its files.
fn open(dir: &Path, disk: Option<&ModelDisk>) -> runtide_core::Result<Store> {
    let memory = StoreOptions::default().with_history(NonZeroUsize::new(HISTORY).unwrap());
    let disk = disk.map(|disk| Arc::new(disk.clone()) as Arc<_>);
    let wal = WalOptions::default().with_segment_bytes(NonZeroU64::new(8 << 10)).with_disk(disk);
    let options = JournalOptions::default().with_wal(wal).with_checkpoint_every(NonZeroU64::new(16));
    JournaledStore::open(dir, MemoryStore::with_options(memory), options)
}

struct Journaled {
    name: &'static str,
    tuning: StoreTuning,
    store: Store,
    foreign: Store,
    /// The folders of both, if they are on the real file system.
    _folders: Option<[TempDir; 2]>,
}

#[async_trait]
impl StoreHarness for Journaled {
    fn name(&self) -> &'static str {
        self.name
    }

    fn tuning(&self) -> StoreTuning {
        self.tuning
    }

    fn store(&self) -> Arc<dyn StoreBackend> {
        Arc::new(self.store.clone())
    }

    async fn foreign(&self) -> Done<Arc<dyn StoreBackend>> {
        Ok(Arc::new(self.foreign.clone()))
    }

    async fn expire(&self, _revision: Revision) -> Done<()> {
        write_past(&self.store, HISTORY as u64).await
    }

    fn overrun(&self) -> Done<Overrun> {
        Ok(Overrun { changes: HISTORY as u64 + 1, counted: true })
    }

    async fn open_on(&self, disk: &ModelDisk) -> Done<Arc<dyn StoreBackend>> {
        Ok(Arc::new(open(Path::new(DIR), Some(disk)).map_err(Obstacle::failed)?))
    }
}

mod on_a_model_disk {
    use super::*;

    fn start() -> impl Future<Output = Result<Journaled, Absent>> {
        let opened = || open(Path::new(DIR), Some(&ModelDisk::new())).unwrap();
        let (store, foreign) = (opened(), opened());
        let tuning = StoreTuning::LOCAL;
        std::future::ready(Ok(Journaled { name: "journaled", tuning, store, foreign, _folders: None }))
    }

    runtide_conformance::store_suite!(start, store_laws::as_much_as_the_book_says);
}

mod on_a_folder {
    use super::*;

    fn start() -> impl Future<Output = Result<Journaled, Absent>> {
        let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let [store, foreign] = folders.each_ref().map(|folder| open(folder.path(), None).unwrap());
        // Each write waits for a disk.
        let tuning = StoreTuning::LOCAL.with_effort(Effort::Brief);
        std::future::ready(Ok(Journaled { name: "journaled-folder", tuning, store, foreign, _folders: Some(folders) }))
    }

    runtide_conformance::store_suite!(start, store_laws::in_full);
}
