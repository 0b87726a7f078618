//! The manager under a store of units is executed anew, and its machine is killed and booted again: what was applied is there,
//! watchers are told what happens and nothing else, and the store goes on.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "store/machine.rs"]
mod machine;

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use runtide_conformance::{report, testbed::Testbed};
use runtide_core::{
    ErrorKind,
    store::{
        Document, Precondition, ResourceFormat, ResourceRef, Revision, Selector, StoreBackend, StoreEvent, StoreStream,
        StoreWatchOptions,
    },
};
use runtide_memory::MemoryStore;
use runtide_systemd::{UnitStore, UnitStoreConfig, Verify};

use self::machine::Machine;

/// What a machine keeps when it is booted again.
const FOLDER: &str = "/etc/systemd/system";

struct Test {
    machine: Machine,
    store: UnitStore<MemoryStore>,
    watch: StoreStream,
    prefix: String,
}

impl Test {
    /// With one unit applied, and a watch that was told of it.
    async fn new(name: &str) -> Option<Self> {
        let machine = Machine::or_skip()?;
        let prefix = format!("rt{}{name}-", std::process::id());
        let config = UnitStoreConfig::new(machine.config(), FOLDER)
            .with_prefix(prefix.clone())
            .with_verify(Verify::Off)
            .with_poll(Duration::from_millis(100));
        let store = UnitStore::new(config, MemoryStore::new()).unwrap();
        let mut watch = store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
        assert!(matches!(watch.next().await, Some(Ok(StoreEvent::Bookmark { .. }))));
        let mut test = Self { machine, store, watch, prefix };
        let revision = test.put("first").await;
        assert_eq!(test.told().await, ("first".to_owned(), revision));
        Some(test)
    }

    fn unit(&self) -> String {
        format!("{}web.service", self.prefix)
    }

    fn path(&self) -> PathBuf {
        self.machine.root.join(FOLDER.trim_start_matches('/')).join(self.unit())
    }

    fn reference(&self) -> ResourceRef {
        ResourceRef::new("", "service", None, &format!("{}web", self.prefix)).unwrap()
    }

    async fn put(&self, description: &str) -> Revision {
        let document = Document::new(ResourceFormat::Native, text(description));
        self.store.apply(&self.reference(), document, Precondition::None).await.unwrap().revision
    }

    async fn get(&self) -> String {
        described(&self.store.get(&self.reference(), None).await.unwrap().unwrap().document)
    }

    /// What a watcher is told next, which is of a unit that is there.
    async fn told(&mut self) -> (String, Revision) {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(20), self.watch.next()).await;
            match event.unwrap().unwrap().unwrap() {
                StoreEvent::Added(resource) | StoreEvent::Modified(resource) => {
                    return (described(&resource.document), resource.revision);
                }
                StoreEvent::Bookmark { .. } => {}
                event => panic!("{event:?}"),
            }
        }
    }

    /// What is applied, by us or by others, is loaded by systemd and told to watchers; what was told before stays.
    async fn goes_on(&mut self, last: &str) {
        assert_eq!(self.get().await, last);
        assert_eq!(self.machine.property(&self.unit(), "Description"), last);
        let revision = self.put("ours").await;
        assert_eq!(self.told().await, ("ours".to_owned(), revision));
        assert_eq!(self.machine.property(&self.unit(), "Description"), "ours");
        std::fs::write(self.path(), text("theirs")).unwrap();
        self.machine.call("Reload", "", &[]);
        let (described, later) = self.told().await;
        assert_eq!(described, "theirs");
        assert!(later > revision);
        assert_eq!(self.get().await, "theirs");
    }

    /// Waits until systemd answers again.
    fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        let asked = || {
            let mut asked = Command::new("busctl");
            asked.arg(format!("--address={}", self.machine.address)).args(["get-property", "org.freedesktop.systemd1"]);
            asked.args(["/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "Version"]);
            asked.output().unwrap().status.success()
        };
        while !asked() {
            assert!(Instant::now() < end, "systemd does not come back");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    async fn end(self) {
        let gone = self.store.delete(&self.reference(), Precondition::None).await.unwrap();
        assert!(gone.is_some());
        assert!(!self.path().exists());
    }
}

fn text(description: &str) -> String {
    format!("[Unit]\nDescription={description}\n\n[Service]\nExecStart=/bin/sleep 1000\n")
}

fn described(document: &Document) -> String {
    let text = std::str::from_utf8(&document.bytes).unwrap();
    text.lines().find_map(|line| line.strip_prefix("Description=")).unwrap().to_owned()
}

/// One test: the second part takes the first one's machine away.
#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_is_executed_anew_and_a_machine_that_is_booted_again() {
    let Some(mut test) = Test::new("x").await else { return };
    // It goes without an answer.
    let _ = Command::new("busctl")
        .arg(format!("--address={}", test.machine.address))
        .args([
            "call",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "Reexecute",
        ])
        .output()
        .unwrap();
    test.wait();
    test.goes_on("first").await;

    let Some(testbed) = Testbed::of("systemd2") else {
        report::skip("store_boot", "systemd", "RUNTIDE_TESTBED is not set, so nobody can boot the machine again");
        return test.end().await;
    };
    testbed.run(&["kill"]).await.unwrap();
    // Where the machine is off, nothing is known: neither that the unit is there, nor that it is gone.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let document = Document::new(ResourceFormat::Native, text("lost"));
    let error = test.store.apply(&test.reference(), document, Precondition::None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    testbed.run(&["start"]).await.unwrap();
    test.wait();
    test.goes_on("theirs").await;
    test.end().await;
}
