//! A watch in a journal: if its process dies, each fact is still in the log once, and the log folds to the runtime's state.

use std::{collections::BTreeSet, num::NonZeroU64, path::Path, sync::Arc, time::Duration};

use runtide_conformance::mortal::{Lifespan, MortalDisk};
use runtide_core::{
    BackendId, ErrorKind, EventStream, Evidence, Gap, Instance, InstanceFilter, InstanceId, InstanceTable,
    RuntimeBackend, RuntimeEvent, RuntimeEventKind, WatchOptions,
    wal::{ReadFrom, Record, RecordKind, Wal, WalOptions, WalReader},
};
use runtide_journal::{JournalOptions, OperationLog, RuntimeJournal};
use runtide_memory::{Config, Dialect, FactKind, MemoryBackend, MemoryRuntime, RuntimeOptions};
use tokio::sync::oneshot;

fn dir() -> &'static Path {
    Path::new("journal")
}

fn wal(disk: &MortalDisk) -> WalOptions {
    WalOptions::default().with_disk(Arc::new(disk.clone()) as Arc<_>)
}

/// Opens with frequent checkpoints, so that they come between any two events.
fn open(disk: &MortalDisk) -> runtide_core::Result<RuntimeJournal> {
    RuntimeJournal::open(dir(), JournalOptions::default().with_wal(wal(disk)).with_checkpoint_every(NonZeroU64::new(5)))
}

fn backend(runtime: &MemoryRuntime, dialect: Dialect) -> Arc<MemoryBackend> {
    Arc::new(MemoryBackend::new(Config::default().with_dialect(dialect), runtime.clone()).unwrap())
}

fn id() -> BackendId {
    BackendId::from("memory:local")
}

/// Every record of the log.
fn records(disk: &MortalDisk) -> Vec<Record> {
    let whole = disk.reborn(&Lifespan::unending());
    WalReader::open(dir(), ReadFrom::Start, wal(&whole)).unwrap().map(Result::unwrap).collect()
}

/// Every event of the log, in order.
fn logged(disk: &MortalDisk) -> Vec<RuntimeEvent> {
    let payload = |record: Record| serde_json::from_slice::<serde_json::Value>(&record.bytes).unwrap();
    let events = records(disk).into_iter().map(payload);
    events
        .filter_map(|payload| payload["record"].get("event").cloned())
        .map(|event| serde_json::from_value(event).unwrap())
        .collect()
}

fn plain<'a>(rows: impl Iterator<Item = &'a Arc<Instance>>) -> Vec<Instance> {
    let mut rows: Vec<Instance> = rows.map(|row| Instance::clone(row)).collect();
    for row in &mut rows {
        row.generation = 0;
    }
    rows
}

fn truth(runtime: &MemoryRuntime) -> Vec<Instance> {
    let mut truth = runtime.truth_as(&id());
    for row in &mut truth {
        row.generation = 0;
    }
    truth
}

async fn next(stream: &mut EventStream) -> Option<Arc<RuntimeEvent>> {
    tokio::time::timeout(Duration::from_secs(120), stream.next()).await.ok()?.map(Result::unwrap)
}

async fn until_quiet(stream: &mut EventStream) -> Vec<Arc<RuntimeEvent>> {
    let mut events = Vec::new();
    while let Some(event) = next(stream).await {
        events.push(event);
    }
    events
}

/// The lifecycle fact that an event reports, with its instance.
fn edge(event: &RuntimeEvent) -> Option<(FactKind, InstanceId)> {
    match &event.kind {
        RuntimeEventKind::Started(row) => Some((FactKind::Started, row.id.clone())),
        RuntimeEventKind::Stopped(row) => Some((FactKind::Stopped, row.id.clone())),
        RuntimeEventKind::Removed(row) => Some((FactKind::Removed, row.id.clone())),
        _ => None,
    }
}

