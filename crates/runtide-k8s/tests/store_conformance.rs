//! The laws of stores, on a real API server: each law has its own namespace. The harness makes it, expires the server's history and
//! breaks links past the store under test.
//!
//! `RUNTIDE_TEST_K8S` is the kubeconfig of its administrator, and `RUNTIDE_TESTBED` the tool that kills it. Without the kubeconfig each law
//! reports itself as skipped; with `RUNTIDE_REQUIRE_REAL=k8s` that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![cfg(unix)]

#[path = "store/anything.rs"]
mod anything;
#[path = "conformance/name.rs"]
mod name;
#[path = "conformance/server.rs"]
mod server;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use runtide_conformance::{
    Absent, Done, Obstacle, Supported,
    proxy::{Action, Endpoint, Proxy, Rule},
    store::{Disturbance, Effort, StoreHarness, StoreLaw, StoreTuning, write_past},
    testbed::{Testbed, Turn},
};
use runtide_core::store::{Revision, StoreBackend};
use runtide_k8s::{Access, Config, KubeStore, KubeStoreOptions};
use serde_json::{Value, json};

use self::{
    anything::{Anything, GROUP, KIND, LARGEST, PLURAL, definition},
    name::known_as,
    server::Server,
};

/// Laws that the API cannot keep.
const SKIPS: &[(StoreLaw, &str)] = &[(
    StoreLaw::S8,
    "the API has no write of several objects, so that a restore is not atomic, and watchers get no Reset",
)];

struct Cluster {
    server: Server,
    namespace: String,
    /// Between the server and the store under test.
    ours: Proxy,
    /// Between the server and other clients.
    others: Proxy,
    store: Mutex<Arc<dyn StoreBackend>>,
    version: Option<String>,
    testbed: Option<Testbed>,
    /// The testbed's verbs that end the disturbance of the server.
    ends: Mutex<&'static [&'static str]>,
    /// Exclusive, or shared with laws that leave the server alone as well.
    is_exclusive: bool,
    _turn: Turn,
}

fn broken(reason: impl Into<String>) -> Absent {
    Absent::broken(known_as(), reason)
}

fn open(proxy: &Proxy, namespace: &str) -> Arc<dyn StoreBackend> {
    let Endpoint::Tcp(address) = proxy.endpoint() else { panic!("the proxy is no socket") };
    let config = Config::new(Access::new(format!("http://{address}")))
        .with_id(runtide_core::BackendId::from("k8s:laws"))
        .with_deadline(Duration::from_secs(20))
        .with_max_silence(Duration::from_secs(8));
    Arc::new(KubeStore::with_form(config, KubeStoreOptions::default(), Anything(namespace.to_owned())).unwrap())
}

async fn proxy(server: &Server) -> Result<Proxy, Absent> {
    let started = Proxy::start(Endpoint::Tcp(([127, 0, 0, 1], 0).into()), Endpoint::Tcp(server.address)).await;
    started.map_err(|error| broken(format!("the proxy: {error}")))
}

