//! [`SystemBus`]: the system bus of a machine of the testbed's, of which `RUNTIDE_TEST_SYSTEMD` is the address.

use std::{
    process::Command,
    sync::mpsc,
    time::{Duration, Instant},
};

use runtide_systemd::{Config, SystemdBackend};
use tokio::runtime::Handle;
use zbus::connection::Builder;

use super::{Daemon, reconnections};

/// The bus; its systemd goes on while it is down.
#[derive(Debug)]
pub struct SystemBus {
    address: String,
    root: String,
    /// Process of the machine's systemd.
    pid: String,
    handle: Handle,
}

impl SystemBus {
    /// The bus of the testbed's machine; `None`: there is no testbed.
    pub fn of_testbed(handle: Handle) -> Option<Self> {
        let (address, root) =
            (std::env::var("RUNTIDE_TEST_SYSTEMD").ok()?, std::env::var("RUNTIDE_TEST_SYSTEMD_ROOT").ok()?);
        let proc = std::fs::read_link(&root).ok()?;
        let pid = proc.components().nth(2)?.as_os_str().to_str()?.to_owned();
        Some(Self { address, root, pid, handle })
    }

    fn run(&self, command: &[&str]) {
        let ran = Command::new("nsenter").args(["--all", "--target", &self.pid]).args(command).output().unwrap();
        assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Kills the bus; its socket's unit starts another one at once.
    pub fn kill_and_let_return(&self) {
        self.run(&["systemctl", "kill", "--signal=KILL", "dbus.service"]);
    }
}

impl Daemon for SystemBus {
    fn kill(&self) {
        // Killed first: a bus that is stopped in order says goodbye.
        self.run(&["sh", "-c", "systemctl kill --signal=KILL dbus.service; systemctl stop dbus.socket dbus.service"]);
        let _ = std::fs::remove_file(format!("{}/run/dbus/system_bus_socket", self.root)); // else nothing listens there
    }

    fn start(&self) {
        self.run(&["systemctl", "start", "dbus.socket"]);
    }

    /// The manager is on the bus, and answers.
    fn answers(&self) -> bool {
        let asked = async {
            let connection = Builder::address(self.address.as_str()).build().await?;
            let manager = Some("org.freedesktop.systemd1");
            let peer = Some("org.freedesktop.DBus.Peer");
            connection.call_method(manager, "/org/freedesktop/systemd1", peer, "Ping", &()).await
        };
        let answered = async { tokio::time::timeout(Duration::from_secs(5), asked).await };
        self.handle.block_on(answered).is_ok_and(|answer: zbus::Result<_>| answer.is_ok())
    }

    fn returns(&self) -> mpsc::Receiver<Instant> {
        let config = Config::system().with_address(&self.address).with_root(Some(self.root.clone().into()));
        reconnections(&self.handle, SystemdBackend::new(config).unwrap())
    }
}
