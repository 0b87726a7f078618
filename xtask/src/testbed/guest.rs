//! An engine of another Debian than the machine's: its files, and a network of its own, kept by one process until the engine is
//! taken down. Whatever it does to mounts, bridges and packet filters ends with that process.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::log::Log;
use super::{packages, procfs, suite};
use crate::failure::{Doing, Failure, Outcome};
use crate::process::TICK;

/// The engines of Debian 13, and what they start.
const SUITE: &str = "trixie";
const ENGINES: &str = "docker.io,docker-cli,podman,conmon,runc,netavark,aardvark-dns,catatonit,iptables,nftables,iproute2,mount,\
                       util-linux,procps,ca-certificates";

/// Says that the holder has made everything.
const READY: &str = "ready";

const LIMIT: Duration = Duration::from_secs(30);
const DIE: Duration = Duration::from_secs(10);

/// Makes the file system in its own mount namespace, over `/mnt`, which exists everywhere: the files of the suite with a layer in
/// memory above them. The engine's folder and `/tmp` have the same path inside as outside. It then waits without a child, so that killing it
/// ends all of it.
const KEEPER: &str = r#"
set -e
files=$1 folder=$2 short=$3
ip link set lo up
mount -t tmpfs -o mode=755 runtide-testbed /mnt
mkdir /mnt/rw /mnt/work /mnt/root
cd "$files"
mount -t overlay overlay -o "lowerdir=.,upperdir=/mnt/rw,workdir=/mnt/work,index=off" /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount --rbind /tmp tmp
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p ".$folder" run/old
mount --bind "$folder" ".$folder"
[ "$short" = "$folder" ] || ln -s "$folder" ".$short"
pivot_root . run/old
cd /
umount -l /run/old
rmdir /run/old
mkfifo /run/never
exec 3<>/run/never
: > "$folder/ready"
read -r line <&3
"#;

pub(super) struct Guest {
    /// The files of its Debian, which guests share and do not change.
    files: PathBuf,
    folder: PathBuf,
    short: PathBuf,
}

impl Guest {
    /// The guest whose engine has this folder, below `testbed`.
    pub(super) fn below(testbed: &Path, folder: &Path, short: &Path) -> Self {
        Self { files: testbed.join("trixie-engines"), folder: folder.to_owned(), short: short.to_owned() }
    }

    /// The argument that distinguishes the holder from any other process.
    fn mark(&self) -> String {
        format!("runtide-testbed={}", self.folder.display())
    }

    fn holder(&self) -> Option<i32> {
        let mark = self.mark();
        procfs::processes().into_iter().find(|process| process.has_argument(&mark)).map(|process| process.pid)
    }

    /// The holder, once it has made everything.
    pub(super) fn pid(&self) -> Option<i32> {
        self.holder().filter(|_| self.folder.join(READY).exists())
    }

    /// Installs what the machine needs to make it, and makes the files of its Debian.
    pub(super) fn require(&self, install: bool) -> Outcome<()> {
        packages::require(&packages::SUITE, &[], install)?;
        packages::require(&packages::GUEST, &[], install)?;
        suite::ensure(SUITE, ENGINES, &self.files)
    }

    /// Starts the holder.
    pub(super) fn keep(&self, out: fs::File, err: fs::File, log: &Log) -> Outcome<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        let _ = fs::remove_file(self.folder.join(READY));
        let mut command = packages::command("unshare");
        command
            .args(["--mount", "--propagation", "private", "--net", "--", "sh", "-c", KEEPER, &self.mark()])
            .arg(&self.files)
            .arg(&self.folder)
            .arg(&self.short)
            .current_dir("/")
            // Not in the terminal's process group: Ctrl-C is for the test run.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let mut child = command.spawn().doing("cannot run unshare")?;
        let end = Instant::now() + LIMIT;
        while self.pid().is_none() {
            if let Ok(Some(status)) = child.try_wait() {
                let why = log.last_line(|_| true).unwrap_or_else(|| status.to_string());
                return Err(Failure::refused(format_args!("Debian {SUITE} cannot be entered here: {why}")));
            }
            if Instant::now() >= end {
                return Err(Failure::failed(format_args!("Debian {SUITE} is not entered after {} s", LIMIT.as_secs())));
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// A command among its files and in its network.
    pub(super) fn command(&self, program: &str) -> Outcome<Command> {
        let Some(pid) = self.pid() else { return Err(Failure::failed("the holder of its files does not run")) };
        let mut command = packages::command("nsenter");
        command.args(["--target", &pid.to_string(), "--mount", "--net", "--", program]);
        Ok(command)
    }

    /// Its network namespace, in which a test reaches its published ports.
    pub(super) fn network(&self) -> Option<String> {
        self.pid().map(|pid| format!("/proc/{pid}/ns/net"))
    }

    /// Ends the holder and every process among its files or in its network; `false` if one is left.
    pub(super) fn end(&self) -> bool {
        let Some(holder) = self.holder() else { return true };
        let mut pids = procfs::sharing(holder, &["mnt", "net"]);
        pids.push(holder);
        for pid in &pids {
            procfs::send(*pid, Signal::KILL);
        }
        procfs::wait_until_dead(&pids, DIE)
    }
}
