//! A process that writes unit files is killed at any moment: acknowledged writes are there, on the disk and in the
//! manager, and a write under way is whole or taken back.
//!
//! The process is this very program, run again for the test `the_process_that_is_killed`. Power cuts are in the law S9.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use runtide_core::store::{
    Document, Precondition, ResourceFormat, ResourceRef, Revision, Selector, StoreBackend, StoreBackendExt,
};
use runtide_memory::MemoryStore;
use runtide_systemd::UnitStore;

use crate::store_machine::{Machine, Part};

const PREFIX: &str = "RUNTIDE_UNITS_KILL_PREFIX";
const WRITERS: usize = 6;
const KILLS: u64 = 8;

fn open(part: &Part) -> UnitStore<MemoryStore> {
    UnitStore::new(part.config(), MemoryStore::new()).unwrap()
}

fn text(n: u64) -> String {
    format!("[Unit]\nDescription=number {n}\n\n[Service]\nExecStart=/bin/true\n")
}

/// Run by the other test, with a prefix, to be killed; without one it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_that_is_killed() {
    let Ok(prefix) = std::env::var(PREFIX) else { return };
    let part = Part { machine: Machine::named().unwrap(), prefix };
    let store = open(&part);
    let first = store.stats().await.unwrap().revision.0;
    let writers = (0..WRITERS).map(|writer| {
        let (store, prefix) = (&store, &part.prefix);
        async move {
            let reference = ResourceRef::new("", "service", None, &format!("{prefix}w{writer}")).unwrap();
            for n in first.. {
                let document = Document::new(ResourceFormat::Native, text(n));
                let applied = store.apply(&reference, document, Precondition::None).await.unwrap();
                eprintln!("is {writer} {} {n}", applied.revision);
            }
        }
    });
    futures_util::future::join_all(writers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_are_there() {
    let Some(machine) = Machine::shared_or_skip().await else { return };
    let part = machine.part();
    let mut last = Revision(0);
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let mut last_acknowledged: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store_kill::the_process_that_is_killed", "--nocapture"])
            .env(PREFIX, &part.prefix)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        for (count, line) in (0_u64..).zip(lines.map_while(Result::ok)) {
            if count == 10 + kill {
                // Some writes after this one are under way.
                std::thread::sleep(Duration::from_millis(kill * 23));
                child.kill().unwrap();
            }
            let words: Vec<&str> = line.split(' ').collect();
            if let ["is", writer, revision, n] = words[..] {
                last_acknowledged.insert(writer.parse().unwrap(), (revision.parse().unwrap(), n.parse().unwrap()));
                acknowledged += 1;
            } else {
                assert!(!line.contains("panicked"), "{line}");
            }
        }
        child.wait().unwrap();
        let store = open(&part);
        let page = store.list_all(&Selector::all(), None).await.unwrap();
        for (writer, (revision, n)) in &last_acknowledged {
            let name = format!("{}w{writer}", part.prefix);
            let found = page.items.iter().find(|one| one.reference.name() == name).unwrap();
            // A later one may be there whose acknowledgement was on its way.
            assert!(found.revision.0 >= *revision, "{name}: {} < {revision}", found.revision);
            if found.revision.0 == *revision {
                assert_eq!(found.document.bytes, text(*n), "{name}");
            }
            let on_disk = std::fs::read(part.path(&format!("{name}.service"))).unwrap();
            assert_eq!(on_disk, found.document.bytes, "{name}");
        }
        assert!(page.revision >= last);
        let next = ResourceRef::new("", "service", None, &format!("{}next", part.prefix)).unwrap();
        let document = Document::new(ResourceFormat::Native, text(kill));
        let next = store.apply(&next, document, Precondition::None).await.unwrap().revision;
        assert!(next > page.revision && next > last, "revisions rise");
        last = next;
        store.close().await;
    }
    eprintln!("{acknowledged} acknowledged writes, {KILLS} kills");
}
