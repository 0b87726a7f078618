//! The watch against a daemon in this process: requests are counted, histories are cut, links are silenced.

use std::{sync::Arc, time::Duration};

use runtide_core::{
    Change, Completeness, Detail, ErrorKind, EventStream, ExitStatus, Gap, Health, InstanceState, InstanceTable,
    ListOptions, RuntimeBackend, RuntimeBackendExt, RuntimeEvent, RuntimeEventKind, RuntimeKind, WatchOptions,
    capabilities::WatchSupport, event::Continuity,
};
use runtide_docker::{Config, DockerBackend, Endpoint};
use serde_json::json;

use crate::fake_daemon::{Fake, id};

const TIMEOUT: Duration = Duration::from_secs(60);

async fn next(stream: &mut EventStream) -> Arc<RuntimeEvent> {
    tokio::time::timeout(TIMEOUT, stream.next()).await.expect("an event in time").expect("an event").expect("no error")
}

/// Reads up to the first event of this name; everything read.
async fn until(stream: &mut EventStream, name: &str) -> Vec<Arc<RuntimeEvent>> {
    let mut read = Vec::new();
    loop {
        let event = next(stream).await;
        let found = event.kind.name() == name;
        read.push(event);
        if found {
            return read;
        }
    }
}

fn line(event: &RuntimeEvent) -> String {
    match (&event.kind, event.kind.instance()) {
        (RuntimeEventKind::Updated { .. }, _) => "updated".to_owned(),
        (kind, Some(instance)) => {
            let exit = instance.exit.map(|exit| format!(" {:?}", exit.end)).unwrap_or_default();
            format!("{} {}{exit}", kind.name(), instance.name)
        }
        (RuntimeEventKind::BackendReconnected { continuity }, _) => format!("reconnected {continuity:?}"),
        (RuntimeEventKind::ResyncBegin { gap }, _) => format!("resync {gap:?}"),
        (kind, None) => kind.name().to_owned(),
    }
}

/// The updates of inspections between the edges are left out: most tests are not about them.
fn lines(events: &[Arc<RuntimeEvent>]) -> Vec<String> {
    events.iter().map(|event| line(event)).filter(|line| line != "updated").collect()
}

async fn watched(fake: &Fake) -> (DockerBackend, EventStream) {
    listed(fake.backend()).await
}

/// A watch that proves its link soon.
async fn proving_its_link(fake: &Fake) -> (DockerBackend, EventStream) {
    listed(DockerBackend::new(fake.config().with_max_silence(Duration::from_millis(600))).unwrap()).await
}

/// A watch behind its first listing.
async fn listed(backend: DockerBackend) -> (DockerBackend, EventStream) {
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    until(&mut stream, "resync_end").await;
    (backend, stream)
}

#[tokio::test]
async fn a_list_of_a_thousand_is_one_request() {
    let fake = Fake::start();
    for n in 0..1_000 {
        fake.state().put(&id(n), &format!("c{n}"), "created", "Created", &json!({}));
    }
    let backend = fake.backend();
    backend.connect().await.unwrap();
    fake.take_requests();
    let snapshot = backend.list_instances(ListOptions::default()).await.unwrap();
    assert_eq!(snapshot.instances.len(), 1_000);
    assert!(snapshot.is_complete());
    assert_eq!(fake.take_requests(), ["GET /v1.41/containers/json?all=1"]);
}

#[tokio::test]
async fn a_watch_of_a_thousand_is_in_sync_after_four_requests() {
    let fake = Fake::start();
    for n in 0..1_000 {
        fake.state().put(&id(n), &format!("c{n}"), "created", "Created", &json!({}));
    }
    let backend = fake.backend();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    let events = until(&mut stream, "resync_end").await;
    assert_eq!(events.iter().filter(|event| event.kind.name() == "present").count(), 1_000);
    let requests = fake.take_requests();
    assert!(requests.len() <= 4, "{requests:#?}");
    assert!(requests[1].starts_with("GET /v1.41/events?"), "subscribed before the list: {requests:#?}");
}

#[tokio::test]
async fn a_run_of_an_instant_has_its_start_and_its_end() {
    let fake = Fake::start();
    let (_backend, mut stream) = watched(&fake).await;
    {
        let mut state = fake.state();
        state.run(&id(1), "short");
        state.die(&id(1), "short", 7);
        state.remove(&id(1));
        state.tell("destroy", &id(1), &json!({"image": "busybox", "name": "short"}));
    }
    let events = until(&mut stream, "removed").await;
    assert_eq!(lines(&events), ["started short", "stopped short Code(7)", "removed short Code(7)"]);
}

