//! Freezing and thawing at the moments when a watch sees a run for the first time, on a real systemd.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use runtide_conformance::testbed::Turn;
use runtide_core::{EventStream, InstanceState, InstanceTable, RuntimeBackend, WatchOptions};
use runtide_systemd::{Config, Selection, SystemdBackend};
use zbus::Variant;

use crate::machine::{self, Machine, Settings};

/// Units of each round.
const UNITS: u64 = 48;

/// Time in which the rows and the manager must agree; a wrong row stays wrong.
const LIMIT: Duration = Duration::from_secs(60);

struct Fixture {
    _turn: Turn,
    address: String,
    machine: Machine,
    backend: SystemdBackend,
    prefix: String,
}

impl Fixture {
    async fn new() -> Option<Self> {
        let variable = |name| std::env::var_os(name);
        let (Some(address), Some(root)) = (variable("RUNTIDE_TEST_SYSTEMD2"), variable("RUNTIDE_TEST_SYSTEMD2_ROOT"))
        else {
            let why = "RUNTIDE_TEST_SYSTEMD2 is not set: cargo xtask testbed up systemd2";
            runtide_conformance::report::skip("freeze", "systemd", why);
            return None;
        };
        let address = address.into_string().unwrap();
        let prefix =
            format!("fr{:x}", std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() & 0xff_ffff_ffff);
        let config = Config::system().with_address(address.clone()).with_root(Some(PathBuf::from(root)));
        let config = config.with_selection(Selection::default().with_pattern(format!("{prefix}*")));
        let turn = Turn::on("systemd2").await.unwrap();
        let backend = SystemdBackend::new(config).unwrap();
        Some(Self { _turn: turn, machine: Machine::at(&address), address, backend, prefix })
    }

    /// Does this with each unit of a round, all at once, each over a connection of its own.
    async fn each(&self, round: &str, one: impl AsyncFn(&Unit)) {
        let units = (0..UNITS).map(|number| Unit {
            machine: Machine::at(&self.address),
            name: self.unit(round, number),
            number,
        });
        let units: Vec<Unit> = units.collect();
        futures_util::future::try_join_all(units.iter().map(|unit| unit.machine.version())).await.unwrap();
        futures_util::future::join_all(units.iter().map(|unit| one(unit))).await;
    }

    /// Does this with each unit of a round, one after the other: the watch is idle when each run begins.
    async fn one_by_one(&self, round: &str, one: impl AsyncFn(&Unit)) {
        for number in 0..UNITS {
            let unit = Unit { machine: Machine::at(&self.address), name: self.unit(round, number), number };
            unit.machine.version().await.unwrap();
            one(&unit).await;
        }
    }

    fn unit(&self, round: &str, number: u64) -> String {
        format!("{}-{round}{number}.service", self.prefix)
    }

    async fn watch(&self) -> (EventStream, InstanceTable) {
        (self.backend.watch(WatchOptions::default()).await.unwrap(), InstanceTable::default())
    }

    /// Reads the watch until each row of the round is as the manager has the unit.
    async fn agree(&self, (stream, table): (&mut EventStream, &mut InstanceTable), round: &str) {
        let end = tokio::time::Instant::now() + LIMIT;
        let mut expected = BTreeMap::new();
        for number in 0..UNITS {
            let unit = self.unit(round, number);
            let properties = self.machine.properties(&unit).await.unwrap().unwrap();
            expected.insert(unit, machine::text(&properties, "FreezerState"));
        }
        assert!(expected.values().all(|state| matches!(state.as_str(), "frozen" | "running")), "{expected:?}");
        loop {
            let rows: BTreeMap<String, InstanceState> =
                table.iter().map(|one| (one.id.to_string(), one.state)).collect();
            let is_right = |(unit, state): (&String, &String)| {
                let right = if state == "frozen" { InstanceState::Paused } else { InstanceState::Running };
                rows.get(unit) == Some(&right)
            };
            if expected.iter().all(is_right) {
                return;
            }
            let Ok(event) = tokio::time::timeout_at(end, stream.next()).await else {
                let wrong: Vec<_> = expected.iter().filter(|one| !is_right(*one)).collect();
                let shown: Vec<_> = wrong.iter().map(|(unit, _)| rows.get(*unit)).collect();
                panic!("{round}: {} of {UNITS} rows are wrong: {wrong:?}, shown {shown:?}", wrong.len());
            };
            let _ = table.apply(&event.unwrap().unwrap());
        }
    }

