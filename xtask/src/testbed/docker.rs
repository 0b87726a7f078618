//! A Docker Engine in its own folder, in the machine's own network: tests reach published ports on 127.0.0.1.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::before::Before;
use super::places::in_run;
use super::procfs::{self, Process};
use super::service::Service;
use super::{cgroup, http, image, mounts, network, packages};
use crate::failure::{Doing, Failure, Outcome};
use crate::workspace;

/// The containers' control group, so that they can be found without the daemon.
const GROUP: &str = "runtide-testbed-docker";

/// Path at which dockerd tries to find a containerd before it starts its own.
const FOREIGN_CONTAINERD: &str = "/run/containerd/containerd.sock";

/// The log, which stays after a teardown, so that a failure can be diagnosed.
const LOG: &str = "dockerd.log";

const ASK: Duration = Duration::from_secs(20);
const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);
const DIE: Duration = Duration::from_secs(10);

pub(super) struct Docker {
    /// `target/testbed/docker`.
    folder: PathBuf,
    /// The same, or a link to it whose path is short enough for a socket.
    short: PathBuf,
    /// Record of the machine's earlier state. Not in the folder: it must outlive a `cargo clean`, but no boot.
    before: PathBuf,
}

impl Docker {
    pub(super) fn below(testbed: &Path) -> Self {
        let folder = testbed.join("docker");
        let short = short(&folder);
        let before = in_run(&folder).with_extension("json");
        Self { folder, short, before }
    }
}

impl Service for Docker {
    fn up(&self, install: bool) -> Outcome<()> {
        packages::require(&packages::DOCKER, &packages::WANTED, install)?;
        let daemon = self.daemon();
        let picture = Before::read(&self.before)?;
        match &daemon {
            None if picture.is_none() => {
                put_back_after_the_dead()?;
                refuse_other_daemons()?;
            }
            Some(daemon) if picture.is_none() || !self.socket().exists() => {
                let pid = daemon.pid;
                return Err(Failure::refused(format_args!(
                    "this testbed's dockerd runs (pid {pid}), but its files are gone: cargo xtask testbed down docker"
                )));
            }
            _ => {}
        }
        fs::create_dir_all(&self.folder).doing(format_args!("cannot make {}", self.folder.display()))?;
        if picture.is_none() {
            // Left from before the machine booted.
            self.remove_files()?;
        }
        if self.short != self.folder && fs::read_link(&self.short).ok().as_ref() != Some(&self.folder) {
            let _ = fs::remove_file(&self.short);
            symlink(&self.folder, &self.short).doing(format_args!("cannot make {}", self.short.display()))?;
        }
        Before::take(&self.before, &self.folder)?;
        self.start()?;
        self.ensure_image()
    }

