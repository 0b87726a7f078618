//! The manager under a store of units is re-executed, and its machine is killed and booted again: applied units are
//! there, watchers get every event and no other, and the store goes on.

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

use crate::store_machine::Machine;

/// A folder that a machine keeps over a boot.
const FOLDER: &str = "/etc/systemd/system";

struct Test {
    machine: Machine,
    store: UnitStore<MemoryStore>,
    watch: StoreStream,
    prefix: String,
}

impl Test {
    /// Creates a store with one unit applied, and a watch that has reported it.
    async fn new(name: &str) -> Option<Self> {
        let machine = Machine::alone_or_skip().await?;
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
        assert_eq!(test.reported().await, ("first".to_owned(), revision));
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

    /// Returns the next event of the watch, which is of an existing unit.
    async fn reported(&mut self) -> (String, Revision) {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(60), self.watch.next()).await;
            match event.unwrap().unwrap().unwrap() {
                StoreEvent::Added(resource) | StoreEvent::Modified(resource) => {
                    return (described(&resource.document), resource.revision);
                }
                StoreEvent::Bookmark { .. } => {}
                event => panic!("{event:?}"),
            }
        }
    }

    /// Checks that units applied by us or by others are loaded by systemd and reported to watchers, and earlier ones
    /// stay.
    async fn goes_on(&mut self, last: &str) {
        assert_eq!(self.get().await, last);
        assert_eq!(self.machine.property(&self.unit(), "Description"), last);
        let revision = self.put("ours").await;
        assert_eq!(self.reported().await, ("ours".to_owned(), revision));
        assert_eq!(self.machine.property(&self.unit(), "Description"), "ours");
        std::fs::write(self.path(), text("theirs")).unwrap();
        self.machine.call("Reload", "", &[]);
        let (described, later) = self.reported().await;
        assert_eq!(described, "theirs");
        assert!(later > revision);
        assert_eq!(self.get().await, "theirs");
    }

    /// Waits until systemd answers again.
    fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(60);
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
async fn a_manager_that_is_reexecuted_and_a_machine_that_is_booted_again() {
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
        report::skip("store_boot", "systemd", "RUNTIDE_TESTBED is not set, so the machine cannot be booted again");
        return test.end().await;
    };
    testbed.run(&["kill"]).await.unwrap();
    // While the machine is off, the state is unknown: neither is the unit there, nor is it gone.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let document = Document::new(ResourceFormat::Native, text("lost"));
    let error = test.store.apply(&test.reference(), document, Precondition::None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    testbed.run(&["start"]).await.unwrap();
    test.wait();
    test.goes_on("theirs").await;
    test.end().await;
}