#[tokio::test]
async fn a_signal_or_an_unknown_message_is_a_hint_and_no_more() {
    let fake = Fake::start();
    fake.state().put(&id(1), "web", "running", "Up 1 second (health: starting)", &json!({}));
    let (_backend, mut stream) = watched(&fake).await;
    {
        let mut state = fake.state();
        for action in ["kill", "exec_start: sh -c true", "hibernate", "attach"] {
            state.tell(action, &id(1), &json!({"name": "web", "signal": "1"}));
        }
        state.put(&id(1), "web", "running", "Up 1 second (healthy)", &json!({}));
        state.tell("health_status: healthy", &id(1), &json!({"name": "web"}));
    }
    let events = until(&mut stream, "updated").await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].kind.instance().unwrap().health, Some(Health::Healthy));
}

#[tokio::test]
async fn the_health_of_a_paused_one_is_its_last_verdict_and_does_not_flip() {
    let fake = Fake::start();
    fake.state().put(&id(1), "web", "running", "Up 1 second (unhealthy)", &json!({}));
    let (_backend, mut stream) = watched(&fake).await;
    for (state, line, verb) in
        [("paused", "Up 1 second (Paused)", "pause"), ("running", "Up 1 second (unhealthy)", "unpause")]
    {
        fake.state().put(&id(1), "web", state, line, &json!({}));
        fake.state().tell(verb, &id(1), &json!({"name": "web"}));
        // A re-list follows it, before the next start is reported.
        fake.state().run(&id(2), "token");
        for event in until(&mut stream, "started").await {
            let web = event.kind.instance().filter(|instance| instance.name == "web");
            assert!(web.is_none_or(|web| web.health == Some(Health::Unhealthy)), "{verb}: {event:?}");
        }
        fake.state().die(&id(2), "token", 0);
        until(&mut stream, "stopped").await;
    }
}

#[tokio::test]
async fn a_gap_that_the_history_covers_is_replayed() {
    let fake = Fake::start();
    let (_backend, mut stream) = watched(&fake).await;
    fake.state().run(&id(1), "one");
    until(&mut stream, "started").await;
    {
        let mut state = fake.state();
        state.sever();
        state.die(&id(1), "one", 3);
        state.run(&id(2), "two");
    }
    let events = until(&mut stream, "caught_up").await;
    let expected = ["backend_disconnected", "reconnected Resumed", "stopped one Code(3)", "started two", "caught_up"];
    assert_eq!(lines(&events), expected);
    fake.state().die(&id(2), "two", 0);
    assert_eq!(lines(&until(&mut stream, "stopped").await), ["stopped two Code(0)"], "nothing is reported twice");
}

#[tokio::test]
async fn the_history_before_the_watch_is_enough_to_resume_by() {
    let fake = Fake::start();
    fake.state().run(&id(1), "one");
    let (_backend, mut stream) = watched(&fake).await;
    {
        let mut state = fake.state();
        state.sever();
        state.die(&id(1), "one", 3);
    }
    let events = until(&mut stream, "stopped").await;
    assert_eq!(lines(&events), ["backend_disconnected", "reconnected Resumed", "stopped one Code(3)"]);
}

#[tokio::test]
async fn a_gap_longer_than_the_history_is_a_resync() {
    let fake = Fake::start();
    let (_backend, mut stream) = watched(&fake).await;
    fake.state().run(&id(1), "one");
    until(&mut stream, "started").await;
    {
        let mut state = fake.state();
        state.sever();
        for n in 10..200 {
            state.run(&id(n), "many");
        }
        state.remove(&id(1));
    }
    let events = until(&mut stream, "resync_end").await;
    let lines = lines(&events);
    assert_eq!(lines[..3], ["backend_disconnected", "reconnected Lost", "resync HistoryExpired"]);
    let mut table = InstanceTable::default();
    for event in &events {
        drop(table.apply(event));
    }
    assert_eq!(table.len(), 190);
}

