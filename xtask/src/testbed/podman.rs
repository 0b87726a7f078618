//! A rootful Podman service in its own folder, in the machine's own network: tests reach published ports on 127.0.0.1.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Signal, getrlimit};

use super::guest::Guest;
use super::home::{Home, put_back_after_the_dead};
use super::log::Log;
use super::network::Owner;
use super::procfs::{self, Process};
use super::service::Service;
use super::{cgroup, http, image, packages};
use crate::failure::{Doing, Failure, Outcome};
use crate::workspace;

/// The group of all containers, which Podman names so without asking.
const GROUP: &str = "libpod_parent";

/// The state of each container, as runc keeps it, and of each network, as aardvark-dns does.
const RUNC: &str = "/run/runc";
const DNS: &str = "/run/containers/networks/aardvark-dns";

/// Longest path of the folder: the directory of its state may have 50 bytes.
const LONGEST: usize = 50 - 5;

/// Its API by the oldest version that all services answer.
const API: &str = "/v4.0.0/libpod";

const ASK: Duration = Duration::from_secs(20);
const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);
const DIE: Duration = Duration::from_secs(10);

pub(super) struct Podman {
    /// `target/testbed/podman`.
    home: Home,
    /// The variables with its address, its folder, and its network if that is its own.
    variables: [&'static str; 3],
}

impl Podman {
    pub(super) fn below(testbed: &Path) -> Self {
        let variables = ["RUNTIDE_TEST_PODMAN", "RUNTIDE_TEST_PODMAN_DIR", "RUNTIDE_TEST_PODMAN_NET"];
        Self { home: Home::below(testbed, "podman", Owner::Podman, LONGEST), variables }
    }

    /// Of a newer Debian than the machine's may be.
    pub(super) fn newer(testbed: &Path) -> Self {
        let variables = ["RUNTIDE_TEST_PODMAN5", "RUNTIDE_TEST_PODMAN5_DIR", "RUNTIDE_TEST_PODMAN5_NET"];
        Self { home: Home::of_guest(testbed, "podman5", Owner::Podman, LONGEST), variables }
    }
}

impl Service for Podman {
    fn up(&self, install: bool) -> Outcome<()> {
        match self.home.guest() {
            Some(guest) => guest.require(install)?,
            None => packages::require(&packages::PODMAN, &packages::WANTED, install)?,
        }
        match self.service() {
            None if !self.home.is_up() && self.home.guest().is_none() => put_back_after_the_dead()?,
            Some(service) if !self.home.is_up() || !self.socket().exists() => {
                let pid = service.pid;
                return Err(Failure::refused(format_args!(
                    "this testbed's podman runs (pid {pid}), but its files are gone: cargo xtask testbed down {}",
                    self.home.name()
                )));
            }
            _ => {}
        }
        self.home.prepare()?;
        self.start()?;
        self.ensure_image()
    }

    /// Starts the service of a testbed that is up; running already is success.
    fn start(&self) -> Outcome<()> {
        self.home.must_be_up()?;
        if self.service().is_some() {
            return self.wait_until_it_answers(None);
        }
        let (out, err, log) = self.home.log()?;
        self.home.make(&["root", "run", "tmp", "networks"])?;
        let containers = self.home.write("containers.conf", &containers_conf(&self.home.folder.join("networks")))?;
        let registries = self.home.write("registries.conf", REGISTRIES)?;
        let storage = self.home.write("storage.conf", &self.storage_conf())?;
        // One that was killed leaves it behind.
        let _ = fs::remove_file(self.socket());
        let mut command = self.home.command("podman")?;
        command
            .args(self.arguments())
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", self.socket().display()))
            // The machine's own must not speak here.
            .env("CONTAINERS_CONF", containers)
            .env("CONTAINERS_REGISTRIES_CONF", registries)
            .env("CONTAINERS_STORAGE_CONF", storage)
            .env_remove("CONTAINER_HOST")
            .env_remove("CONTAINER_CONNECTION")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .current_dir("/")
            // Not in the terminal's process group: Ctrl-C is for the test run.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let mut child = command.spawn().doing("cannot run podman")?;
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
        let was_up = self.home.is_up();
        if !was_up && self.service().is_none() && self.monitors().is_empty() {
            self.home.remove_files()?;
            return Ok(false);
        }
        // Containers of a service that was killed are taken down by one that runs, unless its files are gone as well.
        let is_running = self.service().is_some() && self.answers();
        if is_running || self.root().exists() && was_up && self.start().is_ok() {
            self.empty();
        }
        let _ = self.end(Signal::TERM, STOP);
        self.end(Signal::KILL, DIE)?;
        let mut left = self.end_containers();
        let mounted = self.home.unmount();
        left.extend(mounted.iter().map(|mount| format!("mount {}", mount.display())));
        if cgroup::processes(GROUP).is_empty() {
            left.extend(cgroup::remove(GROUP).iter().map(|group| format!("group {}", group.display())));
        }
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

    /// One line about a service that answers.
    fn summary(&self) -> Outcome<String> {
        let Some(service) = self.service() else { return Err(Failure::failed("no service of this testbed runs")) };
        let version = self.ask("GET", "/version", &[])?.json()?;
        let version = version.get("Version").and_then(|version| version.as_str()).unwrap_or("?").to_owned();
        let running = self.ask("GET", "/containers/json", &[])?.json()?.as_array().map_or(0, Vec::len);
        Ok(format!(
            "Podman {version}, pid {}, {running} containers running, {}",
            service.pid,
            workspace::relative(&self.home.folder.join("podman.sock"))
        ))
    }

    /// The environment of the tests; empty if no service is up.
    fn environment(&self) -> BTreeMap<&'static str, String> {
        if !self.home.is_up() {
            return BTreeMap::new();
        }
        let [address, folder, network] = self.variables;
        let mut environment = BTreeMap::from([
            (address, format!("unix://{}", self.socket().display())),
            (folder, self.home.folder.display().to_string()),
            ("RUNTIDE_TEST_IMAGE", image::NAME.to_owned()),
        ]);
        environment.extend(self.home.guest().and_then(Guest::network).map(|path| (network, path)));
        environment
    }
}

impl Podman {
    fn socket(&self) -> PathBuf {
        self.home.short.join("podman.sock")
    }

