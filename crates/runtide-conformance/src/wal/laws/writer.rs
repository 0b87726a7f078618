//! W5: one writer.

use std::{
    io::Result,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use runtide_core::{
    ErrorKind,
    wal::fs::{Disk, File},
};

use super::{DIR, Tried, options};
use crate::wal::{Effort, LogHarness, Looked, ModelDisk, WalLaw, WalLawResult};

/// A second writer is refused while there is one, and disturbs nothing. The lock goes with the writer, when it closes and
/// when the power goes. Between processes it is the disk's lock; core's own tests show it there.
pub(crate) fn w5_one_writer(log: &dyn LogHarness, _: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W5, log };
    let disk = ModelDisk::new();
    let mut next = 1;
    for _ in 0..3 {
        let log = tried.open(&disk)?;
        tried.append(&*log, next)?;
        // The first writer's own thread may change files at the same time, so the changes of the second one are counted.
        let changes = Arc::new(AtomicU64::new(0));
        let counted = Counted { disk: disk.clone(), changes: Arc::clone(&changes) };
        let second = tried.log.open(Path::new(DIR), options(&disk).with_disk(Some(Arc::new(counted) as Arc<_>))).err();
        let refused = second.as_ref().is_some_and(|error| error.kind() == ErrorKind::Conflict);
        tried.ensure(refused, "a second writer to be refused as Conflict", format!("{second:?}"))?;
        let changes = changes.load(Ordering::Relaxed);
        tried.ensure(changes == 0, "the refused writer to change nothing", format!("{changes} changes"))?;
        tried.append(&*log, next + 1)?;
        next = tried.in_order(&tried.all(&*log)?, 1)?;
        // After a power cut the lock is free.
        drop(tried.open(&disk.crash())?);
        tried.works("close the log", log.close())?;
    }
    tried.ensure(next == 7, "the first writer's records", next - 1)?;
    Ok(Looked::at(3, "refused writers"))
}

/// The disk, with a count of the calls that change a name or a file's bytes.
#[derive(Debug)]
struct Counted {
    disk: ModelDisk,
    changes: Arc<AtomicU64>,
}

impl Counted {
    fn change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    fn file(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(CountedFile { file, changes: Arc::clone(&self.changes) })
    }
}

impl Disk for Counted {
    fn create_dir(&self, path: &Path) -> Result<()> {
        self.disk.create_dir(path)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        self.change();
        Ok(self.file(self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn File>> {
        Ok(self.file(self.disk.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.change();
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.change();
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn File>> {
        Ok(self.file(self.disk.lock(path)?))
    }
}

#[derive(Debug)]
struct CountedFile {
    file: Box<dyn File>,
    changes: Arc<AtomicU64>,
}

impl CountedFile {
    fn change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }
}

impl File for CountedFile {
    fn size(&self) -> Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        self.file.read_at(buf, at)
    }

    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        self.change();
        self.file.write_at(buf, at)
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.change();
        self.file.allocate(len)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.change();
        self.file.truncate(len)
    }

    fn sync(&self) -> Result<()> {
        self.file.sync()
    }
}
