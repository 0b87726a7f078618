//! `journal`, killed five times while a real Docker daemon's containers come, change and go, and started again: in the end the
//! journal converges to the output of `docker ps -a`, and verifies with the anchors from before each kill.
//!
//! `RUNTIDE_TEST_DOCKER` is the daemon's address.

mod churn;
mod process;

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

use churn::Churn;
use process::Journal;
use runtide_conformance::{report, testbed::Turn};
use runtide_core::{
    InstanceTable, RuntimeEvent,
    wal::{ReadFrom, WalOptions, WalReader, verify},
};
use runtide_journal::{JournalOptions, RuntimeJournal};
use serde_json::Value;

use runtide_conformance::daemon::Daemon;

const KILLS: u32 = 5;

/// The journal is at rest after this time without an event.
const QUIET: Duration = Duration::from_secs(15);

/// The rows of `docker ps -a`: ids, and states by our names.
type Rows = BTreeMap<String, String>;

#[test]
fn a_journal_that_is_killed_while_containers_churn_converges_to_the_daemons_state() {
    let Ok(address) = std::env::var("RUNTIDE_TEST_DOCKER") else {
        report::skip("journal", "docker", "RUNTIDE_TEST_DOCKER is not set");
        return;
    };
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // All that the daemon has is compared.
    let _turn = tokio.block_on(Turn::on("docker")).unwrap();
    let daemon = Daemon::at(PathBuf::from(address.trim_start_matches("unix://")));
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("journal");
    let churn = Churn::begin(&tokio, &daemon);

    let mut anchors = Vec::new();
    for kill in 1..=KILLS {
        let journal = Journal::start(&dir, &address);
        // At different positions: in the first resync, and in the midst of events.
        journal.wait_for_events(kill * 7 - 5);
        anchors.push(verify(&dir, None, None).unwrap().head.unwrap());
        journal.kill();
        churn.wait_for_more(10);
        process::verify(&dir, &anchors);
    }
    let journal = Journal::start(&dir, &address);
    let marker = churn.end();
    journal.wait_until_reported(&marker);
    journal.wait_until_quiet(QUIET);
    let truth = tokio.block_on(rows(&daemon));
    journal.kill();
    process::verify(&dir, &anchors);

    let (events, again) = facts(&dir);
    let opened = RuntimeJournal::open(&dir, JournalOptions::default()).unwrap();
    let folded: Rows = opened.table().iter().map(|row| (row.id.to_string(), row.state.as_str().to_owned())).collect();
    println!(
        "{KILLS} kills and a last one, {} containers, {events} events in the log, {} instances left",
        churn.containers(),
        truth.len()
    );
    assert_eq!(folded, truth, "the journal's state, and the daemon's");
    assert_eq!(again, Vec::<String>::new(), "a fact is in the log twice");
    assert!(truth.len() > 3 && events > KILLS * 20, "too little happened");
    tokio.block_on(histories(&opened));
    churn.clean_up();
}

/// `docker ps -a`, read without code of ours.
async fn rows(daemon: &Daemon) -> Rows {
    let list = daemon.ask("GET", "/containers/json?all=1", &Value::Null).await.unwrap().json().unwrap();
    let row = |item: &Value| {
        let state = match item["State"].as_str().unwrap() {
            "exited" => "stopped",
            state => state,
        };
        (item["Id"].as_str().unwrap().to_owned(), state.to_owned())
    };
    list.as_array().unwrap().iter().map(row).collect()
}

/// Number of events in the log, and those that are in it twice.
fn facts(dir: &Path) -> (u32, Vec<String>) {
    let (mut events, mut keys, mut again) = (0, HashSet::new(), Vec::new());
    for record in WalReader::open(dir, ReadFrom::Start, WalOptions::default()).unwrap() {
        let payload: Value = serde_json::from_slice(&record.unwrap().bytes).unwrap();
        let Some(event) = payload["record"].get("event") else { continue };
        let event: RuntimeEvent = serde_json::from_value(event.clone()).unwrap();
        events += 1;
        if event.key().is_some_and(|key| !keys.insert(key)) {
            again.push(format!("{event:?}"));
        }
    }
    (events, again)
}

/// Checks that the history of each instance ends with its present state.
async fn histories(journal: &RuntimeJournal) {
    for row in journal.table().iter() {
        let mut history = journal.history(&row.backend, &row.id).await.unwrap();
        let mut folded = InstanceTable::default();
        while let Some(event) = history.next().await {
            folded.apply(&event.unwrap());
        }
        let last = folded.get(&row.backend, &row.id).map(|last| &last.state);
        assert_eq!(last, Some(&row.state), "the history of {}", row.name);
    }
}
