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
    /// Groups by the number of their watch.
    groups: HashMap<i32, Group>,
    /// Number of the watch of each instance, at most one. The kernel does not end a watch when the control group is removed,
    /// and the watch keeps the inode of the group's file in memory.
    watches: HashMap<InstanceId, i32>,
}

struct Group {
    id: InstanceId,
    file: PathBuf,
    is_frozen: bool,
    /// State of the group with which the instance's disagreed, so that an inspection was requested.
    doubted: Option<bool>,
}

impl Freezer {
    #[expect(
        deprecated,
        reason = "the new constructor is unsafe; what makes this one unsound is a descriptor that changes, which an OwnedFd does not"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { fd: AsyncFd::new(fd)?, groups: HashMap::new(), watches: HashMap::new() })
    }

    /// Watches the control group of an instance from now on, and compares it with the instance, whose state was read
    /// before: a change in between is notified to no reader.
    ///
    /// `true`: they differ, so that the instance has to be inspected again. That is said once for each state of the
    /// group, since a difference may last: 252 does not call a unit frozen when its slice is.
    pub(crate) fn differs(&mut self, root: &Path, id: InstanceId, control_group: &str, is_paused: bool) -> bool {
        let Some(folder) = cgroup::folder(root, control_group) else { return false };
        let file = folder.join("cgroup.events");
        let Ok(number) = inotify::add_watch(self.fd.get_ref(), &file, WatchFlags::MODIFY) else { return false };
        if self.watches.get(&id) != Some(&number) {
            self.forget(&id); // the control group of an earlier run
            self.watches.insert(id.clone(), number);
        }
        // Read after the watch is set up: later changes are reported.
        let Some(is_frozen) = cgroup::frozen(&file) else {
            self.forget(&id); // the group was removed in the meantime
            return false;
        };
        let group = self.groups.entry(number).or_insert_with(|| Group { id, file, is_frozen, doubted: None });
        group.is_frozen = is_frozen;
        let doubted = (is_frozen != is_paused).then_some(is_frozen);
        let before = std::mem::replace(&mut group.doubted, doubted);
        doubted.is_some() && before != doubted
    }

    /// Removes the watch of an instance whose run has ended.
    pub(crate) fn forget(&mut self, id: &InstanceId) {
        let Some(number) = self.watches.remove(id) else { return };
        self.groups.remove(&number);
        // An error says that the kernel ended the watch before. Otherwise it reports `IGNORED` for the number, which belongs to no
        // group any more: the kernel gives a number to another watch only after all others.
        let _ = inotify::remove_watch(self.fd.get_ref(), number);
    }

    /// Returns the instances that were frozen or thawed.
    pub(crate) fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Vec<InstanceId>> {
        let Self { fd, groups, watches } = self;
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
                        if let Some(group) = groups.remove(&event.wd()) {
                            watches.remove(&group.id);
                        }
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
    use std::os::fd::AsRawFd;

    use super::*;

    struct Fixture(tempfile::TempDir, Freezer);

    impl Fixture {
        fn new() -> Self {
            let fixture = Self(tempfile::tempdir().unwrap(), Freezer::new().unwrap());
            fixture.write(1, 0);
            fixture
        }

        fn write(&self, populated: u8, frozen: u8) {
            self.write_in("a.slice", populated, frozen);
        }

        fn write_in(&self, slice: &str, populated: u8, frozen: u8) {
            let group = self.0.path().join("sys/fs/cgroup").join(slice).join("b.service");
            std::fs::create_dir_all(&group).unwrap();
            std::fs::write(group.join("cgroup.procs"), "").unwrap();
            let file = group.join("cgroup.events");
            // As the kernel, which never shows a file that is empty for a moment.
            std::fs::File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(file)
                .and_then(|mut file| {
                    std::io::Write::write_all(&mut file, format!("populated {populated}\nfrozen {frozen}\n").as_bytes())
                })
                .unwrap();
        }

        fn differs(&mut self, is_paused: bool) -> bool {
            self.1.differs(self.0.path(), "b.service".into(), "/a.slice/b.service", is_paused)
        }

        /// Numbers of groups, of instances with a watch, and of watches in the kernel.
        fn watches(&self) -> [usize; 3] {
            let info = format!("/proc/self/fdinfo/{}", self.1.fd.get_ref().as_raw_fd());
            let info = std::fs::read_to_string(info).unwrap();
            let in_kernel = info.lines().filter(|line| line.starts_with("inotify wd:")).count();
            [self.1.groups.len(), self.1.watches.len(), in_kernel]
        }

        /// The instances that are reported without a wait.
        async fn changed(&mut self) -> Vec<InstanceId> {
            std::future::poll_fn(|cx| match self.1.poll_changed(cx) {
                Poll::Ready(changed) => Poll::Ready(changed),
                Poll::Pending => Poll::Ready(Vec::new()),
            })
            .await
        }
    }

    #[tokio::test]
    async fn a_group_that_changes_is_reported_once() {
        let mut fixture = Fixture::new();
        assert!(!fixture.differs(false));
        assert!(!fixture.1.differs(fixture.0.path(), "c.service".into(), "/a.slice/c.service", true), "there is none");
        fixture.write(1, 1);
        let changed = std::future::poll_fn(|cx| fixture.1.poll_changed(cx)).await;
        assert_eq!(changed, ["b.service".into()]);
        fixture.write(0, 1);
        let more = tokio::time::timeout(
            std::time::Duration::from_millis(50),
            std::future::poll_fn(|cx| fixture.1.poll_changed(cx)),
        );
        assert!(more.await.is_err());
    }

    #[tokio::test]
    async fn a_change_before_the_watch_is_found_by_comparison() {
        for (is_paused, frozen) in [(false, 1), (true, 0)] {
            let mut fixture = Fixture::new();
            fixture.write(1, frozen);
            assert!(fixture.differs(is_paused), "paused {is_paused}, frozen {frozen}");
            assert!(!fixture.differs(is_paused), "an inspection that finds the same is not repeated");
            assert!(!fixture.differs(!is_paused));
            assert!(fixture.differs(is_paused), "a late report of the earlier state");
        }
    }

    #[tokio::test]
    async fn a_state_that_was_read_between_two_changes_is_found_by_comparison() {
        let mut fixture = Fixture::new();
        assert!(!fixture.differs(false));
        fixture.write(1, 1);
        fixture.write(1, 0);
        assert_eq!(fixture.changed().await, Vec::<InstanceId>::new(), "back where it was");
        assert!(fixture.differs(true), "the inspection in between found it paused");
    }

    #[tokio::test]
    async fn an_instance_has_one_watch_and_none_once_it_is_forgotten() {
        let mut fixture = Fixture::new();
        fixture.write_in("c.slice", 1, 0);
        assert!(!fixture.differs(false));
        assert_eq!(fixture.watches(), [1; 3]);
        assert!(!fixture.1.differs(fixture.0.path(), "b.service".into(), "/c.slice/b.service", false));
        assert_eq!(fixture.watches(), [1; 3], "of the later group alone");
        fixture.write(1, 1);
        fixture.write_in("c.slice", 1, 1);
        let changed = std::future::poll_fn(|cx| fixture.1.poll_changed(cx)).await;
        assert_eq!(changed, ["b.service".into()], "the later group alone is reported");
        assert_eq!(fixture.watches(), [1; 3], "the end of the earlier watch is no end of the later");

        fixture.1.forget(&"b.service".into());
        assert_eq!(fixture.watches(), [0; 3]);
        fixture.1.forget(&"b.service".into());
        assert!(!fixture.differs(true));
        fixture.write(1, 0);
        let changed = std::future::poll_fn(|cx| fixture.1.poll_changed(cx)).await;
        assert_eq!(changed, ["b.service".into()]);
        assert_eq!(fixture.watches(), [1; 3]);
    }

    #[tokio::test]
    async fn a_group_whose_state_cannot_be_read_is_not_watched() {
        let mut fixture = Fixture::new();
        assert!(!fixture.differs(false));
        let file = fixture.0.path().join("sys/fs/cgroup/a.slice/b.service/cgroup.events");
        std::fs::write(file, "populated 0\n").unwrap();
        assert!(!fixture.differs(false));
        assert_eq!(fixture.watches(), [0; 3]);
    }
}
