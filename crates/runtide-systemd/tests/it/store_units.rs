//! Unit files as resources, on a real systemd: an applied unit can be started, a refused one is taken back, and changes
//! by other programs are detected.

use std::{os::unix::fs::symlink, time::Duration};

use runtide_core::{
    ErrorKind,
    manager::Effect,
    store::{
        ApplyOutcome, Document, Precondition, ResourceFormat, ResourceRef, Revision, Selector, Since, StoreBackend,
        StoreBackendExt, StoreEvent, StoreStream, StoreWatchOptions,
    },
};
use runtide_memory::MemoryStore;
use runtide_systemd::{Config, UnitStore, UnitStoreConfig};

use crate::store_machine::{self, Machine, Part};

struct Test {
    part: Part,
    store: UnitStore<MemoryStore>,
}

impl Test {
    /// None if no machine is named.
    async fn new() -> Option<Self> {
        let part = Machine::shared_or_skip().await?.part();
        Some(Self { store: open(&part), part })
    }

    fn unit(&self, name: &str) -> String {
        format!("{}{name}", self.part.prefix)
    }

    fn service(&self, name: &str) -> ResourceRef {
        ResourceRef::new("", "service", None, &self.unit(name)).unwrap()
    }

    fn drop_in(&self, unit: &str, name: &str) -> ResourceRef {
        ResourceRef::new("", "service.d", self.unit(unit).as_str(), name).unwrap()
    }

    async fn put(&self, reference: &ResourceRef, text: &str) -> Revision {
        self.store.apply(reference, native(text), Precondition::None).await.unwrap().revision
    }

    fn on_disk(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.part.path(&self.unit(file))).ok()
    }

    fn property(&self, name: &str, property: &str) -> String {
        self.part.machine.property(&self.unit(name), property)
    }

    async fn watch(&self) -> StoreStream {
        let mut watch = self.store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
        assert!(matches!(watch.next().await, Some(Ok(StoreEvent::Bookmark { .. }))));
        watch
    }
}

fn open(part: &Part) -> UnitStore<MemoryStore> {
    UnitStore::new(part.config(), MemoryStore::new()).unwrap()
}

fn native(text: &str) -> Document {
    Document::new(ResourceFormat::Native, text.to_owned())
}

async fn next(watch: &mut StoreStream) -> StoreEvent {
    tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap().unwrap()
}

