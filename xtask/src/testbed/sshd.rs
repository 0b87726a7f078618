//! The machine itself, reached over SSH on loopback: a private sshd, with host key, user key and known hosts of its own.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use super::docker::Docker;
use super::service::Service;
use super::{folder, packages, ports, procfs};
use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, Interrupt};
use crate::workspace;

/// Its log, which stays after a teardown.
const LOG: &str = "sshd.log";

/// A folder that sshd wants to exist, and that only its package's unit makes.
const CHROOT: &str = "/run/sshd";

/// Says that [`CHROOT`] is ours.
const OURS: &str = "chroot-is-ours";

const ASK: Duration = Duration::from_secs(20);
const READY: Duration = Duration::from_secs(30);
const DIE: Duration = Duration::from_secs(10);

pub(super) struct Sshd {
    /// `target/testbed/sshd`.
    folder: PathBuf,
    /// Address of the daemon that `docker` finds there.
    docker: String,
}

impl Sshd {
    pub(super) fn below(testbed: &Path) -> Self {
        Self { folder: testbed.join("sshd"), docker: Docker::below(testbed).address() }
    }

    fn port(&self) -> Option<u16> {
        ports::read::<1>(&self.folder).map(|[port]| port)
    }

    fn must_be_up(&self) -> Outcome<u16> {
        let missing = || Failure::refused("the testbed's sshd is not up: cargo xtask testbed up sshd");
        self.port().ok_or_else(missing)
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The listener. It rewrites its command line to one text, in which its configuration still is.
    fn pid(&self) -> Option<i32> {
        let config = self.file("sshd_config");
        let names = |process: &procfs::Process, what: &str| {
            process.arguments.iter().any(|argument| argument.to_string_lossy().contains(what))
        };
        let ours = |process: &procfs::Process| names(process, "sshd") && names(process, &config);
        let listens = |process: &procfs::Process| procfs::name(process.pid).as_deref() == Some("sshd");
        procfs::processes().into_iter().find(|process| ours(process) && listens(process)).map(|process| process.pid)
    }

    fn furnish(&self, port: u16) -> Outcome<()> {
        for name in ["host_key", "user_key"] {
            let mut keygen = packages::command("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "runtide-testbed", "-f", &self.file(name)]);
            let said = process::capture(&mut keygen, ASK, Interrupt::Waits)?;
            if !said.status.success() {
                return Err(Failure::failed(format_args!("ssh-keygen: {}", said.complaint())));
            }
        }
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).doing(format_args!("cannot read {name}"));
        let known = format!("[127.0.0.1]:{port} {}", read("host_key.pub")?);
        let server = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             StrictModes no\nUsePAM no\nUseDNS no\nPrintMotd no\nSetEnv DOCKER_HOST={}\n",
            self.file("host_key"),
            self.file("user_key.pub"),
            self.docker,
        );
        let client = format!(
            "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  \
             StrictHostKeyChecking yes\n",
            self.file("user_key"),
            self.file("known_hosts"),
        );
        let ssh = packages::find("ssh").unwrap_or_else(|| "ssh".into());
        let wrapper = format!("#!/bin/sh\nexec {} -F '{}' \"$@\"\n", ssh.display(), self.file("ssh_config"));
        for (name, text, mode) in [
            ("known_hosts", known, 0o644),
            ("sshd_config", server, 0o644),
            ("ssh_config", client, 0o644),
            ("bin/ssh", wrapper, 0o755),
        ] {
            let path = self.folder.join(name);
            let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
            made.and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
                .doing(format_args!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn run(&self) -> Outcome<()> {
        let port = self.must_be_up()?;
        if self.pid().is_none() {
            if !Path::new(CHROOT).exists() {
                fs::create_dir_all(CHROOT)
                    .and_then(|()| fs::set_permissions(CHROOT, Permissions::from_mode(0o755)))
                    .and_then(|()| fs::write(self.folder.join(OURS), ""))
                    .doing(format_args!("cannot make {CHROOT}"))?;
            }
            let sshd = packages::find("sshd").ok_or_else(|| Failure::refused("openssh-server is not installed"))?;
            let log = self.folder.join(LOG);
            let out = OpenOptions::new().create(true).append(true).open(&log);
            let out = out.doing(format_args!("cannot write {}", log.display()))?;
            // By its whole path: it executes itself for each connection.
            std::process::Command::new(sshd)
                .args(["-D", "-e", "-f", &self.file("sshd_config")])
                .env("PATH", packages::PATH)
                .env_remove("NOTIFY_SOCKET")
                .env_remove("LISTEN_FDS")
                .current_dir("/")
                // Not in the terminal's process group: Ctrl-C is for the test run.
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(out)
                .spawn()
                .doing("cannot run sshd")?;
        }
        if procfs::wait_until(READY, || listens(port)) {
            return Ok(());
        }
        let (log, seconds) = (workspace::relative(&self.folder.join(LOG)), READY.as_secs());
        Err(Failure::failed(format_args!("sshd does not listen after {seconds} s: see {log}")))
    }

    /// Ends the listener and its connections, as if the machine were gone.
    fn end(&self, signal: Signal) -> Outcome<()> {
        let Some(listener) = self.pid() else { return Ok(()) };
        let mut pids = procfs::descendants(listener);
        pids.push(listener);
        for pid in pids.iter().rev() {
            procfs::send(*pid, signal);
        }
        if procfs::wait_until_dead(&pids, DIE) {
            return Ok(());
        }
        let seconds = DIE.as_secs();
        Err(Failure::failed(format_args!("sshd (pid {listener}) or a connection of it still runs after {seconds} s")))
    }
}

fn listens(port: u16) -> bool {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&at, Duration::from_secs(5)).is_ok()
}

impl Service for Sshd {
    fn up(&self, install: bool) -> Outcome<()> {
        packages::require(&packages::SSHD, &[], install)?;
        if self.port().is_none() {
            self.end(Signal::KILL)?;
            folder::clear(&self.folder)?;
            fs::create_dir_all(&self.folder).doing(format_args!("cannot make {}", self.folder.display()))?;
            let [port] = ports::take(&self.folder)?;
            self.furnish(port)?;
        }
        self.run()
    }

    fn start(&self) -> Outcome<()> {
        self.run()
    }

    fn stop(&self) -> Outcome<()> {
        self.must_be_up()?;
        self.end(Signal::TERM)
    }

    fn kill(&self) -> Outcome<()> {
        self.must_be_up()?;
        self.end(Signal::KILL)
    }

    fn down(&self) -> Outcome<bool> {
        let was_up = self.port().is_some() || self.pid().is_some();
        self.end(Signal::KILL)?;
        if self.folder.join(OURS).exists() {
            // Another sshd may use it by now, or have removed it.
            let _ = fs::remove_dir(CHROOT);
        }
        folder::clear(&self.folder)?;
        Ok(was_up)
    }

    fn summary(&self) -> Outcome<String> {
        let port = self.port().ok_or_else(|| Failure::failed("it was not started"))?;
        match self.pid() {
            Some(pid) if listens(port) => Ok(format!("sshd, pid {pid}, 127.0.0.1:{port}")),
            _ => Err(Failure::failed(format_args!("no sshd of this testbed listens at 127.0.0.1:{port}"))),
        }
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        let Some(port) = self.port() else { return BTreeMap::new() };
        BTreeMap::from([
            ("RUNTIDE_TEST_SSH", format!("ssh://root@127.0.0.1:{port}")),
            ("RUNTIDE_TEST_SSH_PROGRAM", self.file("bin/ssh")),
        ])
    }
}