    /// Its storage, by which its processes are distinguished from those of any other, also after its files are gone.
    fn root(&self) -> PathBuf {
        self.home.folder.join("root")
    }

    /// The arguments of each `podman` that is to see the same containers.
    fn arguments(&self) -> [String; 3] {
        let short = |name: &str| self.home.short.join(name).display().to_string();
        [
            format!("--root={}", self.root().display()),
            format!("--runroot={}", short("run")),
            format!("--tmpdir={}", short("tmp")),
        ]
    }

    /// The `storage.conf` that the service reads instead of the machine's.
    fn storage_conf(&self) -> String {
        let (root, run) = (self.root(), self.home.short.join("run"));
        format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            root.display(),
            run.display()
        )
    }

    fn service(&self) -> Option<Process> {
        let [root, ..] = self.arguments();
        let is_it = |process: &Process| {
            process.program().as_deref() == Some("podman")
                && process.has_argument(&root)
                && process.has_argument("service")
        };
        procfs::processes().into_iter().find(is_it)
    }

    /// The monitors of containers and of their execs, which outlive the service, and the `podman` with which they clean up.
    fn monitors(&self) -> Vec<Process> {
        let root = self.root();
        let is_ours = |process: &Process| {
            let program = process.program();
            let monitor = matches!(program.as_deref(), Some("conmon" | "podman")) && !process.has_argument("service");
            monitor && process.arguments.iter().any(|argument| Path::new(argument).starts_with(&root))
        };
        procfs::processes().into_iter().filter(is_ours).collect()
    }

    /// The ids of all containers, by their files and by their monitors.
    fn containers(&self, monitors: &[Process]) -> BTreeSet<String> {
        let files = fs::read_dir(self.root().join("overlay-containers")).into_iter().flatten().flatten();
        let by_files = files.filter_map(|entry| entry.file_name().into_string().ok());
        let by_monitor = |monitor: &Process| {
            let id = monitor.arguments.iter().skip_while(|argument| *argument != "-c").nth(1)?;
            id.to_str().map(str::to_owned)
        };
        let is_id = |id: &String| id.len() == 64 && id.chars().all(|digit| digit.is_ascii_hexdigit());
        by_files.chain(monitors.iter().filter_map(by_monitor)).filter(is_id).collect()
    }

    /// Ends the service.
    fn end(&self, signal: Signal, limit: Duration) -> Outcome<()> {
        let Some(service) = self.service() else { return Ok(()) };
        procfs::send(service.pid, signal);
        if procfs::wait_until_dead(&[service.pid], limit) {
            return Ok(());
        }
        let seconds = limit.as_secs();
        Err(Failure::failed(format_args!("podman (pid {}) still runs after {seconds} s", service.pid)))
    }

    /// Ends what the service did not end, containers and their monitors; returns what is left.
    fn end_containers(&self) -> Vec<String> {
        let mut left = Vec::new();
        // Monitors first: each would start a `podman` at the end of its container.
        let monitors = self.monitors();
        let containers = self.containers(&monitors);
        let pids: Vec<i32> = monitors.iter().map(|monitor| monitor.pid).collect();
        for pid in &pids {
            procfs::send(*pid, Signal::KILL);
        }
        if !procfs::wait_until_dead(&pids, DIE) {
            left.push("conmon".to_owned());
        }
        for group in cgroup::below(GROUP, &containers.iter().map(|id| format!("libpod-{id}")).collect()) {
            if !cgroup::kill(&group) {
                left.push(format!("processes in {group}"));
            }
        }
        for id in &containers {
            let _ = fs::remove_dir_all(Path::new(RUNC).join(id));
        }
        // One serves the networks of all; it ends by itself with the last container, unless that was killed.
        if self.home.guest().is_none() && cgroup::processes(GROUP).is_empty() {
            let is_dns = |p: &Process| p.program().as_deref() == Some("aardvark-dns") && p.shares_our_network();
            for dns in procfs::processes().into_iter().filter(is_dns) {
                procfs::send(dns.pid, Signal::KILL);
            }
            let _ = fs::remove_dir_all(DNS);
        }
        left
    }

