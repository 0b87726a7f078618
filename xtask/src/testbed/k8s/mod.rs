//! Kubernetes: the real control plane of 1.20.2, a node with a real kubelet, and one that runs no containers.

mod apilib;
mod build;
mod control_plane;
mod fakelet;
mod node;
mod pki;
mod program;
mod storage;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use self::control_plane::ControlPlane;
use self::fakelet::Fake;
use self::node::Node;
use self::storage::Storage;
use super::https::Body;
use super::service::Service;
use super::{folder, packages, ports};
use crate::failure::{Doing, Failure, Outcome};

pub(super) use self::apilib::Apilib;
pub(super) use self::fakelet::{Arguments as FakeletArguments, run as run_fakelet};

/// The second user may read this namespace.
const READER: &str = "runtide-reader";

/// The ports of its programs.
struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api: u16,
    controllers: u16,
    scheduler: u16,
    kubelet: u16,
    fakelet: u16,
}

impl Ports {
    const COUNT: usize = 7;

    fn of(ports: [u16; Self::COUNT]) -> Self {
        let [etcd, etcd_peer, api, controllers, scheduler, kubelet, fakelet] = ports;
        Self { etcd, etcd_peer, api, controllers, scheduler, kubelet, fakelet }
    }
}

/// The cluster: the verbs are about its API server.
pub(super) struct K8s {
    /// `target/testbed/k8s`.
    folder: PathBuf,
}

impl K8s {
    pub(super) fn below(testbed: &Path) -> Self {
        Self { folder: testbed.join("k8s") }
    }

    fn ports(&self) -> Option<Ports> {
        ports::read(&self.folder).map(Ports::of)
    }

    fn must_be_up(&self) -> Outcome<Ports> {
        let missing = || Failure::refused("the testbed's k8s is not up: cargo xtask testbed up k8s");
        self.ports().ok_or_else(missing)
    }

    fn plane(&self) -> ControlPlane {
        ControlPlane::below(&self.folder)
    }

    fn node(&self) -> Node {
        Node::below(&self.folder)
    }

    fn fake(&self) -> Fake {
        Fake::below(&self.folder)
    }

    fn programs() -> Outcome<PathBuf> {
        build::found().ok_or_else(|| Failure::failed("the programs of this testbed are gone from the cache"))
    }

    fn kubeconfig(&self, name: &str) -> String {
        self.folder.join(format!("{name}.kubeconfig")).display().to_string()
    }
}

impl Service for K8s {
    fn build(&self, install: bool) -> Outcome<()> {
        packages::require(&packages::K8S, &[], install)?;
        build::ensure().map(drop)
    }

    fn up(&self, install: bool) -> Outcome<()> {
        self.build(install)?;
        if self.ports().is_none() {
            self.down()?;
            fs::create_dir_all(&self.folder).doing(format_args!("cannot make {}", self.folder.display()))?;
            let ports = Ports::of(ports::take(&self.folder)?);
            pki::make(&self.folder, ports.api, READER)?;
        }
        self.start()?;
        KubeNode { cluster: Self { folder: self.folder.clone() } }.start()?;
        FakeNode { cluster: Self { folder: self.folder.clone() } }.start()
    }

    fn start(&self) -> Outcome<()> {
        let ports = self.must_be_up()?;
        self.plane().start(&Self::programs()?, &ports)?;
        self.plane().admit_reader(&ports)
    }

    fn stop(&self) -> Outcome<()> {
        self.must_be_up()?;
        self.plane().stop_api()
    }

    fn kill(&self) -> Outcome<()> {
        self.must_be_up()?;
        self.plane().api.kill()
    }

    fn pause(&self) -> Outcome<()> {
        self.plane().api.signal(Signal::STOP)
    }

    fn proceed(&self) -> Outcome<()> {
        self.plane().api.signal(Signal::CONT)
    }

    fn compact(&self) -> Outcome<()> {
        Storage::compact(&self.must_be_up()?)
    }

    fn down(&self) -> Outcome<bool> {
        let was_up = self.ports().is_some() || self.plane().runs() || self.node().runs();
        let outcome = self.fake().end().and(self.node().end()).and(self.plane().end());
        if outcome.is_ok() {
            folder::clear(&self.folder)?;
        }
        outcome.map(|()| was_up)
    }