/// Incarnations that begin, change and end.
async fn script(runtime: MemoryRuntime, begin: oneshot::Receiver<()>) {
    let _ = begin.await;
    let pause = || tokio::time::sleep(Duration::from_millis(20));
    let web = runtime.run("web").unwrap();
    pause().await;
    let job = runtime.run("job").unwrap();
    runtime.pause(&web).unwrap();
    pause().await;
    runtime.unpause(&web).unwrap();
    runtime.exit(&job, runtide_core::ExitStatus::code(3)).unwrap();
    pause().await;
    runtime.remove(&job).unwrap();
    runtime.restart(&web).unwrap();
    pause().await;
    runtime.run("late").unwrap();
    pause().await;
}

/// One process: it watches until the script is over, or until it dies. Returns the events that it yielded.
async fn process(disk: &MortalDisk, runtime: &MemoryRuntime, dialect: Dialect) -> Vec<Arc<RuntimeEvent>> {
    let mut given = Vec::new();
    let (begin, signal) = oneshot::channel();
    let mut begin = Some(begin);
    let mut script = std::pin::pin!(script(runtime.clone(), signal));
    let watch = async {
        let journal = open(disk)?;
        let mut stream = journal.watch(backend(runtime, dialect), WatchOptions::default()).await?;
        while let Some(event) = stream.next().await {
            let event = event?;
            if matches!(event.kind, RuntimeEventKind::ResyncEnd(_)) {
                begin.take().map(|begin| begin.send(()));
            }
            given.push(event);
        }
        Ok::<(), runtide_core::Error>(())
    };
    let died = tokio::select! {
        biased;
        died = watch => Some(died),
        () = &mut script => None,
    };
    if died.is_some() {
        drop(begin);
        script.await; // the runtime continues
    }
    given
}

