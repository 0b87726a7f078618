//! A user's systemd, root's: with its own bus and its own units, and without the units installed for the users of the
//! machine.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::service::Service;
use super::systemd::{self, Place, Progress, STOP};
use super::{cgroup, packages, procfs};
use crate::failure::{Doing, Failure, Outcome};

/// In its state: the user's own files, which stay, those of `XDG_RUNTIME_DIR`, which go with it, and Debian's units.
const HOME: &str = "home";
const RUNTIME: &str = "xdg";
const DEBIAN: &str = "debian";

/// Folder of the user's units, below the home.
const UNITS: &str = "home/.config/systemd/user";

/// That the state is complete, and that `/run/systemd` was made for it.
const FURNISHED: &str = "furnished";
const MADE: &str = "made-run-systemd";

/// Debian's units for users, and those without which a manager does not start, or does not end.
const VENDOR: &str = "/usr/lib/systemd/user";
const NEEDED: [&str; 13] = [
    "app.slice",
    "background.slice",
    "basic.target",
    "dbus.service",
    "dbus.socket",
    "default.target",
    "exit.target",
    "paths.target",
    "session.slice",
    "shutdown.target",
    "sockets.target",
    "systemd-exit.service",
    "timers.target",
];

/// A user's systemd refuses to start, without a message, on a machine whose process 1 is no systemd: it checks for this folder.
const RUN_SYSTEMD: &str = "/run/systemd";

const ENTER: &str = r#"
set -e
echo 0 > "$2/cgroup.procs"
exec unshare --mount --propagation slave --cgroup -- sh -c "$3" "$0" "$@"
"#;

const START: &str = r#"
set -e
state=$1
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run/systemd
mkdir /run/systemd/system
own=$state/home/.config/systemd/user
run=$state/xdg/systemd
exec env -i HOME="$state/home" USER=root LOGNAME=root SHELL=/bin/sh \
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  XDG_RUNTIME_DIR="$state/xdg" DBUS_SESSION_BUS_ADDRESS="unix:path=$state/xdg/bus" \
  SYSTEMD_UNIT_PATH="$own.control:$run/user.control:$run/transient:$own:$run/user:$state/debian" \
  /lib/systemd/systemd --user --log-target=console
"#;

pub(super) struct SystemdUser {
    place: Place,
}

impl SystemdUser {
    pub(super) fn below(testbed: &Path) -> Self {
        Self { place: Place::below(testbed, "systemd-user") }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.place.state.join(path)
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.at(RUNTIME).join("bus").display())
    }

    fn is_up(&self) -> bool {
        self.at(FURNISHED).exists()
    }

    fn manager(&self) -> Option<i32> {
        let ours = cgroup::processes(&self.place.group);
        let is_it = |process: &procfs::Process| {
            let program = process.program();
            ours.contains(&process.pid) && program.as_deref() == Some("systemd") && process.has_argument("--user")
        };
        procfs::processes().into_iter().find(is_it).map(|process| process.pid)
    }

    fn progress(&self) -> Progress {
        match self.manager() {
            None => Progress::Nothing,
            Some(_) if self.at(RUNTIME).join("bus").exists() && systemd::is_started(&self.address()) => Progress::Ready,
            Some(_) => Progress::Runs,
        }
    }

    /// Ends it with all that it started, as process 1 would for a user whose manager died.
    fn end(&self) -> Outcome<()> {
        let mut pids = self.place.keepers();
        pids.extend(self.manager());
        self.place.end(&pids)?;
        match fs::remove_dir_all(self.at(RUNTIME)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::failed(format_args!("cannot remove {}: {error}", self.at(RUNTIME).display())))
            }
            _ => Ok(()),
        }
    }

    fn furnish(&self) -> std::io::Result<()> {
        let _ = fs::remove_dir_all(&self.place.state);
        fs::create_dir(&self.place.state)?;
        fs::set_permissions(&self.place.state, Permissions::from_mode(0o755))?;
        if !Path::new(RUN_SYSTEMD).exists() {
            fs::write(self.at(MADE), "")?;
            fs::create_dir(RUN_SYSTEMD)?;
        }
        fs::create_dir_all(self.at(UNITS))?;
        fs::set_permissions(self.at(HOME), Permissions::from_mode(0o700))?;
        let wants = self.at(DEBIAN).join("sockets.target.wants");
        fs::create_dir_all(&wants)?;
        for unit in NEEDED {
            let from = Path::new(VENDOR).join(unit);
            if from.exists() {
                fs::copy(&from, self.at(DEBIAN).join(unit))?;
            }
        }
        symlink("../dbus.socket", wants.join("dbus.socket"))?;
        fs::write(self.at(FURNISHED), "")
    }
}

impl Service for SystemdUser {
    fn up(&self, install: bool) -> Outcome<()> {
        packages::require(&packages::SYSTEMD_USER, &[], install)?;
        if self.is_up() {
            return self.start();
        }
        self.end()?;
        let furnished = self.furnish().doing(format_args!("cannot write {}", self.place.state.display()));
        // One that never ran must not be taken for one that a test has stopped.
        furnished.and_then(|()| self.start()).inspect_err(|_| drop(self.down()))
    }

    fn start(&self) -> Outcome<()> {
        self.place.must_be_up(self.is_up())?;
        if self.place.wait_for_running(|| self.progress())? {
            return Ok(());
        }
        self.end()?;
        let runtime = self.at(RUNTIME);
        fs::create_dir(&runtime)
            .and_then(|()| fs::set_permissions(&runtime, Permissions::from_mode(0o700)))
            .doing(format_args!("cannot make {}", runtime.display()))?;
        self.place.run(ENTER, &[START], || self.progress())
    }

    fn stop(&self) -> Outcome<()> {
        self.place.must_be_up(self.is_up())?;
        if let Some(pid) = self.manager() {
            procfs::send(pid, Signal::TERM);
            procfs::wait_until_dead(&[pid], STOP);
        }
        self.end()
    }

    fn kill(&self) -> Outcome<()> {
        self.place.must_be_up(self.is_up())?;
        self.end()
    }

    fn down(&self) -> Outcome<bool> {
        let was_up = self.is_up() || self.manager().is_some() || !self.place.keepers().is_empty();
        self.end()?;
        if self.at(MADE).exists() {
            // Not ours alone any more, if something is in it.
            let _ = fs::remove_dir(RUN_SYSTEMD);
        }
        let left = cgroup::remove(&self.place.group);
        let state = &self.place.state;
        match fs::remove_dir_all(state) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Failure::failed(format_args!("cannot remove {}: {error}", state.display())));
            }
            _ => {}
        }
        match left.first() {
            None => Ok(was_up),
            Some(group) => {
                Err(Failure::failed(format_args!("{}: down, but {} is left", self.place.name, group.display())))
            }
        }
    }

    fn summary(&self) -> Outcome<String> {
        let Some(pid) = self.manager() else { return Err(Failure::failed("no manager of this testbed runs")) };
        Ok(format!("{}, pid {pid}, {}", systemd::summary(&self.address())?, self.place.state.display()))
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        if !self.is_up() {
            return BTreeMap::new();
        }
        BTreeMap::from([
            ("RUNTIDE_TEST_SYSTEMD_USER", self.address()),
            ("RUNTIDE_TEST_SYSTEMD_USER_UNITS", self.at(UNITS).display().to_string()),
        ])
    }
}
