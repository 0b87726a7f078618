//! The control groups of the testbed's processes, in every mounted hierarchy.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::{mounts, procfs};
use crate::failure::{Failure, Outcome};

/// Makes the group `name` in the hierarchy of cgroup v2, at its mount point.
pub(super) fn make(name: &str) -> Outcome<PathBuf> {
    let Some(hierarchy) = mounts::mounts().into_iter().find(|mount| mount.kind == "cgroup2") else {
        return Err(Failure::refused("no cgroup2 hierarchy is mounted here"));
    };
    let group = hierarchy.at.join(name);
    match fs::create_dir(&group) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Failure::refused(format_args!("cannot make the control group {}: {error}", group.display())))
        }
        _ => Ok(group),
    }
}

/// Makes the group `name` in every hierarchy.
pub(super) fn make_in_all(name: &str) -> Outcome<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group).map_err(|error| {
            Failure::refused(format_args!("cannot make the control group {}: {error}", group.display()))
        })?;
    }
    Ok(())
}

/// The mount points of all hierarchies. Bind mounts of one are among them.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let all = mounts::mounts().into_iter().filter(|mount| matches!(mount.kind.as_str(), "cgroup" | "cgroup2"));
    all.map(|mount| mount.at)
}

/// Every process in the group `name` and below.
pub(super) fn processes(name: &str) -> BTreeSet<i32> {
    folders(name).iter().flat_map(|folder| members(folder)).collect()
}

/// Ends every process in the group `name` and below, paused ones too; `true` if none is left.
pub(super) fn kill(name: &str) -> bool {
    let folders = folders(name);
    for folder in &folders {
        // A frozen process does not take a signal before it is thawed: v1, then v2.
        let _ = fs::write(folder.join("freezer.state"), "THAWED");
        let _ = fs::write(folder.join("cgroup.freeze"), "0");
    }
    procfs::wait_until(Duration::from_secs(5), || {
        let pids: BTreeSet<i32> = folders.iter().flat_map(|folder| members(folder)).collect();
        for pid in &pids {
            procfs::send(*pid, Signal::KILL);
        }
        !pids.into_iter().any(procfs::alive)
    })
}

/// Removes the group `name` and all below it, which must be empty; returns the groups that are left.
pub(super) fn remove(name: &str) -> Vec<PathBuf> {
    // A group is empty only once its zombies are reaped, and process 1 takes its time.
    procfs::wait_until(Duration::from_secs(5), || {
        let mut folders = folders(name);
        folders.reverse();
        for folder in &folders {
            let _ = fs::remove_dir(folder);
        }
        self::folders(name).is_empty()
    });
    folders(name)
}

/// The groups below the group `name` that have one of these names, in any hierarchy: each as a path from its hierarchy's root.
pub(super) fn below(name: &str, names: &BTreeSet<String>) -> BTreeSet<String> {
    let of_the_name = Path::new(name);
    let from_root = |folder: &Path| {
        let mut parts = folder.ancestors();
        let top = parts.find(|part| part.ends_with(of_the_name))?;
        let below = folder.strip_prefix(top).ok()?;
        Some(of_the_name.join(below).to_string_lossy().into_owned())
    };
    let has_the_name =
        |folder: &&PathBuf| folder.file_name().is_some_and(|name| names.contains(&*name.to_string_lossy()));
    folders(name).iter().filter(has_the_name).filter_map(|folder| from_root(folder)).collect()
}

fn members(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The group and all below it, parents before children.
fn folders(name: &str) -> Vec<PathBuf> {
    // Bind mounts of one hierarchy would be walked twice, which does no harm.
    let mut found: Vec<_> = hierarchies().map(|at| at.join(name)).filter(|group| group.is_dir()).collect();
    let mut next = 0;
    while let Some(folder) = found.get(next) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let below: Vec<_> = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
        found.extend(below);
        next += 1;
    }
    found
}
