//! Real members of etcd, each test's own: started in a folder that goes away, on ports that were free.

mod etcdctl;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use runtide_conformance::{
    proxy::{Endpoint, Proxy},
    report,
};
use runtide_etcd::{Config, EtcdStore};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tempfile::TempDir;

pub use self::etcdctl::Etcdctl;

/// The longest wait for what must come. Members that stand still for seconds on a busy machine are no failure.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// Deadline of a call that must succeed, at one member, and at three: of these each has a third of it, and a test that
/// stops one of them waits for that.
const ONE: Duration = Duration::from_secs(60);
const THREE: Duration = Duration::from_secs(30);

/// Free bytes without which members are not kept in memory: each takes twice the 64 MiB of a segment of its log at once.
const ROOM: u64 = 2 << 30;

/// Endpoints of the testbed's members, of one or of three, from this environment variable. Without it a test reports that
/// it did not run, which is a failure if etcd is required.
pub fn testbed(variable: &str) -> Option<Vec<String>> {
    let backend = if variable == "RUNTIDE_TEST_ETCD3" { "etcd3" } else { "etcd" };
    if let Ok(text) = std::env::var(variable) {
        return Some(text.split(',').map(str::to_owned).collect());
    }
    assert!(!report::is_required("etcd"), "etcd is required, and {variable} is not set");
    report::skip("etcd", backend, format!("{variable} is not set: cargo xtask testbed up etcd"));
    None
}

/// How members are started.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub arguments: Vec<String>,
    /// Certificate, key, and the CA of the clients.
    pub tls: Option<(PathBuf, PathBuf, PathBuf)>,
}

impl Setup {
    pub fn with(arguments: &[&str]) -> Self {
        Self { arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(), tls: None }
    }
}

pub struct Cluster {
    folder: TempDir,
    setup: Setup,
    members: Vec<Member>,
}

struct Member {
    client: u16,
    peer: u16,
    /// Port at which the other members reach it: its own, or a proxy's.
    seen_at: u16,
    child: Option<Child>,
}

/// `N` ports without a listener, each given once by this process.
///
/// They are below the system's ephemeral ports: one of these, given to any connection while a member is down or not yet up,
/// would keep the member from starting.
pub fn free_ports<const N: usize>() -> [u16; N] {
    const FIRST: u32 = 20_000;
    const MANY: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    [(); N].map(|()| {
        let begin = std::process::id().wrapping_mul(397);
        let mut candidates = std::iter::repeat_with(|| begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % MANY);
        let free = candidates.by_ref().take(MANY as usize).find_map(|candidate| {
            let port = u16::try_from(FIRST + candidate).ok()?;
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(port)
        });
        free.expect("a port without a listener")
    })
}

