//! One writer for a directory: a lock file, whose content names the process that holds it.

use std::path::Path;

use super::{
    corruption::disk_error,
    fs::{Disk, File},
    layout::lock_path,
};
use crate::error::{Error, ErrorKind, Result};

/// Most bytes of the lock file that are read: a pid and a program's name.
const HOLDER: usize = 256;

/// Takes the lock, or fails with the name of its holder.
pub(super) fn acquire(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn File>> {
    let path = lock_path(dir);
    match disk.lock(&path) {
        Ok(file) => {
            let holder = holder();
            let write = || {
                file.truncate(0)?;
                file.write_at(holder.as_bytes(), 0)
            };
            write().map_err(|error| disk_error("wal.open", &path, error))?;
            Ok(file)
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(Error::new(ErrorKind::Conflict, "wal.open", "another writer has the log open")
                .with_context("path", dir.display())
                .with_context("holder", read_holder(disk, &path)))
        }
        Err(error) => Err(disk_error("wal.open", &path, error)),
    }
}

/// This process: its id, and its program's name if the system reports it.
fn holder() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let pid = std::process::id();
    name.map_or_else(|| format!("pid {pid}\n"), |name| format!("pid {pid} ({name})\n"))
}

fn read_holder(disk: &dyn Disk, path: &Path) -> String {
    let read = || {
        let mut bytes = [0; HOLDER];
        let read = disk.open(path).ok()?.read_at(&mut bytes, 0).ok()?;
        let text = String::from_utf8_lossy(bytes.get(..read)?).trim().replace(char::is_control, " ");
        (!text.is_empty()).then_some(text)
    };
    read().unwrap_or_else(|| "unknown".to_owned())
}