    /// Starts the daemon of a testbed that is up; running already is success.
    fn start(&self) -> Outcome<()> {
        self.must_be_up()?;
        if self.daemon().is_some() {
            return self.wait_until_it_answers(None);
        }
        self.clear_the_way();
        let log = self.folder.join(LOG);
        let out = OpenOptions::new().create(true).append(true).open(&log);
        let out = out.doing(format_args!("cannot write {}", log.display()))?;
        let err = out.try_clone().doing(format_args!("cannot write {}", log.display()))?;
        let begin = out.metadata().map_or(0, |metadata| metadata.len());
        for folder in ["data", "run"] {
            let path = self.folder.join(folder);
            fs::create_dir_all(&path).doing(format_args!("cannot make {}", path.display()))?;
        }
        let config = self.folder.join("daemon.json");
        fs::write(&config, "{}\n").doing(format_args!("cannot write {}", config.display()))?;
        let mut command = packages::command("dockerd");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            // An empty one: the machine's own must not speak here.
            .arg(format!("--config-file={}", config.display()))
            .arg(format!("--data-root={}", self.folder.join("data").display()))
            .arg(format!("--exec-root={}", self.short.join("run").display()))
            .arg(self.mark())
            .arg("--live-restore")
            .arg("--shutdown-timeout=2")
            .arg("--exec-opt=native.cgroupdriver=cgroupfs")
            .arg(format!("--cgroup-parent=/{GROUP}"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .current_dir("/")
            // Not in the terminal's process group: Ctrl-C is for the test run.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let mut child = command.spawn().doing("cannot run dockerd")?;
        self.wait_until_it_answers(Some((&mut child, &log, begin)))
    }

    /// SIGTERM, and wait: containers stay.
    fn stop(&self) -> Outcome<()> {
        self.must_be_up()?;
        self.end(Signal::TERM, STOP)
    }

    /// SIGKILL, and wait: containers stay.
    fn kill(&self) -> Outcome<()> {
        self.must_be_up()?;
        self.end(Signal::KILL, DIE)
    }

    /// Stops everything and restores the machine; `true` if there was anything to do.
    fn down(&self) -> Outcome<bool> {
        let before = Before::read(&self.before)?;
        if before.is_none() && self.daemon().is_none() && self.shims().is_empty() {
            self.remove_files()?;
            return Ok(false);
        }
        if self.daemon().is_some() && self.answers() {
            self.empty();
        }
        let _ = self.end(Signal::TERM, STOP);
        self.end(Signal::KILL, DIE)?;
        let mut left = Vec::new();
        if !cgroup::kill(GROUP) {
            left.push("processes of containers".to_owned());
        }
        let shims = self.shims();
        for shim in &shims {
            procfs::send(*shim, Signal::KILL);
        }
        if !procfs::wait_until_dead(&shims, DIE) {
            left.push("containerd-shim".to_owned());
        }
        let mounted = self.unmount();
        left.extend(mounted.iter().map(|mount| format!("mount {}", mount.display())));
        left.extend(cgroup::remove(GROUP).iter().map(|group| format!("group {}", group.display())));
        if let Some(before) = &before {
            left.extend(before.restore());
        } else {
            // The daemon does not start if a docker0 exists, so everything with Docker's name is the testbed's.
            left.extend(Before::unknown().restore());
            left.push("ip_forward: how it was before is not known".to_owned());
        }
        if mounted.is_empty() {
            self.remove_files()?;
        }
        if left.is_empty() {
            // Not earlier: with the record a second `down` can finish the rest.
            Before::forget(&self.before)?;
            return Ok(true);
        }
        Err(Failure::failed(format_args!("docker: down, but this is left: {}", left.join("; "))))
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
            workspace::relative(&self.folder.join("docker.sock"))
        ))
    }

    /// The environment of the tests; empty if no daemon is up.
    fn environment(&self) -> BTreeMap<&'static str, String> {
        if !matches!(Before::read(&self.before), Ok(Some(_))) {
            return BTreeMap::new();
        }
        BTreeMap::from([
            ("RUNTIDE_TEST_DOCKER", format!("unix://{}", self.socket().display())),
            ("RUNTIDE_TEST_DOCKER_DIR", self.folder.display().to_string()),
            ("RUNTIDE_TEST_DOCKER_PIDFILE", self.pidfile().display().to_string()),
            ("RUNTIDE_TEST_IMAGE", image::NAME.to_owned()),
        ])
    }
}

impl Docker {
    fn socket(&self) -> PathBuf {
        self.short.join("docker.sock")
    }

    fn pidfile(&self) -> PathBuf {
        self.folder.join("dockerd.pid")
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
        let run = self.short.join("run");
        let is_ours = |process: &Process| {
            let shim = process.program().is_some_and(|program| program.starts_with("containerd-shim"));
            shim && process.arguments.iter().any(|argument| Path::new(argument).starts_with(&run))
        };
        procfs::processes().into_iter().filter(is_ours).map(|process| process.pid).collect()
    }

    /// The containerd that our daemon starts; it names its configuration in our folder.
    fn containerd(&self) -> Vec<i32> {
        let run = self.short.join("run");
        let is_ours = |process: &Process| {
            let containerd = process.program().as_deref() == Some("containerd");
            containerd && process.arguments.iter().any(|argument| Path::new(argument).starts_with(&run))
        };
        procfs::processes().into_iter().filter(is_ours).map(|process| process.pid).collect()
    }

    fn must_be_up(&self) -> Outcome<()> {
        match Before::read(&self.before)? {
            Some(_) => Ok(()),
            None => Err(Failure::refused("the testbed's docker is not up: cargo xtask testbed up docker")),
        }
    }

