//! The machine's own systemd, booted once more: as process 1 of its own namespaces, on the files of this machine with a
//! separate layer above them. The network is the machine's.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{XattrFlags, setxattr};
use rustix::mount::{MountFlags, mount};
use rustix::process::Signal;

use super::places::in_run;
use super::service::Service;
use super::{cgroup, mounts, packages, procfs, suite};
use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, Interrupt, TICK};

/// The log, which stays after a teardown, so that a failure can be diagnosed.
const LOG: &str = "boot.log";

/// In the machine's state, which is a file system in memory: what it wrote, what overlayfs wants to itself, where its files are
/// mounted (seen by the machine alone), the way in, and that all of it is there.
const WRITTEN: &str = "rw";
const WORK: &str = "work";
const MOUNTED: &str = "mnt";
const ROOT: &str = "root";
const FURNISHED: &str = "furnished";

const ASK: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(60);
pub(super) const STOP: Duration = Duration::from_secs(20);
const DIE: Duration = Duration::from_secs(20);

/// Folder of the units of Debian's packages.
const UNITS: &str = "/lib/systemd/system";

/// From SIGRTMIN as the C library counts it: "power off", to a systemd that is process 1.
const POWER_OFF: &str = "-38";

/// Outside: makes the namespaces, and removes the way in when the machine has ended, of itself or not. It stays out of the
/// machine's control group, which must hold the machine's own processes alone.
const KEEPER: &str = r#"
state=$1
unshare --mount --propagation slave --pid --fork --kill-child=SIGKILL --uts --ipc -- sh -c "$4" "$0" "$@"
rm -f "$state/root"
"#;

/// Process 1, first: in the group before the group becomes the root of what it sees. A systemd in the machine's root group
/// would move all processes of the machine.
const ENTER: &str = r#"
set -e
echo 0 > "$2/cgroup.procs"
exec unshare --cgroup -- sh -c "$5" "$0" "$@"
"#;

/// Process 1, then: the files, and systemd.
const BOOT: &str = r#"
set -e
state=$1 name=$3
cd "$6"
mount -t overlay overlay -o "lowerdir=.,upperdir=$state/rw,workdir=$state/work,index=off" "$state/mnt"
cd "$state/mnt"
mount -t proc proc proc
echo "$name" > proc/sys/kernel/hostname
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
for node in null zero full random urandom tty; do
  touch "dev/$node"
  mount --bind "/dev/$node" "dev/$node"
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs run
# Of each boot its own, as a machine's is.
cat /proc/sys/kernel/random/uuid > run/boot-id
mount --bind run/boot-id proc/sys/kernel/random/boot_id
mkdir run/old
pivot_root . run/old
cd /
umount -l /run/old
rmdir /run/old
exec env -i container=runtide-testbed PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --show-status=no --log-target=journal --log-level=info systemd.unit=multi-user.target
"#;

/// Everything that is printed is kept, until it is more than a test prints.
const JOURNALD: &str = "\
[Journal]
Storage=persistent
RateLimitIntervalSec=0
RateLimitBurst=0
SystemMaxUse=1G
SystemMaxFileSize=1G
RuntimeMaxUse=1G
Audit=
ReadKMsg=no
ForwardToSyslog=no
ForwardToWall=no
";

/// Folders of programs that Debian's packages have a manager run at each reload, a dozen processes each time. Nothing is there for them to
/// generate units from, and the tests reload a thousand times.
const GENERATORS: [&str; 4] =
    ["system-generators", "system-environment-generators", "user-generators", "user-environment-generators"];

/// Units that would change the machine outside, whose kernel it is.
const MASKED: [&str; 4] =
    ["modprobe@.service", "systemd-modules-load.service", "systemd-sysctl.service", "systemd-journald-audit.socket"];

