//! Two registries of images on loopback, one of which asks for a name and a password. They speak plain HTTP, which engines accept
//! of 127.0.0.0/8.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::service::Service;
use super::{folder, http, packages, ports, procfs};
use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, Interrupt};
use crate::workspace;

/// The registries, and what each answers to a client without a password.
const REGISTRIES: [(&str, u16); 2] = [("open", 200), ("locked", 401)];

const USER: &str = "runtide";

/// The file with the password, and the one by which the registry knows it.
const PASSWORD: &str = "password";
const HTPASSWD: &str = "htpasswd";

const ASK: Duration = Duration::from_secs(5);
const READY: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(20);
const DIE: Duration = Duration::from_secs(10);

pub(super) struct Registry {
    /// `target/testbed/registry`.
    folder: PathBuf,
}

impl Registry {
    pub(super) fn below(testbed: &Path) -> Self {
        Self { folder: testbed.join("registry") }
    }

    /// Their addresses, in their order, if the testbed is up.
    fn addresses(&self) -> Option<[SocketAddr; 2]> {
        ports::read::<2>(&self.folder).map(|ports| ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
    }

    fn must_be_up(&self) -> Outcome<[SocketAddr; 2]> {
        let missing = || Failure::refused("the testbed's registry is not up: cargo xtask testbed up registry");
        self.addresses().ok_or_else(missing)
    }

    /// The argument that distinguishes a registry of ours from any other.
    fn config(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    fn pid(&self, name: &str) -> Option<i32> {
        let config = self.config(name).display().to_string();
        let ours = |p: &procfs::Process| p.program().as_deref() == Some("docker-registry") && p.has_argument(&config);
        procfs::processes().into_iter().find(ours).map(|process| process.pid)
    }

    /// Makes the password. Its Base64 differs between the two alphabets, which clients mix up.
    fn furnish(&self) -> Outcome<()> {
        let random = fs::read_to_string("/proc/sys/kernel/random/uuid").doing("cannot make a password")?;
        let password = format!("abc>>>def?{}", random.trim());
        let mut htpasswd = packages::command("htpasswd");
        // At the lowest cost: it is checked at each request.
        htpasswd.args(["-n", "-b", "-B", "-C", "4", USER, &password]);
        let said = process::capture(&mut htpasswd, ASK, Interrupt::Waits)?;
        if !said.status.success() {
            return Err(Failure::failed(format_args!("htpasswd: {}", said.complaint())));
        }
        for (name, text) in [(HTPASSWD, said.stdout.trim()), (PASSWORD, &password)] {
            let path = self.folder.join(name);
            fs::write(&path, text).doing(format_args!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn run(&self, name: &str, at: SocketAddr) -> Outcome<()> {
        if self.pid(name).is_some() {
            return Ok(());
        }
        let mut settings = json!({
            "version": 0.1,
            "storage": {
                "filesystem": { "rootdirectory": self.folder.join(name) },
                "cache": { "blobdescriptor": "inmemory" },
                "delete": { "enabled": true },
            },
            "http": { "addr": at.to_string(), "secret": "of a testbed on loopback" },
        });
        if name == "locked"
            && let Some(settings) = settings.as_object_mut()
        {
            let path = self.folder.join(HTPASSWD);
            settings.insert("auth".to_owned(), json!({ "htpasswd": { "realm": "testbed", "path": path } }));
        }
        let config = self.config(name);
        fs::write(&config, settings.to_string()).doing(format_args!("cannot write {}", config.display()))?;
        let log = self.folder.join(format!("{name}.log"));
        let out = OpenOptions::new().create(true).append(true).open(&log);
        let out = out.doing(format_args!("cannot write {}", log.display()))?;
        let err = out.try_clone().doing(format_args!("cannot write {}", log.display()))?;
        packages::command("docker-registry")
            .arg("serve")
            .arg(config)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .current_dir("/")
            // Not in the terminal's process group: Ctrl-C is for the test run.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map(drop)
            .doing("cannot run docker-registry")
    }

    fn run_all(&self) -> Outcome<()> {
        let addresses = self.must_be_up()?;
        for ((name, _), at) in REGISTRIES.into_iter().zip(addresses) {
            self.run(name, at)?;
        }
        for ((name, answer), at) in REGISTRIES.into_iter().zip(addresses) {
            if !procfs::wait_until(READY, || is_well(at, answer)) {
                let log = workspace::relative(&self.folder.join(format!("{name}.log")));
                let seconds = READY.as_secs();
                return Err(Failure::failed(format_args!("registry does not answer after {seconds} s: see {log}")));
            }
        }
        Ok(())
    }

    fn end(&self, signal: Signal, limit: Duration) -> Outcome<()> {
        let pids: Vec<i32> = REGISTRIES.iter().filter_map(|(name, _)| self.pid(name)).collect();
        for pid in &pids {
            procfs::send(*pid, signal);
        }
        if procfs::wait_until_dead(&pids, limit) {
            return Ok(());
        }
        let seconds = limit.as_secs();
        Err(Failure::failed(format_args!("a registry still runs after {seconds} s")))
    }
}

fn is_well(at: SocketAddr, expected: u16) -> bool {
    http::ask_at(at, "GET", "/v2/", ASK).is_ok_and(|answer| answer.status == expected)
}

impl Service for Registry {
    fn up(&self, install: bool) -> Outcome<()> {
        packages::require(&packages::REGISTRY, &[], install)?;
        if self.addresses().is_none() {
            self.end(Signal::KILL, DIE)?;
            folder::clear(&self.folder)?;
            fs::create_dir_all(&self.folder).doing(format_args!("cannot make {}", self.folder.display()))?;
            self.furnish()?;
            ports::take::<2>(&self.folder)?;
        }
        self.run_all()
    }

    fn start(&self) -> Outcome<()> {
        self.run_all()
    }

    fn stop(&self) -> Outcome<()> {
        self.must_be_up()?;
        self.end(Signal::TERM, STOP)
    }

    fn kill(&self) -> Outcome<()> {
        self.must_be_up()?;
        self.end(Signal::KILL, DIE)
    }

    fn down(&self) -> Outcome<bool> {
        let was_up = self.addresses().is_some() || REGISTRIES.iter().any(|(name, _)| self.pid(name).is_some());
        self.end(Signal::KILL, DIE)?;
        folder::clear(&self.folder)?;
        Ok(was_up)
    }

    fn summary(&self) -> Outcome<String> {
        let addresses = self.addresses().ok_or_else(|| Failure::failed("it was not started"))?;
        for ((name, answer), at) in REGISTRIES.into_iter().zip(addresses) {
            if !is_well(at, answer) {
                return Err(Failure::failed(format_args!("the {name} registry at {at} does not answer")));
            }
        }
        let [open, locked] = addresses;
        Ok(format!("registries at {open} and, with a password, at {locked}"))
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        let Some([open, locked]) = self.addresses() else { return BTreeMap::new() };
        let password = fs::read_to_string(self.folder.join(PASSWORD)).unwrap_or_default();
        BTreeMap::from([
            ("RUNTIDE_TEST_REGISTRY", open.to_string()),
            ("RUNTIDE_TEST_REGISTRY_AUTH", locked.to_string()),
            ("RUNTIDE_TEST_REGISTRY_PASSWORD", password),
        ])
    }
}
