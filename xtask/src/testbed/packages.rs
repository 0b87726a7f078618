//! The Debian packages that the testbed needs, and putting them on the machine.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::failure::{Failure, Outcome};
use crate::process;
use crate::terminal::complain;

/// Programs that the Docker testbed runs, each with the package that has it, and the command with which tests compare.
pub(super) const DOCKER: [(&str, &str); 8] = [
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables-save", "iptables"),
    ("ip", "iproute2"),
    ("busybox", "busybox-static"),
    ("tar", "tar"),
];

/// Of Podman: the service, what it starts, and the command with which tests compare. `runc` and not `crun`, which refuses control
/// groups of both versions side by side; `catatonit` is the first process of a pod.
pub(super) const PODMAN: [(&str, &str); 11] = [
    ("podman", "podman"),
    ("conmon", "conmon"),
    ("runc", "runc"),
    ("/usr/lib/podman/netavark", "netavark"),
    ("/usr/lib/podman/aardvark-dns", "aardvark-dns"),
    ("catatonit", "catatonit"),
    ("newuidmap", "uidmap"),
    ("iptables-save", "iptables"),
    ("ip", "iproute2"),
    ("busybox", "busybox-static"),
    ("tar", "tar"),
];

/// Of registries of images, one of which asks for a password.
pub(super) const REGISTRY: [(&str, &str); 2] = [("docker-registry", "docker-registry"), ("htpasswd", "apache2-utils")];

/// Of a machine that is reached over SSH, and its client.
pub(super) const SSHD: [(&str, &str); 3] =
    [("sshd", "openssh-server"), ("ssh", "openssh-client"), ("ssh-keygen", "openssh-client")];

/// Of etcd: the daemon, and what restores its snapshots.
pub(super) const ETCD: [(&str, &str); 2] = [("etcd", "etcd-server"), ("etcdctl", "etcd-client")];

/// Of Kubernetes: what builds it, the control plane, the node, and the network of its pods.
pub(super) const K8S: [(&str, &str); 15] = [
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("openssl", "openssl"),
    ("dpkg-source", "dpkg-dev"),
    ("patch", "patch"),
    ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("busybox", "busybox-static"),
    ("tar", "tar"),
];

/// Of the machines that systemd boots, and what boots them.
pub(super) const SYSTEMD: [(&str, &str); 6] = [
    ("/lib/systemd/systemd", "systemd"),
    ("busctl", "systemd"),
    ("dbus-daemon", "dbus"),
    ("/lib/systemd/system/dbus.service", "dbus"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// Of the files of another Debian.
pub(super) const SUITE: [(&str, &str); 2] =
    [("mmdebstrap", "mmdebstrap"), ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring")];

/// Of an engine among the files of another Debian.
pub(super) const GUEST: [(&str, &str); 5] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("ip", "iproute2"),
    ("busybox", "busybox-static"),
    ("tar", "tar"),
];

/// Of a user's systemd.
pub(super) const SYSTEMD_USER: [(&str, &str); 6] = [
    ("/lib/systemd/systemd", "systemd"),
    ("busctl", "systemd"),
    ("dbus-daemon", "dbus"),
    ("/usr/lib/systemd/user/dbus.service", "dbus-user-session"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// Programs of Docker and Podman without which they work less well, installed with the others: `nft` removes the empty tables that the packet
/// filter would else keep.
pub(super) const WANTED: [(&str, &str); 1] = [("nft", "nftables")];

/// Search path for daemons and their helpers: root's `PATH` may lack half of it.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Path of a program; an argument that is a path already is taken as it is.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(PATH).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// A command with the daemons' `PATH`.
pub(super) fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
    command.env("PATH", PATH);
    command
}

/// Makes sure that all programs are there; installs their packages, and the wanted ones, only if allowed to.
pub(super) fn require(programs: &[(&str, &str)], wanted: &[(&str, &str)], install: bool) -> Outcome<()> {
    let missing = |(program, _): &&(&str, &str)| find(program).is_none();
    let wanted = if install { wanted } else { &[] };
    let packages = || programs.iter().chain(wanted).filter(missing).map(|(_, package)| *package).collect::<Vec<_>>();
    if packages().is_empty() {
        return Ok(());
    }
    // One testbed at a time: apt's lock of its lists does not wait, and the first to end would let the other's packages start services.
    let alone = File::open("/var/lib/dpkg").ok().filter(|_| install);
    let _alone = alone.filter(|folder| folder.lock().is_ok());
    let packages = packages();
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if !install {
        return Err(Failure::refused(format_args!("packages are missing: {names} (--install installs them)")));
    }
    if find("apt-get").is_none() {
        return Err(Failure::refused(format_args!("there is no apt-get to install {names} with")));
    }
    let _quiet = NoServices::for_now()?;
    apt(&["update"], &[])?;
    apt(&["install", "--yes", "--no-install-recommends"], &packages)?;
    match programs.iter().find(missing) {
        None => Ok(()),
        Some((program, package)) => Err(Failure::refused(format_args!("{package} did not bring {program}"))),
    }
}

fn apt(verb: &[&str], packages: &[&str]) -> Outcome<()> {
    const LIMIT: Duration = Duration::from_secs(600);
    let mut command = command("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]).args(verb).args(packages);
    complain!("testbed: apt-get {} {}", verb.join(" "), packages.join(" "));
    let said = process::capture(&mut command, LIMIT, process::Interrupt::Waits)?;
    if said.status.success() {
        return Ok(());
    }
    Err(Failure::refused(format_args!("apt-get {}: {}", verb.join(" "), said.complaint())))
}

/// Until it is dropped, packages start no services: the machine's own Docker would stand in the testbed's way.
struct NoServices {
    ours: Option<&'static Path>,
}

impl NoServices {
    fn for_now() -> Outcome<Self> {
        let path = Path::new("/usr/sbin/policy-rc.d");
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(path) {
            Ok(mut file) => {
                let guard = Self { ours: Some(path) };
                file.write_all(b"#!/bin/sh\nexit 101\n")
                    .map_err(|error| Failure::refused(format_args!("cannot write {}: {error}", path.display())))?;
                Ok(guard)
            }
            // The machine has its own policy.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Self { ours: None }),
            Err(error) => Err(Failure::refused(format_args!("cannot write {}: {error}", path.display()))),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = self.ours {
            let _ = fs::remove_file(path);
        }
    }
}
