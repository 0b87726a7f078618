//! A disk in memory that outlives the process.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Error, ErrorKind, Result},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use runtide_core::wal::fs::{Disk, File};

use super::Lifespan;

/// A disk in memory, whose files outlive the process: the next process finds the files of the last one.
#[derive(Clone, Debug)]
pub struct MortalDisk {
    lifespan: Lifespan,
    files: Arc<Mutex<Files>>,
}

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Debug, Default)]
struct Files {
    names: BTreeMap<PathBuf, Bytes>,
    locked: BTreeSet<PathBuf>,
}

impl MortalDisk {
    /// An empty disk, used by the first process.
    pub fn new(lifespan: &Lifespan) -> Self {
        Self { lifespan: lifespan.clone(), files: Arc::default() }
    }

    /// The same files, used by the process with another lifespan.
    #[must_use]
    pub fn reborn(&self, lifespan: &Lifespan) -> Self {
        Self { lifespan: lifespan.clone(), files: Arc::clone(&self.files) }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        lock(&self.files)
    }

    fn alive(&self) -> Result<()> {
        if self.lifespan.is_over() { Err(dead()) } else { Ok(()) }
    }

    fn file(&self, bytes: &Bytes) -> Box<dyn File> {
        Box::new(MortalFile { lifespan: self.lifespan.clone(), bytes: Arc::clone(bytes), lock: None })
    }
}

fn dead() -> Error {
    Error::other("the process is dead")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for MortalDisk {
    fn create_dir(&self, _: &Path) -> Result<()> {
        self.alive()
    }

    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        self.alive()?;
        let bytes = Bytes::default();
        self.files().names.insert(path.to_owned(), Arc::clone(&bytes));
        Ok(self.file(&bytes))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn File>> {
        let bytes = self.files().names.get(path).cloned().ok_or(ErrorKind::NotFound)?;
        Ok(self.file(&bytes))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.alive()?;
        let mut files = self.files();
        let bytes = files.names.remove(from).ok_or(ErrorKind::NotFound)?;
        files.names.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.alive()?;
        self.files().names.remove(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        Ok(self.files().names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn sync_dir(&self, _: &Path) -> Result<()> {
        self.alive()
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn File>> {
        self.alive()?;
        let mut files = self.files();
        if !files.locked.insert(path.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let bytes = Arc::clone(files.names.entry(path.to_owned()).or_default());
        let lock = Some((Arc::clone(&self.files), path.to_owned()));
        Ok(Box::new(MortalFile { lifespan: self.lifespan.clone(), bytes, lock }))
    }
}

#[derive(Debug)]
struct MortalFile {
    lifespan: Lifespan,
    bytes: Bytes,
    /// The lock of this file, given back with the file, or by the system with the process.
    lock: Option<(Arc<Mutex<Files>>, PathBuf)>,
}

impl Drop for MortalFile {
    fn drop(&mut self) {
        if let Some((files, path)) = &self.lock {
            lock(files).locked.remove(path);
        }
    }
}

impl File for MortalFile {
    fn size(&self) -> Result<u64> {
        Ok(lock(&self.bytes).len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        let bytes = lock(&self.bytes);
        let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        if !self.lifespan.pass() {
            return Err(dead());
        }
        let mut bytes = lock(&self.bytes);
        let at = usize::try_from(at).map_err(|_| ErrorKind::FileTooLarge)?;
        let end = at.checked_add(buf.len()).ok_or(ErrorKind::FileTooLarge)?;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(range) = bytes.get_mut(at..end) {
            range.copy_from_slice(buf);
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> Result<()> {
        let len = usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?;
        let mut bytes = lock(&self.bytes);
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> Result<()> {
        if self.lifespan.is_over() {
            return Err(dead());
        }
        lock(&self.bytes).resize(usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?, 0);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        if self.lifespan.pass() { Ok(()) } else { Err(dead()) }
    }
}
