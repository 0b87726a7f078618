//! Tests of the verbs on a real manager.
//!
//! `RUNTIDE_TEST_SYSTEMD` is the address of its bus, `RUNTIDE_TEST_SYSTEMD_ROOT` the root of its file system as seen
//! from here. Without an address the tests report that and pass.

mod lifecycle;
mod own;
mod provision;

use std::{path::PathBuf, sync::Mutex, time::Duration};

use runtide_conformance::testbed::Turn;
use runtide_core::{
    Error, ErrorKind, ExitStatus, InstanceId, Labels, UnixSignal,
    manager::{
        Effect, InstanceSpec, LifecycleManager, Mount, MountSource, ProvisionManager, RemoveOptions, RestartPolicy,
        StopOptions,
    },
};

use super::{
    Lifecycle, Provision, holder, native,
    unit::{Call, Seen},
};
use crate::{
    client::{Client, MANAGER, ROOT},
    config::Config,
    labels,
    selection::Selection,
};

struct Fixture {
    client: Client,
    verbs: Lifecycle,
    maker: Provision,
    root: PathBuf,
    made: Mutex<Vec<String>>,
    name: &'static str,
    /// Of the tests of verbs, one at a time: some of them reload systemd, count or stall it.
    _alone: tokio::sync::MutexGuard<'static, ()>,
    _turn: Turn,
}

static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// No verb takes as long, on a machine as loaded as those of tests are.
const LIMIT: Duration = Duration::from_secs(60);

/// The fixture of one test; `name` is the prefix of its units.
async fn fixture(name: &'static str) -> Option<Fixture> {
    fixture_with(name, Turn::shared).await
}

/// The fixture of a test that has systemd re-execute itself, or stalls it: other tests' calls would not be answered.
async fn disturbing(name: &'static str) -> Option<Fixture> {
    fixture_with(name, Turn::on).await
}

async fn fixture_with(
    name: &'static str,
    turn: impl AsyncFnOnce(&'static str) -> std::io::Result<Turn>,
) -> Option<Fixture> {
    let Ok(address) = std::env::var("RUNTIDE_TEST_SYSTEMD") else {
        runtide_conformance::report::skip("managers", "systemd", "RUNTIDE_TEST_SYSTEMD is not set");
        return None;
    };
    let root = PathBuf::from(std::env::var_os("RUNTIDE_TEST_SYSTEMD_ROOT").unwrap_or_else(|| "/".into()));
    let config = Config::system().with_address(address).with_root(root.clone()).with_selection(Selection::all());
    let config = config.with_connect_deadline(LIMIT).with_deadline(LIMIT).with_job_deadline(LIMIT);
    let client = Client::new(config).unwrap();
    Some(Fixture {
        verbs: Lifecycle::new(client.clone()),
        maker: Provision::new(client.clone()),
        client,
        root,
        made: Mutex::default(),
        name,
        // First: the turn waits for tests of other sorts alone.
        _alone: ALONE.lock().await,
        _turn: turn("systemd").await.unwrap(),
    })
}

fn spec(words: &[&str]) -> InstanceSpec {
    let mut spec = InstanceSpec::default();
    spec.command = words.iter().map(ToString::to_string).collect();
    spec
}

fn shell(script: &str) -> InstanceSpec {
    spec(&["/bin/sh", "-c", script])
}

/// A shell that ends with this code when a file is in `/run`.
fn until_there(file: &str, code: i32) -> InstanceSpec {
    shell(&format!("while [ ! -e /run/{file} ]; do sleep 0.05; done; exit {code}"))
}

impl Fixture {
    async fn make(&self, mut spec: InstanceSpec) -> InstanceId {
        let mut made = self.made.lock().unwrap().clone();
        let name = format!("vb-{}-{}-{}.service", self.name, std::process::id(), made.len());
        made.push(name.clone());
        *self.made.lock().unwrap() = made;
        spec.name = Some(name.clone());
        let id = self.maker.create(&spec).await.unwrap();
        assert_eq!(id.as_str(), name);
        id
    }

    async fn started(&self, spec: InstanceSpec) -> InstanceId {
        let id = self.make(spec).await;
        assert_eq!(self.verbs.start(&id).await.unwrap(), Effect::Changed);
        id
    }

    /// Starts a shell, and returns once it has set its traps.
    async fn trapping(&self, traps: &str, restart: RestartPolicy) -> InstanceId {
        let ready = format!("vb-{}-{}-ready", self.name, std::process::id());
        let mut spec = shell(&format!("{traps}; echo ready >/run/{ready}; while :; do sleep 0.05; done"));
        spec.restart = restart;
        let id = self.started(spec).await;
        assert_eq!(self.content(&ready).await.trim(), "ready");
        id
    }

    async fn look(&self, id: &InstanceId) -> Option<Seen> {
        Call { client: &self.client, operation: "test", unit: id.as_str() }.look_if_loaded().await.unwrap()
    }

    async fn seen(&self, id: &InstanceId) -> Seen {
        self.look(id).await.unwrap()
    }

    async fn tell(&self, method: &str) {
        let answer = self.client.manager("test", method, &()).await;
        // systemd leaves the bus for its re-execution before it answers.
        assert!(answer.is_ok() || method == "Reexecute", "{answer:?}");
    }

    /// Returns the time of the manager's last reload, in microseconds since its boot.
    async fn units_loaded(&self) -> u64 {
        self.client.get("test", ROOT, MANAGER, "UnitsLoadTimestampMonotonic").await.unwrap()
    }

    /// Waits until a file in `/run` exists, and reads it.
    async fn content(&self, name: &str) -> String {
        let path = self.run(name);
        let written = async {
            loop {
                if let Ok(text) = std::fs::read_to_string(&path)
                    && !text.is_empty()
                {
                    let _ = std::fs::remove_file(&path);
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(written).await
    }

    /// The path of a file in `/run`, as seen from here.
    fn run(&self, name: &str) -> PathBuf {
        self.root.join("run").join(name)
    }

    async fn end(self) {
        let made = self.made.lock().unwrap().clone();
        for name in made {
            let id = InstanceId::from(name);
            let _ = self.verbs.remove(&id, RemoveOptions::default().with_kill()).await.unwrap();
            assert!(self.look(&id).await.is_none());
            assert!(self.look(&InstanceId::from(holder::of(id.as_str()))).await.is_none());
        }
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("in time")
}
