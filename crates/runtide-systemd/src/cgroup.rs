//! Control groups, as the kernel shows them in files.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use rustix::io::Errno;

/// Limit of the processes, and of the groups below a group, that are read.
const MOST: usize = 4096;

/// Returns the folder of a control group; `None`: it is not visible from here, or the text is no name of a group.
///
/// The unified hierarchy is mounted where it is today, or next to the old ones (hybrid); else systemd's own hierarchy
/// is used.
pub(crate) fn folder(root: &Path, control_group: &str) -> Option<PathBuf> {
    let relative = Path::new(control_group.strip_prefix('/')?);
    let is_below = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if relative.as_os_str().is_empty() || !is_below {
        return None;
    }
    let base = root.join("sys/fs/cgroup");
    [base.clone(), base.join("unified"), base.join("systemd")]
        .into_iter()
        .map(|base| base.join(relative))
        .find(|folder| folder.join("cgroup.procs").exists())
}

/// Returns the processes of a control group and of all groups below it; `None`: they cannot be read, or are too many.
///
/// A process that is not visible in our PID namespace is listed as 0: then the list is incomplete, and the result is
/// `None`.
pub(crate) fn processes(folder: &Path) -> Option<Vec<u32>> {
    let mut processes = Vec::new();
    let mut folders = vec![folder.to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        seen += 1;
        match fs::read_to_string(folder.join("cgroup.procs")) {
            Ok(text) => processes.extend(numbers(&text)?),
            // The group was removed in the meantime; or it is threaded, and its processes are listed in the group
            // above.
            Err(error) if seen > 1 && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported) => {}
            Err(error) if seen > 1 && error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {}
            Err(_) => return None,
        }
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders
            .extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
        if processes.len() > MOST || folders.len() + seen > MOST {
            return None;
        }
    }
    processes.sort_unstable();
    processes.dedup();
    Some(processes)
}

fn numbers(text: &str) -> Option<Vec<u32>> {
    text.lines().map(|line| line.trim().parse().ok().filter(|number| *number != 0)).collect()
}

/// True if a control group is frozen; `None`: its state is not visible.
pub(crate) fn is_frozen(root: &Path, control_group: &str) -> Option<bool> {
    frozen(&folder(root, control_group)?.join("cgroup.events"))
}

/// State `frozen` of a group's `cgroup.events`; `None`: the file cannot be read, or has no such line.
pub(crate) fn frozen(events: &Path) -> Option<bool> {
    parse_events(&fs::read_to_string(events).ok()?)
}

fn parse_events(events: &str) -> Option<bool> {
    events.lines().find_map(|line| line.strip_prefix("frozen ")).map(|value| value.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_below_its_root_and_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("sys/fs/cgroup/unified/system.slice/a.service");
        fs::create_dir_all(group.join("below")).unwrap();
        fs::write(group.join("cgroup.procs"), "12\n7\n").unwrap();
        fs::write(group.join("below/cgroup.procs"), "9\n").unwrap();
        fs::write(group.join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        let found = folder(root.path(), "/system.slice/a.service").unwrap();
        assert_eq!(found, group);
        assert_eq!(processes(&found), Some(vec![7, 9, 12]));
        assert_eq!(is_frozen(root.path(), "/system.slice/a.service"), Some(true));
        for other in ["", "/", "/system.slice/b.service", "/system.slice/../system.slice/a.service", "system.slice"] {
            assert_eq!(folder(root.path(), other), None, "{other}");
        }
    }

    #[test]
    fn what_is_not_seen_is_unknown() {
        assert_eq!(numbers("12\n0\n"), None);
        assert_eq!(numbers(""), Some(vec![]));
        assert_eq!(parse_events("populated 1\n"), None);
        assert_eq!(parse_events("populated 1\nfrozen 0\n"), Some(false));
    }
}
