//! The checker's disk, in memory: other threads may run in the midst of a write and of a sync, it records how far the log was
//! written and synced, and it fails on request.

use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind, Result},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use shuttle::thread::yield_now;

use crate::wal::fs::{Disk, File};

/// The kind of operation that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fail {
    Write,
    Sync,
}

/// A disk that records the last written and the last synced record. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched(Arc<State>);

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Debug, Default)]
struct State {
    names: Mutex<BTreeMap<PathBuf, Bytes>>,
    locked: AtomicBool,
    /// The kind of operation that fails, and the number of operations of that kind that succeed before.
    fail: Mutex<Option<(Fail, usize)>>,
    /// Number of the last record that was written.
    written: AtomicU64,
    /// Number of the last record that was synced.
    synced: AtomicU64,
}

impl Watched {
    pub(super) fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    pub(super) fn synced(&self) -> u64 {
        self.0.synced.load(Ordering::Relaxed)
    }

    /// Makes every operation of this kind fail, after `after` more have succeeded.
    pub(super) fn fail(&self, fail: Fail, after: usize) {
        *self.0.fail.lock().unwrap() = Some((fail, after));
    }

    fn inject(&self, operation: Fail) -> Result<()> {
        match &mut *self.0.fail.lock().unwrap() {
            Some((fail, 0)) if *fail == operation => Err(Error::other("the disk fails")),
            Some((fail, left)) if *fail == operation => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Bytes>> {
        self.0.names.lock().unwrap()
    }

    fn file(&self, bytes: Bytes, is_lock: bool) -> Box<dyn File> {
        Box::new(WatchedFile { disk: self.clone(), bytes, is_lock })
    }
}

impl Disk for Watched {
    fn create_dir(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        let bytes = Bytes::default();
        self.names().insert(path.to_owned(), Arc::clone(&bytes));
        Ok(self.file(bytes, false))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn File>> {
        let bytes = self.names().get(path).cloned().ok_or(ErrorKind::NotFound)?;
        Ok(self.file(bytes, false))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let bytes = self.names().remove(from).ok_or(ErrorKind::NotFound)?;
        self.names().insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        yield_now();
        assert!(self.0.locked.load(Ordering::Relaxed), "a file is removed, and the lock is free");
        self.names().remove(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn list(&self, _: &Path) -> Result<Vec<PathBuf>> {
        Ok(self.names().keys().cloned().collect())
    }

    fn sync_dir(&self, _: &Path) -> Result<()> {
        self.inject(Fail::Sync)
    }

    fn lock(&self, _: &Path) -> Result<Box<dyn File>> {
        if self.0.locked.swap(true, Ordering::Relaxed) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(self.file(Bytes::default(), true))
    }
}

#[derive(Debug)]
struct WatchedFile {
    disk: Watched,
    bytes: Bytes,
    is_lock: bool,
}

impl WatchedFile {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap()
    }
}

impl Drop for WatchedFile {
    fn drop(&mut self) {
        if self.is_lock {
            self.disk.0.locked.store(false, Ordering::Relaxed);
        }
    }
}

impl File for WatchedFile {
    fn size(&self) -> Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        let bytes = self.bytes();
        let rest = bytes.get(usize::try_from(at).unwrap()..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        yield_now();
        if !self.is_lock {
            self.disk.inject(Fail::Write)?;
        }
        {
            let (mut bytes, at) = (self.bytes(), usize::try_from(at).unwrap());
            let len = bytes.len().max(at + buf.len());
            bytes.resize(len, 0);
            bytes[at..at + buf.len()].copy_from_slice(buf);
        }
        if buf.starts_with(b"RTC1") {
            // The number of the commit's first record, and how many it has.
            let first = u64::from_le_bytes(*buf[80..].first_chunk().unwrap());
            let count = u32::from_le_bytes(*buf[96..].first_chunk().unwrap());
            let before = self.disk.0.written.swap(first + u64::from(count) - 1, Ordering::Relaxed);
            assert_eq!(before + 1, first, "commits are written in order");
        }
        yield_now();
        Ok(())
    }

    fn allocate(&self, len: u64) -> Result<()> {
        let (mut bytes, len) = (self.bytes(), usize::try_from(len).unwrap());
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.bytes().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        // A write that happens while the sync is under way may not be part of it.
        let written = self.disk.written();
        yield_now();
        self.disk.inject(Fail::Sync)?;
        self.disk.0.synced.fetch_max(written, Ordering::Relaxed);
        yield_now();
        Ok(())
    }
}