#[tokio::test]
async fn a_history_that_comes_after_the_listing_brings_no_removed_instance_back() {
    let fake = Fake::start();
    let (_backend, mut stream) = watched(&fake).await;
    fake.state().run(&id(1), "one");
    let mut events = until(&mut stream, "started").await;
    {
        let mut state = fake.state();
        state.history_takes = Duration::from_millis(100);
        state.sever();
        for n in 10..200 {
            state.run(&id(n), "many");
        }
        state.die(&id(1), "one", 3);
        state.remove(&id(1));
        state.tell("destroy", &id(1), &json!({"image": "busybox", "name": "one"}));
    }
    events.extend(until(&mut stream, "resync_end").await);
    while !fake.state().history_takes.is_zero() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Behind the rest of the history.
    fake.state().run(&id(2), "last");
    while events.last().is_none_or(|event| line(event) != "started last") {
        events.push(next(&mut stream).await);
    }
    let mut table = InstanceTable::default();
    let steps: Vec<_> = events.iter().flat_map(|event| table.apply(event)).collect();
    let of_it = steps.iter().filter(|step| step.before.as_ref().is_some_and(|before| before.name == "one"));
    assert_eq!(of_it.filter(|step| step.after.is_none()).count(), 1, "{:?}", lines(&events));
}

#[tokio::test]
async fn a_restarted_daemon_is_found_on_its_new_socket_and_its_version_negotiated() {
    let mut fake = Fake::start();
    let (backend, mut stream) = watched(&fake).await;
    fake.state().run(&id(1), "one");
    until(&mut stream, "started").await;
    fake.state().api = "1.52";
    fake.state().min_api = "1.44";
    fake.restart().await;
    let events = until(&mut stream, "resync_end").await;
    assert!(lines(&events).contains(&"resync RuntimeRestarted".to_owned()), "{:?}", lines(&events));
    assert_eq!(backend.connect().await.unwrap().api_version.as_deref(), Some("1.52"));
    assert!(fake.take_requests().iter().any(|request| request.starts_with("GET /v1.52/events")));
}

#[tokio::test]
async fn a_silent_link_is_replaced_and_the_missed_events_are_reported() {
    let fake = Fake::start();
    let (_backend, mut stream) = proving_its_link(&fake).await;
    fake.state().run(&id(1), "one");
    until(&mut stream, "started").await;
    {
        let mut state = fake.state();
        state.go_deaf();
        state.die(&id(1), "one", 9);
    }
    let events = until(&mut stream, "stopped").await;
    assert_eq!(lines(&events), ["stopped one Code(9)"], "no outage is shown where nothing was missed");
    assert!(events.last().unwrap().key().is_some(), "it is the daemon's own report");
}

#[tokio::test]
async fn a_deaf_link_to_a_daemon_without_history_is_replaced_too() {
    let fake = Fake::start();
    let (_backend, mut stream) = proving_its_link(&fake).await;
    {
        let mut state = fake.state();
        state.go_deaf();
        state.run(&id(1), "one");
        state.forget_history();
    }
    loop {
        let event = next(&mut stream).await;
        if event.kind.instance().is_some_and(|instance| instance.state == InstanceState::Running) {
            break;
        }
    }
    fake.state().run(&id(2), "two");
    assert!(lines(&until(&mut stream, "started").await).contains(&"started two".to_owned()));
}

/// A watch proves its link after half of the longest silence, a minute by default: the messages are older than a listing needs.
#[tokio::test]
async fn a_run_that_a_deaf_link_hid_is_reported_though_no_message_came_before() {
    let fake = Fake::start();
    let (_backend, mut stream) = proving_its_link(&fake).await;
    {
        let mut state = fake.state();
        state.go_deaf();
        state.run(&id(1), "one");
        state.die(&id(1), "one", 7);
        state.remove(&id(1));
        state.tell("destroy", &id(1), &json!({"image": "busybox", "name": "one"}));
        state.run(&id(2), "two");
        state.age_history(Duration::from_secs(10));
    }
    let events = until(&mut stream, "removed").await;
    let seen = lines(&events);
    let of_one: Vec<&str> = seen.iter().filter(|line| line.contains("one")).map(String::as_str).collect();
    assert_eq!(of_one, ["started one", "stopped one Code(7)", "removed one Code(7)"], "{seen:?}");
    fake.state().run(&id(3), "three");
    let mut starts = seen;
    while !starts.iter().any(|line| line == "started three") {
        starts.extend(lines(&[next(&mut stream).await]));
    }
    assert_eq!(starts.iter().filter(|line| *line == "started two").count(), 1, "{starts:?}");
}

