//! A present-day API server, made of Kubernetes' own libraries, with a node as that of the real control plane. What is real of it, and
//! what is made here, is said at the top of `main.go`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::super::https::{Body, Server};
use super::super::service::Service;
use super::super::{folder, packages, ports};
use super::control_plane::create;
use super::node::{self, Node};
use super::program::Program;
use super::storage::Storage;
use super::{Ports, READER, build, pki};
use crate::failure::{Doing, Failure, Outcome};

const ASK: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(5);

/// Namespaces that controllers would make.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-node-lease", READER];

/// The cluster: the verbs are about its API server.
pub(in super::super) struct Apilib {
    /// `target/testbed/k8s-libs`.
    folder: PathBuf,
    storage: Storage,
    api: Program,
}

impl Apilib {
    pub(in super::super) fn below(testbed: &Path) -> Self {
        let folder = testbed.join("k8s-libs");
        let api = Program::new(&folder, "k8s-apilib", format!("--pki={}", folder.join("pki").display()));
        Self { storage: Storage::below(&folder), api, folder }
    }

    fn ports(&self) -> Option<Ports> {
        ports::read(&self.folder).map(Ports::of)
    }

    fn must_be_up(&self) -> Outcome<Ports> {
        let missing = || Failure::refused("the testbed's k8s-libs is not up: cargo xtask testbed up k8s-libs");
        self.ports().ok_or_else(missing)
    }

    fn node(&self) -> Node {
        Node::below(&self.folder)
    }

    fn admin(&self, ports: &Ports) -> Outcome<Server> {
        Server::at(ports.api, &self.folder.join("pki"), "admin")
    }

    fn answers(&self, ports: &Ports) -> bool {
        let answer = self.admin(ports).and_then(|admin| admin.ask("GET", "/readyz", &Body::NONE, ASK));
        answer.is_ok_and(|answer| answer.is_success())
    }

    fn kubeconfig(&self, name: &str) -> String {
        self.folder.join(format!("{name}.kubeconfig")).display().to_string()
    }
}

impl Service for Apilib {
    fn build(&self, install: bool) -> Outcome<()> {
        packages::require(&packages::K8S, &[], install)?;
        build::ensure()?;
        build::ensure_libraries().map(drop)
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
        let ports = self.must_be_up()?;
        self.node().start(&build::ensure()?, &ports, &self.admin(&ports)?)
    }

    fn start(&self) -> Outcome<()> {
        let ports = self.must_be_up()?;
        let gone = || Failure::failed("the programs of this testbed are gone from the cache");
        let programs = build::found_libraries().ok_or_else(gone)?;
        self.storage.start(Command::new(programs.join("etcd")), &ports)?;
        let mut command = Command::new(programs.join("k8s-apilib"));
        command
            .arg(format!("--secure-port={}", ports.api))
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd))
            .arg(format!("--default-node={}", node::NAME))
            .arg(format!("--allow=reader={READER}"));
        self.api.start(&mut command)?.until(READY, || self.answers(&ports))?;
        let admin = self.admin(&ports)?;
        let namespace =
            |name| create(&admin, "/api/v1/namespaces", name, json!({ "kind": "Namespace", "apiVersion": "v1" }));
        NAMESPACES.into_iter().try_for_each(namespace)
    }

    fn stop(&self) -> Outcome<()> {
        self.must_be_up()?;
        if self.api.end(Signal::TERM, STOP) { Ok(()) } else { self.api.kill() }
    }

    fn kill(&self) -> Outcome<()> {
        self.must_be_up()?;
        self.api.kill()
    }

    fn pause(&self) -> Outcome<()> {
        self.api.signal(Signal::STOP)
    }

    fn proceed(&self) -> Outcome<()> {
        self.api.signal(Signal::CONT)
    }

    fn compact(&self) -> Outcome<()> {
        Storage::compact(&self.must_be_up()?)
    }

    fn down(&self) -> Outcome<bool> {
        let was_up = self.ports().is_some() || self.api.pid().is_some() || self.node().runs();
        let outcome = self.node().end().and(self.api.kill()).and(self.storage.etcd.kill());
        if outcome.is_ok() {
            folder::clear(&self.folder)?;
        }
        outcome.map(|()| was_up)
    }

    fn summary(&self) -> Outcome<String> {
        let ports = self.ports().ok_or_else(|| Failure::failed("it was not started"))?;
        if !self.answers(&ports) {
            return Err(Failure::failed("its API server does not answer"));
        }
        let admin = self.admin(&ports)?;
        if !node::is_ready(&admin, node::NAME) {
            return Err(Failure::failed("its node is not ready"));
        }
        let version = admin.ask("GET", "/version", &Body::NONE, ASK)?.json()?;
        let version = version.get("gitVersion").and_then(|version| version.as_str()).unwrap_or("of unknown version");
        Ok(format!("libraries of Kubernetes {version}, https://127.0.0.1:{}", ports.api))
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        let Some(ports) = self.ports() else { return BTreeMap::new() };
        BTreeMap::from([
            ("RUNTIDE_TEST_K8S_LIBS", self.kubeconfig("admin")),
            ("RUNTIDE_TEST_K8S_LIBS_DIR", self.folder.display().to_string()),
            ("RUNTIDE_TEST_K8S_LIBS_TOKEN", self.kubeconfig("admin-token")),
            ("RUNTIDE_TEST_K8S_LIBS_READER", self.kubeconfig("reader")),
            ("RUNTIDE_TEST_K8S_LIBS_READER_NAMESPACE", READER.to_owned()),
            ("RUNTIDE_TEST_K8S_LIBS_ETCD", format!("http://127.0.0.1:{}", ports.etcd)),
            ("RUNTIDE_TEST_K8S_LIBS_IMAGE", node::NAMED.name.to_owned()),
            ("RUNTIDE_TEST_K8S_LIBS_NODE", node::NAME.to_owned()),
        ])
    }
}
