//! Watches that are resumed: by another process, whose rows know what the daemon's history no longer has, and from a daemon that
//! has lost its history.

use std::time::Duration;

use runtide_core::{
    Cursor, EventStream, ExitStatus, Gap, InstanceTable, RuntimeBackend, RuntimeEventKind as Kind, WatchOptions,
};
use serde_json::{Value, json};

use crate::fake_daemon::{Fake, id};

/// Applies events until one satisfies this, and returns that one's exit and position.
async fn until(
    stream: &mut EventStream,
    table: &mut InstanceTable,
    done: impl Fn(&Kind) -> bool,
) -> (Option<ExitStatus>, Cursor) {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), stream.next()).await;
        let event = next.expect("an event in time").expect("an event").expect("no error");
        let _ = table.apply(&event);
        if done(&event.kind) {
            return (event.kind.instance().and_then(|row| row.exit), event.cursor.clone());
        }
    }
}

/// The exit of a container that ended with 25 and was removed while no process watched, long after its start left the history.
async fn exit_of_the_gap(labels: &Value, die: &Value) -> Option<ExitStatus> {
    let fake = Fake::start();
    fake.state().put(&id(1), "one", "running", "Up 3 days", labels);
    let mut table = InstanceTable::default();
    let from = {
        let backend = fake.backend();
        let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
        until(&mut stream, &mut table, |kind| matches!(kind, Kind::ResyncEnd(_))).await;
        fake.state().run(&id(2), "two");
        let (_, from) = until(&mut stream, &mut table, |kind| matches!(kind, Kind::Started(_))).await;
        backend.close().await.unwrap();
        from
    };
    {
        let mut state = fake.state();
        state.tell("die", &id(1), die);
        state.tell("destroy", &id(1), die);
        state.remove(&id(1));
    }
    let backend = fake.backend();
    let options = WatchOptions::default().with_from(from).with_known(table.clone());
    let mut stream = backend.watch(options).await.unwrap();
    let (exit, _) = until(&mut stream, &mut table, |kind| matches!(kind, Kind::Stopped(_))).await;
    until(&mut stream, &mut table, |kind| matches!(kind, Kind::Removed(_))).await;
    exit
}

#[tokio::test]
async fn the_exit_of_a_long_lived_container_is_known_to_the_process_that_resumes() {
    let die = json!({"image": "busybox", "name": "one", "exitCode": "25", "tier": "web"});
    assert_eq!(exit_of_the_gap(&json!({"tier": "web"}), &die).await, Some(ExitStatus::code(25)));
}

#[tokio::test]
async fn a_label_that_shadows_the_exit_is_not_taken_for_it_by_the_process_that_resumes() {
    let die = json!({"image": "busybox", "name": "one", "exitCode": "42"});
    assert_eq!(exit_of_the_gap(&json!({"exitCode": "42"}), &die).await, None);
}

#[tokio::test]
async fn a_restarted_daemon_is_asked_for_its_history_and_not_waited_for() {
    let mut fake = Fake::start();
    let backend = fake.backend();
    let mut table = InstanceTable::default();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    until(&mut stream, &mut table, |kind| matches!(kind, Kind::ResyncEnd(_))).await;
    fake.state().run(&id(1), "one");
    until(&mut stream, &mut table, |kind| matches!(kind, Kind::Started(_))).await;
    fake.take_requests();
    fake.restart().await;
    let restarted = |kind: &Kind| matches!(kind, Kind::ResyncBegin { gap: Gap::RuntimeRestarted });
    until(&mut stream, &mut table, restarted).await;
    let requests = fake.take_requests();
    assert!(requests.iter().any(|request| request.contains("/events?") && request.contains("&until=")), "{requests:?}");
}
