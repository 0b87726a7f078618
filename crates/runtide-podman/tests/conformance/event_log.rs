//! The file in which the testbed's Podman keeps its events, so that a test can have it replaced at the moment that it needs.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The size at which the testbed's Podman replaces the file by its newer half.
pub(crate) const FULL: u64 = 262_144;

/// The file of events of the testbed's Podman.
pub(crate) struct EventLog(PathBuf);

impl EventLog {
    /// `None`: the Podman is not the testbed's.
    pub(crate) fn of_the_testbed() -> Option<Self> {
        let folder = std::env::var_os("RUNTIDE_TEST_PODMAN_DIR")?;
        let path = Path::new(&folder).join("tmp/events/events.log");
        path.exists().then_some(Self(path))
    }

    /// Fills it with events of images, which no watch asks for, up to this many bytes below its limit.
    pub(crate) fn fill(&self, room: u64) -> io::Result<()> {
        let line = format!(
            "{{\"ID\":\"{:064}\",\"Image\":\"\",\"Name\":\"filler\",\"Status\":\"pull\",\"Time\":\"2026-01-01T00:00:00Z\",\"Type\":\"image\"}}\n",
            0
        );
        let size = fs::metadata(&self.0)?.len();
        let lines = (FULL - room).saturating_sub(size) / (line.len() as u64);
        let text = line.repeat(usize::try_from(lines).unwrap_or(0));
        OpenOptions::new().append(true).open(&self.0)?.write_all(text.as_bytes())
    }

    /// Another one after each replacement.
    pub(crate) fn inode(&self) -> io::Result<u64> {
        Ok(fs::metadata(&self.0)?.ino())
    }
}
