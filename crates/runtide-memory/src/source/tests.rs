//! The source alone, without a driver.

use runtide_core::{Gap, watch::SignalBody};

use super::*;
use crate::{Blueprint, Config, Faults, Garble, MemoryRuntime, Reboot, RuntimeOptions, client::Client};

fn runtime() -> MemoryRuntime {
    MemoryRuntime::with_options(RuntimeOptions::deterministic(0))
}

fn source(runtime: &MemoryRuntime, config: Config) -> MemorySource {
    MemorySource::new(Client::new(config, runtime.clone()))
}

/// One line for each signal.
fn shown(signals: &[Signal]) -> Vec<String> {
    let line = |signal: &Signal| {
        let token = signal.token.as_ref().map_or("-", ResumeToken::as_str);
        match &signal.body {
            SignalBody::Edge(edge) => format!("{token} edge {} {}", edge.id, edge.state),
            SignalBody::Gone(id) => format!("{token} gone {id}"),
            SignalBody::Hint(id) => format!("{token} hint {id}"),
            SignalBody::State(instance) => format!("{token} state {} {}", instance.id, instance.state),
            SignalBody::Lost(gap) => format!("{token} lost {gap:?}"),
            SignalBody::CaughtUp => "caught up".to_owned(),
            SignalBody::Alive => format!("{token} alive"),
            other => format!("{other:?}"),
        }
    };
    signals.iter().map(line).collect()
}

/// The signals at hand, as text.
async fn batch(source: &mut MemorySource) -> Vec<String> {
    let mut out = Vec::new();
    assert_eq!(source.next_batch(&mut out).await.unwrap(), Flow::Open);
    shown(&out)
}

/// Edges without the hints that go with them.
async fn edges(source: &mut MemorySource) -> Vec<String> {
    let mut lines = batch(source).await;
    lines.retain(|line| !line.starts_with("- hint"));
    lines
}

async fn fresh(runtime: &MemoryRuntime, config: Config) -> MemorySource {
    let mut source = source(runtime, config);
    assert_eq!(source.open(None).await.unwrap(), Opened::Fresh(Gap::Initial));
    source
}

