//! A service that is started by the first connection to its socket and ends when it has been idle, as systemd's `podman.socket` runs
//! it (trap P3).

use std::{
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use runtide_core::{Change, ListOptions, RuntimeBackend, RuntimeBackendExt, WatchOptions};
use runtide_podman::{Config, Endpoint, PodmanBackend};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{process::Command, sync::watch, task::JoinHandle};

use crate::bench::Bench;

/// Hands the listener, which is its standard input, to the service as systemd does. Its storage is the testbed's.
const SCRIPT: &str = r#"
exec 3<&0 0</dev/null
export LISTEN_FDS=1 LISTEN_PID=$$
exec podman "--root=$1/root" "--runroot=$2/run" "--tmpdir=$2/tmp" system service --time=1
"#;

/// Services that the socket started, and how many of them have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Services {
    started: usize,
    ended: usize,
}

/// A socket that starts the service.
struct Activation {
    socket: PathBuf,
    services: watch::Receiver<Services>,
    /// Ends the services up to this number.
    end: watch::Sender<usize>,
    task: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Drop for Activation {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection waits to be accepted.
fn has_caller(listener: &UnixListener) -> bool {
    poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&Timespec::default())).unwrap() > 0
}

impl Activation {
    /// On the storage of the testbed's Podman.
    fn new() -> Self {
        let files =
            PathBuf::from(std::env::var_os("RUNTIDE_TEST_PODMAN_DIR").expect("the testbed says where its Podman is"));
        let address = std::env::var("RUNTIDE_TEST_PODMAN").unwrap();
        let short = Path::new(address.strip_prefix("unix://").unwrap()).parent().unwrap().to_owned();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("podman.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (count, services) = watch::channel(Services::default());
        let (end, mut ending) = watch::channel(0);
        let task = tokio::spawn(async move {
            loop {
                // It is left to the service to accept the connection.
                while !has_caller(&listener) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                let passed: OwnedFd = listener.try_clone().unwrap().into();
                let mut service = Command::new("sh")
                    .args(["-c", SCRIPT, "sh"])
                    .args([&files, &short])
                    .env("CONTAINERS_CONF", files.join("containers.conf"))
                    .env("CONTAINERS_STORAGE_CONF", files.join("storage.conf"))
                    .env("CONTAINERS_REGISTRIES_CONF", files.join("registries.conf"))
                    .env_remove("CONTAINER_HOST")
                    .env_remove("NOTIFY_SOCKET")
                    .stdin(Stdio::from(passed))
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .kill_on_drop(true)
                    .spawn()
                    .unwrap();
                count.send_modify(|services| services.started += 1);
                let number = count.borrow().started;
                let must_end = tokio::select! {
                    _ = service.wait() => false,
                    asked = ending.wait_for(|end| *end >= number) => asked.is_ok(),
                };
                if must_end {
                    service.kill().await.unwrap();
                }
                count.send_modify(|services| services.ended += 1);
            }
        });
        Self { socket, services, end, task, _folder: folder }
    }

    fn backend(&self) -> PodmanBackend {
        let config = Config::default().with_endpoint(Endpoint::unix(&self.socket));
        PodmanBackend::new(config.with_deadline(Duration::from_secs(60))).unwrap()
    }

    async fn until(&mut self, wanted: Services) {
        let reached = self.services.wait_for(|now| *now == wanted);
        let is_reached = tokio::time::timeout(Duration::from_secs(120), reached).await.is_ok();
        assert!(is_reached, "{:?} in place of {wanted:?}", *self.services.borrow());
    }
}

#[tokio::test]
async fn a_service_that_idles_out_is_started_again_and_the_watch_goes_on() {
    let Some(bench) = Bench::new("activated").await else { return };
    let id = bench.run("sleeper", "sleep 100000").await;
    let mut activation = Activation::new();
    let backend = activation.backend();
    // A connection that is kept for the next call is not idle: it ends with its backend.
    backend.list_instances(ListOptions::default()).await.unwrap();
    backend.close().await.unwrap();
    activation.until(Services { started: 1, ended: 1 }).await;

    let backend = activation.backend();
    let mut changes = backend.transitions(WatchOptions::default()).await.unwrap();
    let mut next = async || {
        let next = tokio::time::timeout(Duration::from_secs(120), changes.next()).await;
        next.expect("nothing comes any more").unwrap().unwrap()
    };
    while !matches!(next().await, Change::Synced { .. }) {}
    activation.until(Services { started: 2, ended: 1 }).await;
    activation.end.send(2).unwrap();
    activation.until(Services { started: 3, ended: 2 }).await;
    bench.lifecycle().pause(&id).await.unwrap();
    let mut lines = Vec::new();
    loop {
        let line = next().await.to_string();
        let is_it = line.contains(&format!("{}-sleeper is paused", bench.prefix));
        lines.push(line);
        if is_it {
            break;
        }
    }
    assert!(lines.iter().any(|line| line.starts_with("! online")), "{lines:#?}");
    assert!(lines.iter().all(|line| !line.starts_with('=')), "no gap: {lines:#?}");
    backend.close().await.unwrap();
    bench.lifecycle().unpause(&id).await.unwrap();
    bench.clear().await;
}