    /// After a SIGKILL the daemons' pid files stay, and a new daemon takes the dead for living while they are zombies.
    fn clear_the_way(&self) {
        let leftover = self.containerd();
        for pid in &leftover {
            procfs::send(*pid, Signal::KILL);
        }
        procfs::wait_until_dead(&leftover, DIE);
        let _ = fs::remove_file(self.pidfile());
        let _ = fs::remove_file(self.folder.join("docker.sock"));
        let _ = fs::remove_file(self.folder.join("run/containerd/containerd.pid"));
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

    fn wait_until_it_answers(&self, started: Option<(&mut Child, &Path, u64)>) -> Outcome<()> {
        let end = Instant::now() + READY;
        let mut started = started;
        while !self.answers() {
            if let Some((child, log, begin)) = &mut started
                && let Ok(Some(status)) = child.try_wait()
            {
                let why = last_complaint(log, *begin).unwrap_or_else(|| status.to_string());
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
        let tar = image::tar(&self.folder.join("image"))?;
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

    /// Unmounts everything below our folder, and returns the mounts that are left.
    fn unmount(&self) -> Vec<PathBuf> {
        // The mounts table shows paths without links.
        let real = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        mounts::unmount_below(&real)
    }

    /// Removes all of our files but the log, and the mounts that a killed daemon left.
    fn remove_files(&self) -> Outcome<()> {
        if let Some(mount) = self.unmount().first() {
            return Err(Failure::failed(format_args!("{} is mounted, and cannot be unmounted", mount.display())));
        }
        let failed = |error: std::io::Error| {
            Failure::failed(format_args!("cannot clear {}: {error}", workspace::relative(&self.folder)))
        };
        if self.short != self.folder {
            let _ = fs::remove_file(&self.short);
        }
        let Ok(entries) = fs::read_dir(&self.folder) else { return Ok(()) };
        for entry in entries.flatten() {
            if entry.file_name() == LOG {
                continue;
            }
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(failed)?;
        }
        Ok(())
    }
}

/// A testbed of another checkout may have been killed together with its daemon, and its checkout be gone: then its remains would
/// stand in the way of every other, and no other process restores the machine.
fn put_back_after_the_dead() -> Outcome<()> {
    for (file, before) in Before::of_the_dead(is_in_use) {
        let left = before.restore();
        if !left.is_empty() {
            let folder = before.folder().display();
            return Err(Failure::failed(format_args!(
                "left by the testbed at {folder}, which is gone: {}",
                left.join("; ")
            )));
        }
        Before::forget(&file)?;
    }
    Ok(())
}

/// `true` if the testbed's daemon at `folder`, `target/testbed/docker` of some checkout, may still be needed: a part of it runs,
/// or tests do, which kill it and start it again.
fn is_in_use(folder: &Path) -> bool {
    let short = short(folder);
    let names_it = |argument: &OsString| {
        let argument = argument.to_string_lossy();
        [folder, &short].iter().any(|path| argument.contains(&*path.to_string_lossy()))
    };
    let is_locked = |file: PathBuf| {
        File::open(file).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    };
    // `target/testbed/docker`: the locks of a run of all tests, and of a verb that is under way.
    let above = |nth: usize, name: &str| folder.ancestors().nth(nth).is_some_and(|at| is_locked(at.join(name)));
    above(2, workspace::TEST_LOCK)
        || above(1, super::LOCK)
        || procfs::processes().iter().any(|process| process.arguments.iter().any(names_it))
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

/// A path for sockets: the kernel takes 107 bytes, and the longest that dockerd and its containerd add is
/// `/run/containerd/containerd-debug.sock`.
fn short(folder: &Path) -> PathBuf {
    const LIMIT: usize = 107 - 45;
    if folder.as_os_str().len() <= LIMIT {
        return folder.to_path_buf();
    }
    in_run(folder)
}

/// The last line that dockerd logged as it gave up.
fn last_complaint(log: &Path, begin: u64) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(begin)).ok()?;
    let mut text = String::new();
    file.take(1 << 20).read_to_string(&mut text).ok()?;
    let says = |line: &&str| {
        line.contains("failed to start daemon") || line.contains("level=fatal") || !line.contains("level=")
    };
    let line = text.lines().rev().filter(|line| !line.trim().is_empty()).find(says)?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_gets_a_short_name_that_is_always_the_same() {
        let near = Path::new("/srv/runtide/target/testbed/docker");
        assert_eq!(short(near), near);
        let far = Path::new("/home/somebody/with/a/long/name/and/many/folders/runtide/target/testbed/docker");
        assert_eq!(short(far), short(far));
        assert!(short(far).as_os_str().len() < 62);
    }
}
