//! Notifications of frozen and thawed control groups: up to version 256 only the kernel reports them.

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

/// Watches control groups for being frozen or thawed.
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

    /// Watches this group from now on; `false`: it is not visible from here.
    pub(crate) fn watch(&mut self, root: &Path, id: InstanceId, control_group: &str) -> bool {
        let Some(folder) = cgroup::folder(root, control_group) else { return false };
        let file = folder.join("cgroup.events");
        let Ok(number) = inotify::add_watch(self.fd.get_ref(), &file, WatchFlags::MODIFY) else { return false };
        // Read after the watch is set up: later changes are reported.
        let Some(is_frozen) = cgroup::frozen(&file) else { return false };
        self.groups.insert(number, Group { id, file, is_frozen });
        true
    }

    /// Returns the instances that were frozen or thawed.
    pub(crate) fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Vec<InstanceId>> {
        let Self { fd, groups } = self;
        let mut changed = Vec::new();
        while let Poll::Ready(Ok(mut ready)) = fd.poll_read_ready(cx) {
            let mut buffer = [MaybeUninit::uninit(); 4_096];
            let mut reader = Reader::new(fd.get_ref(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                        changed.extend(groups.values_mut().filter_map(Group::refresh));
                    }
                    Ok(event) if event.events().contains(ReadFlags::IGNORED) => {
                        groups.remove(&event.wd());
                    }
                    Ok(event) => changed.extend(groups.get_mut(&event.wd()).and_then(Group::refresh)),
                    Err(Errno::INTR) => {}
                    Err(_) => break,
                }
            }
            ready.clear_ready();
        }
        if changed.is_empty() { Poll::Pending } else { Poll::Ready(changed) }
    }
}

impl Group {
    /// Reads the state again and returns the instance if it changed. The file also changes when the last process ends.
    fn refresh(&mut self) -> Option<InstanceId> {
        let now = cgroup::frozen(&self.file)?;
        (std::mem::replace(&mut self.is_frozen, now) != now).then(|| self.id.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_group_that_changes_is_reported_once() {
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