    async fn end(self) {
        for round in ["a", "b"] {
            for number in 0..UNITS {
                let unit = self.unit(round, number);
                let _ = self.machine.manager("ThawUnit", &(unit.as_str(),)).await;
                let _ = self.machine.manager("StopUnit", &(unit.as_str(), "replace")).await;
            }
        }
        self.backend.close().await.unwrap();
    }
}

struct Unit {
    machine: Machine,
    name: String,
    number: u64,
}

impl Unit {
    async fn start(&self) {
        let exec = vec![("/bin/sleep".to_owned(), vec!["/bin/sleep".to_owned(), "1000".to_owned()], false)];
        let settings: Settings<'_> =
            vec![("ExecStart", Variant::from(exec)), ("CollectMode", Variant::from("inactive-or-failed"))];
        let aux: Vec<(&str, Settings<'_>)> = Vec::new();
        self.machine.manager("StartTransientUnit", &(self.name.as_str(), "fail", settings, aux)).await.unwrap();
    }

    async fn freeze(&self) {
        self.repeat("FreezeUnit").await;
    }

    async fn thaw(&self) {
        self.repeat("ThawUnit").await;
    }

    /// The manager refuses the call while a job of the unit is pending.
    async fn repeat(&self, verb: &str) {
        let end = tokio::time::Instant::now() + LIMIT;
        while let Err(why) = self.machine.manager(verb, &(self.name.as_str(),)).await {
            assert!(tokio::time::Instant::now() < end, "{}: {verb}: {why}", self.name);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// 0 to 40 ms, another for each unit and purpose.
    async fn delay(&self, purpose: u64) {
        tokio::time::sleep(Duration::from_millis(self.number * 7 * purpose % 41)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_around_the_first_inspection_of_a_run_is_reported() {
    let Some(fixture) = Fixture::new().await else { return };
    let (mut stream, mut table) = fixture.watch().await;
    fixture
        .one_by_one("a", async |unit: &Unit| {
            unit.start().await;
            unit.delay(1).await;
            unit.freeze().await;
        })
        .await;
    fixture.agree((&mut stream, &mut table), "a").await;
    fixture
        .one_by_one("b", async |unit: &Unit| {
            unit.start().await;
            unit.delay(1).await;
            unit.freeze().await;
            unit.delay(3).await;
            unit.thaw().await;
        })
        .await;
    fixture.agree((&mut stream, &mut table), "b").await;
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_or_thaw_around_the_first_listing_of_a_watch_is_reported() {
    let Some(fixture) = Fixture::new().await else { return };
    for round in ["a", "b"] {
        fixture.each(round, async |unit: &Unit| unit.start().await).await;
    }
    fixture.each("a", async |unit: &Unit| unit.freeze().await).await;
    let watching = async {
        let (mut stream, mut table) = fixture.watch().await;
        let _ = table.apply(&stream.next().await.unwrap().unwrap());
        (stream, table)
    };
    let thawing = fixture.each("a", async |unit: &Unit| {
        unit.delay(1).await;
        unit.thaw().await;
    });
    let freezing = fixture.each("b", async |unit: &Unit| {
        unit.delay(1).await;
        unit.freeze().await;
    });
    let ((mut stream, mut table), (), ()) = tokio::join!(watching, thawing, freezing);
    for round in ["a", "b"] {
        fixture.agree((&mut stream, &mut table), round).await;
    }
    fixture.end().await;
}