/// Paths of a systemd, and the names by which it is found.
pub(super) struct Place {
    pub(super) name: &'static str,
    /// `target/testbed/systemd`: the log.
    pub(super) folder: PathBuf,
    /// Its written files. In `/run`, where a `cargo clean` does not reach them, and whose paths are short enough for sockets.
    pub(super) state: PathBuf,
    /// Its control group.
    pub(super) group: String,
}

impl Place {
    pub(super) fn below(testbed: &Path, name: &'static str) -> Self {
        let folder = testbed.join(name);
        let state = in_run(&folder);
        let group = state.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Self { name, folder, state, group }
    }

    /// The argument that distinguishes the keepers of our systemd from any other process.
    fn mark(&self) -> String {
        format!("runtide-testbed={}", self.state.display())
    }

    /// The shells that start it, and what stays of them.
    pub(super) fn keepers(&self) -> Vec<i32> {
        let mark = self.mark();
        let ours = procfs::processes().into_iter().filter(|process| process.has_argument(&mark));
        ours.map(|process| process.pid).collect()
    }

    pub(super) fn must_be_up(&self, is_up: bool) -> Outcome<()> {
        if is_up {
            return Ok(());
        }
        let name = self.name;
        Err(Failure::refused(format_args!("the testbed's {name} is not up: cargo xtask testbed up {name}")))
    }

    /// Ends all of it: these, and what else is in the group.
    pub(super) fn end(&self, pids: &[i32]) -> Outcome<()> {
        for pid in pids {
            procfs::send(*pid, Signal::KILL);
        }
        if procfs::wait_until_dead(pids, DIE) && cgroup::kill(&self.group) {
            cgroup::remove(&self.group);
            return Ok(());
        }
        let (name, seconds) = (self.name, DIE.as_secs());
        Err(Failure::failed(format_args!("the testbed's {name} still runs after {seconds} s")))
    }

    /// Runs a script with the state, the group and these as its arguments, and returns when `is_ready`, which says whether
    /// systemd runs and then whether it is ready.
    pub(super) fn run(&self, script: &str, arguments: &[&str], is_ready: impl Fn() -> Progress) -> Outcome<()> {
        let group = cgroup::make(&self.group)?;
        fs::create_dir_all(&self.folder).doing(format_args!("cannot make {}", self.folder.display()))?;
        let log = self.folder.join(LOG);
        let out = OpenOptions::new().create(true).append(true).open(&log);
        let out = out.doing(format_args!("cannot write {}", log.display()))?;
        let err = out.try_clone().doing(format_args!("cannot write {}", log.display()))?;
        let begin = out.metadata().map_or(0, |metadata| metadata.len());
        let mut command = packages::command("sh");
        command
            .args(["-c", script, &self.mark()])
            .arg(&self.state)
            .arg(group)
            .args(arguments)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .current_dir("/")
            // Not in the terminal's process group: Ctrl-C is for the test run.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let mut child = command.spawn().doing("cannot run sh")?;
        self.wait(Some((&mut child, &log, begin)), is_ready).map(drop)
    }

    /// Waits for one that runs already; `false` if it ends instead, as one does that was just asked to stop.
    pub(super) fn wait_for_running(&self, is_ready: impl Fn() -> Progress) -> Outcome<bool> {
        self.wait(None, is_ready)
    }

    fn wait(&self, mut started: Option<(&mut Child, &Path, u64)>, is_ready: impl Fn() -> Progress) -> Outcome<bool> {
        let end = Instant::now() + READY;
        let name = self.name;
        let mut ran = false;
        loop {
            match is_ready() {
                Progress::Ready => return Ok(true),
                Progress::Runs => ran = true,
                Progress::Nothing if started.is_none() => return Ok(false),
                Progress::Nothing | Progress::Begins => {}
            }
            if let Some((child, log, begin)) = &mut started
                && let Ok(Some(_)) = child.try_wait()
            {
                let why = last_line(log, *begin).unwrap_or_else(|| "it does not say why".to_owned());
                return Err(if ran {
                    Failure::failed(format_args!("{name} ended as it started: {why}"))
                } else {
                    Failure::refused(format_args!("{name} cannot be started here: {why}"))
                });
            }
            if Instant::now() >= end {
                let seconds = READY.as_secs();
                return Err(Failure::failed(format_args!("{name} is not up after {seconds} s")));
            }
            std::thread::sleep(TICK);
        }
    }
}

