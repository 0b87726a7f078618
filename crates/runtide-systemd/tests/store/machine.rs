//! A machine that systemd runs, and a part of its folder of units for each test.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use runtide_conformance::testbed::Turn;
use runtide_systemd::{Config, UnitStoreConfig, Verify};

/// Folder of units that do not outlive the machine.
pub const FOLDER: &str = "/run/systemd/system";

/// A machine of the testbed.
#[derive(Clone, Debug)]
pub struct Machine {
    pub address: String,
    /// Root of its file system, as seen from here.
    pub root: PathBuf,
    /// Its name in the testbed.
    daemon: &'static str,
    /// Shared by all values made of this machine, so that it is released after their cleanup.
    _turn: Option<Arc<Turn>>,
}

impl Machine {
    /// The second machine if there is one, so that the tests of running units are not disturbed.
    pub fn named() -> Result<Self, &'static str> {
        let named = |daemon: &'static str, address: &str, root: &str| {
            let (address, root) = (std::env::var(address).ok()?, std::env::var_os(root)?.into());
            Some(Self { address, root, daemon, _turn: None })
        };
        named("systemd2", "RUNTIDE_TEST_SYSTEMD2", "RUNTIDE_TEST_SYSTEMD2_ROOT")
            .or_else(|| named("systemd", "RUNTIDE_TEST_SYSTEMD", "RUNTIDE_TEST_SYSTEMD_ROOT"))
            .ok_or("RUNTIDE_TEST_SYSTEMD and RUNTIDE_TEST_SYSTEMD_ROOT are not set: cargo xtask testbed up systemd")
    }

    /// Waits until no test has it alone.
    pub async fn shared(self) -> Self {
        let turn = Turn::shared(self.daemon).await.unwrap();
        Self { _turn: Some(Arc::new(turn)), ..self }
    }

    /// For a test that is no law, and disturbs no other: without a machine it reports that it is skipped, and why.
    pub async fn shared_or_skip() -> Option<Self> {
        Some(Self::or_skip()?.shared().await)
    }

    /// For a test that takes the machine away: waits until no other test uses it.
    pub async fn alone_or_skip() -> Option<Self> {
        let machine = Self::or_skip()?;
        let turn = Turn::on(machine.daemon).await.unwrap();
        Some(Self { _turn: Some(Arc::new(turn)), ..machine })
    }

    fn or_skip() -> Option<Self> {
        let skip = |why| runtide_conformance::report::skip("store_units", "systemd", why);
        Self::named().map_err(skip).ok()
    }

    pub fn config(&self) -> Config {
        Config::system().with_address(self.address.clone()).with_root(self.root.clone())
    }

    /// Runs a test of this program with the machine's root, and fails if it fails.
    pub fn runs_there(&self, test: &str) {
        // The root of some process of the machine.
        let root = std::fs::read_link(&self.root).unwrap();
        let of = |kind: &str| root.parent().unwrap().join("ns").join(kind).display().to_string();
        let address = self.address.replace(&*self.root.to_string_lossy(), "");
        let run = Command::new("nsenter")
            .args([format!("--mount={}", of("mnt")), format!("--pid={}", of("pid"))])
            // By a descriptor: the machine has its own `/tmp`, where this program may be.
            .arg("/proc/self/fd/0")
            .args(["--exact", test, "--nocapture"])
            .stdin(std::fs::File::open(std::env::current_exe().unwrap()).unwrap())
            .env("RUNTIDE_TEST_SYSTEMD2", address)
            .env("RUNTIDE_TEST_SYSTEMD2_ROOT", "/")
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{output}{}", String::from_utf8_lossy(&run.stderr));
        assert!(output.contains("1 passed"), "{output}");
    }

    /// A part of the folder for one test.
    pub fn part(&self) -> Part {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Part { machine: self.clone(), prefix: format!("rt{}x{number}-", std::process::id()) }
    }

    /// Calls the manager as a separate program would; returns its answer in the format of busctl.
    pub fn busctl(&self, arguments: &[&str]) -> String {
        let output = Command::new("busctl")
            .args([&format!("--address={}", self.address), "--timeout=60"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn call(&self, method: &str, signature: &str, arguments: &[&str]) -> String {
        let manager =
            ["call", SYSTEMD, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", method, signature];
        self.busctl(&[&manager, arguments].concat())
    }

    /// Starts a unit, and returns when it is active.
    pub fn start(&self, unit: &str) {
        self.call("StartUnit", "ss", &[unit, "replace"]);
        let end = Instant::now() + Duration::from_secs(60);
        // The answer comes when the start is queued.
        while self.property(unit, "ActiveState") != "active" {
            assert!(Instant::now() < end, "{unit} does not start");
        }
    }

    pub fn version(&self) -> String {
        let manager = "org.freedesktop.systemd1.Manager";
        let output = self.busctl(&["get-property", SYSTEMD, "/org/freedesktop/systemd1", manager, "Version"]);
        output.trim_start_matches("s ").trim_matches('"').to_owned()
    }

    /// A property of a unit, without its type.
    pub fn property(&self, unit: &str, property: &str) -> String {
        let loaded = self.call("LoadUnit", "s", &[unit]);
        let path = loaded.trim_start_matches("o ").trim_matches('"');
        let output = self.busctl(&["get-property", SYSTEMD, path, "org.freedesktop.systemd1.Unit", property]);
        output.split_once(' ').unwrap().1.trim_matches('"').to_owned()
    }
}

const SYSTEMD: &str = "org.freedesktop.systemd1";

/// A part of a machine's folder of units, which is removed with it.
#[derive(Debug)]
pub struct Part {
    pub machine: Machine,
    pub prefix: String,
}

impl Part {
    pub fn config(&self) -> UnitStoreConfig {
        UnitStoreConfig::new(self.machine.config(), FOLDER)
            .with_prefix(self.prefix.clone())
            .with_verify(Verify::Off)
            .with_poll(Duration::from_millis(500))
    }

    pub fn folder(&self) -> PathBuf {
        self.machine.root.join(FOLDER.trim_start_matches('/'))
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder().join(file)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        for folder in [self.folder(), self.machine.root.join("run/systemd/system.runtide")] {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().trim_start_matches("units-").starts_with(&self.prefix) {
                    remove(&entry.path());
                }
            }
        }
    }
}

fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_dir_all(path);
}
