//! Members behind proxies, for the laws.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use runtide_conformance::{
    Absent, Done, Obstacle, Supported,
    proxy::{Action, Endpoint, Proxy, Rule},
    store::{Disturbance, Effort, StoreHarness, StoreTuning, write_past},
};
use runtide_core::store::{Revision, StoreBackend};
use runtide_etcd::{Config, EtcdStore};
use tokio::sync::Mutex;

use crate::cluster::{self, Cluster, Setup};

pub struct Members {
    name: &'static str,
    version: String,
    /// Between the members and the store under test.
    clients: Vec<Proxy>,
    /// Between the members and other clients.
    others: Vec<Proxy>,
    /// Between the members.
    peers: Vec<Proxy>,
    cluster: Mutex<Cluster>,
    store: std::sync::Mutex<Arc<dyn StoreBackend>>,
    largest: usize,
    /// The stores' deadline of a call.
    deadline: Duration,
}

/// One that stands still is waited for this long, and so is a member that no processor or disk serves for seconds.
pub async fn one() -> Result<Members, Absent> {
    Members::start("etcd", "RUNTIDE_TEST_ETCD", 1, Duration::from_secs(20)).await
}

pub async fn three() -> Result<Members, Absent> {
    three_within(Duration::from_secs(60)).await
}

/// Three members, and stores with this deadline of a call, of which each member gets a third.
pub async fn three_within(deadline: Duration) -> Result<Members, Absent> {
    Members::start("etcd3", "RUNTIDE_TEST_ETCD3", 3, deadline).await
}

