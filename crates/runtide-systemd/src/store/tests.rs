//! The law of durable stores, S9, on a model of a disk with every state that a power cut may leave. No manager reads
//! such a disk; all other parts are real.

#[path = "../../tests/store/anything.rs"]
mod anything;
mod files;

use std::{io, num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use runtide_conformance::{
    Absent, Clock, Done, Obstacle,
    store::{Effort, ModelDisk, StoreHarness, StoreLaw, StoreTuning},
};
use runtide_core::{
    store::{Revision, StoreBackend},
    wal::fs::Disk,
};
use runtide_memory::{MemoryStore, StoreOptions};

use self::anything::Anything;
use super::{
    UnitFileName, UnitForm, UnitStore, UnitStoreConfig,
    folder::{Access, Named, Names, Sort},
};
use crate::config::Config;

#[derive(Debug)]
struct ModelNames(ModelDisk);

impl Names for ModelNames {
    fn names(&self, dir: &Path) -> io::Result<Vec<Named>> {
        let named = |path: &Path| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(Named { name, sort: Sort::File, stamp: None })
        };
        Ok(self.0.list(dir)?.iter().filter_map(|path| named(path)).collect())
    }

    fn sort(&self, path: &Path) -> io::Result<Option<Sort>> {
        if self.0.open(path).is_ok() {
            return Ok(Some(Sort::File));
        }
        Ok(self.0.list(path).is_ok().then_some(Sort::Folder))
    }

    fn access(&self, _: &Path) -> io::Result<Option<Access>> {
        Ok(None)
    }

    fn make_private(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn give(&self, _: &Path, _: Access) -> io::Result<()> {
        Ok(())
    }
}

fn open(disk: &ModelDisk) -> UnitStore<MemoryStore> {
    let config = UnitStoreConfig::new(Config::system(), "/units").with_poll(Duration::from_secs(3600));
    let history = NonZeroUsize::new(64).unwrap();
    let front = MemoryStore::with_options(StoreOptions::default().with_history(history));
    let form = Arc::new(Anything(String::new()));
    UnitStore::made(config, front, form, None, Arc::new(disk.clone()), Arc::new(ModelNames(disk.clone()))).unwrap()
}

struct Model(ModelDisk);

#[async_trait]
impl StoreHarness for Model {
    fn name(&self) -> &'static str {
        "systemd-files"
    }

    fn tuning(&self) -> StoreTuning {
        StoreTuning::LOCAL.with_effort(Effort::Full)
    }

    fn store(&self) -> Arc<dyn StoreBackend> {
        Arc::new(open(&self.0))
    }

    async fn expire(&self, _revision: Revision) -> Done<()> {
        Err(Obstacle::unsupported("places that expire: only S9 is tested here"))
    }

    async fn open_on(&self, disk: &ModelDisk) -> Done<Arc<dyn StoreBackend>> {
        let store = open(disk);
        store.stats().await.map_err(Obstacle::failed)?;
        Ok(Arc::new(store))
    }
}

#[test]
fn s9_durable_on_a_disk_that_loses_what_was_not_synced() {
    let start = || std::future::ready(Ok::<_, Absent>(Model(ModelDisk::new())));
    runtide_conformance::run::test(StoreLaw::S9, Clock::Real, start, |harness| harness).unwrap();
}
