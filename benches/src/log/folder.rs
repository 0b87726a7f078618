//! Where the logs lie: on the disk that the executable is on, since a temporary folder may be memory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// A folder that goes away with this.
#[derive(Debug)]
pub struct Folder {
    dir: tempfile::TempDir,
    made: AtomicUsize,
}

impl Folder {
    /// Beside the executable, which is in cargo's target folder.
    pub fn new() -> io::Result<Self> {
        let exe = std::env::current_exe()?;
        let beside = exe.parent().unwrap_or(Path::new("."));
        Ok(Self { dir: tempfile::Builder::new().prefix("runtide-log-").tempdir_in(beside)?, made: AtomicUsize::new(0) })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of a folder that is not there yet.
    pub fn new_dir(&self) -> PathBuf {
        self.path().join(format!("{}", self.made.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Takes a folder away; one that is not there is as good.
pub(super) fn clear(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
}
