//! Operations in the log: if their process dies, none of their objects is left behind, and no other object is touched.

use std::{num::NonZeroU64, path::Path, sync::Arc};

use runtide_conformance::mortal::{Lifespan, MortalBackend, MortalDisk};
use runtide_core::{
    ErrorKind, ImageRef, Labels, Result, RuntimeBackend,
    manager::{ConnectOptions, ImageInfo, InstanceSpec, NetworkSpec, OperationId, VolumeSpec},
    wal::{ReadFrom, WalOptions, WalReader},
};
use runtide_journal::{JournalOptions, OPERATION_LABEL, OWNER_LABEL, OperationLog, Stage, Undo, UndoAction};
use runtide_memory::{Call, Config, MemoryBackend, MemoryRuntime};

const BACKEND: &str = "memory:local";

fn options(disk: &MortalDisk) -> JournalOptions {
    JournalOptions::default().with_wal(WalOptions::default().with_disk(Arc::new(disk.clone()) as Arc<_>))
}

fn open(disk: &MortalDisk) -> Result<OperationLog> {
    OperationLog::open(Path::new("operations"), "shop".into(), options(disk))
}

fn unending() -> MortalDisk {
    MortalDisk::new(&Lifespan::unending())
}

fn memory(runtime: &MemoryRuntime) -> Arc<dyn RuntimeBackend> {
    Arc::new(MemoryBackend::new(Config::default(), runtime.clone()).unwrap())
}

fn labels(log: &OperationLog, id: &OperationId) -> Labels {
    log.labels(id).into_iter().collect()
}

/// Makes a network, a volume and an instance, one step after the other.
async fn compose(log: &OperationLog, backend: &dyn RuntimeBackend) -> Result<()> {
    let mut operation = log.submit("compose", &"all of it").await?;
    operation.enter(Stage::Validated).await?;
    operation.enter(Stage::Started).await?;
    let labels = labels(log, operation.id());
    let undo = |action, name: &str, id: &OperationId| Undo::new(BACKEND, action, name).made_by(id);

    operation.will(undo(UndoAction::RemoveNetwork, "net", &operation.id().clone())).await?;
    let mut network = NetworkSpec::named("net");
    network.labels = labels.clone();
    let network = backend.networks().unwrap().create(&network).await?;

    operation.will(undo(UndoAction::RemoveVolume, "data", &operation.id().clone())).await?;
    let mut volume = VolumeSpec::named("data");
    volume.labels = labels.clone();
    backend.volumes().unwrap().create(&volume).await?;

    operation.will(undo(UndoAction::RemoveInstance, "web", &operation.id().clone())).await?;
    let mut spec = InstanceSpec::default();
    (spec.name, spec.labels, spec.networks) = (Some("web".to_owned()), labels, vec![network.into()]);
    let id = backend.provision().unwrap().create(&spec).await?;
    backend.lifecycle().unwrap().start(&id).await?;
    operation.enter(Stage::Completed).await
}

async fn left(backend: &dyn RuntimeBackend, runtime: &MemoryRuntime) -> (usize, usize, usize) {
    let networks = backend.networks().unwrap().list().await.unwrap().len();
    (runtime.truth().len(), networks, backend.volumes().unwrap().list().await.unwrap().len())
}

#[tokio::test(start_paused = true)]
async fn killed_between_any_two_steps_and_recovery_killed_between_any_two_steps() {
    let mut points = 0;
    'points: for point in 1.. {
        for again in 1.. {
            let runtime = MemoryRuntime::new();
            let backend = memory(&runtime);
            let lifespan = Lifespan::until(point);
            let disk = MortalDisk::new(&lifespan);
            let done = async {
                let log = open(&disk)?;
                compose(&log, &MortalBackend::new(&lifespan, backend.clone())).await
            };
            if done.await.is_ok() {
                break 'points;
            }
            points = point;
            let lifespan = Lifespan::until(again);
            if let Ok(log) = open(&disk.reborn(&lifespan)) {
                let mortal: Arc<dyn RuntimeBackend> = Arc::new(MortalBackend::new(&lifespan, backend.clone()));
                let _ = log.recover(&[mortal]).await;
            }
            let log = open(&disk.reborn(&Lifespan::unending())).unwrap();
            let complete = log.in_flight().is_empty() && !runtime.truth().is_empty();
            let records = log.recover(std::slice::from_ref(&backend)).await.unwrap();
            assert!(records.iter().all(|record| record.stage == Stage::RolledBack && record.pending.is_empty()));
            // All objects of an operation that the log has as complete are there; else there are none.
            let whole = if complete { (1, 1, 1) } else { (0, 0, 0) };
            assert_eq!(left(&*backend, &runtime).await, whole, "at {point}, then at {again}");
            assert!(log.recover(std::slice::from_ref(&backend)).await.unwrap().is_empty(), "once more is no more");
            if !lifespan.is_over() {
                break;
            }
        }
    }
    assert!(points > 20, "only {points} points");
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_cannot_follow_is_a_conflict_and_changes_nothing() {
    let log = open(&unending()).unwrap();
    let mut operation = log.submit("x", &()).await.unwrap();
    let conflict = |result: Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict);
    conflict(operation.enter(Stage::Started).await);
    conflict(operation.enter(Stage::Completed).await);
    conflict(operation.enter(Stage::RolledBack).await);
    conflict(operation.will(Undo::new(BACKEND, UndoAction::RemoveVolume, "v")).await.map(drop));
    assert_eq!(operation.stage(), Some(Stage::Submitted));
    operation.enter(Stage::Validated).await.unwrap();
    operation.enter(Stage::Started).await.unwrap();
    operation.enter(Stage::Completed).await.unwrap();
    conflict(operation.enter(Stage::Completed).await);
    assert_eq!(operation.stage(), None);
}

