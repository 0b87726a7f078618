use std::{sync::Arc, time::SystemTime};

use runtide_core::{Completeness, Gap, InstanceKind, event::FieldSet};

use super::*;

fn at(epoch: &str, seq: u64, kind: Kind) -> RuntimeEvent {
    RuntimeEvent::new("demo".into(), Cursor::new(epoch.into(), seq, None), SystemTime::UNIX_EPOCH, kind)
}

fn instance(state: InstanceState, incarnation: &str) -> Arc<Instance> {
    let mut instance = Instance::new("demo", "c1", "c1", InstanceKind::Container, state);
    instance.incarnation = Some(incarnation.into());
    Arc::new(instance)
}

fn running() -> Arc<Instance> {
    instance(InstanceState::Running, "1")
}

fn begin() -> Kind {
    Kind::ResyncBegin { gap: Gap::Initial }
}

fn end() -> Kind {
    Kind::ResyncEnd(Completeness::Complete)
}

fn updated(instance: Arc<Instance>) -> Kind {
    Kind::Updated { instance, changed: FieldSet::default() }
}

fn down() -> Kind {
    Kind::BackendDisconnected { cause: None }
}

fn back(continuity: Continuity) -> Kind {
    Kind::BackendReconnected { continuity }
}

fn run(checker: StreamChecker, events: &[RuntimeEvent]) -> Option<Law> {
    let mut checker = checker;
    events.iter().find_map(|event| checker.observe(event).err()).and_then(|violation| violation.law)
}

fn opened() -> Vec<RuntimeEvent> {
    vec![at("b", 1, begin()), at("b", 2, Kind::Present(running())), at("r", 7, end())]
}

fn after_opening(more: impl IntoIterator<Item = RuntimeEvent>) -> Option<Law> {
    let mut events = opened();
    events.extend(more);
    run(StreamChecker::default(), &events)
}

#[test]
fn an_orderly_stream_passes() {
    let stopped = Kind::Stopped(instance(InstanceState::Stopped, "1"));
    let again = Kind::Started(instance(InstanceState::Running, "2"));
    let events = [
        at("r", 8, updated(running())),
        at("r", 8, Kind::Bookmark),
        at("r", 9, stopped),
        at("r", 10, down()),
        at("r", 11, back(Continuity::Resumed)),
        at("r", 12, again),
        at("r", 13, Kind::CaughtUp),
        at("r", 14, down()),
        at("r", 15, back(Continuity::Lost)),
        at("c", 1, Kind::ResyncBegin { gap: Gap::HistoryExpired }),
        at("r", 15, end()),
        at("r", 16, Kind::Started(running())),
    ];
    assert_eq!(after_opening(events), None);
}

#[test]
fn a_resync_holds_only_present() {
    assert_eq!(run(StreamChecker::default(), &[at("r", 1, updated(running()))]), Some(Law::R1));
    assert_eq!(run(StreamChecker::default(), &[at("r", 1, Kind::Bookmark)]), Some(Law::R1));
    assert_eq!(run(StreamChecker::default(), &[at("b", 1, begin()), at("b", 2, updated(running()))]), Some(Law::R1));
    assert_eq!(run(StreamChecker::default(), &[at("b", 1, begin()), at("c", 1, begin())]), Some(Law::R1));
    assert_eq!(after_opening([at("r", 8, Kind::Present(running()))]), Some(Law::R1));
    let twice = [at("b", 1, begin()), at("b", 2, Kind::Present(running())), at("b", 3, Kind::Present(running()))];
    assert_eq!(run(StreamChecker::default(), &twice), Some(Law::R1));
}

#[test]
fn an_outage_is_reported_once_and_no_event_comes_in_it() {
    assert_eq!(after_opening([at("r", 8, down()), at("r", 9, down())]), Some(Law::R1));
    assert_eq!(after_opening([at("r", 8, down()), at("r", 9, updated(running()))]), Some(Law::R1));
    assert_eq!(after_opening([at("r", 8, back(Continuity::Resumed))]), Some(Law::R1));
    let lost = [at("r", 8, down()), at("r", 9, back(Continuity::Lost)), at("r", 10, updated(running()))];
    assert_eq!(after_opening(lost), Some(Law::R1));
    let first = [at("r", 1, down()), at("r", 2, back(Continuity::Resumed))];
    assert_eq!(run(StreamChecker::default(), &first), Some(Law::R1));
}

