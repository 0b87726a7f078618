//! The laws of stores, on a real systemd: each law has a part of its folder of units.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

#[path = "store/anything.rs"]
mod anything;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "store/machine.rs"]
mod machine;
#[path = "conformance/name.rs"]
mod name;

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use runtide_conformance::{
    Absent, Done, Obstacle,
    store::{Effort, Overrun, StoreHarness, StoreLaw, StoreTuning, write_past},
};
use runtide_core::store::{Revision, StoreBackend};
use runtide_memory::{MemoryStore, StoreOptions};
use runtide_systemd::{UnitFileName, UnitForm, UnitStore};

use self::{
    anything::Anything,
    machine::{Machine, Part},
    name::known_as,
};

/// Number of writes that the front keeps for watchers: few, since each write takes a reload, and as many as a law's
/// reader may be behind.
const HISTORY: u8 = 72;

struct Systemd {
    part: Part,
    other: Part,
    store: Mutex<UnitStore<MemoryStore>>,
    version: String,
}

fn open(part: &Part) -> UnitStore<MemoryStore> {
    let history = NonZeroUsize::new(usize::from(HISTORY)).unwrap();
    let front = MemoryStore::with_options(StoreOptions::default().with_history(history));
    UnitStore::with_form(part.config(), front, Anything(part.prefix.clone())).unwrap()
}

async fn start() -> Result<Systemd, Absent> {
    let machine = Machine::named().map_err(|why| Absent::unset(known_as(), why))?;
    let machine = machine.shared().await;
    let (part, other) = (machine.part(), machine.part());
    let store = open(&part);
    store.stats().await.map_err(|error| Absent::broken(known_as(), error.to_string()))?;
    let version = machine.version();
    Ok(Systemd { part, other, store: Mutex::new(store), version })
}

#[async_trait]
impl StoreHarness for Systemd {
    fn name(&self) -> &'static str {
        known_as()
    }

    fn is_real(&self) -> bool {
        true
    }

    fn version(&self) -> Option<String> {
        Some(self.version.clone())
    }

    fn tuning(&self) -> StoreTuning {
        // Each write takes a reload, and all of the tests share one manager.
        StoreTuning::REMOTE.with_effort(Effort::Brief).with_timeout(Duration::from_secs(900))
    }

    fn skips(&self) -> &'static [(StoreLaw, &'static str)] {
        SKIPS
    }

    fn store(&self) -> Arc<dyn StoreBackend> {
        Arc::new(self.store.lock().unwrap().clone())
    }

    async fn foreign(&self) -> Done<Arc<dyn StoreBackend>> {
        Ok(Arc::new(open(&self.other)))
    }

    fn largest(&self) -> usize {
        runtide_systemd::UnitStoreConfig::LARGEST
    }

    async fn expire(&self, _revision: Revision) -> Done<()> {
        write_past(&*self.store(), u64::from(HISTORY)).await
    }

    fn overrun(&self) -> Done<Overrun> {
        Ok(Overrun { changes: u64::from(HISTORY) + 1, counted: true })
    }

    /// Ended between any two steps, and opened again.
    async fn crash(&self) -> Done<()> {
        let present = self.store.lock().unwrap().clone();
        present.close().await;
        let fresh = open(&self.part);
        fresh.stats().await.map_err(Obstacle::failed)?;
        *self.store.lock().unwrap() = fresh;
        Ok(())
    }
}

const SKIPS: &[(StoreLaw, &str)] = &[];

runtide_conformance::store_suite!(start);

#[test]
fn no_law_is_skipped() {
    assert!(SKIPS.is_empty());
}
