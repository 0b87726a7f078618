//! A Docker Engine in its own folder, in the machine's own network: tests reach published ports on 127.0.0.1.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::guest::Guest;
use super::home::{Home, put_back_after_the_dead};
use super::log::Log;
use super::network::Owner;
use super::procfs::{self, Process};
use super::service::Service;
use super::{cgroup, http, image, network, packages};
use crate::failure::{Doing, Failure, Outcome};
use crate::workspace;

/// Path at which dockerd tries to find a containerd before it starts its own.
const FOREIGN_CONTAINERD: &str = "/run/containerd/containerd.sock";

/// Longest path of the folder: the kernel takes 107 bytes for a socket, and the longest that dockerd and its containerd add is
/// `/run/containerd/containerd-debug.sock`.
const LONGEST: usize = 107 - 45;

const ASK: Duration = Duration::from_secs(20);
const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);
const DIE: Duration = Duration::from_secs(10);

pub(super) struct Docker {
    /// `target/testbed/docker`.
    home: Home,
    /// The variables with its address, its folder, its process id, and its network if that is its own.
    variables: [&'static str; 4],
}

impl Docker {
    pub(super) fn below(testbed: &Path) -> Self {
        let variables = [
            "RUNTIDE_TEST_DOCKER",
            "RUNTIDE_TEST_DOCKER_DIR",
            "RUNTIDE_TEST_DOCKER_PIDFILE",
            "RUNTIDE_TEST_DOCKER_NET",
        ];
        Self { home: Home::below(testbed, "docker", Owner::Docker, LONGEST), variables }
    }

    /// Of a newer Debian than the machine's may be.
    pub(super) fn newer(testbed: &Path) -> Self {
        let variables = [
            "RUNTIDE_TEST_DOCKER26",
            "RUNTIDE_TEST_DOCKER26_DIR",
            "RUNTIDE_TEST_DOCKER26_PIDFILE",
            "RUNTIDE_TEST_DOCKER26_NET",
        ];
        Self { home: Home::of_guest(testbed, "docker26", Owner::Docker, LONGEST), variables }
    }
}

impl Service for Docker {
    fn up(&self, install: bool) -> Outcome<()> {
        match self.home.guest() {
            Some(guest) => guest.require(install)?,
            None => packages::require(&packages::DOCKER, &packages::WANTED, install)?,
        }
        match self.daemon() {
            None if !self.home.is_up() && self.home.guest().is_none() => {
                put_back_after_the_dead()?;
                refuse_other_daemons()?;
            }
            Some(daemon) if !self.home.is_up() || !self.socket().exists() => {
                let pid = daemon.pid;
                return Err(Failure::refused(format_args!(
                    "this testbed's dockerd runs (pid {pid}), but its files are gone: cargo xtask testbed down {}",
                    self.home.name()
                )));
            }
            _ => {}
        }
        self.home.prepare()?;
        self.start()?;
        self.ensure_image()
    }

    /// Starts the daemon of a testbed that is up; running already is success.
    fn start(&self) -> Outcome<()> {
        self.home.must_be_up()?;
        if self.daemon().is_some() {
            return self.wait_until_it_answers(None);
        }
        self.clear_the_way();
        let (out, err, log) = self.home.log()?;
        self.home.make(&["data", "run"])?;
        let config = self.home.write("daemon.json", "{}\n")?;
        let mut command = self.home.command("dockerd")?;
        command
            .arg("--host")
            .arg(self.address())
            // An empty one: the machine's own must not speak here.
            .arg(format!("--config-file={}", config.display()))
            .arg(format!("--data-root={}", self.home.folder.join("data").display()))
            .arg(format!("--exec-root={}", self.home.short.join("run").display()))
            .arg(self.mark())
            .arg("--live-restore")
            .arg("--shutdown-timeout=2")
            .arg("--exec-opt=native.cgroupdriver=cgroupfs")
            .arg(format!("--cgroup-parent=/{}", self.home.group()))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .current_dir("/")
            // Not in the terminal's process group: Ctrl-C is for the test run.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let mut child = command.spawn().doing("cannot run dockerd")?;
        self.wait_until_it_answers(Some((&mut child, &log)))
    }

    /// SIGTERM, and wait: containers stay.
    fn stop(&self) -> Outcome<()> {
        self.home.must_be_up()?;
        self.end(Signal::TERM, STOP)
    }

    /// SIGKILL, and wait: containers stay.
    fn kill(&self) -> Outcome<()> {
        self.home.must_be_up()?;
        self.end(Signal::KILL, DIE)
    }

