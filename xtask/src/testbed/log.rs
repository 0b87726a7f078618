//! The log of an engine, to which each start appends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use crate::failure::{Doing, Outcome};

/// The log of one start.
pub(super) struct Log {
    path: PathBuf,
    /// Length of the file before this start, in bytes.
    begin: u64,
}

impl Log {
    /// Opens it twice: for stdout and for stderr.
    pub(super) fn open(path: PathBuf) -> Outcome<(File, File, Self)> {
        let doing = format!("cannot write {}", path.display());
        let out = OpenOptions::new().create(true).append(true).open(&path).doing(&doing)?;
        let err = out.try_clone().doing(&doing)?;
        let begin = out.metadata().map_or(0, |metadata| metadata.len());
        Ok((out, err, Self { path, begin }))
    }

    /// The last line of this start that `tells` why it failed.
    pub(super) fn last_line(&self, tells: impl Fn(&str) -> bool) -> Option<String> {
        let mut file = File::open(&self.path).ok()?;
        file.seek(SeekFrom::Start(self.begin)).ok()?;
        let mut text = String::new();
        file.take(1 << 20).read_to_string(&mut text).ok()?;
        let line = text.lines().rev().filter(|line| !line.trim().is_empty()).find(|line| tells(line))?;
        Some(line.trim().to_owned())
    }
}
