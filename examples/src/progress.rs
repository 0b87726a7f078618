//! [`Progress`] of a read through a log: a disk that counts the bytes read.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use indicatif::{ProgressBar, ProgressStyle};
use runtide_core::wal::fs::{Disk, File, OsDisk};

/// A bar on stderr, if that is a terminal and the work takes long enough to see it.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar over all segments of a log. The work itself reports a directory that cannot be read.
    pub fn over(dir: &Path, doing: &'static str) -> Self {
        let bytes = log_files(dir).map_or(0, |sizes| sizes.iter().sum());
        let bar = ProgressBar::new(bytes);
        let style = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(doing);
        Self { bar }
    }

    /// The operating system's disk, with its reads counted.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(Counted { disk: OsDisk::default(), bar: self.bar.clone() })
    }

    /// Removes the bar.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}

/// The sizes of a log's segments.
///
/// # Errors
/// The file system's own error.
pub fn log_files(dir: &Path) -> io::Result<Vec<u64>> {
    let mut sizes = Vec::new();
    for entry in dir.read_dir()? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "wal") {
            sizes.push(entry.metadata()?.len());
        }
    }
    Ok(sizes)
}

#[derive(Debug)]
struct Counted {
    disk: OsDisk,
    bar: ProgressBar,
}

impl Counted {
    fn counted(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(CountedFile { file, bar: self.bar.clone() })
    }
}

impl Disk for Counted {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.disk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.disk.open(path).map(|file| self.counted(file))
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
        self.disk.lock(path)
    }
}

#[derive(Debug)]
struct CountedFile {
    file: Box<dyn File>,
    bar: ProgressBar,
}

impl File for CountedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let read = self.file.read_at(buf, at)?;
        self.bar.inc(read as u64);
        Ok(read)
    }

    fn write_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        self.file.write_at(buf, at)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}
