//! Disks with a bug: the mistakes that a log could make with a sound disk.

use std::{
    io::Result,
    path::{Path, PathBuf},
    sync::Arc,
};

use runtide_core::wal::fs::{Disk, File};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskBug {
    None,
    RetriesSync,
    RetriesFolderSync,
    RetriesWrite,
    NoDirectorySync,
    NoLock,
    NoTruncate,
    NoCopy,
}

/// A disk behind a bug.
#[derive(Debug)]
pub(crate) struct BuggyDisk {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) bug: DiskBug,
}

impl Disk for BuggyDisk {
    fn create_dir(&self, path: &Path) -> Result<()> {
        self.disk.create_dir(path)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        let torn = path.file_name().is_some_and(|name| name.to_string_lossy().contains("torn"));
        let bug = if self.bug == DiskBug::NoCopy && !torn { DiskBug::None } else { self.bug };
        Ok(Box::new(BuggyFile { file: self.disk.create(path)?, bug }))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn File>> {
        // A copy of a torn tail is only made, never opened again by the log.
        let bug = if self.bug == DiskBug::NoCopy { DiskBug::None } else { self.bug };
        Ok(Box::new(BuggyFile { file: self.disk.open(path)?, bug }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        match self.bug {
            DiskBug::NoDirectorySync => Ok(()),
            DiskBug::RetriesFolderSync => self.disk.sync_dir(dir).or_else(|_| self.disk.sync_dir(dir)),
            _ => self.disk.sync_dir(dir),
        }
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn File>> {
        if self.bug == DiskBug::NoLock {
            return self.disk.create(path);
        }
        self.disk.lock(path)
    }
}

#[derive(Debug)]
struct BuggyFile {
    file: Box<dyn File>,
    bug: DiskBug,
}

impl File for BuggyFile {
    fn size(&self) -> Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        self.file.read_at(buf, at)
    }

    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        match self.bug {
            DiskBug::NoCopy => Ok(()),
            DiskBug::RetriesWrite => self.file.write_at(buf, at).or_else(|_| self.file.write_at(buf, at)),
            _ => self.file.write_at(buf, at),
        }
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.file.allocate(len)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        if self.bug == DiskBug::NoTruncate { Ok(()) } else { self.file.truncate(len) }
    }

    fn sync(&self) -> Result<()> {
        match self.bug {
            DiskBug::RetriesSync => self.file.sync().or_else(|_| self.file.sync()),
            _ => self.file.sync(),
        }
    }
}
