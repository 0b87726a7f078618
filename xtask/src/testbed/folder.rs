//! The folder of a daemon, emptied but for the logs, so that a failure can be diagnosed after a teardown.

use std::fs;
use std::path::Path;

use crate::failure::{Doing, Outcome};
use crate::workspace;

/// Removes everything in it but files whose names end in `.log`.
pub(super) fn clear(folder: &Path) -> Outcome<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.doing(format_args!("cannot clear {}", workspace::relative(folder)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_stay() {
        let folder = std::env::temp_dir().join(format!("xtask-folder-{}", std::process::id()));
        fs::create_dir_all(folder.join("data/deep")).unwrap();
        fs::write(folder.join("ports"), "1").unwrap();
        fs::write(folder.join("one.log"), "why").unwrap();
        clear(&folder).unwrap();
        let left: Vec<_> = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(left, ["one.log"]);
        clear(&folder).unwrap();
    }
}
