//! The disk of the checker: others may run in the midst of a write and of a sync, and it knows how far it was written.

use std::{
    io::Result,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use shuttle::thread::yield_now;

use crate::wal::{
    fs::{Disk, File},
    tests::model::Model,
};

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    pub(super) model: Model,
    progress: Arc<Progress>,
}

/// The last record that was written, and that was synced.
#[derive(Debug, Default)]
struct Progress {
    written: AtomicU64,
    synced: AtomicU64,
}

impl Watched {
    pub(super) fn written(&self) -> u64 {
        self.progress.written.load(Ordering::Relaxed)
    }

    pub(super) fn synced(&self) -> u64 {
        self.progress.synced.load(Ordering::Relaxed)
    }

    fn file(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(WatchedFile { file, progress: Arc::clone(&self.progress) })
    }
}

impl Disk for Watched {
    fn create_dir(&self, path: &Path) -> Result<()> {
        self.model.create_dir(path)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        Ok(self.file(self.model.create(path)?))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn File>> {
        Ok(self.file(self.model.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.model.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.model.remove(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        self.model.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.model.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn File>> {
        self.model.lock(path)
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: Box<dyn File>,
    progress: Arc<Progress>,
}

impl File for WatchedFile {
    fn size(&self) -> Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        self.file.read_at(buf, at)
    }

    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        yield_now();
        self.file.write_at(buf, at)?;
        if buf.starts_with(b"RTC1") {
            // The number of the commit's first record, and how many it has.
            let first = u64::from_le_bytes(*buf[80..].first_chunk().unwrap());
            let count = u32::from_le_bytes(*buf[96..].first_chunk().unwrap());
            let before = self.progress.written.swap(first + u64::from(count) - 1, Ordering::Relaxed);
            assert_eq!(before + 1, first, "commits are written in order");
        }
        yield_now();
        Ok(())
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.file.allocate(len)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> Result<()> {
        // What is written while the sync is under way may not be in it.
        let written = self.progress.written.load(Ordering::Relaxed);
        yield_now();
        self.file.sync()?;
        self.progress.synced.fetch_max(written, Ordering::Relaxed);
        yield_now();
        Ok(())
    }
}
