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

use crate::cgroup;

/// Looks out for groups that are frozen or thawed.
pub(crate) struct Freezer {
    fd: AsyncFd<OwnedFd>,
    groups: HashMap<i32, Group>,
}

struct Group {
    id: InstanceId,
    file: PathBuf,
    is_frozen: bool,
}

impl Freezer {
    #[expect(
        deprecated,
        reason = "the new constructor is unsafe; what makes this one unsound is a descriptor that changes, which an OwnedFd does not"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { fd: AsyncFd::new(fd)?, groups: HashMap::new() })
    }

    /// Looks out for this group from now on; `false`: it cannot be seen from here.
    pub(crate) fn watch(&mut self, root: &Path, id: InstanceId, control_group: &str) -> bool {
        let Some(is_frozen) = cgroup::is_frozen(root, control_group) else { return false };
        let Some(folder) = cgroup::folder(root, control_group) else { return false };
        let file = folder.join("cgroup.events");
        let Ok(number) = inotify::add_watch(self.fd.get_ref(), &file, WatchFlags::MODIFY) else { return false };
        self.groups.insert(number, Group { id, file, is_frozen });
        true
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
                        // The file also says when the last process went.
                        if let Some(now) = cgroup::frozen(&group.file)
                            && now != group.is_frozen
                        {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_group_that_changes_is_told_once() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("sys/fs/cgroup/a.slice/b.service");
        std::fs::create_dir_all(&group).unwrap();
        let file = group.join("cgroup.events");
        std::fs::write(group.join("cgroup.procs"), "").unwrap();
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