    fn ask(&self, method: &str, target: &str, body: &[u8]) -> Outcome<http::Answer> {
        http::ask(&self.socket(), method, &format!("{API}{target}"), body, ASK)
    }

    fn answers(&self) -> bool {
        let limit = Duration::from_secs(5);
        http::ask(&self.socket(), "GET", &format!("{API}/_ping"), &[], limit).is_ok_and(|answer| answer.is_success())
    }

    fn wait_until_it_answers(&self, started: Option<(&mut Child, &Log)>) -> Outcome<()> {
        let end = Instant::now() + READY;
        let mut started = started;
        while !self.answers() {
            if let Some((child, log)) = &mut started
                && let Ok(Some(status)) = child.try_wait()
            {
                let why = log.last_line(|_| true).unwrap_or_else(|| status.to_string());
                return Err(Failure::failed(format_args!("podman does not start: {why}")));
            }
            if Instant::now() >= end {
                let seconds = READY.as_secs();
                return Err(Failure::failed(format_args!("podman does not answer after {seconds} s")));
            }
            std::thread::sleep(crate::process::TICK);
        }
        Ok(())
    }

    /// The image under the same name as Docker has it: `docker.io` is what that API adds to it here.
    fn ensure_image(&self) -> Outcome<()> {
        let name = format!("docker.io/{}", image::NAME);
        if self.ask("GET", &format!("/images/{name}/exists"), &[])?.is_success() {
            return Ok(());
        }
        let tar = image::tar(&self.home.folder.join("image"))?;
        let target = format!(
            "/images/import?reference={name}&changes=CMD%20%5B%22sh%22%5D&changes=ENV%20PATH%3D/bin\
             &message=from%20busybox-static"
        );
        let answer = self.ask("POST", &target, &tar)?;
        if answer.is_success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&answer.body);
        Err(Failure::failed(format_args!("cannot import {name}: {}", text.trim())))
    }

    /// Removes all containers, pods and networks, as far as the service does it; the rest is done without it.
    fn empty(&self) {
        const LIMIT: Duration = Duration::from_secs(60);
        let end = Instant::now() + LIMIT;
        for (list, path, id, how) in [
            ("/containers/json?all=true", "containers", "Id", "force=true&v=true&timeout=0"),
            ("/pods/json", "pods", "Id", "force=true"),
            ("/networks/json", "networks", "id", "force=true"),
        ] {
            let Ok(found) = self.ask("GET", list, &[]).and_then(|answer| answer.json()) else { continue };
            let found = found.as_array().into_iter().flatten();
            let ids = found.filter_map(|item| item.get(id)?.as_str().map(str::to_owned));
            for id in ids.take_while(|_| Instant::now() < end) {
                let _ = self.ask("DELETE", &format!("/{path}/{id}?{how}"), &[]);
            }
        }
    }
}

/// The `registries.conf` that the service reads instead of the machine's: registries of the testbed speak plain HTTP.
const REGISTRIES: &str = "\
unqualified-search-registries = [\"docker.io\"]
short-name-mode = \"permissive\"

[[registry]]
location = \"127.0.0.1\"
insecure = true
";

/// The `containers.conf` that the service reads instead of the machine's. No systemd runs here, so that neither its control groups nor
/// its journal are there.
fn containers_conf(networks: &Path) -> String {
    // Limits can only be lowered where the machine has no CAP_SYS_RESOURCE, and Podman asks for more by default.
    let most = |resource| getrlimit(resource).maximum;
    let most_pids = fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok());
    let files = most(Resource::Nofile).unwrap_or(1 << 20).min(1 << 20);
    // It lowers its own to this number.
    let processes = most(Resource::Nproc).into_iter().chain(most_pids).min().unwrap_or(1 << 15);
    format!(
        "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
         events_logfile_max_size = \"262144\"\nruntime = \"runc\"\n\n\
         [containers]\nlog_driver = \"k8s-file\"\n\
         default_ulimits = [\"nofile={files}:{files}\", \"nproc={processes}:{processes}\"]\n\n\
         [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"{}\"\n",
        networks.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_not_above_the_machines_own() {
        let text = containers_conf(Path::new("/x/networks"));
        let most = getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20).min(1 << 20);
        assert!(text.contains(&format!("nofile={most}:{most}")), "{text}");
        assert!(text.contains("network_config_dir = \"/x/networks\"\n"), "{text}");
    }
}
