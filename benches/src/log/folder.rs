//! [`Folder`] of the logs: on the executable's disk, since a temporary folder may be in memory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// A folder that is removed on drop.
#[derive(Debug)]
pub struct Folder {
    dir: tempfile::TempDir,
    made: AtomicUsize,
}

impl Folder {
    /// A folder next to the executable, which is in cargo's target folder.
    pub fn new() -> io::Result<Self> {
        let exe = std::env::current_exe()?;
        let folder = exe.parent().unwrap_or(Path::new("."));
        Ok(Self { dir: tempfile::Builder::new().prefix("runtide-log-").tempdir_in(folder)?, made: AtomicUsize::new(0) })
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of a new folder.
    pub fn new_dir(&self) -> PathBuf {
        self.path().join(format!("{}", self.made.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Removes a folder; a missing one is fine.
pub(super) fn clear(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
}
