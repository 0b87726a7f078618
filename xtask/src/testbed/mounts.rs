//! Mounts, as `/proc/self/mountinfo` shows them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

/// A line of mountinfo, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) at: PathBuf,
    pub(super) kind: String,
}

pub(super) fn mounts() -> Vec<Mount> {
    parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// `true` if a process sees an overlay whose upper layer is this folder; the mount that holds the layer may be hidden by others.
pub(super) fn sees_layer(pid: i32, upper: &Path) -> bool {
    has_layer(&fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default(), upper)
}

fn has_layer(text: &str, upper: &Path) -> bool {
    let upper = format!("upperdir={}", upper.display());
    text.lines().any(|line| line.contains(" - overlay ") && unescape(line).split(',').any(|option| option == upper))
}

fn parse(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let at = line.split(' ').nth(4)?;
        let (_, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        Some(Mount { at: PathBuf::from(unescape(at)), kind: kind.to_owned() })
    };
    text.lines().filter_map(line).collect()
}

/// Space, tab, newline and backslash are written in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

pub(super) fn is_mounted(at: &Path) -> bool {
    mounts().iter().any(|mount| mount.at == at)
}

/// Unmounts everything below `folder`, and all that is mounted at it; `true` if nothing is left.
pub(super) fn unmount_all(folder: &Path) -> bool {
    for _ in 0..10 {
        unmount_below(folder);
        if !is_mounted(folder) {
            break;
        }
        let _ = unmount(folder, UnmountFlags::DETACH);
    }
    !is_mounted(folder)
}

pub(super) fn below(folder: &Path) -> Vec<PathBuf> {
    mounts().into_iter().map(|mount| mount.at).filter(|at| at.starts_with(folder) && at != folder).collect()
}

/// Unmounts everything below `folder`, last mounted first; returns those that are left.
pub(super) fn unmount_below(folder: &Path) -> Vec<PathBuf> {
    // One mount can hide another at the same path: repeat until nothing changes.
    for _ in 0..10 {
        let found = below(folder);
        if found.is_empty() {
            break;
        }
        for at in found.iter().rev() {
            let _ = unmount(at, UnmountFlags::DETACH);
        }
    }
    below(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_and_escapes_are_read() {
        let text = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n\
                    38 35 0:3 net:[4026532] /x/netns/a rw - nsfs nsfs rw\n";
        let mount = |at: &str, kind: &str| Mount { at: at.into(), kind: kind.into() };
        assert_eq!(parse(text), [mount("/mnt 2", "ext3"), mount("/x/netns/a", "nsfs")]);
    }

    #[test]
    fn an_overlay_is_found_by_its_upper_layer() {
        let text = "338 270 0:99 / /var rw - overlay overlay rw,lowerdir=/var,upperdir=/a\\040b/var,workdir=/a\\040b/work\n\
                    339 270 0:98 / /x rw - tmpfs upperdir=/c rw\n";
        assert!(has_layer(text, Path::new("/a b/var")));
        assert!(!has_layer(text, Path::new("/a b")));
        assert!(!has_layer(text, Path::new("/c")));
    }
}