/// Progress of a systemd's boot.
pub(super) enum Progress {
    Nothing,
    /// There is a process, which is not systemd yet.
    Begins,
    Runs,
    Ready,
}

pub(super) struct Machine {
    place: Place,
    /// Its host name.
    host: &'static str,
    /// The variables with the paths of its bus and its files.
    variables: [&'static str; 2],
    /// The files that it boots from: this machine's, or those of another Debian.
    files: PathBuf,
    suite: Option<&'static str>,
}

impl Machine {
    pub(super) fn first(testbed: &Path) -> Self {
        Self::here(testbed, "systemd", "runtide-systemd", ["RUNTIDE_TEST_SYSTEMD", "RUNTIDE_TEST_SYSTEMD_ROOT"])
    }

    pub(super) fn second(testbed: &Path) -> Self {
        Self::here(testbed, "systemd2", "runtide-systemd2", ["RUNTIDE_TEST_SYSTEMD2", "RUNTIDE_TEST_SYSTEMD2_ROOT"])
    }

    /// Of a newer systemd than a Debian of 2023 has.
    pub(super) fn newer(testbed: &Path) -> Self {
        let variables = ["RUNTIDE_TEST_SYSTEMD257", "RUNTIDE_TEST_SYSTEMD257_ROOT"];
        let machine = Self::here(testbed, "systemd257", "runtide-systemd257", variables);
        Self { files: testbed.join("trixie"), suite: Some("trixie"), ..machine }
    }

    fn here(testbed: &Path, name: &'static str, host: &'static str, variables: [&'static str; 2]) -> Self {
        Self { place: Place::below(testbed, name), host, variables, files: PathBuf::from("/"), suite: None }
    }

    fn root(&self) -> PathBuf {
        self.place.state.join(ROOT)
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.root().join("run/dbus/system_bus_socket").display())
    }

    fn is_up(&self) -> bool {
        mounts::is_mounted(&self.place.state) && self.place.state.join(FURNISHED).exists()
    }

    /// Its process 1, also after it executed itself again and has other arguments.
    fn first_process(&self) -> Option<i32> {
        let is_it = |pid: &i32| procfs::is_first_below(*pid) && procfs::alive(*pid);
        cgroup::processes(&self.place.group).into_iter().find(is_it)
    }

    /// Kills all of its processes, as a power cut would: its written files stay.
    fn cut_power(&self) -> Outcome<()> {
        // The kernel ends all others with the first, before that is dead itself.
        let mut pids = self.place.keepers();
        pids.extend(self.first_process());
        self.place.end(&pids)?;
        // Its number may soon be that of a process which sees the machine's own files there.
        self.remove_the_way_in()
    }