#[test]
fn a_replay_ends_once_and_is_not_live_before() {
    let live = |events: &[RuntimeEvent]| {
        let mut checker = StreamChecker::default();
        opened().iter().chain(events).for_each(|event| checker.observe(event).unwrap());
        checker.is_live()
    };
    let replay = [at("r", 8, down()), at("r", 9, back(Continuity::Resumed)), at("r", 10, updated(running()))];
    assert!(!live(&replay));
    let ended = [&replay[..], &[at("r", 11, Kind::CaughtUp)]].concat();
    assert!(live(&ended));
    assert_eq!(after_opening([&ended[..], &[at("r", 12, Kind::CaughtUp)]].concat()), Some(Law::R1));
    assert_eq!(after_opening([at("r", 8, Kind::CaughtUp)]), Some(Law::R1), "nothing was replayed");
    assert_eq!(after_opening([at("r", 8, down()), at("r", 9, Kind::CaughtUp)]), Some(Law::R1));
    // A resync or another outage may come in its place.
    assert_eq!(after_opening([&replay[..], &[at("c", 1, begin())]].concat()), None);
    assert_eq!(after_opening([&replay[..], &[at("r", 11, down())]].concat()), None);
}

#[test]
fn numbers_rise_by_one_unless_filtered() {
    assert_eq!(after_opening([at("r", 9, updated(running()))]), Some(Law::R2));
    assert_eq!(after_opening([at("r", 7, updated(running()))]), Some(Law::R2));
    assert_eq!(after_opening([at("s", 8, updated(running()))]), Some(Law::R2));
    assert_eq!(after_opening([at("r", 8, Kind::Bookmark)]), Some(Law::R2));
    let mut events = opened();
    events.push(at("r", 19, updated(running())));
    events.push(at("r", 23, Kind::Bookmark));
    assert_eq!(run(StreamChecker::default().filtered(), &events), None);
    events.push(at("r", 22, updated(running())));
    assert_eq!(run(StreamChecker::default().filtered(), &events), Some(Law::R2));
}

#[test]
fn a_resync_has_its_own_epoch() {
    assert_eq!(after_opening([at("r", 8, begin())]), Some(Law::R2));
    assert_eq!(after_opening([at("c", 2, begin())]), Some(Law::R2));
    assert_eq!(run(StreamChecker::default(), &[at("b", 1, begin()), at("b", 2, end())]), Some(Law::R2));
    assert_eq!(after_opening([at("c", 1, begin()), at("r", 6, end())]), Some(Law::R2));
}

#[test]
fn a_resumed_stream_goes_on_or_says_how_it_resumed() {
    let from = Cursor::new("r".into(), 7, None);
    let resumed = || StreamChecker::default().resumed(&from);
    assert_eq!(run(resumed(), &[at("r", 8, updated(running()))]), None);
    assert_eq!(run(resumed(), &[at("r", 9, updated(running()))]), Some(Law::R2));
    assert_eq!(run(resumed(), &[at("n", 1, back(Continuity::Resumed)), at("n", 2, updated(running()))]), None);
    assert_eq!(run(resumed(), &[at("n", 1, updated(running()))]), Some(Law::R1));
    // The position may be within a replay.
    assert_eq!(run(resumed(), &[at("r", 8, Kind::CaughtUp)]), None);
    assert_eq!(run(resumed(), &[at("r", 8, updated(running())), at("r", 9, Kind::CaughtUp)]), None);
    assert_eq!(run(resumed(), &[at("n", 1, Kind::CaughtUp)]), Some(Law::R1));
    assert_eq!(run(resumed(), &opened()), None);
}

#[test]
fn a_reported_fact_comes_once() {
    let mut fact = at("r", 8, updated(running()));
    fact.token = Some("m".into());
    let mut again = fact.clone();
    again.cursor.seq = 9;
    assert_eq!(after_opening([fact, again]), Some(Law::R5));
}

#[test]
fn edges_come_in_order() {
    assert_eq!(after_opening([at("r", 8, Kind::Started(running()))]), Some(Law::R4));
    let stopped = || Kind::Stopped(instance(InstanceState::Stopped, "1"));
    let gone = || Kind::Removed(instance(InstanceState::Stopped, "1"));
    assert_eq!(after_opening([at("r", 8, gone()), at("r", 9, stopped())]), Some(Law::R4));
    assert_eq!(after_opening([at("r", 8, gone()), at("r", 9, gone())]), Some(Law::R4));
    assert_eq!(after_opening([at("r", 8, Kind::Stopped(running()))]), Some(Law::R4));
    let second = Kind::Started(instance(InstanceState::Running, "2"));
    let third = Kind::Started(instance(InstanceState::Running, "2"));
    assert_eq!(
        after_opening([at("r", 8, stopped()), at("r", 9, second), at("r", 10, stopped()), at("r", 11, third)]),
        Some(Law::R4)
    );
}

#[test]
fn a_violation_shows_what_came_before() {
    let mut checker = StreamChecker::default();
    for event in opened() {
        checker.observe(&event).unwrap();
    }
    let violation = checker.observe(&at("r", 9, updated(running()))).unwrap_err();
    let text = violation.to_string();
    assert!(
        text.starts_with("R2 contiguous: expected the number after 7; found r/9 updated 'c1'")
            || text.contains("r/9 updated"),
        "{text}"
    );
    assert_eq!(violation.trail.len(), 4);
}
