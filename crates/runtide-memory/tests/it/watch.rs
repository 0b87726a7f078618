//! The backend's watch, through the driver: it folds to the runtime's state.

use std::{sync::Arc, time::Duration};

use runtide_core::{
    Evidence, ExitStatus, Health, Instance, InstanceTable, RuntimeBackend, RuntimeBackendExt, RuntimeEventKind,
    WatchOptions,
};
use runtide_memory::{AfterRun, Call, Config, Dialect, MemoryBackend, MemoryRuntime, Reboot, RuntimeOptions};

fn on(runtime: &MemoryRuntime, config: Config) -> MemoryBackend {
    MemoryBackend::new(config, runtime.clone()).unwrap()
}

fn runtime() -> MemoryRuntime {
    MemoryRuntime::with_options(RuntimeOptions::deterministic(0))
}

/// Folds all events until none came for two minutes.
async fn settle(stream: &mut runtide_core::EventStream, table: &mut InstanceTable) -> Vec<&'static str> {
    let mut names = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(120), stream.next()).await {
        let event = event.unwrap();
        names.push(event.kind.name());
        table.apply(&event);
    }
    names
}

/// The rows without the driver's own count.
fn rows(table: &InstanceTable) -> Vec<Instance> {
    let plain = |row: &Arc<Instance>| {
        let mut row = Instance::clone(row);
        row.generation = 0;
        row
    };
    table.iter().map(plain).collect()
}

#[tokio::test(start_paused = true)]
async fn in_every_dialect_and_through_every_gap_the_fold_is_the_truth() {
    for dialect in [Dialect::Edges, Dialect::Hints, Dialect::States] {
        for names_life in [true, false] {
            let runtime = runtime();
            let config = Config::default().with_dialect(dialect).with_edges_name_incarnation(names_life);
            let backend = on(&runtime, config);
            let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
            let mut table = InstanceTable::default();
            let web = runtime.run("web").unwrap();
            let api = runtime.run("api").unwrap();
            settle(&mut stream, &mut table).await;
            assert_eq!(rows(&table), runtime.truth(), "{dialect:?} at first");

            let gaps: [fn(&MemoryRuntime); 6] = [
                |_| {},
                MemoryRuntime::sever,
                MemoryRuntime::close_streams,
                MemoryRuntime::half_open,
                |runtime| {
                    runtime.sever();
                    runtime.lose_history();
                },
                |runtime| runtime.reboot(Reboot::default().stopping_instances()),
            ];
            for (number, gap) in gaps.into_iter().enumerate() {
                gap(&runtime);
                runtime.restart(&web).unwrap();
                runtime.exit(&web, ExitStatus::code(4)).unwrap();
                runtime.set_health(&api, if number % 2 == 0 { Health::Healthy } else { Health::Unhealthy }).unwrap();
                runtime.rename(&api, format!("api-{number}")).unwrap();
                let short = runtime.run("short").unwrap();
                settle(&mut stream, &mut table).await;
                assert_eq!(rows(&table), runtime.truth(), "{dialect:?} {names_life} after gap {number}");
                runtime.remove(&short).unwrap();
                runtime.start(&web).unwrap();
                settle(&mut stream, &mut table).await;
                assert_eq!(rows(&table), runtime.truth(), "{dialect:?} {names_life} later {number}");
            }
            drop(stream);
            backend.close().await.unwrap();
            assert_eq!((runtime.open_streams(), runtime.open_calls()), (0, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_of_a_thousand_short_runs_is_reported() {
    let runtime = runtime();
    let backend = on(&runtime, Config::default());
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    settle(&mut stream, &mut InstanceTable::default()).await;
    let (mut started, mut ends) = (0, Vec::new());
    let watched = async {
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(120), stream.next()).await {
            match &event.unwrap().kind {
                RuntimeEventKind::Started(_) => started += 1,
                RuntimeEventKind::Stopped(instance) => ends.push(instance.exit),
                _ => {}
            }
        }
    };
    let (burst, ()) = tokio::join!(runtime.burst(1000, Duration::from_millis(10), AfterRun::Removed), watched);
    burst.unwrap();
    assert_eq!(started, 1000);
    assert_eq!(ends, (0..1000).map(|number| Some(ExitStatus::code(number % 100))).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_watch_resumes_over_an_outage_that_the_history_covers() {
    let runtime = runtime();
    let backend = on(&runtime, Config::default());
    let mut changes = backend.transitions(WatchOptions::default()).await.unwrap();
    let web = runtime.run("web").unwrap();
    while changes.table().is_empty() {
        changes.next().await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    runtime.sever();
    for _ in 0..3 {
        runtime.restart(&web).unwrap();
    }
    let mut reported = 0;
    while let Ok(Some(change)) = tokio::time::timeout(Duration::from_secs(120), changes.next()).await {
        if let Some(step) = change.unwrap().into_step() {
            assert!(step.evidence == Evidence::Reported, "{step}");
            reported += 1;
        }
    }
    assert!(reported >= 6, "{reported}");
}

#[tokio::test(start_paused = true)]
async fn streams_that_end_at_once_are_not_dialled_in_a_hurry() {
    let runtime = runtime();
    let backend = on(&runtime, Config::default());
    runtime.faults(|faults| faults.close_at_once = true);
    let stream = backend.watch(WatchOptions::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    let recent = |dial: &&runtide_memory::Dial| dial.call == Call::Events && dial.at > Duration::from_secs(23 * 3600);
    let last_hour = runtime.dials().iter().filter(recent).count();
    assert!((60..=600).contains(&last_hour), "{last_hour}");
    drop(stream);
}