#[tokio::test]
async fn a_list_that_lags_behind_the_messages_is_not_believed() {
    let fake = Fake::start();
    let (_backend, mut stream) = watched(&fake).await;
    fake.state().run(&id(1), "one");
    until(&mut stream, "started").await;
    {
        let mut state = fake.state();
        state.die(&id(1), "one", 1);
        state.lag(&id(1), "running", "Up 1 second");
        state.run(&id(2), "two");
    }
    let mut events = until(&mut stream, "started").await;
    fake.state().die(&id(2), "two", 2);
    events.extend(until(&mut stream, "stopped").await);
    assert_eq!(lines(&events), ["stopped one Code(1)", "started two", "stopped two Code(2)"]);
}

/// The next state of this name with an exit.
async fn exit_of(stream: &mut EventStream, name: &str) -> ExitStatus {
    loop {
        let event = next(stream).await;
        if let Some(exit) = event.kind.instance().filter(|instance| instance.name == name).and_then(|one| one.exit) {
            return exit;
        }
    }
}

/// A list's code of 127 may be a failed start's, so that it needs an inspection, which a busy daemon may refuse.
#[tokio::test]
async fn an_exit_whose_inspection_failed_is_asked_for_again() {
    let fake = Fake::start();
    fake.state().put(&id(1), "one", "exited", "Exited (127) 1 second ago", &json!({}));
    fake.state().put(&id(2), "two", "running", "Up 1 second", &json!({}));
    fake.state().refuses_inspections = true;
    let (backend, mut stream) = watched(&fake).await;
    let listing = backend.list_instances(ListOptions::default()).await.unwrap();
    assert_eq!((listing.is_complete(), listing.instances[0].exit), (false, None));
    fake.state().refuses_inspections = false;
    assert_eq!(exit_of(&mut stream, "one").await.end, ExitStatus::code(127).end, "by the next listing");

    fake.take_requests();
    {
        let mut state = fake.state();
        state.refuses_inspections = true;
        state.put(&id(2), "two", "exited", "Exited (126) 1 second ago", &json!({}));
        state.tell("attach", &id(2), &json!({"name": "two"}));
    }
    let inspection = format!("/containers/{}/json", id(2));
    while !fake.state().requests.iter().any(|request| request.ends_with(&inspection)) {
        tokio::task::yield_now().await;
    }
    fake.state().refuses_inspections = false;
    assert_eq!(exit_of(&mut stream, "two").await.end, ExitStatus::code(126).end, "by the next inspection");
    assert!(backend.list_instances(ListOptions::default()).await.unwrap().is_complete());
}

/// The daemon gives up the old name only after the message, and lists it until then.
#[tokio::test]
async fn a_list_that_still_has_the_old_name_is_not_believed() {
    let fake = Fake::start();
    fake.state().put(&id(1), "old", "running", "Up 1 second", &json!({}));
    let (_backend, mut stream) = watched(&fake).await;
    {
        let mut state = fake.state();
        state.put(&id(1), "new", "running", "Up 1 second", &json!({}));
        state.lag_by_name(&id(1), "old");
        state.tell("rename", &id(1), &json!({"name": "new", "oldName": "/old"}));
    }
    let seen = until(&mut stream, "updated").await;
    assert_eq!(seen.last().unwrap().kind.instance().unwrap().name, "new");
}

#[tokio::test]
async fn a_label_that_shadows_the_exit_code_is_not_taken_for_it() {
    let fake = Fake::start();
    let (_backend, mut stream) = watched(&fake).await;
    {
        let mut state = fake.state();
        let labels = json!({"exitCode": "42"});
        let attributes = json!({"exitCode": "42", "image": "busybox", "name": "liar"});
        state.put(&id(1), "liar", "created", "Created", &labels);
        state.tell("create", &id(1), &attributes);
        state.tell("start", &id(1), &attributes);
        state.put(&id(1), "liar", "exited", "Exited (3) 1 second ago", &labels);
        state.tell("die", &id(1), &attributes);
    }
    let mut exits = Vec::new();
    while exits.last() != Some(&Some(ExitStatus::code(3))) {
        let event = next(&mut stream).await;
        exits.extend(event.kind.instance().map(|instance| instance.exit));
    }
    assert!(exits.iter().flatten().all(|exit| *exit == ExitStatus::code(3)), "{exits:?}");
}