fn local(port: u16) -> Endpoint {
    Endpoint::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn port(proxy: &Proxy) -> u16 {
    match proxy.endpoint() {
        Endpoint::Tcp(address) => address.port(),
        other => panic!("{other}"),
    }
}

impl Members {
    async fn start(
        name: &'static str,
        variable: &'static str,
        count: usize,
        deadline: Duration,
    ) -> Result<Self, Absent> {
        if std::env::var_os(variable).is_none() {
            assert!(!runtide_conformance::report::is_required("etcd"), "etcd is required, and {variable} is not set");
            return Err(Absent::unset(name, format!("{variable} is not set: cargo xtask testbed up etcd")));
        }
        let (mut clients, mut others) = (Vec::new(), Vec::new());
        let (mut peers, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..count {
            // A proxy listens only while its member does, so its port is none that others are given meanwhile either.
            let [client, peer, ours, theirs, between] = cluster::free_ports();
            clients.push(Proxy::start(local(ours), local(client)).await.unwrap());
            others.push(Proxy::start(local(theirs), local(client)).await.unwrap());
            peers.push(Proxy::start(local(between), local(peer)).await.unwrap());
            ports.push((client, (peer, port(&peers[peers.len() - 1]))));
        }
        let cluster = Cluster::on(ports, Setup::default());
        for at in 0..count {
            cluster.raw(at).await;
        }
        let version = cluster.raw(0).await.status().await.version;
        let config = config(&clients, "/runtide/", deadline);
        let largest = config.largest_document();
        let store: Arc<dyn StoreBackend> = Arc::new(EtcdStore::new(config).unwrap());
        Ok(Self {
            name,
            version,
            clients,
            others,
            peers,
            cluster: Mutex::new(cluster),
            store: std::sync::Mutex::new(store),
            largest,
            deadline,
        })
    }

    fn open(&self, proxies: &[Proxy], prefix: &str) -> Arc<dyn StoreBackend> {
        Arc::new(EtcdStore::new(config(proxies, prefix, self.deadline)).unwrap())
    }

    /// Cuts a member off from the others: no peer reaches it, and its own dials are refused. A stream between members names the
    /// member that dialled it; a post does not, but the others need no posts among themselves.
    async fn isolate(&self, at: usize) {
        let status = self.cluster.lock().await.raw(at).await.status().await;
        let id = format!("{:x}", status.member);
        for (n, proxy) in self.peers.iter().enumerate() {
            if n == at {
                proxy.add(Rule::all(Action::Refuse));
            } else {
                proxy.add(Rule::on(id.clone(), Action::Refuse));
                proxy.add(Rule::on("POST /raft ", Action::Refuse));
            }
        }
    }
}

fn config(proxies: &[Proxy], prefix: &str, deadline: Duration) -> Config {
    Config::default()
        .with_endpoints(proxies.iter().map(|proxy| format!("127.0.0.1:{}", port(proxy))))
        .with_prefix(prefix)
        .with_request_timeout(deadline)
        .with_max_silence(Duration::from_secs(3))
        .with_bookmark_interval(Duration::from_millis(200))
}

#[async_trait]
impl StoreHarness for Members {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_real(&self) -> bool {
        true
    }

    fn version(&self) -> Option<String> {
        Some(self.version.clone())
    }

    fn tuning(&self) -> StoreTuning {
        StoreTuning::REMOTE.with_effort(Effort::Brief)
    }

    fn store(&self) -> Arc<dyn StoreBackend> {
        Arc::clone(&self.store.lock().unwrap())
    }

    async fn another(&self) -> Done<Arc<dyn StoreBackend>> {
        Ok(self.open(&self.others, "/runtide/"))
    }

    async fn foreign(&self) -> Done<Arc<dyn StoreBackend>> {
        Ok(self.open(&self.others, "/foreign/"))
    }

    fn largest(&self) -> usize {
        self.largest
    }

    async fn expire(&self, revision: Revision) -> Done<()> {
        // Past the clients' proxies, which may be cut.
        let cluster = self.cluster.lock().await;
        let direct = EtcdStore::new(cluster.config()).map_err(Obstacle::failed)?;
        write_past(&direct, 1).await?;
        cluster.raw(0).await.compact(revision.0 + 1).await.map_err(Obstacle::failed)?;
        Ok(())
    }

    async fn crash(&self) -> Done<()> {
        let mut cluster = self.cluster.lock().await;
        for at in 0..cluster.len() {
            cluster.kill(at);
        }
        for at in 0..cluster.len() {
            cluster.run(at);
        }
        for at in 0..cluster.len() {
            cluster.raw(at).await;
        }
        *self.store.lock().unwrap() = self.open(&self.clients, "/runtide/");
        Ok(())
    }

    async fn disturb(&self, disturbance: Disturbance) -> Supported {
        let alone = self.peers.len() < 2;
        match disturbance {
            Disturbance::Sever => self.clients.iter().chain(&self.others).for_each(Proxy::sever),
            Disturbance::CutOff => {
                for proxy in &self.clients {
                    proxy.add(Rule::all(Action::Refuse));
                }
            }
            Disturbance::KillFollower | Disturbance::IsolateLeader if alone => {
                return Supported::No(format!("{disturbance}: there is one member"));
            }
            Disturbance::KillLeader => {
                let mut cluster = self.cluster.lock().await;
                let leader = cluster.leader().await;
                cluster.kill(leader);
            }
            Disturbance::KillFollower => {
                let mut cluster = self.cluster.lock().await;
                let leader = cluster.leader().await;
                let follower = (leader + 1) % cluster.len();
                cluster.kill(follower);
            }
            Disturbance::IsolateLeader => {
                let leader = self.cluster.lock().await.leader().await;
                self.isolate(leader).await;
            }
            Disturbance::PauseLeader => {
                let mut cluster = self.cluster.lock().await;
                let leader = cluster.leader().await;
                cluster.pause(leader);
            }
            other => return Supported::No(format!("{other}: not known to this harness")),
        }
        Supported::Yes
    }

    async fn heal(&self) -> Done<()> {
        for proxy in self.clients.iter().chain(&self.others).chain(&self.peers) {
            proxy.heal();
        }
        let mut cluster = self.cluster.lock().await;
        for at in 0..cluster.len() {
            // One that was killed is run; one that stands still goes on.
            cluster.run(at);
            cluster.go_on(at);
        }
        for at in 0..cluster.len() {
            cluster.raw(at).await;
        }
        Ok(())
    }
}