    fn summary(&self) -> Outcome<String> {
        let ports = self.ports().ok_or_else(|| Failure::failed("it was not started"))?;
        if !self.plane().answers(&ports) {
            return Err(Failure::failed("its API server does not answer"));
        }
        let version = self.plane().admin(&ports)?.ask("GET", "/version", &Body::NONE, control_plane::ASK)?.json()?;
        let version = version.get("gitVersion").and_then(|version| version.as_str()).unwrap_or("of unknown version");
        Ok(format!("Kubernetes {version}, https://127.0.0.1:{}", ports.api))
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        let Some(ports) = self.ports() else { return BTreeMap::new() };
        BTreeMap::from([
            ("RUNTIDE_TEST_K8S", self.kubeconfig("admin")),
            ("RUNTIDE_TEST_K8S_DIR", self.folder.display().to_string()),
            ("RUNTIDE_TEST_K8S_TOKEN", self.kubeconfig("admin-token")),
            ("RUNTIDE_TEST_K8S_READER", self.kubeconfig("reader")),
            ("RUNTIDE_TEST_K8S_READER_NAMESPACE", READER.to_owned()),
            ("RUNTIDE_TEST_K8S_ETCD", format!("http://127.0.0.1:{}", ports.etcd)),
            ("RUNTIDE_TEST_K8S_IMAGE", node::NAMED.name.to_owned()),
        ])
    }
}

/// The real node: the verbs are about its kubelet and its containerd.
pub(super) struct KubeNode {
    cluster: K8s,
}

impl KubeNode {
    pub(super) fn below(testbed: &Path) -> Self {
        Self { cluster: K8s::below(testbed) }
    }
}

impl Service for KubeNode {
    fn up(&self, install: bool) -> Outcome<()> {
        self.cluster.up(install)
    }

    fn start(&self) -> Outcome<()> {
        let ports = self.cluster.must_be_up()?;
        let api = self.cluster.plane().admin(&ports)?;
        self.cluster.node().start(&K8s::programs()?, &ports, &api)
    }

    fn stop(&self) -> Outcome<()> {
        self.cluster.must_be_up()?;
        self.cluster.node().stop()
    }

    fn kill(&self) -> Outcome<()> {
        self.cluster.must_be_up()?;
        self.cluster.node().kill()
    }

    fn pause(&self) -> Outcome<()> {
        self.cluster.node().signal(Signal::STOP)
    }

    fn proceed(&self) -> Outcome<()> {
        self.cluster.node().signal(Signal::CONT)
    }

    fn down(&self) -> Outcome<bool> {
        let was_up = self.cluster.node().runs();
        self.cluster.node().end()?;
        Ok(was_up)
    }

    fn summary(&self) -> Outcome<String> {
        let ports = self.cluster.ports().ok_or_else(|| Failure::failed("it was not started"))?;
        if self.cluster.node().kubelet.pid().is_none() {
            return Err(Failure::failed("its kubelet does not run"));
        }
        if !node::is_ready(&self.cluster.plane().admin(&ports)?, node::NAME) {
            return Err(Failure::failed("it is not ready"));
        }
        Ok(format!("kubelet and containerd, node {}", node::NAME))
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        let up = self.cluster.ports().is_some() && self.cluster.node().runs();
        up.then(|| ("RUNTIDE_TEST_K8S_NODE", node::NAME.to_owned())).into_iter().collect()
    }
}

/// The node that only says that it runs pods.
pub(super) struct FakeNode {
    cluster: K8s,
}

impl FakeNode {
    pub(super) fn below(testbed: &Path) -> Self {
        Self { cluster: K8s::below(testbed) }
    }
}

impl Service for FakeNode {
    fn up(&self, install: bool) -> Outcome<()> {
        self.cluster.up(install)
    }

    fn start(&self) -> Outcome<()> {
        let ports = self.cluster.must_be_up()?;
        let api = self.cluster.plane().admin(&ports)?;
        self.cluster.fake().start(&ports, || node::is_ready(&api, fakelet::NODE))
    }

    fn stop(&self) -> Outcome<()> {
        self.cluster.must_be_up()?;
        self.cluster.fake().stop()
    }

    fn kill(&self) -> Outcome<()> {
        self.cluster.must_be_up()?;
        self.cluster.fake().end()
    }

    fn pause(&self) -> Outcome<()> {
        self.cluster.fake().signal(Signal::STOP)
    }

    fn proceed(&self) -> Outcome<()> {
        self.cluster.fake().signal(Signal::CONT)
    }

    fn down(&self) -> Outcome<bool> {
        let was_up = self.cluster.fake().runs();
        self.cluster.fake().end()?;
        Ok(was_up)
    }

    fn summary(&self) -> Outcome<String> {
        let ports = self.cluster.ports().ok_or_else(|| Failure::failed("it was not started"))?;
        if !self.cluster.fake().runs() {
            return Err(Failure::failed("it does not run"));
        }
        if !node::is_ready(&self.cluster.plane().admin(&ports)?, fakelet::NODE) {
            return Err(Failure::failed("it is not ready"));
        }
        Ok(format!("node {}", fakelet::NODE))
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        let up = self.cluster.ports().is_some() && self.cluster.fake().runs();
        up.then(|| ("RUNTIDE_TEST_K8S_FAKE", fakelet::NODE.to_owned())).into_iter().collect()
    }
}
