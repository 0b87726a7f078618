//! The etcd in which an API server keeps everything.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::super::{http, packages};
use super::Ports;
use super::program::Program;
use crate::failure::{Failure, Outcome};
use crate::process::{self, Interrupt};

const ASK: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(120);

pub(super) struct Storage {
    pub(super) etcd: Program,
}

impl Storage {
    pub(super) fn below(folder: &Path) -> Self {
        Self { etcd: Program::new(folder, "etcd", format!("--data-dir={}", folder.join("etcd").display())) }
    }

    /// Starts it, by this command, if it does not run, and waits until it answers.
    pub(super) fn start(&self, mut command: Command, ports: &Ports) -> Outcome<()> {
        let address = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = (address(ports.etcd), address(ports.etcd_peer));
        command
            .args(["--name", "k8s", "--logger", "zap", "--log-outputs", "stderr"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("k8s={peer}")]);
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.etcd));
        let answers = || http::ask_at(at, "GET", "/health", ASK).is_ok_and(|answer| answer.is_success());
        self.etcd.start(&mut command)?.until(READY, answers)
    }

    /// Drops etcd's history before this moment.
    pub(super) fn compact(ports: &Ports) -> Outcome<()> {
        let ask = |words: &[&str]| {
            let mut command = packages::command("etcdctl");
            command.env("ETCDCTL_API", "3").arg(format!("--endpoints=http://127.0.0.1:{}", ports.etcd)).args(words);
            let said = process::capture(&mut command, ASK, Interrupt::Waits)?;
            if said.status.success() {
                return Ok(said.stdout);
            }
            Err(Failure::failed(format_args!("etcdctl {}: {}", words.join(" "), said.complaint())))
        };
        let status = ask(&["endpoint", "status", "--write-out=json"])?;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        let revision = status.pointer("/0/Status/header/revision").and_then(serde_json::Value::as_u64);
        let revision = revision.ok_or_else(|| Failure::failed("etcdctl does not say the revision"))?;
        ask(&["compact", "--physical", &revision.to_string()]).map(drop)
    }
}
