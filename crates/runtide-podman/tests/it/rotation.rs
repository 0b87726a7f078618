//! Podman replaces its file of events once it is full, and keeps the newer half: no event is lost by that.

use std::time::Duration;

use runtide_core::{RuntimeBackend, RuntimeEventKind as Kind, WatchOptions};

use crate::{bench::Bench, event_log::EventLog};

/// Pauses, each of which is an event and has its opposite.
const PAUSES: usize = 40;

#[tokio::test]
async fn a_log_that_podman_replaces_under_the_watch_costs_no_event_and_no_resync() {
    let Some(bench) = Bench::alone("rotation").await else { return };
    let log = EventLog::of_the_testbed().expect("the testbed says where its Podman is");
    let id = bench.run("busy", "sleep 100000").await;
    // Before the first message of a watch, and in the middle of it.
    for room in [0, 5_000] {
        let mut events = bench.backend.watch(WatchOptions::default()).await.unwrap();
        let next = async |events: &mut runtide_core::EventStream| {
            let next = tokio::time::timeout(Duration::from_secs(60), events.next()).await;
            next.expect("nothing comes any more").unwrap().unwrap()
        };
        while !matches!(next(&mut events).await.kind, Kind::ResyncEnd { .. }) {}
        log.fill(room).unwrap();
        let before = log.inode().unwrap();
        for _ in 0..PAUSES {
            bench.lifecycle().pause(&id).await.unwrap();
            bench.lifecycle().unpause(&id).await.unwrap();
        }
        assert_ne!(log.inode().unwrap(), before, "it was not replaced");
        bench.lifecycle().rename(&id, &format!("{}-renamed-{room}", bench.prefix)).await.unwrap();
        let mut changes = 0;
        loop {
            let event = next(&mut events).await;
            assert!(!matches!(event.kind, Kind::ResyncBegin { .. }), "a gap after {changes} changes: {event:?}");
            let Some(instance) = event.kind.instance().filter(|instance| instance.id == id) else { continue };
            if instance.name.contains(&format!("renamed-{room}")) {
                break;
            }
            changes += 1;
        }
        assert!(changes >= 2 * PAUSES, "{changes} of {}", 2 * PAUSES);
    }
    bench.clear().await;
}
