//! What lies on the manager's disk and its bus does not tell: the labels of unit files.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use runtide_core::Labels;

use crate::{labels, unit_file::UnitFile};

/// systemd itself reads no longer file.
const LONGEST: u64 = 1024 * 1024;

/// A path of the manager's, as seen from here.
pub(crate) fn seen(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// The labels of a unit by its files; `None`: they cannot be read.
pub(crate) fn labels(root: &Path, fragment: &str, drop_ins: &[String]) -> Option<Labels> {
    let paths = [fragment].into_iter().chain(drop_ins.iter().map(String::as_str)).filter(|path| !path.is_empty());
    let mut files = Vec::new();
    for path in paths {
        match read(&seen(root, path)) {
            Ok(file) => files.push(file),
            // Masked, or generated and gone again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(labels::of_files(&files))
}

/// The labels of a transient unit by the file that systemd writes for it, before the unit starts; `None`: there is none.
pub(crate) fn transient_labels(root: &Path, unit_path: &[String], unit: &str) -> Option<Labels> {
    let folder = unit_path.iter().find(|folder| folder.ends_with("/transient"))?;
    labels_of_transient(root, &format!("{folder}/{unit}"))
}

/// The same, where the manager says which file.
pub(crate) fn labels_of_transient(root: &Path, fragment: &str) -> Option<Labels> {
    Some(labels::of_transient(&read(&seen(root, fragment)).ok()?))
}

fn read(path: &Path) -> io::Result<UnitFile> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    UnitFile::parse(&text).map_err(|flaw| io::Error::new(io::ErrorKind::InvalidData, flaw.why))
}
