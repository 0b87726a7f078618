//! etcd on loopback: one member by itself, and a cluster of three.
//!
//! Tests that break members start their own; these are for tests that leave them as they are.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use super::service::Service;
use super::{folder, http, packages, ports, procfs};
use crate::failure::{Doing, Failure, Outcome};
use crate::workspace;

/// The members; those of one number are a cluster.
const MEMBERS: [(&str, u8); 4] = [("one", 1), ("m1", 3), ("m2", 3), ("m3", 3)];

/// Each member has a port for clients, and one for its peers.
const PORTS: usize = 2 * MEMBERS.len();

const ASK: Duration = Duration::from_secs(2);
const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);
const DIE: Duration = Duration::from_secs(10);

pub(super) struct Etcd {
    /// `target/testbed/etcd`.
    folder: PathBuf,
}

struct Member {
    name: &'static str,
    cluster: u8,
    client: u16,
    peer: u16,
}

impl Etcd {
    pub(super) fn below(testbed: &Path) -> Self {
        Self { folder: testbed.join("etcd") }
    }

    /// The members of a testbed that is up.
    fn members(&self) -> Option<Vec<Member>> {
        let ports: [u16; PORTS] = ports::read(&self.folder)?;
        let (pairs, _) = ports.as_chunks::<2>();
        let both =
            |((name, cluster), [client, peer]): (_, &[u16; 2])| Member { name, cluster, client: *client, peer: *peer };
        Some(MEMBERS.into_iter().zip(pairs).map(both).collect())
    }

    fn must_be_up(&self) -> Outcome<Vec<Member>> {
        let missing = || Failure::refused("the testbed's etcd is not up: cargo xtask testbed up etcd");
        self.members().ok_or_else(missing)
    }

    /// The argument that distinguishes a member of ours from any other, also after its files are gone.
    fn mark(&self, name: &str) -> String {
        format!("--data-dir={}", self.folder.join(name).display())
    }

    fn pid(&self, name: &str) -> Option<i32> {
        let mark = self.mark(name);
        let ours = |p: &procfs::Process| p.program().as_deref() == Some("etcd") && p.has_argument(&mark);
        procfs::processes().into_iter().find(ours).map(|process| process.pid)
    }

    fn run(&self, member: &Member, all: &[Member]) -> Outcome<()> {
        if self.pid(member.name).is_some() {
            return Ok(());
        }
        let log = self.folder.join(format!("{}.log", member.name));
        let out = OpenOptions::new().create(true).append(true).open(&log);
        let out = out.doing(format_args!("cannot write {}", log.display()))?;
        let address = |port: u16| format!("http://127.0.0.1:{port}");
        let peers = all.iter().filter(|peer| peer.cluster == member.cluster);
        let peers: Vec<_> = peers.map(|peer| format!("{}={}", peer.name, address(peer.peer))).collect();
        packages::command("etcd")
            .arg(self.mark(member.name))
            .args(["--name", member.name, "--initial-cluster-state", "new", "--logger", "zap"])
            .args(["--initial-cluster-token", &format!("runtide-testbed-{}", member.cluster)])
            .args(["--initial-cluster", &peers.join(",")])
            .args(["--listen-client-urls", &address(member.client), "--advertise-client-urls", &address(member.client)])
            .args(["--listen-peer-urls", &address(member.peer)])
            .args(["--initial-advertise-peer-urls", &address(member.peer)])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500", "--log-outputs", "stderr"])
            .current_dir("/")
            // Not in the terminal's process group: Ctrl-C is for the test run.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(out)
            .spawn()
            .map(drop)
            .doing("cannot run etcd")
    }

    fn is_well(member: &Member) -> bool {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, member.client));
        // `/health` succeeds only if the member has a leader.
        http::ask_at(at, "GET", "/health", ASK).is_ok_and(|answer| answer.is_success())
    }

    fn run_all(&self) -> Outcome<()> {
        let members = self.must_be_up()?;
        for member in &members {
            self.run(member, &members)?;
        }
        for member in &members {
            if !procfs::wait_until(READY, || Self::is_well(member)) {
                let log = workspace::relative(&self.folder.join(format!("{}.log", member.name)));
                let seconds = READY.as_secs();
                return Err(Failure::failed(format_args!("etcd does not answer after {seconds} s: see {log}")));
            }
        }
        Ok(())
    }

    fn end(&self, signal: Signal, limit: Duration) -> Outcome<()> {
        let pids: Vec<i32> = MEMBERS.iter().filter_map(|(name, _)| self.pid(name)).collect();
        for pid in &pids {
            procfs::send(*pid, signal);
        }
        if procfs::wait_until_dead(&pids, limit) {
            return Ok(());
        }
        let seconds = limit.as_secs();
        Err(Failure::failed(format_args!("etcd still runs after {seconds} s")))
    }
}

impl Service for Etcd {
    fn up(&self, install: bool) -> Outcome<()> {
        packages::require(&packages::ETCD, &[], install)?;
        if self.members().is_none() {
            self.end(Signal::KILL, DIE)?;
            folder::clear(&self.folder)?;
            fs::create_dir_all(&self.folder).doing(format_args!("cannot make {}", self.folder.display()))?;
            ports::take::<PORTS>(&self.folder)?;
        }
        self.run_all()
    }

    fn start(&self) -> Outcome<()> {
        self.run_all()
    }

    fn stop(&self) -> Outcome<()> {
        self.must_be_up()?;
        self.end(Signal::TERM, STOP)
    }

    fn kill(&self) -> Outcome<()> {
        self.must_be_up()?;
        self.end(Signal::KILL, DIE)
    }

    fn down(&self) -> Outcome<bool> {
        let was_up = self.members().is_some() || MEMBERS.iter().any(|(name, _)| self.pid(name).is_some());
        self.end(Signal::KILL, DIE)?;
        folder::clear(&self.folder)?;
        Ok(was_up)
    }

    fn summary(&self) -> Outcome<String> {
        let members = self.members().ok_or_else(|| Failure::failed("it was not started"))?;
        let well = members.iter().filter(|member| Self::is_well(member)).count();
        if well < members.len() {
            return Err(Failure::failed(format_args!("{well} of its {} members answer", members.len())));
        }
        let at = members.first().map_or(0, |member| member.client);
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, at));
        let version = http::ask_at(at, "GET", "/version", ASK).and_then(|answer| answer.json())?;
        let version = version.get("etcdserver").and_then(|version| version.as_str()).unwrap_or("of unknown version");
        Ok(format!("etcd {version}, one member and a cluster of three"))
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        let Some(members) = self.members() else { return BTreeMap::new() };
        let of = |cluster: u8| {
            let addresses = members.iter().filter(|member| member.cluster == cluster);
            addresses.map(|member| format!("http://127.0.0.1:{}", member.client)).collect::<Vec<_>>().join(",")
        };
        BTreeMap::from([("RUNTIDE_TEST_ETCD", of(1)), ("RUNTIDE_TEST_ETCD3", of(3))])
    }
}