/// Makes the kind, and waits until it is served.
async fn declare(server: &Server) -> Result<(), String> {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    match server.try_ask("POST", DEFINITIONS, &definition()).await? {
        (200..=299 | 409, _) => {}
        (status, answer) => return Err(format!("the kind was refused: {status} {}", answer["message"])),
    }
    let path = format!("/apis/{GROUP}/v1/{PLURAL}?limit=1");
    for _ in 0..600 {
        if let (200, list) = server.try_ask("GET", &path, &Value::Null).await?
            && list["kind"] == format!("{KIND}List")
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("the kind is not served".to_owned())
}

/// `true` if the law kills the server, pauses it, or drops its history, which other laws' watches would feel.
fn takes_the_server_away(law: StoreLaw) -> bool {
    matches!(law, StoreLaw::S6 | StoreLaw::S9 | StoreLaw::S12)
}

async fn start(law: StoreLaw) -> Result<Cluster, Absent> {
    let Some(kubeconfig) = std::env::var_os("RUNTIDE_TEST_K8S") else {
        return Err(Absent::unset(known_as(), "RUNTIDE_TEST_K8S is not set: cargo xtask testbed up k8s"));
    };
    let turn = if takes_the_server_away(law) { Turn::on(known_as()).await } else { Turn::shared(known_as()).await };
    let turn = turn.map_err(|error| broken(format!("the lock: {error}")))?;
    let path = Path::new(&kubeconfig);
    let server = Server::of(path).map_err(|error| broken(format!("{}: {error}", path.display())))?;
    let version = server.ask("GET", "/version", &Value::Null).await.map_err(broken)?;
    declare(&server).await.map_err(broken)?;
    let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
    let namespace = format!("rs{:x}", nanos & 0xff_ffff_ffff);
    let (ours, others) = (proxy(&server).await?, proxy(&server).await?);
    let cluster = Cluster {
        store: Mutex::new(open(&ours, &namespace)),
        server,
        namespace,
        ours,
        others,
        version: version["gitVersion"].as_str().map(str::to_owned),
        testbed: Testbed::of(known_as()),
        ends: Mutex::new(&[]),
        is_exclusive: takes_the_server_away(law),
        _turn: turn,
    };
    for namespace in [cluster.namespace.clone(), cluster.foreign_namespace()] {
        let body = json!({ "metadata": { "name": namespace } });
        cluster.server.ask("POST", "/api/v1/namespaces", &body).await.map_err(broken)?;
    }
    Ok(cluster)
}

impl Cluster {
    fn foreign_namespace(&self) -> String {
        format!("{}f", self.namespace)
    }

    async fn testbed(&self, verbs: &[&str]) -> Done<()> {
        if !self.is_exclusive {
            return Err(Obstacle::failed("this law shares the server, and may not take it away"));
        }
        let testbed = self.testbed.as_ref().ok_or_else(|| Obstacle::unsupported("RUNTIDE_TESTBED is not set"))?;
        testbed.run(verbs).await.map_err(Obstacle::Failed)
    }
}

#[async_trait]
impl StoreHarness for Cluster {
    fn name(&self) -> &'static str {
        known_as()
    }

    fn is_real(&self) -> bool {
        true
    }

    fn version(&self) -> Option<String> {
        self.version.clone()
    }

    fn tuning(&self) -> StoreTuning {
        StoreTuning::REMOTE.with_effort(Effort::Brief)
    }

    fn skips(&self) -> &'static [(StoreLaw, &'static str)] {
        SKIPS
    }

    fn store(&self) -> Arc<dyn StoreBackend> {
        Arc::clone(&self.store.lock().unwrap())
    }

    async fn another(&self) -> Done<Arc<dyn StoreBackend>> {
        Ok(open(&self.others, &self.namespace))
    }

    async fn foreign(&self) -> Done<Arc<dyn StoreBackend>> {
        Ok(open(&self.others, &self.foreign_namespace()))
    }

    /// The cluster itself writes all the time.
    fn is_alone(&self) -> bool {
        false
    }

    fn largest(&self) -> usize {
        LARGEST
    }

    /// etcd is compacted, and the API server loses what it has in memory.
    async fn expire(&self, _: Revision) -> Done<()> {
        write_past(&*open(&self.others, &self.namespace), 1).await?;
        self.testbed(&["compact", "kill", "start"]).await
    }

    async fn crash(&self) -> Done<()> {
        self.testbed(&["kill", "start"]).await?;
        *self.store.lock().unwrap() = open(&self.ours, &self.namespace);
        Ok(())
    }

    async fn disturb(&self, disturbance: Disturbance) -> Supported {
        match disturbance {
            Disturbance::Sever => {
                self.ours.sever();
                self.others.sever();
            }
            Disturbance::CutOff => self.ours.add(Rule::all(Action::Refuse)),
            Disturbance::KillLeader => {
                *self.ends.lock().unwrap() = &["start"];
                return Testbed::fault(self.testbed.as_ref(), &["kill"]).await;
            }
            Disturbance::PauseLeader => {
                *self.ends.lock().unwrap() = &["continue"];
                return Testbed::fault(self.testbed.as_ref(), &["pause"]).await;
            }
            other => return Supported::No(format!("{other}: there is one API server")),
        }
        Supported::Yes
    }

    async fn heal(&self) -> Done<()> {
        self.ours.heal();
        self.others.heal();
        let ends = std::mem::take(&mut *self.ends.lock().unwrap());
        if ends.is_empty() { Ok(()) } else { self.testbed(ends).await }
    }

    async fn finish(&self) {
        for namespace in [self.namespace.clone(), self.foreign_namespace()] {
            let _ = self.server.try_ask("DELETE", &format!("/api/v1/namespaces/{namespace}"), &Value::Null).await;
        }
    }
}

runtide_conformance::store_suite!(by_law, start);

#[test]
fn only_pinned_laws_are_skipped() {
    let skipped: Vec<_> = SKIPS.iter().map(|(law, _)| law.id()).collect();
    assert_eq!(skipped, ["S8"]);
}