#[tokio::test(start_paused = true)]
async fn each_dialect_says_it_in_its_way() {
    let reported = async |dialect| {
        let runtime = runtime();
        let mut source = fresh(&runtime, Config::default().with_dialect(dialect)).await;
        let id = runtime.run("web").unwrap();
        runtime.rename(&id, "www").unwrap();
        runtime.pause(&id).unwrap();
        runtime.stop(&id).unwrap();
        runtime.remove(&id).unwrap();
        batch(&mut source).await
    };
    let id = "mem-000001";
    assert_eq!(
        reported(Dialect::Edges).await,
        [
            format!("1 edge {id} created"),
            format!("2 edge {id} running"),
            format!("- hint {id}"),
            format!("3 hint {id}"),
            format!("4 edge {id} paused"),
            format!("5 edge {id} stopped"),
            format!("- hint {id}"),
            format!("6 gone {id}"),
        ]
    );
    assert_eq!(reported(Dialect::Hints).await, (1..=6).map(|token| format!("{token} hint {id}")).collect::<Vec<_>>());
    assert_eq!(
        reported(Dialect::States).await,
        [
            format!("1 state {id} created"),
            format!("2 state {id} running"),
            format!("3 state {id} running"),
            format!("4 state {id} paused"),
            format!("5 state {id} stopped"),
            format!("6 gone {id}"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_edge_carries_the_messages_fields_and_no_more() {
    let runtime = runtime();
    let mut source = fresh(&runtime, Config::default().with_edges_name_incarnation(false)).await;
    let id = runtime.run(Blueprint::named("web").with_ports([])).unwrap();
    runtime.exit(&id, runtide_core::ExitStatus::code(3)).unwrap();
    let mut out = Vec::new();
    source.next_batch(&mut out).await.unwrap();
    let edges: Vec<_> = out
        .iter()
        .filter_map(|signal| if let SignalBody::Edge(edge) = &signal.body { Some(edge) } else { None })
        .collect();
    assert_eq!(
        edges.iter().map(|edge| edge.exit).collect::<Vec<_>>(),
        [None, None, Some(runtide_core::ExitStatus::code(3))]
    );
    let described = edges[2].described.as_ref().unwrap();
    assert_eq!((described.name.as_str(), &described.ports, &described.incarnation), ("web", &None, &None));
    assert!(edges.iter().all(|edge| edge.incarnation.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_token_in_the_history_resumes_and_replays_the_missed_events() {
    let runtime = runtime();
    let mut source = fresh(&runtime, Config::default()).await;
    let id = runtime.run("web").unwrap();
    assert_eq!(edges(&mut source).await.len(), 2);
    runtime.sever();
    let error = source.next_batch(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    runtime.stop(&id).unwrap();
    assert_eq!(source.open(Some(&ResumeToken::from("2"))).await.unwrap(), Opened::Resumed);
    runtime.start(&id).unwrap();
    let missed = ["3 edge mem-000001 stopped", "caught up", "4 edge mem-000001 running"];
    assert_eq!(edges(&mut source).await, missed);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_fell_out_of_the_history_does_not_resume() {
    let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(0).with_history(3_usize));
    let mut source = fresh(&runtime, Config::default()).await;
    for _ in 0..4 {
        runtime.create("").unwrap();
    }
    assert_eq!(source.open(Some(&ResumeToken::from("1"))).await.unwrap(), Opened::Fresh(Gap::HistoryExpired));
    assert_eq!(source.open(Some(&ResumeToken::from("2"))).await.unwrap(), Opened::Resumed);
    runtime.lose_history();
    assert_eq!(source.open(Some(&ResumeToken::from("4"))).await.unwrap(), Opened::Fresh(Gap::HistoryExpired));
    assert_eq!(source.open(Some(&ResumeToken::from("nonsense"))).await.unwrap(), Opened::Fresh(Gap::ForeignCursor));
}

#[tokio::test(start_paused = true)]
async fn a_reboot_breaks_streams_and_resumes_only_if_nothing_happened_in_between() {
    let runtime = runtime();
    let mut source = fresh(&runtime, Config::default()).await;
    let id = runtime.run("web").unwrap();
    let last = ResumeToken::from("2");

    runtime.reboot(Reboot::default().keeping_history());
    assert!(source.next_batch(&mut Vec::new()).await.is_err());
    assert_eq!(source.open(Some(&last)).await.unwrap(), Opened::Resumed);

    runtime.go_down();
    assert_eq!(source.open(Some(&last)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    runtime.stop(&id).unwrap();
    runtime.come_up(Reboot::default().keeping_history());
    assert_eq!(source.open(Some(&last)).await.unwrap(), Opened::Fresh(Gap::RuntimeRestarted));
    assert!(!runtime.history().last().unwrap().told);

    runtime.reboot(Reboot::default());
    assert_eq!(source.open(Some(&ResumeToken::from("3"))).await.unwrap(), Opened::Fresh(Gap::RuntimeRestarted));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_boot_never_resumes_though_its_number_comes_again() {
    let with = |seed: Option<u64>| MemoryRuntime::with_options(RuntimeOptions::deterministic(0).with_seed(seed));
    let runtimes = [None, None, Some(0), Some(1), Some(2)].map(with);
    for runtime in &runtimes {
        runtime.run("web").unwrap();
    }
    let tokens = || runtimes.iter().map(|runtime| runtime.history().last().unwrap().token.clone());
    for (own, runtime) in runtimes.iter().enumerate() {
        for (of, token) in tokens().enumerate() {
            let opened = source(runtime, Config::default()).open(Some(&token)).await.unwrap();
            let expected = if of == own { Opened::Resumed } else { Opened::Fresh(Gap::RuntimeRestarted) };
            assert_eq!(opened, expected, "{token} of runtime {of}, offered to runtime {own}");
        }
    }

    // A runtime that lost all it had begins to count again.
    let (runtime, old) = (runtime(), ResumeToken::from("2"));
    runtime.run("web").unwrap();
    runtime.reboot(Reboot::default().losing_everything());
    assert!(runtime.truth().is_empty());
    for _ in 0..3 {
        let opened = source(&runtime, Config::default()).open(Some(&old)).await.unwrap();
        assert_eq!(opened, Opened::Fresh(Gap::RuntimeRestarted), "after {} facts", runtime.history().len());
        runtime.create("").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_end_comes_after_the_reported_events() {
    let runtime = runtime();
    let mut source = fresh(&runtime, Config::default()).await;
    runtime.create("web").unwrap();
    runtime.close_streams();
    assert_eq!(batch(&mut source).await, ["1 edge mem-000001 created"]);
    assert_eq!(source.next_batch(&mut Vec::new()).await.unwrap(), Flow::Closed);

    runtime.faults(|faults| faults.close_at_once = true);
    source.open(None).await.unwrap();
    assert_eq!(source.next_batch(&mut Vec::new()).await.unwrap(), Flow::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_shows_that_it_is_alive_and_a_dead_one_does_not() {
    let runtime = runtime();
    let mut source = fresh(&runtime, Config::default().with_heartbeat(Duration::from_secs(5))).await;
    let began = tokio::time::Instant::now();
    assert_eq!(batch(&mut source).await, ["- alive"]);
    runtime.create("web").unwrap();
    batch(&mut source).await;
    assert_eq!(batch(&mut source).await, ["1 alive"]);
    assert_eq!(began.elapsed(), Duration::from_secs(10));

    runtime.half_open();
    let silence = Duration::from_secs(3600);
    assert!(tokio::time::timeout(silence, source.next_batch(&mut Vec::new())).await.is_err());
    runtime.create("api").unwrap();
    assert!(tokio::time::timeout(silence, source.next_batch(&mut Vec::new())).await.is_err());
    assert!(source.inspector().list(Detail::Summary).await.unwrap().is_complete(), "inspections still work");
    assert_eq!(source.open(Some(&ResumeToken::from("1"))).await.unwrap(), Opened::Resumed, "and so do new streams");
    assert_eq!(batch(&mut source).await, ["2 edge mem-000002 created", "caught up"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_read_is_a_hint_or_a_gap() {
    let runtime = runtime();
    let mut source = fresh(&runtime, Config::default()).await;
    for garble in [Garble::Body, Garble::Whole] {
        runtime.faults(|faults| faults.garble = Some(garble));
        runtime.create("").unwrap();
    }
    runtime.heal();
    assert_eq!(batch(&mut source).await, ["1 hint mem-000001", "2 lost Undecodable"]);
}

#[tokio::test(start_paused = true)]
async fn events_are_duplicated_swapped_delayed_or_dropped_as_the_faults_say() {
    let runtime = runtime();
    let mut source = fresh(&runtime, Config::default()).await;
    let with = |change: fn(&mut Faults)| {
        runtime.faults(|faults| {
            *faults = Faults::default();
            change(faults);
        });
    };
    with(|faults| faults.duplicate = true);
    runtime.create("a").unwrap();
    with(|faults| faults.reorder = true);
    runtime.create("b").unwrap();
    runtime.create("c").unwrap();
    with(|faults| faults.swallow = true);
    runtime.create("d").unwrap();
    with(|faults| faults.delay = Some(Duration::from_secs(1)));
    runtime.create("e").unwrap();
    let now = ["1", "1", "3", "2"].map(|token| format!("{token} edge mem-00000{token} created"));
    assert_eq!(batch(&mut source).await, now);
    assert_eq!(runtime.truth().len(), 5);
    assert_eq!(batch(&mut source).await, ["5 edge mem-000005 created"]);

    with(|faults| faults.reorder = true);
    runtime.create("f").unwrap();
    let waited = tokio::time::Instant::now();
    assert_eq!(
        batch(&mut source).await,
        ["6 edge mem-000006 created"],
        "it does not wait for a neighbour indefinitely"
    );
    assert_eq!(waited.elapsed(), Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn events_delayed_when_a_stream_opens_are_still_reported() {
    let runtime = runtime();
    runtime.create("a").unwrap();
    runtime.faults(|faults| faults.delay = Some(Duration::from_secs(1)));
    runtime.create("b").unwrap();
    let mut newcomer = fresh(&runtime, Config::default()).await;
    let mut resumed = source(&runtime, Config::default());
    assert_eq!(resumed.open(Some(&ResumeToken::from("1"))).await.unwrap(), Opened::Resumed);
    assert_eq!(batch(&mut resumed).await, ["caught up"]);
    assert_eq!(batch(&mut newcomer).await, ["1 alive"]);
    for source in [&mut newcomer, &mut resumed] {
        assert_eq!(batch(source).await, ["2 edge mem-000002 created"]);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_a_read_loses_nothing() {
    let runtime = runtime();
    let mut source = fresh(&runtime, Config::default()).await;
    let mut out = Vec::new();
    let abandoned = tokio::time::timeout(Duration::from_millis(1), source.next_batch(&mut out)).await;
    assert!(abandoned.is_err() && out.is_empty());
    runtime.create("web").unwrap();
    assert_eq!(batch(&mut source).await, ["1 edge mem-000001 created"]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_too_slow_is_broken_off() {
    let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(0).with_stream_buffer(2_usize));
    let mut source = fresh(&runtime, Config::default()).await;
    for _ in 0..3 {
        runtime.create("").unwrap();
    }
    let error = source.next_batch(&mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("too slow"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_counted_until_it_is_dropped() {
    let runtime = runtime();
    let mut source = fresh(&runtime, Config::default()).await;
    source.open(None).await.unwrap();
    assert_eq!(runtime.open_streams(), 1, "opening again drops the one before");
    drop(source);
    assert_eq!((runtime.open_streams(), runtime.open_calls()), (0, 0));
    assert_eq!(runtime.calls(crate::Call::Events), 2);
}

#[tokio::test(start_paused = true)]
async fn a_listing_names_the_instances_that_it_cannot_read() {
    let runtime = runtime();
    let ids: Vec<_> = (0..4).map(|_| runtime.create("").unwrap()).collect();
    let inspector = source(&runtime, Config::default()).inspector();
    runtime.faults(|faults| faults.bad_items.insert(ids[1].clone()));
    let partial = inspector.list(Detail::Summary).await.unwrap();
    assert_eq!((partial.instances.len(), partial.is_complete()), (3, false));
    let gone = InstanceId::from("gone");
    let answers = inspector.inspect(&[ids[0].clone(), ids[1].clone(), gone.clone()], Detail::Summary).await.unwrap();
    assert!(matches!(&answers[0], Inspection::Present(instance) if instance.id == ids[0]));
    assert!(matches!(&answers[1], Inspection::Unknown { id, .. } if *id == ids[1]));
    assert!(matches!(&answers[2], Inspection::Absent(id) if *id == gone));

    runtime.heal();
    runtime.faults(|faults| faults.truncate_list = Some(2));
    let cut = inspector.list(Detail::Summary).await.unwrap();
    assert_eq!((cut.instances.len(), cut.is_complete()), (2, false));

    runtime.heal();
    runtime.faults(|faults| faults.hide.extend(ids));
    let lie = inspector.list(Detail::Summary).await.unwrap();
    assert_eq!((lie.instances.len(), lie.is_complete()), (0, true));
}
