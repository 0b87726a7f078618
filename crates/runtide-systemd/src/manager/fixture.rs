//! A real manager for tests, if the testbed has one: `RUNTIDE_TEST_SYSTEMD` is the address of its bus,
//! `RUNTIDE_TEST_SYSTEMD_ROOT` the root of its file system as seen from here. Without them the tests that need one
//! report that and pass, unless `RUNTIDE_REQUIRE_REAL` has `systemd` in it.

use std::{path::PathBuf, time::Duration};

use runtide_conformance::{report, testbed::Turn};
use runtide_core::InstanceId;
use zbus::Variant;

use super::run::{self, Run};
use crate::{client::Client, config::Config};

pub(super) struct Fixture {
    pub(super) client: Client,
    /// Tests that have systemd re-execute itself, which leaves calls unanswered, do so when no other test uses it.
    _turn: Option<Turn>,
}

impl Fixture {
    pub(super) async fn find() -> Option<Self> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(address), Some(root)) = (variable("RUNTIDE_TEST_SYSTEMD"), variable("RUNTIDE_TEST_SYSTEMD_ROOT"))
        else {
            report::skip("logs", "systemd", "RUNTIDE_TEST_SYSTEMD and RUNTIDE_TEST_SYSTEMD_ROOT name no systemd");
            return None;
        };
        // No call takes as long, on a machine as loaded as those of tests are.
        let limit = Duration::from_secs(60);
        let config = Config::system().with_address(address).with_root(PathBuf::from(root));
        let config = config.with_connect_deadline(limit).with_deadline(limit);
        let turn = Turn::shared("systemd").await.unwrap();
        Some(Self { client: Client::new(config).unwrap(), _turn: Some(turn) })
    }

    /// Another client of the same test.
    pub(super) fn another(&self) -> Self {
        Self { client: Client::new(self.client.config().clone()).unwrap(), _turn: None }
    }

    /// Starts a unit of this script; on return its run has begun, and may be over.
    pub(super) async fn start(&self, script: &str, more: Vec<(&str, Variant<'_>)>) -> InstanceId {
        type Exec = Vec<(String, Vec<String>, bool)>;
        let unit = format!("rt-{:016x}.service", random());
        // After a reload, which may be another test's, systemd 252 takes a semicolon for the end of the command.
        let script = script.replace(';', "\n");
        let exec: Exec = vec![("/bin/sh".into(), vec!["/bin/sh".into(), "-c".into(), script], false)];
        let mut settings = vec![("ExecStart", Variant::from(exec)), ("LogRateLimitIntervalUSec", Variant::from(0u64))];
        settings.extend(more);
        let others: Vec<(&str, Vec<(&str, Variant<'_>)>)> = vec![];
        self.client.manager("test", "StartTransientUnit", &(&unit, "fail", settings, others)).await.unwrap();
        // The answer comes when the start is queued.
        let has_begun = async || {
            let about = run::about(&self.client, "test", &unit).await.unwrap();
            about.is_none_or(|about| about.inactive_exit_timestamp_monotonic.unwrap_or(0) != 0)
        };
        while !has_begun().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        InstanceId::from(unit)
    }

    pub(super) async fn run(&self, id: &InstanceId) -> Option<Run> {
        run::about(&self.client, "test", id.as_str()).await.unwrap().as_ref().and_then(Run::of)
    }

    pub(super) async fn ended(&self, id: &InstanceId) {
        while self.run(id).await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn stop(&self, id: &InstanceId) {
        let _ = self.client.manager("test", "StopUnit", &(id.as_str(), "replace")).await;
    }
}

/// A file of the machine that does not exist until the test opens the gate: a script waits for it.
pub(super) struct Gate {
    name: String,
    path: PathBuf,
}

impl Gate {
    pub(super) fn of(fixture: &Fixture) -> Self {
        let name = format!("/run/rt-gate-{:x}", random());
        let path = fixture.client.config().root.clone().unwrap().join(&name[1..]);
        let gate = Self { name, path };
        let script = format!("while [ ! -e {} ]; do sleep 0.05; done", gate.name);
        std::fs::write(gate.script(), script).unwrap();
        gate
    }

    fn script(&self) -> PathBuf {
        self.path.with_extension("sh")
    }

    /// The command of a shell that waits until the gate is open; one without a separator, which a reload would change.
    pub(super) fn passed(&self) -> String {
        format!("sh {}.sh", self.name)
    }

    /// The command of a shell that closes it.
    pub(super) fn close(&self) -> String {
        format!("rm {}", self.name)
    }

    pub(super) fn open(&self) {
        std::fs::write(&self.path, "").unwrap();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.script());
    }
}

pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}