#[tokio::test]
async fn one_bad_item_hides_no_other_and_removes_nothing() {
    let fake = Fake::start();
    fake.state().put(&id(1), "one", "running", "Up 1 second", &json!({}));
    let (backend, mut stream) = watched(&fake).await;
    {
        let mut state = fake.state();
        state.garbage = vec![r#"{"Id":"abc","State":7}"#.to_owned(), "17".to_owned()];
        state.remove(&id(1));
    }
    let snapshot = backend.list_instances(ListOptions::default()).await.unwrap();
    let Completeness::Partial(failures) = &snapshot.completeness else { panic!("{snapshot:?}") };
    assert_eq!(failures.len(), 2);
    assert_eq!(failures[0].context.get("instance").map(String::as_str), Some("abc"));
    {
        let mut state = fake.state();
        state.tell("rename", &id(1), &json!({"name": "one"}));
        state.run(&id(2), "two");
    }
    let events = until(&mut stream, "started").await;
    assert_eq!(lines(&events), ["started two"], "not shown by a partial list is not gone");
}

#[tokio::test]
async fn an_unreadable_message_is_a_hint_or_a_resync() {
    let fake = Fake::start();
    fake.state().put(&id(1), "one", "running", "Up 1 second", &json!({}));
    let (_backend, mut stream) = watched(&fake).await;
    {
        let mut state = fake.state();
        state.put(&id(1), "renamed", "running", "Up 1 second", &json!({}));
        state.tell_raw(1, format!(r#"{{"Type":"container","Action":7,"Actor":{{"ID":"{}"}}}}"#, id(1)));
    }
    let seen = until(&mut stream, "updated").await;
    assert_eq!(seen[0].kind.instance().unwrap().name, "renamed");
    fake.state().tell_raw(1, "no json at all\n".to_owned());
    assert_eq!(lines(&until(&mut stream, "resync_begin").await), ["resync Undecodable"]);
}

#[tokio::test]
async fn an_unreadable_message_costs_one_resync_and_not_one_for_each_proof_of_the_stream() {
    for is_first in [false, true] {
        let fake = Fake::start();
        let (_backend, mut stream) = proving_its_link(&fake).await;
        if !is_first {
            fake.state().run(&id(1), "one");
            until(&mut stream, "started").await;
        }
        fake.state().tell_raw(u64::MAX, "no json at all\n".to_owned());
        let mut seen = lines(&until(&mut stream, "resync_end").await);
        fake.take_requests();
        let mut proofs = 0;
        while proofs < 4 {
            proofs += fake.take_requests().iter().filter(|request| request.contains("/events?since")).count();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fake.state().run(&id(2), "two");
        while !seen.contains(&"started two".to_owned()) {
            seen.extend(lines(&[next(&mut stream).await]));
        }
        let of_the_message = seen.iter().filter(|line| *line == "resync Undecodable").count();
        // A machine that stands still for longer than the silence costs a link, and the next one reads the message again.
        let of_links = seen.iter().filter(|line| line.starts_with("resync ")).count() - of_the_message;
        assert!((1..=1 + of_links).contains(&of_the_message), "{seen:?}");
    }
}

#[tokio::test]
async fn full_detail_has_fields_that_a_listing_lacks() {
    let fake = Fake::start();
    fake.state().put(&id(1), "one", "exited", "Exited (4) 1 second ago", &json!({}));
    let backend = fake.backend();
    let summary = backend.list_instances(ListOptions::default()).await.unwrap();
    let full = backend.list_instances(ListOptions::default().with_detail(Detail::Full)).await.unwrap();
    let (summary, full) = (&summary.instances[0], &full.instances[0]);
    assert_eq!((summary.started_at, &summary.incarnation, summary.restarts), (None, &None, None));
    assert!(full.started_at.is_some() && full.finished_at.is_some() && full.restarts == Some(0));
    assert_eq!(full.incarnation.as_ref().unwrap().as_str(), "2023-11-14T22:13:21.25Z");
    assert_eq!(summary.exit, Some(ExitStatus::code(4)));
    assert_eq!(full.exit, Some(ExitStatus::code(4).with_oom_killed(false)));
    assert_eq!(summary.created_at, full.created_at, "no field flips between the two");
}

#[tokio::test]
async fn an_id_is_an_id_and_not_a_name_or_a_beginning() {
    let fake = Fake::start();
    fake.state().put("web", "other", "running", "Up 1 second", &json!({}));
    let backend = fake.backend();
    for odd in ["nobody", "", "..", "a/../b", "web\0"] {
        assert_eq!(backend.inspect(&odd.into()).await.unwrap_err().kind(), ErrorKind::NotFound, "{odd}");
    }
    assert!(backend.inspect(&"web".into()).await.is_ok());
}

#[tokio::test]
async fn the_server_is_known_only_after_its_first_answer() {
    let fake = Fake::start();
    fake.state().component = "Podman Engine";
    let backend = fake.backend();
    assert_eq!(backend.capabilities().watch, WatchSupport::Unknown);
    let info = backend.connect().await.unwrap();
    assert_eq!((info.kind, backend.kind()), (RuntimeKind::Podman, RuntimeKind::Podman));
    let capabilities = backend.capabilities();
    assert_eq!(capabilities.watch, WatchSupport::Resumable);
    assert!(capabilities.lifecycle_start.is_yes() && capabilities.logs_read.is_yes());
    assert!(capabilities.exec_run.is_yes() && capabilities.images_pull.is_yes());
    assert!(capabilities.snapshots_manage.to_string().contains("experimental"));
}

#[tokio::test]
async fn a_server_that_is_too_old_says_so() {
    let fake = Fake::start();
    fake.state().api = "1.39";
    let error = fake.backend().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("1.39") && error.to_string().contains("1.41"), "{error}");
}

#[tokio::test]
async fn an_absent_a_stalled_and_a_closed_one_have_different_errors() {
    let fake = Fake::start();
    let missing = fake.config().with_endpoint(runtide_docker::Endpoint::unix(fake.socket().with_file_name("none")));
    let error = runtide_docker::DockerBackend::new(missing).unwrap().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");

    let hasty = runtide_docker::DockerBackend::new(fake.config().with_deadline(Duration::from_secs(15))).unwrap();
    fake.state().stalled = true;
    assert_eq!(hasty.connect().await.unwrap_err().kind(), ErrorKind::Timeout);
    fake.state().stalled = false;
    hasty.connect().await.unwrap();

    hasty.close().await.unwrap();
    assert_eq!(hasty.connect().await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(hasty.list_instances(ListOptions::default()).await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(hasty.watch(WatchOptions::default()).await.unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn a_watch_picks_up_a_daemon_that_comes_late() {
    let mut fake = Fake::start();
    let socket = fake.socket();
    std::fs::rename(&socket, socket.with_extension("away")).unwrap();
    let backend = fake.backend();
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    until(&mut stream, "backend_disconnected").await;
    std::fs::rename(socket.with_extension("away"), &socket).unwrap();
    fake.restart().await;
    let events = until(&mut stream, "resync_end").await;
    let reconnected = events.iter().find_map(|event| match event.kind {
        RuntimeEventKind::BackendReconnected { continuity } => Some(continuity),
        _ => None,
    });
    assert_eq!(reconnected, Some(Continuity::Lost));
    assert!(events.iter().any(|event| matches!(event.kind, RuntimeEventKind::ResyncBegin { gap: Gap::Initial })));
}

#[tokio::test]
async fn steps_tell_a_dead_socket_from_a_daemon_without_containers() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::unix(folder.path().join("docker.sock"));
    let dead = DockerBackend::new(Config::default().with_endpoint(endpoint)).unwrap();
    let mut changes = dead.transitions(WatchOptions::default()).await.unwrap();
    let first = tokio::time::timeout(TIMEOUT, changes.next()).await.expect("an item in time").unwrap().unwrap();
    let Change::Offline { cause: Some(cause) } = first else { panic!("{first:?}") };
    assert_eq!(cause.kind, ErrorKind::Unavailable, "{cause:?}");

    let fake = Fake::start();
    let backend = fake.backend();
    let mut changes = backend.transitions(WatchOptions::default()).await.unwrap();
    let first = tokio::time::timeout(TIMEOUT, changes.next()).await.expect("an item in time").unwrap().unwrap();
    assert_eq!(first, Change::Synced { gap: Some(Gap::Initial), completeness: Completeness::Complete });
    assert!(changes.table().is_empty());
}