#[tokio::test(start_paused = true)]
async fn killed_at_every_write_and_sync_it_resumes_and_no_fact_is_in_the_log_twice() {
    for dialect in [Dialect::Edges, Dialect::Hints, Dialect::States] {
        let mut point = 1;
        loop {
            let history = if dialect == Dialect::Hints { 0_usize } else { 256 };
            let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(0).with_history(history));
            runtime.run("old").unwrap();
            let lifespan = Lifespan::until(point);
            let disk = MortalDisk::new(&lifespan);
            let given = process(&disk, &runtime, dialect).await;
            let died = lifespan.is_over();

            let disk = disk.reborn(&Lifespan::unending());
            let journal = open(&disk).unwrap();
            let mut stream = journal.watch(backend(&runtime, dialect), WatchOptions::default()).await.unwrap();
            let after = until_quiet(&mut stream).await;
            let at = format!("{dialect:?}, killed at point {point}");

            assert_eq!(plain(journal.table().iter()), truth(&runtime), "{at}: the table is the runtime's state");
            let logged = logged(&disk);
            let mut fold = InstanceTable::default();
            for event in &logged {
                fold.apply(event);
            }
            assert_eq!(plain(fold.iter()), truth(&runtime), "{at}: the log folds to the runtime's state");
            let keys: Vec<[u8; 32]> = logged.iter().filter_map(RuntimeEvent::key).collect();
            assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "{at}: no fact twice");
            let in_log = |event: &Arc<RuntimeEvent>| logged.contains(event);
            assert!(given.iter().chain(&after).all(in_log), "{at}: yielded events are in the log");

            // If the runtime keeps its history, every edge since the end of the first resync is in the log.
            if dialect == Dialect::Edges
                && given.iter().any(|event| matches!(event.kind, RuntimeEventKind::ResyncEnd(_)))
            {
                let edges = logged.iter().filter_map(edge);
                let facts = runtime.history().into_iter().filter(|fact| fact.name != "old");
                let facts = facts.map(|fact| (fact.kind, fact.id));
                let facts =
                    facts.filter(|(kind, _)| matches!(kind, FactKind::Started | FactKind::Stopped | FactKind::Removed));
                assert_eq!(edges.collect::<Vec<_>>(), facts.collect::<Vec<_>>(), "{at}: every edge, once, in order");
            }
            drop((stream, journal));
            let again = open(&disk).unwrap();
            assert_eq!(plain(again.table().iter()), truth(&runtime), "{at}: and so after one more opening");
            if !died {
                assert!(point > 20, "{dialect:?}: only {point} points");
                break;
            }
            point += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn changes_while_it_was_off_are_net_if_the_runtime_forgot_them() {
    let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(0));
    let gone = runtime.run("gone").unwrap();
    let disk = MortalDisk::new(&Lifespan::unending());
    let journal = open(&disk).unwrap();
    let mut stream = journal.watch(backend(&runtime, Dialect::Edges), WatchOptions::default()).await.unwrap();
    until_quiet(&mut stream).await;
    drop((stream, journal));

    runtime.remove(&gone).unwrap();
    let new = runtime.run("new").unwrap();
    runtime.lose_history();
    tokio::time::sleep(Duration::from_secs(7 * 86_400)).await;

    let journal = open(&disk).unwrap();
    let mut known = journal.table();
    assert_eq!(known.len(), 1);
    assert!(journal.cursor(&id()).is_some());
    let mut stream = journal.watch(backend(&runtime, Dialect::Edges), WatchOptions::default()).await.unwrap();
    let events = until_quiet(&mut stream).await;
    let steps: Vec<_> = events.iter().flat_map(|event| known.apply(event)).collect();
    let seen: Vec<(Option<&InstanceId>, Option<&InstanceId>)> = steps
        .iter()
        .map(|step| (step.before.as_ref().map(|row| &row.id), step.after.as_ref().map(|row| &row.id)))
        .collect();
    assert_eq!(seen, [(Some(&gone), None), (None, Some(&new))]);
    for step in &steps {
        assert!(matches!(step.evidence, Evidence::Net(gap) if gap != Gap::Initial), "{:?}", step.evidence);
    }

    // The whole history of the removed instance, from the log alone.
    let mut history = journal.history(&id(), &gone).await.unwrap();
    let (mut table, mut last) = (InstanceTable::default(), None);
    while let Some(event) = history.next().await {
        last = table.apply(&event.unwrap()).pop().or(last);
    }
    let last = last.unwrap();
    assert!(last.after.is_none() && matches!(last.evidence, Evidence::Net(_)), "{last:?}");
    assert!(table.is_empty());
    let mut absent = journal.history(&id(), &"absent".into()).await.unwrap();
    assert!(absent.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn each_fact_of_the_embedded_runtime_is_in_the_log_though_each_process_has_a_new_one() {
    let disk = MortalDisk::new(&Lifespan::unending());
    for _ in 0..3 {
        let disk = disk.reborn(&Lifespan::unending());
        let journal = open(&disk).unwrap();
        let embedded = Arc::new(MemoryBackend::embedded());
        let runtime = embedded.runtime().clone();
        let mut stream = journal.watch(embedded, WatchOptions::default()).await.unwrap();
        until_quiet(&mut stream).await;
        let id = runtime.run("job").unwrap();
        runtime.stop(&id).unwrap();
        runtime.remove(&id).unwrap();
        until_quiet(&mut stream).await;
    }
    let edges: Vec<_> = logged(&disk).iter().filter_map(edge).collect();
    let (kinds, ids): (Vec<_>, BTreeSet<_>) = edges.into_iter().unzip();
    assert_eq!(kinds, [FactKind::Started, FactKind::Stopped, FactKind::Removed].repeat(3));
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn a_journal_keeps_backends_apart_and_watches_each_once() {
    let (one, two) = (MemoryRuntime::new(), MemoryRuntime::new());
    one.run("one").unwrap();
    two.run("two").unwrap();
    let on = |runtime: &MemoryRuntime, id: &str| -> Arc<dyn RuntimeBackend> {
        Arc::new(MemoryBackend::new(Config::default().with_id(id), runtime.clone()).unwrap())
    };
    let journal = open(&MortalDisk::new(&Lifespan::unending())).unwrap();
    let mut first = journal.watch(on(&one, "memory:1"), WatchOptions::default()).await.unwrap();
    let mut second = journal.watch(on(&two, "memory:2"), WatchOptions::default()).await.unwrap();
    let twice = journal.watch(on(&one, "memory:1"), WatchOptions::default()).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Conflict);
    until_quiet(&mut first).await;
    until_quiet(&mut second).await;
    let names = |id: &str| journal.table().of(&id.into()).map(|row| row.name.clone()).collect::<Vec<_>>();
    assert_eq!((names("memory:1"), names("memory:2")), (vec!["one".to_owned()], vec!["two".to_owned()]));
    drop(first);
    journal.watch(on(&one, "memory:1"), WatchOptions::default()).await.unwrap();
    let elsewhere = WatchOptions::default().with_known(journal.table());
    let refused = journal.watch(on(&two, "memory:3"), elsewhere).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn a_filter_is_for_yielded_events_and_not_for_logged_ones() {
    let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(0));
    let disk = MortalDisk::new(&Lifespan::unending());
    let journal = open(&disk).unwrap();
    let only = WatchOptions::default().with_filter(InstanceFilter::default().with_names(["web".to_owned()]));
    let mut stream = journal.watch(backend(&runtime, Dialect::Edges), only).await.unwrap();
    until_quiet(&mut stream).await;
    runtime.run("web").unwrap();
    runtime.run("job").unwrap();
    let yielded = until_quiet(&mut stream).await;
    assert!(!yielded.is_empty() && yielded.iter().all(|event| event.instance().unwrap().name == "web"));
    assert_eq!(plain(journal.table().iter()), truth(&runtime));
}

#[tokio::test(start_paused = true)]
async fn opening_reads_from_the_last_checkpoint_and_retention_keeps_it() {
    use runtide_core::wal::Retention;

    let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(0));
    let disk = MortalDisk::new(&Lifespan::unending());
    let options = || {
        JournalOptions::default()
            .with_wal(wal(&disk).with_segment_bytes(NonZeroU64::new(32 << 10)))
            .with_checkpoint_every(NonZeroU64::new(50))
            .with_retention(Retention::default().with_max_bytes(64 << 10))
    };
    let journal = RuntimeJournal::open(dir(), options()).unwrap();
    let mut stream = journal.watch(backend(&runtime, Dialect::Edges), WatchOptions::default()).await.unwrap();
    let web = runtime.run("web").unwrap();
    until_quiet(&mut stream).await;
    for _ in 0..300 {
        runtime.restart(&web).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    until_quiet(&mut stream).await;
    drop((stream, journal));
    let first = records(&disk)[0].seq;
    assert!(first.0 > 200, "the log begins at {first}");
    let journal = RuntimeJournal::open(dir(), options()).unwrap();
    assert_eq!(plain(journal.table().iter()), truth(&runtime));
}

#[test]
fn another_log_is_refused_in_clear_words() {
    let disk = MortalDisk::new(&Lifespan::unending());
    Wal::open(dir(), wal(&disk)).unwrap().append_blocking(RecordKind(1), b"hello").unwrap();
    assert_eq!(open(&disk).unwrap_err().kind(), ErrorKind::InvalidInput);

    let disk = MortalDisk::new(&Lifespan::unending());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let journal = open(&disk).unwrap();
    let memory = backend(&MemoryRuntime::new(), Dialect::Edges);
    drop(runtime.block_on(journal.watch(memory, WatchOptions::default())).unwrap());
    assert_eq!(open(&disk).unwrap_err().kind(), ErrorKind::Conflict, "it is open");
    drop(journal);
    let options = JournalOptions::default().with_wal(wal(&disk));
    let other = OperationLog::open(dir(), "me".into(), options).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::InvalidInput);
}
