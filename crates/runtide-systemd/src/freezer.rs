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
        Ok(Self { fd: AsyncFd::new(fd)?, groups: HashMap::new() })
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
        // Read after the watch is set up: later changes are reported.
        let Some(is_frozen) = cgroup::frozen(&file) else { return false };
        let group = self.groups.entry(number).or_insert_with(|| Group { id, file, is_frozen, doubted: None });
        group.is_frozen = is_frozen;
        let doubted = (is_frozen != is_paused).then_some(is_frozen);
        let before = std::mem::replace(&mut group.doubted, doubted);
        doubted.is_some() && before != doubted
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

    struct Fixture(tempfile::TempDir, Freezer);

    impl Fixture {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let group = root.path().join("sys/fs/cgroup/a.slice/b.service");
            std::fs::create_dir_all(&group).unwrap();
            std::fs::write(group.join("cgroup.procs"), "").unwrap();
            let fixture = Self(root, Freezer::new().unwrap());
            fixture.write(1, 0);
            fixture
        }

        fn write(&self, populated: u8, frozen: u8) {
            let file = self.0.path().join("sys/fs/cgroup/a.slice/b.service/cgroup.events");
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
}