    /// Stops everything and restores the machine; `true` if there was anything to do.
    fn down(&self) -> Outcome<bool> {
        if !self.home.is_up() && self.daemon().is_none() && self.shims().is_empty() {
            self.home.remove_files()?;
            return Ok(false);
        }
        if self.daemon().is_some() && self.answers() {
            self.empty();
        }
        let _ = self.end(Signal::TERM, STOP);
        self.end(Signal::KILL, DIE)?;
        let mut left = Vec::new();
        let group = self.home.group();
        if !cgroup::kill(&group) {
            left.push("processes of containers".to_owned());
        }
        let shims = self.shims();
        for shim in &shims {
            procfs::send(*shim, Signal::KILL);
        }
        if !procfs::wait_until_dead(&shims, DIE) {
            left.push("containerd-shim".to_owned());
        }
        let mounted = self.home.unmount();
        left.extend(mounted.iter().map(|mount| format!("mount {}", mount.display())));
        left.extend(cgroup::remove(&group).iter().map(|group| format!("group {}", group.display())));
        left.extend(self.home.restore()?);
        if mounted.is_empty() {
            self.home.remove_files()?;
        }
        if left.is_empty() {
            // Not earlier: with the record a second `down` can finish the rest.
            self.home.forget()?;
            return Ok(true);
        }
        Err(Failure::failed(format_args!("{}: down, but this is left: {}", self.home.name(), left.join("; "))))
    }

    /// One line about a daemon that answers.
    fn summary(&self) -> Outcome<String> {
        let Some(daemon) = self.daemon() else { return Err(Failure::failed("no daemon of this testbed runs")) };
        let answer = self.ask("GET", "/version", &[])?.json()?;
        let text = |key: &str| answer.get(key).and_then(|v| v.as_str()).unwrap_or("?").to_owned();
        let running = self.ask("GET", "/containers/json", &[])?.json()?.as_array().map_or(0, Vec::len);
        Ok(format!(
            "Docker {} (API {}), pid {}, {running} containers running, {}",
            text("Version"),
            text("ApiVersion"),
            daemon.pid,
            workspace::relative(&self.home.folder.join("docker.sock"))
        ))
    }

    /// The environment of the tests; empty if no daemon is up.
    fn environment(&self) -> BTreeMap<&'static str, String> {
        if !self.home.is_up() {
            return BTreeMap::new();
        }
        let [address, folder, pidfile, network] = self.variables;
        let mut environment = BTreeMap::from([
            (address, self.address()),
            (folder, self.home.folder.display().to_string()),
            (pidfile, self.pidfile().display().to_string()),
            ("RUNTIDE_TEST_IMAGE", image::NAME.to_owned()),
        ]);
        environment.extend(self.home.guest().and_then(Guest::network).map(|path| (network, path)));
        environment
    }
}

impl Docker {
    fn socket(&self) -> PathBuf {
        self.home.short.join("docker.sock")
    }

    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn pidfile(&self) -> PathBuf {
        self.home.folder.join("dockerd.pid")
    }

    /// The argument that distinguishes our daemon from any other, also after its files are gone.
    fn mark(&self) -> String {
        format!("--pidfile={}", self.pidfile().display())
    }

    fn daemon(&self) -> Option<Process> {
        let mark = self.mark();
        procfs::processes().into_iter().find(|p| p.program().as_deref() == Some("dockerd") && p.has_argument(&mark))
    }

    /// Our containers' shims, which outlive the daemon.
    fn shims(&self) -> Vec<i32> {
        let run = self.home.short.join("run");
        let is_ours = |process: &Process| {
            let shim = process.program().is_some_and(|program| program.starts_with("containerd-shim"));
            shim && process.arguments.iter().any(|argument| Path::new(argument).starts_with(&run))
        };
        procfs::processes().into_iter().filter(is_ours).map(|process| process.pid).collect()
    }

    /// The containerd that our daemon starts; it names its configuration in our folder.
    fn containerd(&self) -> Vec<i32> {
        let run = self.home.short.join("run");
        let is_ours = |process: &Process| {
            let containerd = process.program().as_deref() == Some("containerd");
            containerd && process.arguments.iter().any(|argument| Path::new(argument).starts_with(&run))
        };
        procfs::processes().into_iter().filter(is_ours).map(|process| process.pid).collect()
    }

    /// After a SIGKILL the daemons' pid files stay, and a new daemon takes the dead for living while they are zombies.
    fn clear_the_way(&self) {
        let leftover = self.containerd();
        for pid in &leftover {
            procfs::send(*pid, Signal::KILL);
        }
        procfs::wait_until_dead(&leftover, DIE);
        let _ = fs::remove_file(self.pidfile());
        let _ = fs::remove_file(self.home.folder.join("docker.sock"));
        let _ = fs::remove_file(self.home.folder.join("run/containerd/containerd.pid"));
    }

