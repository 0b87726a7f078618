//! Daemons that are taken away and brought back, for the bench `reconnect`: each is a real one, in a private folder.

mod bus;
mod docker;
mod etcd;

use std::{
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use runtide_core::{RuntimeBackend, RuntimeEventKind, WatchOptions};
use tokio::runtime::Handle;

pub use self::{bus::SystemBus, docker::Dockerd, etcd::Etcd};

/// Pause between two probes, and so the resolution of the figures.
const PROBE: Duration = Duration::from_millis(2);

/// Longest wait for a daemon that starts.
const LONGEST_START: Duration = Duration::from_secs(60);

/// A daemon that the bench owns.
pub trait Daemon: Send + Sync {
    /// Takes it away at once; when this returns, nothing listens.
    fn kill(&self);
    /// Brings it back; returns before it answers.
    fn start(&self);
    /// One question, asked on a new connection.
    fn answers(&self) -> bool;
    /// Opens a watch, and returns the times at which it is back after an outage.
    fn returns(&self) -> mpsc::Receiver<Instant>;
}

/// Waits until the daemon answers, and returns the time of that.
pub fn until_it_answers(daemon: &dyn Daemon) -> Instant {
    let begun = Instant::now();
    while !daemon.answers() {
        assert!(begun.elapsed() < LONGEST_START, "the daemon does not answer");
        thread::sleep(PROBE);
    }
    Instant::now()
}

/// The times at which a watch says that it is back; returns once the watch has shown everything.
fn reconnections(handle: &Handle, backend: impl RuntimeBackend + 'static) -> mpsc::Receiver<Instant> {
    let (sender, receiver) = mpsc::channel();
    let mut stream = handle.block_on(backend.watch(WatchOptions::default())).unwrap();
    handle.block_on(async {
        while !matches!(stream.next().await.unwrap().unwrap().kind, RuntimeEventKind::ResyncEnd(_)) {}
    });
    handle.spawn(async move {
        let _kept = backend;
        while let Some(event) = stream.next().await {
            let is_back = matches!(event.unwrap().kind, RuntimeEventKind::BackendReconnected { .. });
            if is_back && sender.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A port that nothing listens on.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn spawn(program: &str, arguments: &[String]) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn kill(child: &mut Child) {
    let _ = child.kill(); // it may be dead already
    child.wait().unwrap();
}
