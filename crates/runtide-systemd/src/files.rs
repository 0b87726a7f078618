//! Files on the manager's disk that hold state its bus does not expose: the labels of unit files.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
};

use runtide_core::Labels;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use crate::{labels, unit_file::UnitFile};

/// Longest file that systemd itself reads.
const LONGEST: u64 = 1024 * 1024;

/// Opens a path of the manager: links resolve as they do for the manager, and none leads out of its root.
pub(crate) fn open(root: &Path, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let top = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let relative = path.trim_start_matches('/');
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // A rename happened while `..` was resolved: the kernel asks for another try.
    let mut opened = openat2(&top, relative, flags, Mode::empty(), resolve);
    for _ in 0..16 {
        if !matches!(opened, Err(Errno::AGAIN)) {
            break;
        }
        opened = openat2(&top, relative, flags, Mode::empty(), resolve);
    }
    match opened {
        // Kernels before Linux 5.6, and filtered system calls. At the machine's own root it makes no difference.
        Err(Errno::NOSYS | Errno::PERM) if root == Path::new("/") => Ok(openat(&top, relative, flags, Mode::empty())?),
        opened => Ok(opened?),
    }
}

/// Reads an opened file, if it is a regular file and not a pipe without a writer.
pub(crate) fn text(opened: OwnedFd) -> io::Result<String> {
    let file = File::from(opened);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Reads the labels of a unit from its files; `None`: they cannot be read.
pub(crate) fn labels(root: &Path, fragment: &str, drop_ins: &[String]) -> Option<Labels> {
    let paths = [fragment].into_iter().chain(drop_ins.iter().map(String::as_str)).filter(|path| !path.is_empty());
    let mut files = Vec::new();
    for path in paths {
        match read(root, path) {
            Ok(file) => files.push(file),
            // The file is masked, or was generated and removed again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(labels::of_files(&files))
}

/// Reads the labels of a transient unit from the file that systemd writes before the unit starts; `None`: there is
/// none.
pub(crate) fn transient_labels(root: &Path, unit_path: &[String], unit: &str) -> Option<Labels> {
    let folder = unit_path.iter().find(|folder| folder.ends_with("/transient"))?;
    labels_of_transient(root, &format!("{folder}/{unit}"))
}

/// The same, with the path of the file as the manager reports it.
pub(crate) fn labels_of_transient(root: &Path, fragment: &str) -> Option<Labels> {
    Some(labels::of_transient(&read(root, fragment).ok()?))
}

fn read(root: &Path, path: &str) -> io::Result<UnitFile> {
    let text = text(open(root, path, OFlags::RDONLY | OFlags::NONBLOCK)?)?;
    UnitFile::parse(&text).map_err(|flaw| io::Error::new(io::ErrorKind::InvalidData, flaw.why))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_lead_where_they_lead_the_manager() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("etc/units")).unwrap();
        fs::write(root.join("etc/a.service"), "[X-Labels]\nwhere=inside\n").unwrap();
        fs::write(folder.path().join("secret.service"), "[X-Labels]\nwhere=outside\n").unwrap();
        symlink("/etc/a.service", root.join("etc/units/absolute.service")).unwrap();
        symlink("../../../secret.service", root.join("etc/units/out.service")).unwrap();
        symlink("/etc", root.join("lib")).unwrap();
        let of = |path: &str| labels(&root, path, &[]).unwrap().get("where").map(str::to_owned);
        for path in ["/etc/units/absolute.service", "/lib/a.service"] {
            assert_eq!(of(path).as_deref(), Some("inside"), "{path}");
        }
        for path in ["/etc/units/out.service", "/../secret.service"] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(folder.path().join("a.service")).status().unwrap();
        assert!(pipe.success());
        assert_eq!(labels(folder.path(), "/a.service", &[]), None, "unknown, not without labels");
    }
}
