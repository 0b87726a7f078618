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

use crate::{
    labels,
    unit_file::{Flaw, UnitFile},
};

/// Longest file that is read, in bytes: systemd accepts a line of a mebibyte, and real units are far shorter.
const LONGEST: u64 = 4 << 20;

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
///
/// # Errors
/// `InvalidData` if it is none, or longer than is read.
pub(crate) fn text(opened: OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(opened);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"));
    }
    let mut text = Vec::new();
    if file.take(LONGEST + 1).read_to_end(&mut text)? > usize::try_from(LONGEST).unwrap_or(usize::MAX) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than 4 MiB"));
    }
    Ok(text)
}

/// Reads the labels of a unit from its files; `None`: they cannot be read.
pub(crate) fn labels(root: &Path, fragment: &str, drop_ins: &[String]) -> Option<Labels> {
    let paths = [fragment].into_iter().chain(drop_ins.iter().map(String::as_str)).filter(|path| !path.is_empty());
    let mut files = Vec::new();
    for path in paths {
        match read(root, path) {
            Ok((_, Some(_))) if path == fragment => return None, // systemd does not load it
            // Of a drop-in systemd keeps what comes before its flaw.
            Ok((file, _)) => files.push(file),
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
    match read(root, fragment) {
        Ok((file, None)) => Some(labels::of_transient(&file)),
        _ => None,
    }
}

fn read(root: &Path, path: &str) -> io::Result<(UnitFile, Option<Flaw>)> {
    let text = text(open(root, path, OFlags::RDONLY | OFlags::NONBLOCK)?)?;
    Ok(UnitFile::parse_until_flaw(&text))
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
    fn labels_are_seen_in_whatever_systemd_loads() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).unwrap();
        write("a.service", b"\xef\xbb\xbf[Unit]\r\nwhat is this\r\n# caf\xe9\r\n[X-Labels]\r\na=1\r\nb=2\r\n");
        write("1.conf", b"[X-Labels]\nb=3\n[X-Labels\nb=4\n");
        let of = |drop_ins: &[&str]| {
            labels(folder.path(), "/a.service", &drop_ins.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), Some(Labels::from_iter([("a", "1"), ("b", "2")])));
        assert_eq!(
            of(&["/1.conf"]),
            Some(Labels::from_iter([("a", "1"), ("b", "3")])),
            "a drop-in counts up to its flaw"
        );
        write("a.service", b"[X-Labels]\na=1\n[X-Labels\n");
        assert_eq!(of(&["/1.conf"]), None, "systemd does not load it");
        let long = [&b"[X-Labels]\na=1\n"[..], &b"#\n".repeat(1 << 20)].concat();
        write("a.service", &long);
        assert_eq!(of(&[]), Some(Labels::from_iter([("a", "1")])), "longer than a line may be");
        write("a.service", &long.repeat(3));
        assert_eq!(of(&[]), None, "unknown, not the half of it");
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(folder.path().join("a.service")).status().unwrap();
        assert!(pipe.success());
        assert_eq!(labels(folder.path(), "/a.service", &[]), None, "unknown, not without labels");
    }
}