const SLEEPS: &str = "# kept\n[Unit]\nDescription=sleeps\n\n[Service]\nExecStart=/bin/sleep 1000\n\n[Install]\nWantedBy=multi-user.target\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_unit_can_be_started_and_a_delete_stops_it() {
    let Some(test) = Test::new().await else { return };
    let web = test.service("web");
    test.put(&web, SLEEPS).await;
    test.part.machine.start(&test.unit("web.service"));
    assert_eq!(test.property("web.service", "ActiveState"), "active");
    assert_eq!(test.property("web.service", "NeedDaemonReload"), "false");
    assert_eq!(test.property("web.service", "Description"), "sleeps");
    assert_eq!(
        test.property("web.service", "FragmentPath"),
        format!("{}/{}", store_machine::FOLDER, test.unit("web.service"))
    );
    assert_eq!(test.on_disk("web.service").unwrap(), SLEEPS);

    let changed = test.put(&web, &SLEEPS.replace("sleeps", "still sleeps")).await;
    assert_eq!(test.property("web.service", "Description"), "still sleeps");
    assert_eq!(test.property("web.service", "ActiveState"), "active");

    let gone = test.store.delete(&web, Precondition::Is(changed)).await.unwrap();
    assert!(gone > Some(changed));
    assert_eq!(test.property("web.service", "ActiveState"), "inactive");
    assert_eq!(test.property("web.service", "LoadState"), "not-found");
    assert_eq!(test.on_disk("web.service"), None);
    assert_eq!(test.store.delete(&web, Precondition::None).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_unit_is_taken_back() {
    let Some(test) = Test::new().await else { return };
    let web = test.service("web");
    let made = test.put(&web, SLEEPS).await;
    let mut watch = test.watch().await;
    for wrong in [
        "[Service]\nType=simple\n",
        "[Service]\nExecStart=relative/path\n",
        "[Service]\nExecStart=/bin/true\nExecStart=/bin/false\n",
        "no section\n",
    ] {
        let error = test.store.apply(&web, native(wrong), Precondition::None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let fresh = test.store.apply(&test.service("fresh"), native(wrong), Precondition::None).await.unwrap_err();
        assert_eq!(fresh.kind(), ErrorKind::InvalidInput, "{fresh}");
    }
    assert_eq!(test.on_disk("web.service").unwrap(), SLEEPS);
    assert_eq!(test.on_disk("fresh.service"), None);
    assert_eq!(test.property("web.service", "LoadState"), "loaded");
    assert_eq!(test.property("web.service", "Description"), "sleeps");
    let found = test.store.get(&web, None).await.unwrap().unwrap();
    assert_eq!((found.revision, &found.document), (made, &native(SLEEPS)));
    // No watcher saw it.
    let after = test.put(&web, &SLEEPS.replace("sleeps", "again")).await;
    assert_eq!(next(&mut watch).await.revision(), after);
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_analyze_is_asked_where_it_sees_what_the_manager_sees() {
    let Some(test) = Test::new().await else { return };
    // It reads the files of its own process, so the test runs with the manager's root.
    if test.part.machine.root != std::path::Path::new("/") {
        return test
            .part
            .machine
            .runs_there("store_units::systemd_analyze_is_asked_where_it_sees_what_the_manager_sees");
    }
    let config = test.part.config().with_verify(runtide_systemd::Verify::Auto);
    let store = UnitStore::new(config, MemoryStore::new()).unwrap();
    let web = test.service("web");
    store.apply(&web, native(SLEEPS), Precondition::None).await.unwrap();
    for wrong in ["[Service]\nExecStart=/no/such/program\n", "[Unit]\nNoSuchKey=1\n[Service]\nExecStart=/bin/true\n"] {
        let error = store.apply(&web, native(wrong), Precondition::None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.message().contains("/no/such") || error.message().contains("NoSuchKey"), "{error}");
    }
    let drop_in = test.drop_in("web", "10-wrong");
    let error =
        store.apply(&drop_in, native("[Service]\nExecStart=/bin/true\n"), Precondition::None).await.unwrap_err();
    assert!(error.message().contains("more than one ExecStart="), "{error}");
    assert_eq!(test.on_disk("web.service").unwrap(), SLEEPS);

    // A drop-in is verified with its unit, and one without a unit is not verified.
    let early = test.drop_in("later", "10-more");
    store.apply(&early, native("[Unit]\nDescription=more\n"), Precondition::None).await.unwrap();
    store.apply(&test.service("later"), native(SLEEPS), Precondition::None).await.unwrap();
    let mut saved = Vec::new();
    store.snapshot(&mut saved).await.unwrap();
    for gone in [&early, &test.service("later"), &web] {
        store.delete(gone, Precondition::None).await.unwrap();
    }
    store.restore(&mut saved.as_slice()).await.unwrap();
    assert_eq!(test.property("later.service", "Description"), "more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_another_one_hides_is_a_conflict() {
    let Some(test) = Test::new().await else { return };
    let hiding = test.part.machine.root.join("etc/systemd/system").join(test.unit("web.service"));
    let web = test.service("web");
    for masked in [false, true] {
        if masked {
            symlink("/dev/null", &hiding).unwrap();
        } else {
            std::fs::write(&hiding, SLEEPS).unwrap();
        }
        let applied = test.store.apply(&web, native(&SLEEPS.replace("sleeps", "ours")), Precondition::None).await;
        std::fs::remove_file(&hiding).unwrap();
        let error = applied.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains("/etc/systemd/system/"), "{error}");
        assert_eq!(test.on_disk("web.service"), None, "it is taken back");
    }
    let drop_in = test.drop_in("web", "10-more");
    let folder = hiding.with_extension("service.d");
    test.put(&web, SLEEPS).await;
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("10-more.conf"), "[Unit]\nDescription=theirs\n").unwrap();
    let applied = test.store.apply(&drop_in, native("[Unit]\nDescription=ours\n"), Precondition::None).await;
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(applied.unwrap_err().kind(), ErrorKind::Conflict);
    test.put(&drop_in, "[Unit]\nDescription=ours\n").await;
    assert_eq!(test.property("web.service", "Description"), "ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_file_is_read_by_the_manager_too() {
    let Some(test) = Test::new().await else { return };
    let web = test.service("web");
    test.put(&web, SLEEPS).await;
    test.part.machine.start(&test.unit("web.service"));
    let mut watch = test.watch().await;
    let theirs = SLEEPS.replace("sleeps", "theirs");
    std::fs::write(test.part.path(&test.unit("web.service")), &theirs).unwrap();
    // The file is detected, and the manager was not reloaded.
    let seen = next(&mut watch).await.revision();
    let applied = test.store.apply(&web, native(&theirs), Precondition::None).await.unwrap();
    assert_eq!((applied.outcome, applied.revision), (ApplyOutcome::Unchanged, seen));
    assert_eq!(test.property("web.service", "Description"), "theirs");
    test.part.machine.call("StopUnit", "ss", &[&test.unit("web.service"), "replace"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn disable_undoes_an_enable_in_another_folder() {
    let Some(test) = Test::new().await else { return };
    let web = test.service("web");
    test.put(&web, SLEEPS).await;
    let unit = test.unit("web.service");
    let wants =
        |below: &str| test.part.machine.root.join(below).join("systemd/system/multi-user.target.wants").join(&unit);
    // The store's own folder is below /run, so the store would enable it elsewhere.
    test.part.machine.call("EnableUnitFiles", "asbb", &["1", &unit, "false", "false"]);
    assert!(wants("etc").is_symlink());
    assert_eq!(test.store.disable(&web).await.unwrap(), Effect::Changed);
    assert!(!wants("etc").is_symlink() && !wants("run").is_symlink());
    assert_eq!(test.store.disable(&web).await.unwrap(), Effect::Unchanged);
    test.part.machine.call("EnableUnitFiles", "asbb", &["1", &unit, "false", "false"]);
    test.store.delete(&web, Precondition::None).await.unwrap();
    assert!(!wants("etc").is_symlink(), "nothing of it is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_opening_notifies_a_manager_that_read_a_change_taken_back() {
    let Some(test) = Test::new().await else { return };
    let web = test.service("web");
    let made = test.put(&web, SLEEPS).await;
    test.store.close().await;
    let record = test.part.machine.root.join("run/systemd/system.runtide").join(format!("units-{}", test.part.prefix));
    // As after a crash: the files are as they were, and the manager has read the change.
    let path = test.part.path(&test.unit("web.service"));
    std::fs::write(&path, SLEEPS.replace("sleeps", "refused")).unwrap();
    test.part.machine.call("Reload", "", &[]);
    std::fs::write(&path, SLEEPS).unwrap();
    std::fs::write(record.join("intent"), format!(r#"{{"base":{},"files":[],"access":{{}}}}"#, made.0)).unwrap();
    let store = open(&test.part);
    assert_eq!(store.get(&web, None).await.unwrap().unwrap().revision, made);
    for _ in 0..600 {
        if test.property("web.service", "Description") == "sleeps" && !record.join("intent").exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the manager was not notified");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_unit_does_not_harm_the_others_of_its_group() {
    let Some(test) = Test::new().await else { return };
    let (store, reference) = (&test.store, |n: usize| test.service(&format!("n{n}")));
    let writes = (0..6).map(|n| async move {
        let unit = if n == 3 { "[Service]\nType=simple\n" } else { SLEEPS };
        store.apply(&reference(n), native(unit), Precondition::Absent).await
    });
    for (n, done) in futures_util::future::join_all(writes).await.into_iter().enumerate() {
        assert_eq!(
            done.as_ref().err().map(runtide_core::Error::kind),
            (n == 3).then_some(ErrorKind::InvalidInput),
            "{n}"
        );
        assert_eq!(test.on_disk(&format!("n{n}.service")).is_some(), n != 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_others_is_detected_and_not_overwritten() {
    let Some(test) = Test::new().await else { return };
    let web = test.service("web");
    let made = test.put(&web, SLEEPS).await;
    let mut watch = test.watch().await;
    let theirs = SLEEPS.replace("sleeps", "theirs");
    std::fs::write(test.part.path(&test.unit("web.service")), &theirs).unwrap();
    let error = test.store.apply(&web, native("[Service]\nExecStart=/bin/true\n"), Precondition::Is(made)).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(test.on_disk("web.service").unwrap(), theirs);
    let StoreEvent::Modified(seen) = next(&mut watch).await else { panic!("modified") };
    assert!(seen.document == native(&theirs) && seen.revision > made);
    // A write that knows of it succeeds.
    test.store.apply(&web, native(SLEEPS), Precondition::Is(seen.revision)).await.unwrap();
    next(&mut watch).await;

    // Without any write of ours: it is detected all the same.
    std::fs::write(test.part.path(&test.unit("other.service")), SLEEPS).unwrap();
    assert!(matches!(next(&mut watch).await, StoreEvent::Added(one) if one.reference == test.service("other")));
    std::fs::remove_file(test.part.path(&test.unit("other.service"))).unwrap();
    assert!(
        matches!(next(&mut watch).await, StoreEvent::Deleted { reference, .. } if reference == test.service("other"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_ins_are_resources_and_go_with_their_unit() {
    let Some(test) = Test::new().await else { return };
    let (web, limits) = (test.service("web"), test.drop_in("web", "10-limits"));
    test.put(&web, SLEEPS).await;
    let made = test.put(&limits, "[Unit]\nDescription=dropped in\n").await;
    assert_eq!(test.property("web.service", "Description"), "dropped in");
    assert_eq!(test.on_disk("web.service.d/10-limits.conf").unwrap(), "[Unit]\nDescription=dropped in\n");
    let error = test.store.apply(&limits, native("[Service]\nExecStart=/bin/true\n"), Precondition::None).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput, "two commands");
    assert_eq!(test.property("web.service", "Description"), "dropped in");

    test.store.delete(&limits, Precondition::Is(made)).await.unwrap().unwrap();
    assert_eq!(test.property("web.service", "Description"), "sleeps");
    test.put(&limits, "[Unit]\nDescription=dropped in\n").await;
    let mut watch = test.watch().await;
    let gone = test.store.delete(&web, Precondition::None).await.unwrap().unwrap();
    assert!(matches!(next(&mut watch).await, StoreEvent::Deleted { reference, .. } if reference == limits));
    assert_eq!(next(&mut watch).await, StoreEvent::Deleted { reference: web, revision: gone });
    assert!(!test.part.path(&test.unit("web.service.d")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn units_are_enabled_and_disabled() {
    let Some(test) = Test::new().await else { return };
    let web = test.service("web");
    assert_eq!(test.store.enable(&web).await.unwrap_err().kind(), ErrorKind::NotFound);
    test.put(&web, SLEEPS).await;
    assert_eq!(test.store.enable(&web).await.unwrap(), Effect::Changed);
    assert_eq!(test.store.enable(&web).await.unwrap(), Effect::Unchanged);
    assert!(test.property("web.service", "UnitFileState").starts_with("enabled"));
    assert_eq!(test.store.disable(&web).await.unwrap(), Effect::Changed);
    assert_eq!(test.store.disable(&web).await.unwrap(), Effect::Unchanged);
    assert_eq!(test.store.enable(&web).await.unwrap(), Effect::Changed);
    test.store.delete(&web, Precondition::None).await.unwrap().unwrap();
    let wants = test.part.folder().join("multi-user.target.wants").join(test.unit("web.service"));
    assert!(wants.symlink_metadata().is_err(), "a delete disables");
    test.put(&web, "[Service]\nExecStart=/bin/true\n").await;
    assert_eq!(test.store.enable(&web).await.unwrap_err().kind(), ErrorKind::InvalidInput, "no [Install]");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_forms_are_kept_as_written_and_shown_as_text() {
    let Some(test) = Test::new().await else { return };
    let web = test.service("web");
    let json = Document::json(r#"{"sections":[{"name":"Service","entries":[["ExecStart","/bin/true"]]}]}"#);
    test.store.apply(&web, json.clone(), Precondition::Absent).await.unwrap();
    assert_eq!(test.on_disk("web.service").unwrap(), "[Service]\nExecStart=/bin/true\n");
    assert_eq!(test.store.get(&web, None).await.unwrap().unwrap().document, json);
    let shown = test.store.get(&web, Some(ResourceFormat::Native)).await.unwrap().unwrap();
    assert_eq!(shown.document, native("[Service]\nExecStart=/bin/true\n"));
    let again = test.store.apply(&web, json.clone(), Precondition::None).await.unwrap();
    assert_eq!(again.outcome, ApplyOutcome::Unchanged);
    // After another opening the original format is still known.
    test.store.close().await;
    let store = open(&test.part);
    let found = store.get(&web, None).await.unwrap().unwrap();
    assert_eq!((found.revision, &found.document), (again.revision, &json));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_never_followed() {
    let Some(test) = Test::new().await else { return };
    let target = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(target.path(), SLEEPS).unwrap();
    symlink(target.path(), test.part.path(&test.unit("link.service"))).unwrap();
    symlink("/etc", test.part.path(&test.unit("dir.service.d"))).unwrap();
    let long = std::fs::File::create(test.part.path(&test.unit("long.service"))).unwrap();
    long.set_len(5 << 20).unwrap();
    assert_eq!(test.store.list_all(&Selector::all(), None).await.unwrap().items, []);
    let skipped: Vec<String> = test.store.skipped().await.unwrap().into_iter().map(|(name, _)| name).collect();
    for name in ["link.service", "dir.service.d", "long.service"] {
        assert!(skipped.contains(&test.unit(name)), "{skipped:?}");
    }
    for reference in [test.service("link"), test.service("long"), test.drop_in("dir", "passwd")] {
        let error = test.store.apply(&reference, native(SLEEPS), Precondition::None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    assert_eq!(std::fs::read_to_string(target.path()).unwrap(), SLEEPS);
    let elsewhere = ResourceRef::new("", "service", None, "not-of-this-store").unwrap();
    let error = test.store.apply(&elsewhere, native(SLEEPS), Precondition::None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_store_at_a_time() {
    let Some(test) = Test::new().await else { return };
    test.put(&test.service("web"), SLEEPS).await;
    let second = open(&test.part);
    assert_eq!(second.stats().await.unwrap_err().kind(), ErrorKind::Conflict);
    test.store.close().await;
    assert_eq!(test.store.stats().await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(second.stats().await.unwrap().resource_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_others_while_it_is_closed_has_a_revision_too() {
    let Some(test) = Test::new().await else { return };
    let (web, gone, fresh) = (test.service("web"), test.service("gone"), test.service("fresh"));
    let first = test.put(&web, SLEEPS).await;
    let last = test.put(&gone, SLEEPS).await;
    test.store.close().await;
    let theirs = SLEEPS.replace("sleeps", "theirs");
    std::fs::write(test.part.path(&test.unit("web.service")), &theirs).unwrap();
    std::fs::write(test.part.path(&test.unit("fresh.service")), &theirs).unwrap();
    std::fs::remove_file(test.part.path(&test.unit("gone.service"))).unwrap();
    let store = open(&test.part);
    for reference in [&web, &fresh] {
        let found = store.get(reference, None).await.unwrap().unwrap();
        assert!(found.document == native(&theirs) && found.revision > last, "{found:?}");
    }
    assert_eq!(store.get(&gone, None).await.unwrap(), None);
    let late = store.delete(&web, Precondition::Is(first)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);
    let before = StoreWatchOptions::default().with_since(Since::After(last));
    assert!(store.watch(&Selector::all(), before).await.is_ok(), "three changes after it was opened");
    let before = StoreWatchOptions::default().with_since(Since::After(first));
    assert_eq!(store.watch(&Selector::all(), before).await.unwrap_err().kind(), ErrorKind::Expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_manager_it_is_read_and_not_written() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("etc/systemd/system");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("web.service"), SLEEPS).unwrap();
    let config = Config::system().with_address("unix:path=/no/such/bus").with_root(root.path().to_owned());
    let config = UnitStoreConfig::new(config, "/etc/systemd/system");
    let store = UnitStore::new(config, MemoryStore::new()).unwrap();
    let named = |name| ResourceRef::new("", "service", None, name).unwrap();
    let found = store.get(&named("web"), None).await.unwrap().unwrap();
    assert_eq!(found.document, native(SLEEPS));
    let changed = native("[Service]\nExecStart=/bin/true\n");
    for name in ["web", "fresh"] {
        let error = store.apply(&named(name), changed.clone(), Precondition::None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(store.delete(&named("web"), Precondition::None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    let mut left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["web.service"], "nothing is left behind");
    assert_eq!(std::fs::read_to_string(folder.join("web.service")).unwrap(), SLEEPS);
    assert_eq!(store.stats().await.unwrap().revision, found.revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_path_below_another_root_is_refused() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc")).unwrap();
    symlink("/tmp", root.path().join("etc/systemd")).unwrap();
    let config = Config::system().with_address("unix:path=/no/such/bus").with_root(root.path().to_owned());
    let config = UnitStoreConfig::new(config, "/etc/systemd/system");
    let store = UnitStore::new(config, MemoryStore::new()).unwrap();
    assert_eq!(store.stats().await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_brings_all_back_or_nothing() {
    let Some(test) = Test::new().await else { return };
    let (one, two, three) = (test.service("one"), test.service("two"), test.service("three"));
    test.put(&one, SLEEPS).await;
    test.put(&two, SLEEPS).await;
    let mut snapshot = Vec::new();
    test.store.snapshot(&mut snapshot).await.unwrap();
    test.put(&one, &SLEEPS.replace("sleeps", "other")).await;
    test.store.delete(&two, Precondition::None).await.unwrap();
    test.put(&three, SLEEPS).await;
    let last = test.put(&three, &SLEEPS.replace("sleeps", "three")).await;
    test.part.machine.start(&test.unit("three.service"));
    assert_eq!(test.store.enable(&three).await.unwrap(), Effect::Changed);

    // One unit in it is refused by systemd.
    let mut wrong = Vec::new();
    let mut writer = runtide_core::store::StoreSnapshotWriter::begin(&mut wrong, Revision(1), 2);
    for (reference, text) in [(&one, SLEEPS), (&two, "[Service]\nType=simple\n")] {
        writer.put(&runtide_core::store::Resource::new(reference.clone(), native(text), Revision(1))).await.unwrap();
    }
    writer.seal().await.unwrap();
    let error = test.store.restore(&mut &wrong[..]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(test.property("one.service", "Description"), "other");
    assert_eq!(test.on_disk("two.service"), None);
    // The unit that was to be removed continues to run.
    assert_eq!(test.property("three.service", "ActiveState"), "active");
    assert!(test.property("three.service", "UnitFileState").starts_with("enabled"));
    assert_eq!(test.store.stats().await.unwrap().resource_count, 2);

    let restored = test.store.restore(&mut &snapshot[..]).await.unwrap();
    assert!(restored > last);
    assert_eq!(test.property("one.service", "Description"), "sleeps");
    assert_eq!(test.on_disk("two.service").unwrap(), SLEEPS);
    assert_eq!(test.on_disk("three.service"), None);
    assert_eq!(test.property("three.service", "ActiveState"), "inactive");
    let wants = test.part.folder().join("multi-user.target.wants").join(test.unit("three.service"));
    assert!(wants.symlink_metadata().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_systemd_does_not_read_takes_nothing() {
    let Some(machine) = Machine::shared_or_skip().await else { return };
    let name = format!("{}away", machine.part().prefix);
    std::fs::create_dir_all(machine.root.join("srv")).unwrap();
    let config = UnitStoreConfig::new(machine.config(), "/srv/units").with_prefix(name.clone());
    let store = UnitStore::new(config, MemoryStore::new()).unwrap();
    let web = ResourceRef::new("", "service", None, &name).unwrap();
    let error = store.apply(&web, native(SLEEPS), Precondition::None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(!machine.root.join("srv/units").join(format!("{name}.service")).exists(), "it is taken back");
    assert_eq!(store.get(&web, None).await.unwrap(), None);
}