#[tokio::test(start_paused = true)]
async fn existing_objects_are_left_alone() {
    let runtime = MemoryRuntime::new();
    let backend = memory(&runtime);
    let theirs = runtime.run("web").unwrap();
    backend.networks().unwrap().create(&NetworkSpec::named("net")).await.unwrap();
    let log = open(&unending()).unwrap();
    let mut operation = log.submit("x", &()).await.unwrap();
    operation.enter(Stage::Validated).await.unwrap();
    operation.enter(Stage::Started).await.unwrap();
    for (action, name) in [(UndoAction::RemoveNetwork, "net"), (UndoAction::RemoveInstance, "web")] {
        let undo = Undo::new(BACKEND, action, name).made_by(operation.id());
        operation.will(undo).await.unwrap();
    }
    let record = operation.roll_back(std::slice::from_ref(&backend)).await.unwrap();
    assert_eq!((record.stage, record.undone.len()), (Stage::RolledBack, 2));
    assert_eq!(runtime.truth()[0].id, theirs);
    assert_eq!(left(&*backend, &runtime).await, (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_existing_object_is_put_back_as_it_was() {
    let runtime = MemoryRuntime::new();
    let backend = memory(&runtime);
    let web = runtime.create("web").unwrap();
    let networks = backend.networks().unwrap();
    let net = networks.create(&NetworkSpec::named("net")).await.unwrap();
    let log = open(&unending()).unwrap();
    let mut operation = log.submit("x", &()).await.unwrap();
    operation.enter(Stage::Validated).await.unwrap();
    operation.enter(Stage::Started).await.unwrap();
    operation.will(Undo::new(BACKEND, UndoAction::Disconnect(net.clone()), "web")).await.unwrap();
    networks.connect(&net, &web, ConnectOptions::default()).await.unwrap();
    operation.will(Undo::new(BACKEND, UndoAction::StopInstance, "web")).await.unwrap();
    backend.lifecycle().unwrap().start(&web).await.unwrap();
    drop(operation);
    assert_eq!(log.recover(std::slice::from_ref(&backend)).await.unwrap()[0].stage, Stage::RolledBack);
    assert!(runtime.truth()[0].state.is_ended());
    assert!(networks.inspect(&net).await.unwrap().members.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_is_pending_until_it_works() {
    let runtime = MemoryRuntime::new();
    let backend = memory(&runtime);
    let disk = unending();
    let log = open(&disk).unwrap();
    let mortal = MortalBackend::new(&Lifespan::until(12), backend.clone());
    assert!(compose(&log, &mortal).await.is_err() || !runtime.truth().is_empty());
    let mut operation = log.submit("y", &()).await.unwrap();
    operation.enter(Stage::Validated).await.unwrap();
    operation.enter(Stage::Started).await.unwrap();
    let own = Undo::new(BACKEND, UndoAction::Custom("dns".into()), "web.local");
    operation.will(own.clone()).await.unwrap();
    let id = operation.id().clone();
    drop(operation);

    runtime.faults(|faults| faults.refuse = true);
    let records = log.recover(std::slice::from_ref(&backend)).await.unwrap();
    assert!(records.iter().all(|record| !record.pending.is_empty() && record.obstacle.is_some()), "{records:#?}");
    runtime.heal();
    drop(log);
    let log = open(&disk).unwrap();
    let records = log.recover(std::slice::from_ref(&backend)).await.unwrap();
    let custom = records.iter().find(|record| record.id == id).unwrap();
    assert_eq!(custom.pending, std::slice::from_ref(&own), "it is the caller's");
    log.settle(&id, &own).await.unwrap();
    let records = log.recover(&[backend]).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].stage, Stage::RolledBack);
    assert!(log.in_flight().is_empty());
}

#[tokio::test(start_paused = true)]
async fn recovery_leaves_operations_in_hand_in_this_process() {
    let log = open(&unending()).unwrap();
    let operation = log.submit("x", &()).await.unwrap();
    assert!(log.recover(&[]).await.unwrap().is_empty());
    assert_eq!(log.in_flight().len(), 1);
    drop(operation);
    assert_eq!(log.recover(&[]).await.unwrap()[0].stage, Stage::RolledBack);
}

#[tokio::test]
async fn orphans_of_a_lost_log_go_by_their_labels_and_a_live_owner_is_spared() {
    let runtime = MemoryRuntime::new();
    let backend = memory(&runtime);
    let dir = tempfile::tempdir().unwrap();
    let others = runtime.run("others").unwrap();
    let log = OperationLog::open(dir.path(), "shop".into(), JournalOptions::default()).unwrap();
    compose(&log, &*backend).await.unwrap();
    assert_eq!(left(&*backend, &runtime).await, (2, 1, 1));

    let spared = OperationLog::reap_orphans(&*backend, &"shop".into(), dir.path()).await.unwrap_err();
    assert_eq!(spared.kind(), ErrorKind::Conflict);
    assert_eq!(left(&*backend, &runtime).await, (2, 1, 1), "the owner is alive");
    drop(log);

    assert!(OperationLog::reap_orphans(&*backend, &"other".into(), dir.path()).await.unwrap().is_empty());
    std::fs::remove_dir_all(dir.path()).unwrap();
    let reaped = OperationLog::reap_orphans(&*backend, &"shop".into(), dir.path()).await.unwrap();
    let actions: Vec<_> = reaped.into_iter().map(|undo| undo.action).collect();
    assert_eq!(actions, [UndoAction::RemoveInstance, UndoAction::RemoveNetwork, UndoAction::RemoveVolume]);
    assert_eq!(left(&*backend, &runtime).await, (1, 0, 0));
    assert_eq!(runtime.truth()[0].id, others);
}

#[tokio::test]
async fn an_image_left_half_made_is_an_orphan_and_one_with_a_name_or_without_an_operation_is_none() {
    let runtime = MemoryRuntime::new();
    let backend = memory(&runtime);
    let dir = tempfile::tempdir().unwrap();
    for (id, tag, owner, operation) in [
        ("sha256:half", None, "shop", Some("o1")),
        ("sha256:named", Some("app:1"), "shop", Some("o1")),
        ("sha256:plain", None, "shop", None),
        ("sha256:others", None, "other", Some("o1")),
    ] {
        let mut image = ImageInfo::new(id);
        image.tags.extend(tag.map(ImageRef::from));
        let labels = [(OWNER_LABEL, Some(owner)), (OPERATION_LABEL, operation)];
        image.labels = labels.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        runtime.add_image(image);
    }
    let reaped = OperationLog::reap_orphans(&*backend, &"shop".into(), dir.path()).await.unwrap();
    let reaped: Vec<_> = reaped.iter().map(|undo| (&undo.action, undo.name.as_str())).collect();
    assert_eq!(reaped, [(&UndoAction::RemoveImage, "sha256:half")]);
    let left = backend.images().unwrap().list().await.unwrap();
    let left: Vec<_> = left.iter().map(|image| image.id.as_str()).collect();
    assert_eq!(left, ["sha256:named", "sha256:others", "sha256:plain"]);
}

#[tokio::test(start_paused = true)]
async fn a_partial_listing_proves_nothing() {
    let runtime = MemoryRuntime::new();
    let backend = memory(&runtime);
    let log = open(&unending()).unwrap();
    compose(&log, &MortalBackend::new(&Lifespan::until(6), backend.clone())).await.unwrap_err();
    let web = runtime.truth()[0].id.clone();
    runtime.faults(|faults| faults.bad_items.insert(web));
    let records = log.recover(std::slice::from_ref(&backend)).await.unwrap();
    assert_eq!(records[0].pending.len(), 3, "no listing shows that it is gone");
    runtime.heal();
    assert_eq!(log.recover(std::slice::from_ref(&backend)).await.unwrap()[0].stage, Stage::RolledBack);
    assert_eq!(left(&*backend, &runtime).await, (0, 0, 0));
    assert!(runtime.calls(Call::Remove) > 0);
}

#[tokio::test(start_paused = true)]
async fn finished_operations_do_not_keep_the_log_growing() {
    let disk = unending();
    let options = options(&disk).with_checkpoint_every(NonZeroU64::new(64));
    let wal = options.wal.clone().with_segment_bytes(NonZeroU64::new(16 << 10));
    let log = OperationLog::open(Path::new("operations"), "shop".into(), options.clone().with_wal(wal)).unwrap();
    let open_one = log.submit("long", &"it stays").await.unwrap();
    for n in 0..500 {
        let mut operation = log.submit("short", &n).await.unwrap();
        for stage in [Stage::Validated, Stage::Started, Stage::Completed] {
            operation.enter(stage).await.unwrap();
        }
    }
    let id = open_one.id().clone();
    drop((open_one, log));
    let kept = WalReader::open(Path::new("operations"), ReadFrom::Start, options.wal.clone()).unwrap().count();
    assert!(kept < 500, "{kept} of 2000 records are kept");
    let log = OperationLog::open(Path::new("operations"), "shop".into(), options).unwrap();
    let in_flight = log.in_flight();
    assert_eq!((in_flight.len(), &in_flight[0].id), (1, &id));
    assert_eq!(in_flight[0].request::<String>().unwrap(), "it stays");
}
