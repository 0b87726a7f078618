//! Calls under faults: their errors, and that they leave nothing open.

use std::time::Duration;

use runtide_core::{
    ErrorKind, ListOptions, RuntimeBackend, RuntimeBackendExt,
    capabilities::{Support, WatchSupport},
    manager::{Effect, LogOptions, StopOptions},
};
use runtide_memory::{Blueprint, Call, Config, MemoryBackend, MemoryRuntime, Reboot, RuntimeOptions};
use tokio::time::Instant;

fn backend() -> MemoryBackend {
    let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(0));
    MemoryBackend::new(Config::default(), runtime).unwrap()
}

async fn list(backend: &MemoryBackend) -> Result<usize, ErrorKind> {
    let listed = backend.list_instances(ListOptions::default()).await;
    listed.map(|snapshot| snapshot.instances.len()).map_err(|error| error.kind())
}

#[tokio::test(start_paused = true)]
async fn a_stalled_call_ends_at_its_deadline_and_leaves_nothing() {
    let backend = backend();
    let runtime = backend.runtime();
    let id = runtime.create("web").unwrap();
    runtime.faults(|faults| faults.stall = Call::all());
    let began = Instant::now();
    assert_eq!(list(&backend).await, Err(ErrorKind::Timeout));
    assert_eq!(backend.connect().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(backend.lifecycle().unwrap().start(&id).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(backend.lifecycle().unwrap().wait(&id).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(backend.logs().unwrap().logs(&id, LogOptions::default()).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(began.elapsed(), Config::default().deadline * 5);
    assert_eq!(runtime.open_calls(), 0);
    assert_eq!(runtime.history().len(), 1, "a stalled call had no effect");
}

#[tokio::test(start_paused = true)]
async fn a_stall_that_ends_in_time_is_only_slow() {
    let backend = backend();
    let runtime = backend.runtime();
    runtime.faults(|faults| faults.stall.insert(Call::List));
    let (listed, ()) = tokio::join!(list(&backend), async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(runtime.open_calls(), 1);
        runtime.heal();
    });
    assert_eq!(listed, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_mute_call_has_its_effect_and_no_answer() {
    let backend = backend();
    let id = backend.runtime().create("web").unwrap();
    backend.runtime().faults(|faults| faults.mute.insert(Call::Start));
    assert_eq!(backend.lifecycle().unwrap().start(&id).await.unwrap_err().kind(), ErrorKind::Timeout);
    backend.runtime().heal();
    assert_eq!(backend.lifecycle().unwrap().start(&id).await.unwrap(), Effect::Unchanged);
}

#[tokio::test(start_paused = true)]
async fn a_slow_listing_shows_the_state_half_way() {
    let backend = backend();
    let runtime = backend.runtime();
    runtime.faults(|faults| faults.slow.insert(Call::List, Duration::from_secs(10)));
    let began = Instant::now();
    let (listed, ()) = tokio::join!(list(&backend), async {
        runtime.create("early").unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        runtime.create("late").unwrap();
    });
    assert_eq!((listed, began.elapsed()), (Ok(1), Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn calls_are_refused_denied_and_severed_by_the_faults() {
    let backend = backend();
    let runtime = backend.runtime();
    runtime.faults(|faults| faults.refuse = true);
    assert_eq!(list(&backend).await, Err(ErrorKind::Unavailable));
    runtime.heal();
    runtime.faults(|faults| faults.deny.insert(Call::List));
    assert_eq!(list(&backend).await, Err(ErrorKind::PermissionDenied));
    assert!(backend.connect().await.is_ok());
    runtime.heal();
    let id = runtime.run("web").unwrap();
    for broken in [MemoryRuntime::sever, |runtime: &MemoryRuntime| runtime.reboot(Reboot::default())] {
        let (waited, ()) = tokio::join!(backend.lifecycle().unwrap().wait(&id), async {
            tokio::task::yield_now().await;
            broken(runtime);
        });
        assert_eq!(waited.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    runtime.go_down();
    assert_eq!(list(&backend).await, Err(ErrorKind::Unavailable));
    runtime.come_up(Reboot::default());
    assert_eq!(list(&backend).await, Ok(1));
    let refused: Vec<bool> = runtime.dials().iter().map(|dial| dial.refused).collect();
    assert_eq!(refused, [true, true, false, false, false, true, false]);
    assert_eq!((runtime.calls(Call::List), runtime.calls(Call::Wait)), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn every_error_names_its_operation_and_its_instance() {
    let backend = backend();
    let error = backend.lifecycle().unwrap().start(&"nowhere".into()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "memory.start: not_found: there is no such instance (instance=nowhere, backend=memory:local)"
    );
}

#[tokio::test(start_paused = true)]
async fn capabilities_are_unknown_at_first_and_then_agree_with_the_runtime() {
    let backend = backend();
    let runtime = backend.runtime();
    assert!(backend.capabilities().verbs().all(|(_, support)| *support == Support::Unknown));
    let reported = backend.connect().await.unwrap().capabilities;
    assert_eq!((&reported, reported.watch), (&backend.capabilities(), WatchSupport::Resumable));
    assert!(reported.verbs().all(|(_, support)| *support != Support::Unknown));

    runtime.restrict("lifecycle_pause", "the kernel has no freezer").unwrap();
    let id = runtime.run("web").unwrap();
    let error = backend.lifecycle().unwrap().pause(&id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for (key, value) in
        [("feature", "lifecycle_pause"), ("reason", "the kernel has no freezer"), ("backend", "memory:local")]
    {
        assert!(error.fact(key) == Some(value), "{error}");
    }
    assert_eq!(backend.capabilities().lifecycle_pause, Support::no("the kernel has no freezer"));
    assert_eq!(backend.unsupported("lifecycle_pause").kind(), ErrorKind::Unsupported);
    runtime.permit("lifecycle_pause").unwrap();
    assert_eq!(backend.lifecycle().unwrap().pause(&id).await.unwrap(), Effect::Changed);

    runtime.restrict("logs_follow", "no").unwrap();
    let follow = LogOptions::default().with_follow();
    assert_eq!(backend.logs().unwrap().logs(&id, follow).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(backend.logs().unwrap().logs(&id, LogOptions::default()).await.is_ok());
    assert_eq!(runtime.restrict("no_such_verb", "").unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_leaves_nothing_behind() {
    let backend = backend();
    let runtime = backend.runtime();
    let deaf = runtime.run(Blueprint::named("deaf").with_ends_on([])).unwrap();
    let moment = Duration::from_millis(1);
    let stop = backend.lifecycle().unwrap().stop(&deaf, StopOptions::default());
    assert!(tokio::time::timeout(moment, stop).await.is_err());
    assert!(tokio::time::timeout(moment, backend.lifecycle().unwrap().wait(&deaf)).await.is_err());
    let mut follow = backend.logs().unwrap().logs(&deaf, LogOptions::default().with_follow()).await.unwrap();
    assert!(tokio::time::timeout(moment, follow.next()).await.is_err());
    drop(follow);
    assert_eq!(runtime.open_calls(), 0);
    assert_eq!(list(&backend).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_closed_backend_answers_cancelled_and_its_runtime_keeps_running() {
    let runtime = MemoryRuntime::new();
    let id = runtime.run("web").unwrap();
    let connect = || MemoryBackend::new(Config::default(), runtime.clone()).unwrap();
    let (closed, open) = (connect(), connect());
    let (waited, ()) = tokio::join!(closed.lifecycle().unwrap().wait(&id), async {
        tokio::task::yield_now().await;
        closed.close().await.unwrap();
    });
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(list(&closed).await, Err(ErrorKind::Cancelled));
    assert_eq!(list(&open).await, Ok(1));
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let refused = |config: Config| {
        let error = MemoryBackend::new(config, MemoryRuntime::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    };
    refused(Config::default().with_deadline(Duration::ZERO));
    refused(Config::default().with_heartbeat(Some(Duration::ZERO)));
    refused(Config::default().with_heartbeat(None));
    refused(Config::default().with_max_silence(Duration::from_secs(10)));
    assert!(
        MemoryBackend::new(Config::default().with_heartbeat(None).with_max_silence(None), MemoryRuntime::new()).is_ok()
    );
}