    fn remove_the_way_in(&self) -> Outcome<()> {
        match fs::remove_file(self.root()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::failed(format_args!("cannot remove {}: {error}", self.root().display())))
            }
            _ => Ok(()),
        }
    }

    /// Once systemd runs: before, its process 1 still sees the machine's own files.
    fn make_the_way_in(&self, pid: i32) -> Option<()> {
        if procfs::name(pid).as_deref() != Some("systemd") {
            return None;
        }
        let target = PathBuf::from(format!("/proc/{pid}/root"));
        if fs::read_link(self.root()).ok().as_ref() != Some(&target) {
            let new = self.place.state.join("root.new");
            let _ = fs::remove_file(&new);
            symlink(&target, &new).and_then(|()| fs::rename(&new, self.root())).ok()?;
        }
        Some(())
    }

    fn progress(&self) -> Progress {
        let Some(pid) = self.first_process() else { return Progress::Nothing };
        if self.make_the_way_in(pid).is_none() {
            return Progress::Begins;
        }
        let has_bus = self.root().join("run/dbus/system_bus_socket").exists();
        if has_bus && is_started(&self.address()) { Progress::Ready } else { Progress::Runs }
    }

    /// Writes the files that the machine finds on its disk at its first boot.
    fn furnish(&self) -> Outcome<()> {
        let state = &self.place.state;
        mounts::unmount_all(state);
        let doing = || format!("cannot write {}", state.display());
        fs::create_dir_all(state).doing(doing())?;
        let mounted = mount("runtide-testbed", state, "tmpfs", MountFlags::NOSUID, Some(c"mode=755"));
        mounted
            .map_err(|error| Failure::refused(format_args!("cannot mount a tmpfs at {}: {error}", state.display())))?;
        let machine_id = fs::read_to_string("/proc/sys/kernel/random/uuid").doing("cannot make a machine id")?;
        let machine_id = machine_id.replace('-', "");
        furnish(state, &self.files, self.host, &machine_id).doing(doing())?;
        fs::write(state.join(FURNISHED), "").doing(doing())
    }
}

impl Service for Machine {
    fn up(&self, install: bool) -> Outcome<()> {
        packages::require(&packages::SYSTEMD, &[], install)?;
        if let Some(suite) = self.suite {
            packages::require(&packages::SUITE, &[], install)?;
            refuse_where_impossible()?;
            suite::ensure(suite, "systemd,dbus,mount,util-linux", &self.files)?;
        } else {
            refuse_where_parted()?;
            refuse_where_impossible()?;
        }
        if self.is_up() {
            return self.start();
        }
        self.cut_power()?;
        // One that never ran must not be taken for one that a test has stopped.
        self.furnish().and_then(|()| self.start()).inspect_err(|_| drop(self.down()))
    }

    fn start(&self) -> Outcome<()> {
        self.place.must_be_up(self.is_up())?;
        if self.place.wait_for_running(|| self.progress())? {
            return Ok(());
        }
        self.cut_power()?;
        self.place.run(KEEPER, &[self.host, ENTER, BOOT, &self.files.to_string_lossy()], || self.progress())
    }

