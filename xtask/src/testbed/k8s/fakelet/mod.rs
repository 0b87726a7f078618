//! A node that runs no containers: it says of each pod that it runs, starts the commands of its containers as plain processes of this machine,
//! and answers the API server's questions for logs and for exec. For thousands of pods, for races and for faults.

mod api;
mod containers;
mod exec;
mod logs;
mod pods;
mod request;
mod server;
mod status;
mod websocket;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use self::api::Api;
use self::pods::Pods;
use super::super::https::{Body, Server};
use super::super::places::in_run;
use super::super::{cgroup, ports, procfs};
use super::Ports;
use super::program::Program;
use crate::failure::{Doing, Failure, Outcome};
use crate::process::TICK;

/// Its name. Pods come to it by `nodeName` alone: the scheduler keeps off.
pub(super) const NODE: &str = "fake";

const ASK: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(10);
const DIE: Duration = Duration::from_secs(10);

/// The testbed's side of it.
pub(super) struct Fake {
    program: Program,
    /// The control group of the process and of all that it starts.
    group: String,
    pki: PathBuf,
}

impl Fake {
    pub(super) fn below(folder: &Path) -> Self {
        let program = Program::new(folder, "fakelet", format!("--cluster={}", folder.display()));
        Self { program, group: group(folder), pki: folder.join("pki") }
    }

    pub(super) fn runs(&self) -> bool {
        self.program.pid().is_some()
    }

    pub(super) fn start(&self, ports: &Ports, ready: impl Fn() -> bool) -> Outcome<()> {
        if !self.runs() {
            self.end()?;
        }
        let this = env::current_exe().doing("cannot find this program")?;
        let started = self.program.start(Command::new(this).args(["testbed", "fakelet"]))?;
        started.until(READY, || self.answers(ports) && ready())
    }

    fn answers(&self, ports: &Ports) -> bool {
        let server = Server::at(ports.fakelet, &self.pki, "kubelet-client");
        let answer = server.and_then(|server| server.ask("GET", "/healthz", &Body::NONE, ASK));
        answer.is_ok_and(|answer| answer.is_success())
    }

    /// SIGTERM: it ends its processes.
    pub(super) fn stop(&self) -> Outcome<()> {
        self.program.must_end(Signal::TERM, STOP)?;
        self.end()
    }

    pub(super) fn signal(&self, signal: Signal) -> Outcome<()> {
        self.program.signal(signal)
    }

    /// Ends it with all its processes, as a power cut would.
    pub(super) fn end(&self) -> Outcome<()> {
        self.program.kill()?;
        let pids: Vec<i32> = cgroup::processes(&self.group).into_iter().collect();
        if !cgroup::kill(&self.group) || !procfs::wait_until_dead(&pids, DIE) || !cgroup::remove(&self.group).is_empty()
        {
            return Err(Failure::failed("k8s-fake: this is left: processes of pods"));
        }
        Ok(())
    }
}

fn group(folder: &Path) -> String {
    in_run(&folder.join("fakelet")).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

#[derive(Debug, clap::Args)]
pub(in super::super) struct Arguments {
    /// The folder of the cluster
    #[arg(long)]
    cluster: PathBuf,
}

/// The node's side: until SIGTERM.
pub(in super::super) fn run(arguments: &Arguments) -> Outcome<()> {
    let folder = &arguments.cluster;
    let ended = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&ended)).doing("cannot catch SIGTERM")?;
    let procs = cgroup::make(&group(folder))?.join("cgroup.procs");
    std::fs::write(&procs, "0").doing(format_args!("cannot write {}", procs.display()))?;
    let ports = ports::read(folder).map(Ports::of);
    let ports = ports.ok_or_else(|| Failure::failed(format_args!("no ports are in {}", folder.display())))?;
    let logs = folder.join("fakelet");
    std::fs::create_dir_all(&logs).doing(format_args!("cannot make {}", logs.display()))?;

    let api = Api::new(Server::at(ports.api, &folder.join("pki"), "admin")?);
    let pods = Arc::new(Pods::new(api.clone(), logs));
    server::serve(ports.fakelet, &folder.join("pki"), &pods)?;
    thread::spawn(move || api.keep_node(NODE, ports.fakelet));
    let watched = Arc::clone(&pods);
    thread::spawn(move || watched.follow());
    while !ended.load(Ordering::Relaxed) {
        thread::sleep(TICK);
    }
    pods.kill_all();
    Ok(())
}
