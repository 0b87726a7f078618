//! A real Podman, and the objects that a test makes on it.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use runtide_conformance::{
    daemon::Daemon,
    proxy::{Endpoint as Socket, Proxy},
    report,
    testbed::Turn,
};
use runtide_core::{
    InstanceId, ListOptions, RuntimeBackend,
    manager::{
        ExecManager, InstanceSpec, LifecycleManager, LogManager, NetworkManager, ProvisionManager, RemoveOptions,
        StatsManager, VolumeManager,
    },
};
use runtide_podman::{Config, Endpoint, PodmanBackend};

/// A test's own corner of the service: everything in it has its label.
pub(crate) struct Bench {
    pub(crate) backend: PodmanBackend,
    pub(crate) prefix: String,
    socket: PathBuf,
    _turn: Turn,
}

pub(crate) const LABEL: &str = "runtide.test";

impl Bench {
    /// `None` without a service, with a line in the report.
    pub(crate) async fn new(test: &str) -> Option<Self> {
        Self::with(test, Turn::shared("podman")).await
    }

    /// As [`new`](Self::new), while no other test uses the service.
    pub(crate) async fn alone(test: &str) -> Option<Self> {
        Self::with(test, Turn::on("podman")).await
    }

    async fn with(test: &str, turn: impl Future<Output = std::io::Result<Turn>>) -> Option<Self> {
        let Ok(address) = std::env::var("RUNTIDE_TEST_PODMAN") else {
            report::skip("managers", "podman", "RUNTIDE_TEST_PODMAN is not set");
            return None;
        };
        let socket = address.strip_prefix("unix://").map(PathBuf::from);
        let socket = socket.unwrap_or_else(|| panic!("RUNTIDE_TEST_PODMAN is '{address}', expected unix://…"));
        let backend = PodmanBackend::new(Config::default().with_endpoint(Endpoint::unix(&socket))).unwrap();
        let prefix = format!("rt-{test}-{}", std::process::id());
        let bench = Self { backend, prefix, socket, _turn: turn.await.unwrap() };
        bench.clear().await;
        Some(bench)
    }

    pub(crate) fn lifecycle(&self) -> &dyn LifecycleManager {
        self.backend.lifecycle().unwrap()
    }

    pub(crate) fn provision(&self) -> &dyn ProvisionManager {
        self.backend.provision().unwrap()
    }

    pub(crate) fn logs(&self) -> &dyn LogManager {
        self.backend.logs().unwrap()
    }

    pub(crate) fn networks(&self) -> &dyn NetworkManager {
        self.backend.networks().unwrap()
    }

    pub(crate) fn volumes(&self) -> &dyn VolumeManager {
        self.backend.volumes().unwrap()
    }

    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// The service as it is seen from outside.
    pub(crate) fn daemon(&self) -> Daemon {
        Daemon::at(self.socket.clone()).below("/v4.0.0/libpod")
    }

    pub(crate) fn exec(&self) -> &dyn ExecManager {
        self.backend.exec().unwrap()
    }

    pub(crate) fn stats(&self) -> &dyn StatsManager {
        self.backend.stats().unwrap()
    }

    /// The same service behind a proxy, which breaks connections.
    pub(crate) async fn behind_a_proxy(&self) -> (Proxy, PodmanBackend) {
        let socket = std::env::temp_dir().join(format!("{}.sock", self.prefix));
        let proxy = Proxy::start(Socket::Unix(socket.clone()), Socket::Unix(self.socket.clone())).await.unwrap();
        (proxy, PodmanBackend::new(Config::default().with_endpoint(Endpoint::unix(socket))).unwrap())
    }

    /// One request, by hand: the inspection from outside.
    pub(crate) fn raw(&self, method: &str, path: &str) -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(stream, "{method} /v4.0.0/libpod{path} HTTP/1.0\r\nHost: d\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
        Ok(answer.split_off(head.ok_or(std::io::ErrorKind::UnexpectedEof)? + 4))
    }

    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_slice(&self.raw("GET", path).unwrap()).unwrap()
    }

    /// Until the container's own script has come to a point: it prints a word there.
    pub(crate) async fn says(&self, id: &InstanceId, word: &str) {
        for _ in 0..3_000 {
            let output = self.raw("GET", &format!("/containers/{id}/logs?stdout=true&stderr=true")).unwrap();
            if output.windows(word.len()).any(|window| window == word.as_bytes()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{id} never said {word}");
    }

    pub(crate) async fn create(&self, name: &str, script: &str) -> InstanceId {
        self.provision().create(&self.spec(name, script)).await.unwrap()
    }

    pub(crate) fn image() -> String {
        std::env::var("RUNTIDE_TEST_IMAGE").unwrap_or_else(|_| "runtide/busybox:latest".to_owned())
    }

    /// A container of this test that runs a shell script.
    pub(crate) fn spec(&self, name: &str, script: &str) -> InstanceSpec {
        InstanceSpec::of_image(Self::image())
            .with_name(format!("{}-{name}", self.prefix))
            .with_command(["/bin/sh", "-c", script])
            .with_label(LABEL, &self.prefix)
    }

    pub(crate) async fn run(&self, name: &str, script: &str) -> InstanceId {
        let id = self.provision().create(&self.spec(name, script)).await.unwrap();
        self.lifecycle().start(&id).await.unwrap();
        id
    }

    /// Removes the containers, networks and volumes of this test.
    pub(crate) async fn clear(&self) {
        let listed = self.backend.list_instances(ListOptions::default()).await.unwrap();
        for instance in listed.instances {
            if instance.labels.as_ref().is_some_and(|labels| labels.get(LABEL).is_some_and(|of| of == self.prefix)) {
                self.lifecycle().remove(&instance.id, RemoveOptions::default().with_kill()).await.unwrap();
            }
        }
        for network in self.networks().list().await.unwrap() {
            if network.labels.get(LABEL).is_some_and(|of| of == self.prefix) {
                self.networks().remove(&network.id).await.unwrap();
            }
        }
        for volume in self.volumes().list().await.unwrap() {
            if volume.labels.get(LABEL).is_some_and(|of| of == self.prefix) {
                self.volumes().remove(&volume.id).await.unwrap();
            }
        }
    }
}

impl Drop for Bench {
    /// Also after a panic.
    fn drop(&mut self) {
        let filter = format!("%7B%22label%22%3A%5B%22{LABEL}%3D{}%22%5D%7D", self.prefix);
        let listed = self.raw("GET", &format!("/containers/json?all=true&filters={filter}")).unwrap_or_default();
        let listed = serde_json::from_slice::<serde_json::Value>(&listed).unwrap_or_default();
        for id in listed.as_array().into_iter().flatten().filter_map(|one| one["Id"].as_str()) {
            let _ = self.raw("DELETE", &format!("/containers/{id}?force=true&volumes=true&timeout=0"));
        }
    }
}