/// In memory, if the system has such a folder with room: the files outlive a member that is killed, and syncing them,
/// which 3.4 cannot leave undone, costs nothing.
fn folder() -> TempDir {
    const MEMORY: &str = "/dev/shm";
    let room = rustix::fs::statvfs(MEMORY).map_or(0, |there| there.f_bavail.saturating_mul(there.f_frsize));
    let in_memory = if room < ROOM { None } else { tempfile::tempdir_in(MEMORY).ok() };
    in_memory.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

impl Cluster {
    /// A cluster of one member for one test; `None`, and a line in the report, without etcd.
    pub fn one() -> Option<Self> {
        Self::one_with(Setup::default())
    }

    pub fn one_with(setup: Setup) -> Option<Self> {
        testbed("RUNTIDE_TEST_ETCD")?;
        Some(Self::start(1, setup))
    }

    /// Three.
    pub fn three() -> Option<Self> {
        testbed("RUNTIDE_TEST_ETCD3")?;
        Some(Self::start(3, Setup::default()))
    }

    fn start(count: usize, setup: Setup) -> Self {
        let ports = (0..count).map(|_| free_ports().map(|port| (port, port))).collect::<Vec<_>>();
        Self::on(ports.into_iter().map(|[(client, _), peer]| (client, peer)), setup)
    }

    /// Members on these ports: for clients, for peers, and where peers are to dial.
    pub fn on(ports: impl IntoIterator<Item = (u16, (u16, u16))>, setup: Setup) -> Self {
        let member = |(client, (peer, seen_at))| Member { client, peer, seen_at, child: None };
        let members = ports.into_iter().map(member).collect();
        let mut cluster = Self { folder: folder(), setup, members };
        for at in 0..cluster.len() {
            cluster.run(at);
        }
        cluster
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn address(&self, at: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.members[at].client).into()
    }

    pub fn endpoint(&self, at: usize) -> String {
        let scheme = if self.setup.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.members[at].client)
    }

    pub fn endpoints(&self) -> Vec<String> {
        (0..self.len()).map(|at| self.endpoint(at)).collect()
    }

    /// Starts a member, or starts it again.
    pub fn run(&mut self, at: usize) {
        if self.is_up(at) {
            return;
        }
        let initial: Vec<_> =
            (0..self.len()).map(|n| format!("m{n}=http://127.0.0.1:{}", self.members[n].seen_at)).collect();
        let (client, member) = (self.endpoint(at), &self.members[at]);
        let log = self.folder.path().join(format!("m{at}.log"));
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("m{at}"), "--initial-cluster-state", "new", "--logger", "zap"])
            // A leader that gets no processor for a second has not failed.
            .args(["--heartbeat-interval", "100", "--election-timeout", "1000", "--log-outputs", "stderr"])
            .args(["--initial-cluster", &initial.join(","), "--initial-cluster-token", "tests"])
            .arg("--data-dir")
            .arg(self.folder.path().join(format!("m{at}")))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &format!("http://127.0.0.1:{}", member.peer)])
            .args(["--initial-advertise-peer-urls", &format!("http://127.0.0.1:{}", member.seen_at)])
            .args(&self.setup.arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some((certificate, key, signer)) = &self.setup.tls {
            command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
            command.arg("--trusted-ca-file").arg(signer).arg("--client-cert-auth");
        }
        self.members[at].child = Some(command.spawn().expect("etcd is installed"));
    }

    fn is_up(&mut self, at: usize) -> bool {
        self.members[at].child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// SIGKILL, and it is dead.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.members[at].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sets the one member back to a backup, as an operator would.
    pub fn set_back(&mut self, backup: &Path) {
        self.kill(0);
        let folder = self.folder.path().join("m0");
        std::fs::remove_dir_all(&folder).unwrap();
        let peer = format!("http://127.0.0.1:{}", self.members[0].seen_at);
        let restored = Command::new("etcdctl")
            .args(["snapshot", "restore", "--name", "m0", "--initial-cluster-token", "tests"])
            .args(["--initial-cluster", &format!("m0={peer}"), "--initial-advertise-peer-urls", &peer, "--data-dir"])
            .args([folder.as_path(), backup])
            .env("ETCDCTL_API", "3")
            .output()
            .unwrap();
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        self.run(0);
    }

    /// Stops the member with SIGSTOP, until `go_on`; returns once all its threads stand still.
    pub fn pause(&self, at: usize) {
        let stopped = WaitId::Pid(self.signal(at, Signal::STOP));
        rustix::process::waitid(stopped, WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            .unwrap();
    }

    pub fn go_on(&self, at: usize) {
        self.signal(at, Signal::CONT);
    }

    fn signal(&self, at: usize, signal: Signal) -> Pid {
        let pid = self.members[at].child.as_ref().map(Child::id).and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        pid
    }

    /// The last lines of a member's log.
    fn log(&self, at: usize) -> String {
        let text = std::fs::read(self.folder.path().join(format!("m{at}.log"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// etcd's own client of one member, for calls that a store does not make; waits until the member answers.
    pub async fn raw(&self, at: usize) -> Etcdctl {
        let end = tokio::time::Instant::now() + TIMEOUT;
        let client = Etcdctl::of(self.endpoint(at));
        loop {
            // etcdctl waits a second before it dials again, so it is started once the member listens.
            let up = tokio::net::TcpStream::connect(self.address(at)).await.is_ok();
            // Not `status`: a member that has no leader answers that, too.
            if up && client.run(&["get", "x"]).await.is_ok() {
                return client;
            }
            let waits = tokio::time::Instant::now() < end;
            assert!(waits, "{} does not answer; its log ends with\n{}", self.endpoint(at), self.log(at));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Number of the leader, as a running member reports it; waits for one.
    pub async fn leader(&mut self) -> usize {
        let end = tokio::time::Instant::now() + TIMEOUT;
        loop {
            for at in 0..self.len() {
                if !self.is_up(at) {
                    continue;
                }
                let status = Etcdctl::of(self.endpoint(at)).try_status().await;
                if status.is_ok_and(|status| status.member == status.leader) {
                    return at;
                }
            }
            assert!(tokio::time::Instant::now() < end, "no member leads");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Raises an alarm of the first member, which etcdctl cannot: through etcd's gateway for JSON.
    pub async fn raise(&self, alarm: &str) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let body = format!("{{\"action\":\"ACTIVATE\",\"alarm\":\"{alarm}\"}}");
        let head = format!("POST /v3/maintenance/alarm HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut socket = tokio::net::TcpStream::connect(self.address(0)).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("200 OK") && answer.contains(alarm), "{answer}");
    }

    /// A counter of the first member; `name` is the metric with its labels, and the blank behind it.
    pub async fn metric(&self, name: &str) -> u64 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket = tokio::net::TcpStream::connect(self.address(0)).await.unwrap();
        socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        let number = text.lines().find_map(|line| line.strip_prefix(name)).expect("the metric");
        number.parse().unwrap()
    }

    pub fn config(&self) -> Config {
        let limit = if self.len() == 1 { ONE } else { THREE };
        Config::default().with_endpoints(self.endpoints()).with_request_timeout(limit)
    }

    pub fn store(&self) -> EtcdStore {
        EtcdStore::new(self.config()).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            if let Some(mut child) = self.members[at].child.take() {
                // A member that stands still dies all the same.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// A cluster of which one member is reached through a proxy; the store knows no other.
pub async fn behind_a_proxy(cluster: &Cluster, at: usize) -> (Proxy, Config) {
    let proxy = Proxy::start(Endpoint::Tcp(([127, 0, 0, 1], 0).into()), Endpoint::Tcp(cluster.address(at))).await;
    let proxy = proxy.unwrap();
    let Endpoint::Tcp(address) = proxy.endpoint().clone() else { panic!("tcp") };
    (proxy, patient(Config::default().with_endpoints([address.to_string()])))
}

/// For a store of one member, of which every call must succeed.
pub fn patient(config: Config) -> Config {
    config.with_request_timeout(ONE)
}

/// Waits for it, as long as timeout lasts.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(TIMEOUT, future).await;
    ended.unwrap_or_else(|_| panic!("not within {TIMEOUT:?}: {what}"))
}
