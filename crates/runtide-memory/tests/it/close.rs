//! Closing: streams end, later calls are `Cancelled`, and the folder's lock is free at once, whatever is under way.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtide_core::{
    Error, ErrorKind, EventStream, Result, RuntimeBackend, WatchOptions,
    manager::VolumeSpec,
    store::{Document, Precondition, ResourceRef, StoreBackend},
};
use runtide_journal::{JournalOptions, JournaledStore, OperationLog, RuntimeJournal, Stage, Undo, UndoAction};
use runtide_memory::{Config, MemoryBackend, MemoryRuntime, MemoryStore};
use tokio::task::JoinHandle;

/// Openings of one folder, each closed while others write.
const ROUNDS: usize = 200;

fn on(runtime: &MemoryRuntime) -> Arc<dyn RuntimeBackend> {
    Arc::new(MemoryBackend::new(Config::default(), runtime.clone()).unwrap())
}

fn journal(dir: &Path) -> RuntimeJournal {
    RuntimeJournal::open(dir, JournalOptions::default()).unwrap()
}

fn operations(dir: &Path) -> OperationLog {
    OperationLog::open(dir, "shop".into(), JournalOptions::default()).unwrap()
}

async fn closed(close: impl FnOnce() -> Result<()> + Send + 'static) {
    tokio::task::spawn_blocking(close).await.unwrap().unwrap();
}

/// Reads to the end, which is an error.
async fn last_of(mut stream: EventStream) -> Error {
    loop {
        if let Err(error) = stream.next().await.expect("an error before the end") {
            assert!(stream.next().await.is_none());
            return error;
        }
    }
}

/// Lets the others come to different points.
async fn a_moment(round: usize) {
    for _ in 0..round % 16 {
        tokio::task::yield_now().await;
    }
    if round.is_multiple_of(5) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_closed_journal_ends_its_streams_and_refuses_later_calls() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = MemoryRuntime::new();
    let web = runtime.run("web").unwrap();
    let first = journal(folder.path());
    let mut stream = first.watch(on(&runtime), WatchOptions::default()).await.unwrap();
    while !matches!(stream.next().await.unwrap().unwrap().kind, runtide_core::RuntimeEventKind::ResyncEnd(_)) {}
    let history = first.history(&"memory:local".into(), &web).await.unwrap();
    let waiting = tokio::spawn(last_of(stream)); // on a quiet runtime
    let twice = first.clone();
    closed(move || twice.close().and_then(|()| twice.close())).await;
    assert_eq!(waiting.await.unwrap().kind(), ErrorKind::Cancelled);
    assert_eq!(last_of(history).await.kind(), ErrorKind::Cancelled);
    let refused = first.watch(on(&runtime), WatchOptions::default()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.message()), (ErrorKind::Cancelled, "the journal was closed"));
    let refused = first.history(&"memory:local".into(), &web).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Cancelled);
    assert_eq!(first.table().len(), 1, "what it knew is still there");
    assert_eq!(journal(folder.path()).table(), first.table(), "and in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_journal_is_opened_again_at_once_two_hundred_times_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = MemoryRuntime::new();
    let web = runtime.run("web").unwrap();
    let busy = runtime.clone();
    let churn = tokio::spawn(async move {
        loop {
            busy.restart(&web).unwrap();
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    });
    let mut before: Option<JoinHandle<Error>> = None;
    for round in 0..ROUNDS {
        let journal = journal(folder.path()); // though the streams of the last round may not have been polled
        if let Some(before) = before.take() {
            let error = before.await.unwrap();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "round {round}: {error:?}");
        }
        let stream = journal.watch(on(&runtime), WatchOptions::default()).await.unwrap();
        before = Some(tokio::spawn(last_of(stream)));
        a_moment(round).await;
        let other = journal.clone();
        tokio::join!(closed(move || journal.close()), closed(move || other.close()));
    }
    churn.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operation_log_is_opened_again_at_once_two_hundred_times_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    for round in 0..ROUNDS {
        let log = operations(folder.path());
        assert!(log.in_flight().len() >= acknowledged.swap(0, Ordering::AcqRel), "round {round}");
        log.recover(&[]).await.unwrap();
        let submit = |log: OperationLog, acknowledged: Arc<AtomicUsize>| async move {
            loop {
                match log.submit("work", &round).await {
                    Ok(_) => acknowledged.fetch_add(1, Ordering::AcqRel),
                    Err(error) => return error,
                };
            }
        };
        let work: Vec<_> = (0..4).map(|_| tokio::spawn(submit(log.clone(), Arc::clone(&acknowledged)))).collect();
        a_moment(round).await;
        let closing = log.clone();
        closed(move || closing.close().and_then(|()| closing.close())).await;
        // The next round opens it while this value lives.
        for work in work {
            let error = work.await.unwrap();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "round {round}: {error:?}");
        }
        assert_eq!(log.recover(&[]).await.unwrap_err().kind(), ErrorKind::Cancelled);
    }
}

#[tokio::test]
async fn a_closed_operation_log_leaves_what_is_in_flight_to_the_next_owner() {
    let folder = tempfile::tempdir().unwrap();
    let backend = on(&MemoryRuntime::new());
    let log = operations(folder.path());
    let mut operation = log.submit("volume.make", &"data").await.unwrap();
    operation.enter(Stage::Validated).await.unwrap();
    operation.enter(Stage::Started).await.unwrap();
    let undo = Undo::new(backend.id().clone(), UndoAction::RemoveVolume, "data").made_by(operation.id());
    operation.will(undo).await.unwrap();
    let mut spec = VolumeSpec::named("data");
    spec.labels = log.labels(operation.id()).into_iter().collect();
    let volumes = backend.volumes().unwrap();
    volumes.create(&spec).await.unwrap();
    log.close().unwrap();
    let next = operations(folder.path());
    assert_eq!(operation.enter(Stage::Completed).await.unwrap_err().kind(), ErrorKind::Cancelled);
    let backends = [Arc::clone(&backend)];
    assert_eq!(operation.roll_back(&backends).await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(volumes.list().await.unwrap().len(), 1, "its lease is gone");
    next.recover(&backends).await.unwrap();
    assert!(volumes.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_is_opened_again_at_once_two_hundred_times_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let web = ResourceRef::new("apps", "Deployment", "shop", "web").unwrap();
    let mut newest = 0;
    for round in 0..ROUNDS {
        let store = JournaledStore::open(folder.path(), MemoryStore::new(), JournalOptions::default()).unwrap();
        assert!(store.stats().await.unwrap().revision.0 >= newest, "round {round}: an acknowledged write is there");
        let write = |store: JournaledStore<MemoryStore>, web: ResourceRef, writer: usize| async move {
            let mut newest = 0;
            for n in 0_usize.. {
                let body = Document::json(format!("{{\"n\":\"{round}-{writer}-{n}\"}}"));
                match store.apply(&web, body, Precondition::None).await {
                    Ok(applied) => newest = applied.revision.0,
                    Err(error) => return (newest, Some(error)),
                }
            }
            (newest, None)
        };
        let work: Vec<_> = (0..4).map(|n| tokio::spawn(write(store.clone(), web.clone(), n))).collect();
        a_moment(round).await;
        closed(move || store.close().and_then(|()| store.close())).await;
        for work in work {
            let (last, error) = work.await.unwrap();
            newest = newest.max(last);
            assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::Cancelled), "round {round}");
        }
    }
}
