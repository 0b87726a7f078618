//! [`Etcd`]: one member.

use std::{
    process::Child,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use runtide_core::store::{Document, Precondition, ResourceRef, Selector, StoreBackend, StoreEvent, StoreWatchOptions};
use runtide_etcd::{Config, EtcdStore};
use tokio::runtime::Handle;

use super::{Daemon, free_port, kill, spawn};

/// One member on a port.
#[derive(Debug)]
pub struct Etcd {
    folder: tempfile::TempDir,
    client: u16,
    peer: u16,
    child: Mutex<Option<Child>>,
    handle: Handle,
    written: AtomicU64,
}

impl Etcd {
    /// A member that is starting.
    pub fn up(handle: Handle) -> Self {
        let folder = tempfile::Builder::new().prefix("runtide-reconnect-").tempdir().unwrap();
        let (client, peer) = (free_port(), free_port());
        let member = Self { folder, client, peer, child: Mutex::default(), handle, written: AtomicU64::new(0) };
        member.start();
        member
    }

    fn store(&self, limit: Duration) -> EtcdStore {
        let config = Config::default().with_endpoints([format!("127.0.0.1:{}", self.client)]);
        EtcdStore::new(config.with_request_timeout(limit)).unwrap()
    }
}

impl Daemon for Etcd {
    fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            kill(&mut child);
        }
    }

    fn start(&self) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let arguments = [
            "--name=one".to_owned(),
            format!("--data-dir={}", self.folder.path().join("data").display()),
            format!("--initial-cluster=one={}", url(self.peer)),
            format!("--listen-client-urls={}", url(self.client)),
            format!("--advertise-client-urls={}", url(self.client)),
            format!("--listen-peer-urls={}", url(self.peer)),
            format!("--initial-advertise-peer-urls={}", url(self.peer)),
        ];
        *self.child.lock().unwrap() = Some(spawn("etcd", &arguments));
    }

    /// Writes: only a member with a leader answers that, and the watch has something to show.
    fn answers(&self) -> bool {
        let store = self.store(Duration::from_millis(500));
        let reference = ResourceRef::new("bench", "Probe", None, "probe").unwrap();
        let body = format!("{{\"n\":{}}}", self.written.fetch_add(1, Ordering::Relaxed));
        self.handle.block_on(store.apply(&reference, Document::json(body), Precondition::None)).is_ok()
    }

    fn returns(&self) -> mpsc::Receiver<Instant> {
        let store = self.store(Duration::from_secs(15));
        let (sender, receiver) = mpsc::channel();
        let mut stream = self.handle.block_on(store.watch(&Selector::all(), StoreWatchOptions::default())).unwrap();
        self.handle.spawn(async move {
            while let Some(event) = stream.next().await {
                let is_change = matches!(event.unwrap(), StoreEvent::Added(_) | StoreEvent::Modified(_));
                if is_change && sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
