//! The control plane on loopback: etcd, the API server, the controller manager and the scheduler.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::super::https::{Body, Server};
use super::super::{packages, procfs};
use super::program::Program;
use super::storage::Storage;
use super::{Ports, READER};
use crate::failure::{Failure, Outcome};

pub(super) const ASK: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(120);

/// Between SIGTERM and SIGKILL: the API server would wait a minute for watches to end.
const STOP: Duration = Duration::from_secs(5);

pub(super) struct ControlPlane {
    folder: PathBuf,
    storage: Storage,
    pub(super) api: Program,
    controllers: Program,
    scheduler: Program,
}

impl ControlPlane {
    pub(super) fn below(folder: &Path) -> Self {
        let program = |name, option: &str, file: &str| {
            Program::new(folder, name, format!("{option}={}", folder.join(file).display()))
        };
        Self {
            folder: folder.to_owned(),
            storage: Storage::below(folder),
            api: program("kube-apiserver", "--tls-cert-file", "pki/apiserver.crt"),
            controllers: program("kube-controller-manager", "--kubeconfig", "controller-manager.kubeconfig"),
            scheduler: program("kube-scheduler", "--kubeconfig", "scheduler.kubeconfig"),
        }
    }

    fn all(&self) -> [&Program; 4] {
        [&self.scheduler, &self.controllers, &self.api, &self.storage.etcd]
    }

    pub(super) fn runs(&self) -> bool {
        self.all().iter().any(|program| program.pid().is_some())
    }

    /// Starts those that do not run, and waits until the API server and the controllers work.
    pub(super) fn start(&self, programs: &Path, ports: &Ports) -> Outcome<()> {
        self.storage.start(packages::command("etcd"), ports)?;
        let api = self.api.start(&mut self.api_server(programs, ports))?;
        api.until(READY, || self.answers(ports))?;
        let controllers = self.controllers.start(&mut self.controller_manager(programs, ports))?;
        let scheduler = self.scheduler.start(&mut self.kube_scheduler(programs, ports))?;
        let server = self.admin(ports)?;
        // The API server refuses pods of a namespace until the controllers have made its account and the account's token.
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        let has_token = || {
            let answer = server.ask("GET", account, &Body::NONE, ASK).and_then(|answer| answer.json());
            answer.is_ok_and(|account| account.pointer("/secrets/0").is_some())
        };
        controllers.until(READY, has_token)?;
        scheduler.until(READY, || self.scheduler.pid().is_some())
    }

    fn api_server(&self, programs: &Path, ports: &Ports) -> Command {
        let mut command = Command::new(programs.join("kube-apiserver"));
        for (option, file) in [
            ("tls-private-key-file", "apiserver.key"),
            ("client-ca-file", "ca.crt"),
            ("token-auth-file", "tokens.csv"),
            ("service-account-key-file", "sa.pub"),
            ("service-account-signing-key-file", "sa.key"),
            ("kubelet-client-certificate", "kubelet-client.crt"),
            ("kubelet-client-key", "kubelet-client.key"),
            ("kubelet-certificate-authority", "ca.crt"),
        ] {
            command.arg(format!("--{option}={}", self.folder.join("pki").join(file).display()));
        }
        command
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd))
            .arg(format!("--secure-port={}", ports.api))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"])
            .args(["--authorization-mode=Node,RBAC", "--service-account-issuer=https://kubernetes.default.svc"])
            .args(["--service-cluster-ip-range=10.96.0.0/24", "--allow-privileged=true", "--profiling=false"])
            .arg("--kubelet-preferred-address-types=InternalIP,Hostname");
        command
    }

    /// The part that the controller manager and the scheduler have in common.
    fn client(&self, programs: &Path, program: &str, name: &str, port: u16) -> Command {
        let kubeconfig = self.folder.join(format!("{name}.kubeconfig"));
        let mut command = Command::new(programs.join(program));
        for option in ["authentication-kubeconfig", "authorization-kubeconfig"] {
            command.arg(format!("--{option}={}", kubeconfig.display()));
        }
        command
            .args(["--bind-address=127.0.0.1", "--port=0", "--leader-elect=false", "--profiling=false"])
            .arg(format!("--secure-port={port}"));
        command
    }

    fn controller_manager(&self, programs: &Path, ports: &Ports) -> Command {
        let mut command = self.client(programs, "kube-controller-manager", "controller-manager", ports.controllers);
        let file = |option: &str, file: &str| format!("--{option}={}", self.folder.join(file).display());
        command
            .arg(file("service-account-private-key-file", "pki/sa.key"))
            .arg(file("root-ca-file", "pki/ca.crt"))
            .arg(file("flex-volume-plugin-dir", "plugins"))
            // Half of what is usual, so that tests can see a lost node and its evicted pods.
            .args(["--node-monitor-grace-period=20s", "--pod-eviction-timeout=20s"])
            .args(["--use-service-account-credentials=true", "--concurrent-gc-syncs=2"]);
        command
    }

    fn kube_scheduler(&self, programs: &Path, ports: &Ports) -> Command {
        self.client(programs, "kube-scheduler", "scheduler", ports.scheduler)
    }

    /// The API server, asked by the user that may do all.
    pub(super) fn admin(&self, ports: &Ports) -> Outcome<Server> {
        Server::at(ports.api, &self.folder.join("pki"), "admin")
    }

    pub(super) fn answers(&self, ports: &Ports) -> bool {
        let answer = self.admin(ports).and_then(|admin| admin.ask("GET", "/readyz", &Body::NONE, ASK));
        answer.is_ok_and(|answer| answer.is_success())
    }

    /// The second user's namespace, with the right to read it and nothing else.
    pub(super) fn admit_reader(&self, ports: &Ports) -> Outcome<()> {
        let server = self.admin(ports)?;
        let rules = [json!({ "apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"] })];
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": READER });
        let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader" });
        let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{READER}");
        for (target, object) in [
            ("/api/v1/namespaces".to_owned(), json!({ "kind": "Namespace", "apiVersion": "v1" })),
            (format!("{rbac}/roles"), json!({ "rules": rules })),
            (format!("{rbac}/rolebindings"), json!({ "roleRef": role, "subjects": [subject] })),
        ] {
            create(&server, &target, READER, object)?;
        }
        Ok(())
    }

    pub(super) fn stop_api(&self) -> Outcome<()> {
        if self.api.end(Signal::TERM, STOP) { Ok(()) } else { self.api.kill() }
    }

    /// Ends all of it at once.
    pub(super) fn end(&self) -> Outcome<()> {
        let pids: Vec<i32> = self.all().iter().filter_map(|program| program.pid()).collect();
        for pid in &pids {
            procfs::send(*pid, Signal::KILL);
        }
        self.all().iter().try_for_each(|program| program.kill())
    }
}

/// Creates an object; there already is success.
pub(super) fn create(server: &Server, target: &str, name: &str, mut object: serde_json::Value) -> Outcome<()> {
    if let Some(object) = object.as_object_mut() {
        object.insert("metadata".to_owned(), json!({ "name": name }));
    }
    let text = object.to_string();
    let body = Body { kind: "application/json", bytes: text.as_bytes() };
    let answer = server.ask("POST", target, &body, ASK)?;
    if answer.is_success() || answer.status == 409 {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&answer.body);
    Err(Failure::failed(format_args!("POST {target}: {} {text}", answer.status)))
}