    /// Ends the daemon and the containerd that it started.
    fn end(&self, signal: Signal, limit: Duration) -> Outcome<()> {
        let containerd = self.containerd();
        if let Some(daemon) = self.daemon() {
            procfs::send(daemon.pid, signal);
            if !procfs::wait_until_dead(&[daemon.pid], limit) {
                let seconds = limit.as_secs();
                return Err(Failure::failed(format_args!("dockerd (pid {}) still runs after {seconds} s", daemon.pid)));
            }
        }
        // Its parent stops it, or the kernel kills it with its parent; an orphan needs a signal.
        if !procfs::wait_until_dead(&containerd, Duration::from_secs(1)) {
            for pid in &containerd {
                procfs::send(*pid, signal);
            }
        }
        if procfs::wait_until_dead(&containerd, limit) {
            return Ok(());
        }
        Err(Failure::failed("the testbed's containerd does not end"))
    }

    fn ask(&self, method: &str, target: &str, body: &[u8]) -> Outcome<http::Answer> {
        http::ask(&self.socket(), method, target, body, ASK)
    }

    fn answers(&self) -> bool {
        http::ask(&self.socket(), "GET", "/_ping", &[], Duration::from_secs(5)).is_ok_and(|answer| answer.is_success())
    }

    fn wait_until_it_answers(&self, started: Option<(&mut Child, &Log)>) -> Outcome<()> {
        let end = Instant::now() + READY;
        let mut started = started;
        while !self.answers() {
            if let Some((child, log)) = &mut started
                && let Ok(Some(status)) = child.try_wait()
            {
                let why = log.last_line(tells_why).unwrap_or_else(|| status.to_string());
                return Err(Failure::failed(format_args!("dockerd does not start: {why}")));
            }
            if Instant::now() >= end {
                let seconds = READY.as_secs();
                return Err(Failure::failed(format_args!("dockerd does not answer after {seconds} s")));
            }
            std::thread::sleep(crate::process::TICK);
        }
        Ok(())
    }

    fn ensure_image(&self) -> Outcome<()> {
        if self.ask("GET", &format!("/images/{}/json", image::NAME), &[])?.is_success() {
            return Ok(());
        }
        let tar = image::tar(&self.home.folder.join("image"))?;
        let (repository, tag) = image::NAME.split_once(':').unwrap_or((image::NAME, "latest"));
        let target = format!(
            "/images/create?fromSrc=-&repo={repository}&tag={tag}&changes=CMD%20%5B%22sh%22%5D\
             &changes=ENV%20PATH%3D/bin&message=from%20busybox-static"
        );
        let answer = self.ask("POST", &target, &tar)?;
        let text = String::from_utf8_lossy(&answer.body);
        if answer.is_success() && !text.contains("\"error\"") {
            return Ok(());
        }
        Err(Failure::failed(format_args!("cannot import {}: {}", image::NAME, text.trim())))
    }

    /// Ends all containers and removes all networks, as far as the daemon does it; the rest is done without it.
    fn empty(&self) {
        const LIMIT: Duration = Duration::from_secs(60);
        let end = Instant::now() + LIMIT;
        for (list, path, built_in) in [
            // Only running containers: the others are files in our folder.
            ("/containers/json", "containers", &[][..]),
            ("/networks", "networks", &["bridge", "host", "none"][..]),
        ] {
            let Ok(found) = self.ask("GET", list, &[]).and_then(|answer| answer.json()) else { continue };
            for item in found.as_array().into_iter().flatten() {
                let text = |key: &str| item.get(key).and_then(|value| value.as_str());
                let Some(id) = text("Id") else { continue };
                if text("Name").is_some_and(|name| built_in.contains(&name)) || Instant::now() >= end {
                    continue;
                }
                let _ = self.ask("DELETE", &format!("/{path}/{id}?force=1&v=1"), &[]);
            }
        }
    }
}

/// Two Docker daemons in one network would fight over docker0 and the packet filter, and one containerd would mix
/// up their containers.
fn refuse_other_daemons() -> Outcome<()> {
    let is_foreign = |p: &Process| p.program().as_deref() == Some("dockerd") && p.shares_our_network();
    if let Some(other) = procfs::processes().into_iter().find(is_foreign) {
        let pid = other.pid;
        return Err(Failure::refused(format_args!(
            "a Docker daemon that this testbed did not start runs here (pid {pid}): stop it first"
        )));
    }
    if Path::new(FOREIGN_CONTAINERD).exists() {
        return Err(Failure::refused(format_args!(
            "a containerd that this testbed did not start is at {FOREIGN_CONTAINERD}: stop it first"
        )));
    }
    if network::has_docker0() {
        return Err(Failure::refused(
            "docker0 exists, but not from this testbed: if no Docker uses it, ip link delete docker0",
        ));
    }
    Ok(())
}

/// A line that dockerd logs as it gives up.
fn tells_why(line: &str) -> bool {
    line.contains("failed to start daemon") || line.contains("level=fatal") || !line.contains("level=")
}
