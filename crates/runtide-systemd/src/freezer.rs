//! Whether control groups are frozen: up to version 256 the manager tells nobody, but the kernel does.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    task::{Context, Poll},
};

use runtide_core::InstanceId;
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

/// Where the hierarchy that knows freezing is mounted: alone, or beside those of version 1.
const MOUNTS: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];

/// Looks out for groups that are frozen or thawed.
pub(crate) struct Freezer {
    fd: AsyncFd<OwnedFd>,
    groups: HashMap<i32, Group>,
}

struct Group {
    id: InstanceId,
    path: PathBuf,
    is_frozen: Option<bool>,
}

impl Freezer {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { fd: AsyncFd::new(fd)?, groups: HashMap::new() })
    }

    /// Looks out for this group from now on; `false`: it cannot be seen from here.
    pub(crate) fn watch(&mut self, root: &Path, id: InstanceId, control_group: &str) -> bool {
        MOUNTS.iter().any(|mount| {
            let path = root.join(mount).join(control_group.trim_start_matches('/')).join("cgroup.events");
            let Some(is_frozen) = frozen(&path) else { return false };
            let Ok(number) = inotify::add_watch(self.fd.get_ref(), &path, WatchFlags::MODIFY) else { return false };
            self.groups.insert(number, Group { id: id.clone(), path, is_frozen: Some(is_frozen) });
            true
        })
    }

    /// Those that were frozen or thawed.
    pub(crate) fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Vec<InstanceId>> {
        loop {
            let Poll::Ready(Ok(mut ready)) = self.fd.poll_read_ready(cx) else { return Poll::Pending };
            let mut buffer = [MaybeUninit::uninit(); 4_096];
            let mut reader = Reader::new(self.fd.get_ref(), &mut buffer);
            let mut changed = Vec::new();
            loop {
                match reader.next() {
                    Ok(event) if event.events().contains(ReadFlags::IGNORED) => {
                        self.groups.remove(&event.wd());
                    }
                    Ok(event) => {
                        let Some(group) = self.groups.get_mut(&event.wd()) else { continue };
                        let now = frozen(&group.path);
                        // The file also says when the last process went.
                        if now.is_some() && now != group.is_frozen {
                            group.is_frozen = now;
                            changed.push(group.id.clone());
                        }
                    }
                    Err(Errno::INTR) => {}
                    Err(_) => break,
                }
                if reader.is_buffer_empty() && !changed.is_empty() {
                    return Poll::Ready(changed);
                }
            }
            ready.clear_ready();
        }
    }
}

/// What a group's file says; `None`: it cannot be read, or says nothing of that.
fn frozen(path: &Path) -> Option<bool> {
    said(&std::fs::read_to_string(path).ok()?)
}

fn said(text: &str) -> Option<bool> {
    match text.lines().find_map(|line| line.strip_prefix("frozen "))? {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_word_is_read() {
        assert_eq!(said("populated 1\nfrozen 0\n"), Some(false));
        assert_eq!(said("populated 1\nfrozen 1\n"), Some(true));
        assert_eq!(said("populated 1\n"), None);
    }

    #[tokio::test]
    async fn a_group_that_changes_is_told_once() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("sys/fs/cgroup/a.slice/b.service");
        std::fs::create_dir_all(&group).unwrap();
        let file = group.join("cgroup.events");
        std::fs::write(&file, "populated 1\nfrozen 0\n").unwrap();
        let mut freezer = Freezer::new().unwrap();
        assert!(freezer.watch(root.path(), "b.service".into(), "/a.slice/b.service"));
        assert!(!freezer.watch(root.path(), "c.service".into(), "/a.slice/c.service"));
        std::fs::write(&file, "populated 1\nfrozen 1\n").unwrap();
        let changed = std::future::poll_fn(|cx| freezer.poll_changed(cx)).await;
        assert_eq!(changed, ["b.service".into()]);
        std::fs::write(&file, "populated 0\nfrozen 1\n").unwrap();
        let more = tokio::time::timeout(
            std::time::Duration::from_millis(50),
            std::future::poll_fn(|cx| freezer.poll_changed(cx)),
        );
        assert!(more.await.is_err());
    }
}
