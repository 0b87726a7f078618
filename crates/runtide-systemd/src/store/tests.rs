//! The law of durable stores, S9, on a model of a disk with every state that a power cut may leave. No manager reads
//! such a disk; all other parts are real.

#[path = "../../tests/store/anything.rs"]
mod anything;
mod files;

use std::{
    future::poll_fn,
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, mpsc},
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use runtide_conformance::{
    Absent, Clock, Done, Obstacle,
    store::{Effort, ModelDisk, StoreHarness, StoreLaw, StoreTuning},
};
use runtide_core::{
    ErrorKind,
    store::{Revision, StoreBackend},
    wal::fs::{Disk, File},
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
    open_on(disk, Arc::new(disk.clone()))
}

/// On a disk in front of the model.
fn open_on(model: &ModelDisk, disk: Arc<dyn Disk>) -> UnitStore<MemoryStore> {
    let config = UnitStoreConfig::new(Config::system(), "/units").with_poll(Duration::from_secs(3600));
    let history = NonZeroUsize::new(64).unwrap();
    let front = MemoryStore::with_options(StoreOptions::default().with_history(history));
    let form = Arc::new(Anything(String::new()));
    UnitStore::made(config, front, form, None, disk, Arc::new(ModelNames(model.clone()))).unwrap()
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

/// A disk whose lock waits for its turn: `true` locks it, `false` is an error.
#[derive(Debug)]
struct Gated {
    disk: ModelDisk,
    begun: tokio::sync::mpsc::UnboundedSender<PathBuf>,
    turn: Mutex<mpsc::Receiver<bool>>,
}

impl Disk for Gated {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.disk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.disk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let _ = self.begun.send(path.to_owned());
        // Without a sender the test has failed.
        if self.turn.lock().unwrap().recv().unwrap_or(false) {
            self.disk.lock(path)
        } else {
            Err(io::Error::other("the disk fails"))
        }
    }
}

/// A store whose folder is locked when the test says so; and the paths of the locks that began.
fn gated(
    disk: &ModelDisk,
) -> (UnitStore<MemoryStore>, tokio::sync::mpsc::UnboundedReceiver<PathBuf>, mpsc::Sender<bool>) {
    let ((begun, begins), (go, turn)) = (tokio::sync::mpsc::unbounded_channel(), mpsc::channel());
    let gated = Gated { disk: disk.clone(), begun, turn: Mutex::new(turn) };
    (open_on(disk, Arc::new(gated)), begins, go)
}

async fn is_pending(call: &mut (impl Future + Unpin)) -> bool {
    poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *call).poll(cx).is_pending())).await
}

#[tokio::test]
async fn closing_waits_for_the_opening_of_a_dropped_call() {
    let disk = ModelDisk::new();
    let (store, mut begins, go) = gated(&disk);
    let lock = {
        let mut call = pin!(store.stats());
        assert!(is_pending(&mut call).await);
        begins.recv().await.unwrap()
    };
    let mut first = Box::pin(store.close());
    assert!(is_pending(&mut first).await, "closed while the folder is being locked");
    drop(first);
    let mut close = pin!(store.close());
    assert!(is_pending(&mut close).await, "a dropped close lost the opening");
    go.send(true).unwrap();
    close.await;
    drop(disk.lock(&lock).expect("the lock is not free"));
}

#[tokio::test]
async fn a_call_that_waited_for_an_opening_opens_nothing_after_closing() {
    let disk = ModelDisk::new();
    let (store, mut begins, go) = gated(&disk);
    let (mut first, mut second, mut close) = (pin!(store.stats()), pin!(store.stats()), pin!(store.close()));
    assert!(is_pending(&mut first).await && is_pending(&mut second).await && is_pending(&mut close).await);
    begins.recv().await.unwrap();
    go.send(false).unwrap();
    go.send(true).unwrap();
    let (first, second, ()) = tokio::join!(first, second, close);
    assert_ne!(first.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(begins.try_recv().is_err(), "the folder was locked after closing");
}
