//! A real Podman, and the objects that a test makes on it.

use std::path::PathBuf;

use runtide_conformance::{daemon::Daemon, report, testbed::Turn};
use runtide_core::{
    InstanceId, ListOptions, RuntimeBackend,
    manager::{
        InstanceSpec, LifecycleManager, LogManager, NetworkManager, ProvisionManager, RemoveOptions, VolumeManager,
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
        let Ok(address) = std::env::var("RUNTIDE_TEST_PODMAN") else {
            report::skip("managers", "podman", "RUNTIDE_TEST_PODMAN is not set");
            return None;
        };
        let socket = address.strip_prefix("unix://").map(PathBuf::from);
        let socket = socket.unwrap_or_else(|| panic!("RUNTIDE_TEST_PODMAN is '{address}', expected unix://…"));
        let backend = PodmanBackend::new(Config::default().with_endpoint(Endpoint::unix(&socket))).unwrap();
        let prefix = format!("rt-{test}-{}", std::process::id());
        let bench = Self { backend, prefix, socket, _turn: Turn::shared("podman").await.unwrap() };
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
