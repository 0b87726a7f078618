//! The operating system's disk.

use std::{
    fs,
    io::{ErrorKind, Result},
    path::{Path, PathBuf},
};

use super::{Disk, File};

/// The operating system's disk, which a log uses by default.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct OsDisk;

impl Disk for OsDisk {
    fn create_dir(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(OsFile { file, locked: false }))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn File>> {
        let file = match fs::OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                fs::File::open(path)?
            }
            file => file?,
        };
        Ok(Box::new(OsFile { file, locked: false }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    #[cfg(unix)]
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    // On other systems a folder cannot be opened as a file; the system writes names in the order of their changes.
    #[cfg(not(unix))]
    fn sync_dir(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn File>> {
        Ok(Box::new(OsFile::lock(path)?))
    }
}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    locked: bool,
}

impl OsFile {
    fn lock(path: &Path) -> Result<Self> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, locked: true }),
            Err(fs::TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for OsFile {
    fn drop(&mut self) {
        // A child process that is just being started has the file open too, until it runs its own program: closing alone would
        // leave the file locked until then.
        if self.locked {
            let _ = self.file.unlock();
        }
    }
}

impl File for OsFile {
    fn size(&self) -> Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match read_some(&self.file, rest, at + done as u64) {
                Ok(0) => break,
                Ok(some) => done += some,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, buf: &[u8], at: u64) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = buf.get(done..).filter(|rest| !rest.is_empty()) {
            match write_some(&self.file, rest, at + done as u64) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(some) => done += some,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn allocate(&self, len: u64) -> Result<()> {
        use rustix::{fs::FallocateFlags, io::Errno};

        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            // This file system cannot reserve space, so only the size is set.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => grow(&self.file, len),
            done => Ok(done?),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn allocate(&self, len: u64) -> Result<()> {
        grow(&self.file, len)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data()
    }
}

fn grow(file: &fs::File, len: u64) -> Result<()> {
    if file.metadata()?.len() < len { file.set_len(len) } else { Ok(()) }
}

#[cfg(unix)]
fn read_some(file: &fs::File, buf: &mut [u8], at: u64) -> Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, at)
}

#[cfg(windows)]
fn read_some(file: &fs::File, buf: &mut [u8], at: u64) -> Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, at)
}

#[cfg(unix)]
fn write_some(file: &fs::File, buf: &[u8], at: u64) -> Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, buf, at)
}

#[cfg(windows)]
fn write_some(file: &fs::File, buf: &[u8], at: u64) -> Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, buf, at)
}

#[cfg(not(any(unix, windows)))]
fn read_some(_file: &fs::File, _buf: &mut [u8], _at: u64) -> Result<usize> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(not(any(unix, windows)))]
fn write_some(_file: &fs::File, _buf: &[u8], _at: u64) -> Result<usize> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_when_it_is_dropped_though_a_process_that_is_being_started_still_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = OsFile::lock(&path).unwrap();
        let inherited = held.file.try_clone().unwrap();
        assert_eq!(OsFile::lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(held);
        OsFile::lock(&path).unwrap();
        drop(inherited);
    }
}