    /// An orderly power off.
    fn stop(&self) -> Outcome<()> {
        self.place.must_be_up(self.is_up())?;
        if let Some(pid) = self.first_process() {
            let mut kill = packages::command("sh");
            kill.args(["-c", r#"kill "$1" "$2""#, "kill", POWER_OFF, &pid.to_string()]);
            process::capture(&mut kill, ASK, Interrupt::Waits)?;
            procfs::wait_until_dead(&[pid], STOP);
        }
        self.cut_power()
    }

    fn kill(&self) -> Outcome<()> {
        self.place.must_be_up(self.is_up())?;
        self.cut_power()
    }

    fn down(&self) -> Outcome<bool> {
        let was_up = self.is_up() || self.first_process().is_some() || !self.place.keepers().is_empty();
        self.cut_power()?;
        let mut left: Vec<String> =
            cgroup::remove(&self.place.group).iter().map(|group| format!("group {}", group.display())).collect();
        let state = &self.place.state;
        if !mounts::unmount_all(state) {
            left.push(format!("mount {}", state.display()));
        } else if let Err(error) = fs::remove_dir_all(state)
            && error.kind() != ErrorKind::NotFound
        {
            left.push(format!("{}: {error}", state.display()));
        }
        if left.is_empty() {
            return Ok(was_up);
        }
        Err(Failure::failed(format_args!("{}: down, but this is left: {}", self.place.name, left.join("; "))))
    }

    fn summary(&self) -> Outcome<String> {
        let Some(pid) = self.first_process() else { return Err(Failure::failed("no machine of this testbed runs")) };
        Ok(format!("{}, pid {pid}, {}", summary(&self.address())?, self.root().display()))
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        if !self.is_up() {
            return BTreeMap::new();
        }
        let [address, root] = self.variables;
        BTreeMap::from([(address, self.address()), (root, self.root().display().to_string())])
    }
}

/// `true` if the manager at this address has started all units that it starts by itself.
pub(super) fn is_started(address: &str) -> bool {
    matches!(says(address, "SystemState").as_deref(), Ok("running" | "degraded"))
}

pub(super) fn summary(address: &str) -> Outcome<String> {
    Ok(format!("systemd {}, {}", says(address, "Version")?, says(address, "SystemState")?))
}

/// A property of the manager at this address.
fn says(address: &str, property: &str) -> Outcome<String> {
    let mut busctl = packages::command("busctl");
    busctl.arg(format!("--address={address}")).args(["--timeout=5", "get-property", "org.freedesktop.systemd1"]);
    busctl.args(["/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", property]);
    let said = process::capture(&mut busctl, ASK, Interrupt::Waits)?;
    if !said.status.success() {
        return Err(Failure::failed(said.complaint()));
    }
    Ok(unquoted(&said.stdout))
}

/// `s "running"`, as busctl prints a string.
fn unquoted(line: &str) -> String {
    let line = line.trim();
    line.split_once(' ').map_or(line, |(_, value)| value).trim_matches('"').to_owned()
}

/// The layer below is one file system: mounts below it are not seen.
fn refuse_where_parted() -> Outcome<()> {
    let folders = ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc"];
    if let Some(folder) = folders.iter().find(|folder| mounts::is_mounted(Path::new(folder))) {
        return Err(Failure::refused(format_args!(
            "systemd cannot be started here: {folder} is a file system of its own"
        )));
    }
    Ok(())
}

/// Refuses a host without the kernel features that a machine needs.
fn refuse_where_impossible() -> Outcome<()> {
    let mut probe = packages::command("unshare");
    probe.args(["--mount", "--propagation", "slave", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--", "true"]);
    let said = process::capture(&mut probe, ASK, Interrupt::Waits)?;
    if said.status.success() {
        return Ok(());
    }
    Err(Failure::refused(format_args!("systemd cannot be started here: {}", said.complaint())))
}

fn furnish(state: &Path, files: &Path, host: &str, machine_id: &str) -> std::io::Result<()> {
    for folder in [WRITTEN, WORK, MOUNTED] {
        fs::create_dir(state.join(folder))?;
        fs::set_permissions(state.join(folder), Permissions::from_mode(0o755))?;
    }
    let written = Written { at: state.join(WRITTEN), before: files.to_path_buf() };
    // Nothing that is enabled, configured or masked on the machine itself, and none of its logs.
    written.opaque("etc/systemd")?;
    written.opaque("var/log/journal")?;
    // `/lib` is a link, or it is not.
    let files = fs::canonicalize(files)?;
    let vendor = fs::canonicalize(files.join(UNITS.trim_start_matches('/')))?;
    let mut hidden = vec![vendor.join("multi-user.target.wants")];
    hidden.extend(GENERATORS.iter().map(|folder| vendor.with_file_name(folder)));
    for folder in hidden {
        written.opaque(folder.strip_prefix(&files).unwrap_or(&folder))?;
    }
    for (target, unit) in [("multi-user", "dbus.service"), ("sockets", "dbus.socket")] {
        let link = format!("etc/systemd/system/{target}.target.wants/{unit}");
        written.link(&link, &format!("{UNITS}/{unit}"))?;
    }
    for unit in MASKED {
        written.link(&format!("etc/systemd/system/{unit}"), "/dev/null")?;
    }
    written.file("etc/systemd/journald.conf.d/runtide-testbed.conf", JOURNALD)?;
    written.file("etc/fstab", "")?;
    written.file("etc/crypttab", "")?;
    written.file("etc/hostname", &format!("{host}\n"))?;
    written.file("etc/machine-id", machine_id)?;
    written.link("var/lib/dbus/machine-id", "/etc/machine-id")
}

/// The upper layer: a folder in it stands before the one below, with its own owner and mode.
struct Written {
    at: PathBuf,
    before: PathBuf,
}

impl Written {
    fn folder(&self, path: &Path) -> std::io::Result<PathBuf> {
        let (mut here, mut below) = (self.at.clone(), self.before.clone());
        for part in path {
            here.push(part);
            below.push(part);
            match fs::create_dir(&here) {
                Ok(()) => {
                    let mode = fs::metadata(&below).map_or(0o755, |metadata| metadata.permissions().mode());
                    fs::set_permissions(&here, Permissions::from_mode(mode))?;
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(here)
    }

    /// Hides the layer below: the machine finds this folder empty.
    fn opaque(&self, path: impl AsRef<Path>) -> std::io::Result<()> {
        let folder = self.folder(path.as_ref())?;
        Ok(setxattr(&folder, "trusted.overlay.opaque", b"y", XattrFlags::empty())?)
    }

    fn file(&self, path: &str, text: &str) -> std::io::Result<()> {
        let path = Path::new(path);
        let folder = self.folder(path.parent().unwrap_or(path))?;
        let file = folder.join(path.file_name().unwrap_or_default());
        fs::write(&file, text)?;
        fs::set_permissions(&file, Permissions::from_mode(0o644))
    }

    fn link(&self, path: &str, target: &str) -> std::io::Result<()> {
        let path = Path::new(path);
        let folder = self.folder(path.parent().unwrap_or(path))?;
        symlink(target, folder.join(path.file_name().unwrap_or_default()))
    }
}

/// The last line of a log from there on.
fn last_line(log: &Path, begin: u64) -> Option<String> {
    let text = fs::read(log).ok()?;
    let text = String::from_utf8_lossy(text.get(usize::try_from(begin).ok()?..)?).into_owned();
    text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_of_a_folder_of_the_machine_have_its_mode() {
        let at = std::env::temp_dir().join(format!("xtask-written-{}", std::process::id()));
        fs::create_dir(&at).unwrap();
        let written = Written { at: at.clone(), before: PathBuf::from("/") };
        written.file("tmp/a/b/file", "text").unwrap();
        written.file("tmp/a/b/other", "").unwrap();
        written.link("tmp/a/link", "/dev/null").unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let modes = (mode(at.join("tmp")), mode(at.join("tmp/a")), mode(at.join("tmp/a/b/file")));
        let (text, link) = (fs::read_to_string(at.join("tmp/a/b/file")), fs::read_link(at.join("tmp/a/link")));
        fs::remove_dir_all(&at).unwrap();
        assert_eq!(modes, (mode(PathBuf::from("/tmp")), 0o755, 0o644));
        assert_eq!((text.unwrap().as_str(), link.unwrap().as_path()), ("text", Path::new("/dev/null")));
    }

    #[test]
    fn the_last_line_is_that_of_this_boot() {
        let log = std::env::temp_dir().join(format!("xtask-boot-log-{}", std::process::id()));
        fs::write(&log, "before\nmount: it cannot be done\n\n").unwrap();
        let (last, none) = (last_line(&log, 7), last_line(&log, 1000));
        let nothing_new = last_line(&log, 33);
        fs::remove_file(&log).unwrap();
        assert_eq!((last.as_deref(), none, nothing_new), (Some("mount: it cannot be done"), None, None));
    }

    #[test]
    fn busctls_output_is_parsed() {
        assert_eq!(unquoted("s \"running\"\n"), "running");
        assert_eq!(unquoted("s \"252.38-1~deb12u1\"\n"), "252.38-1~deb12u1");
        assert_eq!(unquoted("\n"), "");
    }
}
