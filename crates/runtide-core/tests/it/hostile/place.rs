//! The folder of a hostile log, on some disk.

use std::{
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::Arc,
};

use runtide_core::wal::{OnCorruption, RecordKind, WalOptions, fs::Disk};

pub(crate) const KIND: RecordKind = RecordKind(7);

/// A folder on a disk: a real disk in the tests, one in memory in the fuzz targets.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) disk: Arc<dyn Disk>,
    root: PathBuf,
}

impl Place {
    pub(crate) fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Self { disk, root: root.to_owned() }
    }

    /// The log's folder.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The folder for the output of salvage.
    pub(crate) fn salvaged(&self) -> PathBuf {
        self.root.join("salvaged")
    }

    /// Options with small segments, so that memory is cheap and there are several.
    pub(crate) fn options(&self) -> WalOptions {
        WalOptions::default().with_segment_bytes(NonZeroU64::new(8 << 10)).with_disk(Arc::clone(&self.disk))
    }

    pub(crate) fn with(&self, on_corruption: OnCorruption) -> WalOptions {
        self.options().with_on_corruption(on_corruption)
    }

    /// Writes a file into the log's folder.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        self.disk.create_dir(&self.log()).unwrap();
        self.disk.create(&self.log().join(name)).unwrap().write_at(bytes, 0).unwrap();
    }

    /// The files of the log, by their names; not its lock.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for path in self.disk.list(&self.log()).unwrap() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name == "lock" {
                continue;
            }
            let file = self.disk.open(&path).unwrap();
            let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
            let read = file.read_at(&mut bytes, 0).unwrap();
            assert_eq!(read, bytes.len());
            files.push((name, bytes));
        }
        files.sort();
        files
    }
}
