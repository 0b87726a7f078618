//! The ends of runs that only the daemon's history of events still has, on a daemon whose every answer is written here.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use runtide_core::{
    ErrorKind, ExitStatus, InstanceId, RuntimeBackend as _,
    manager::{LogLine, LogOptions},
};

use crate::scripted_daemon::{Fake, Reply};

fn id() -> InstanceId {
    InstanceId::from("c".repeat(64))
}

/// So many milliseconds after the start of the run.
fn time(after: i64) -> String {
    Timestamp::from_millisecond(1_704_067_200_000 + after).unwrap().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

fn at(after: i64) -> SystemTime {
    time(after).parse::<Timestamp>().unwrap().into()
}

fn inspection(state: &str) -> String {
    format!(r#"{{"Id":"{}","Created":"2023-01-01T00:00:00Z","Config":{{"Labels":{{}}}},"State":{{{state}}}}}"#, id())
}

fn nanos(after: i64) -> i128 {
    Timestamp::try_from(at(after)).unwrap().as_nanosecond()
}

/// A `die` message of this container.
fn die(after: i64, code: i32) -> String {
    let nanos = nanos(after);
    format!(
        r#"{{"Type":"container","Action":"die","Actor":{{"ID":"{}","Attributes":{{"exitCode":"{code}"}}}},"timeNano":{nanos}}}"#,
        id()
    )
}

fn frame(after: i64, text: &str) -> Vec<u8> {
    let text = format!("{} {text}", time(after));
    let length = u32::try_from(text.len()).unwrap();
    [&[1, 0, 0, 0], &length.to_be_bytes()[..], text.as_bytes()].concat()
}

fn daemon(inspection: String, events: String, log: Vec<u8>) -> Fake {
    Fake::new(move |request| match request {
        _ if request.contains("/events?") => Reply::ok(&events),
        _ if request.contains("/logs?") => Reply::Stream { bytes: log.clone(), whole: true },
        _ => Reply::ok(&inspection),
    })
}

fn failed_start(code: i32) -> String {
    failed_start_after(code, 0)
}

/// A start that failed after a run of a second, which began at this time.
fn failed_start_after(code: i32, begin: i64) -> String {
    inspection(&format!(
        r#""Status":"exited","ExitCode":{code},"Error":"no","OOMKilled":false,"StartedAt":"{}","FinishedAt":"{}""#,
        time(begin),
        time(begin + 1_000)
    ))
}

#[tokio::test]
async fn an_exit_that_a_failed_start_wrote_over_comes_from_the_history_or_is_unknown() {
    let before_and_after = [die(-500, 9), die(1_001, 0), die(90_000, 8)].concat();
    for (code, events, expected) in [
        (128, before_and_after.clone(), Some(0)),
        (127, before_and_after, Some(0)),
        (127, die(-500, 9), None),
        (126, String::new(), None),
        (3, String::new(), Some(3)),
    ] {
        let fake = daemon(failed_start(code), events, Vec::new());
        let expected = expected.map(|code| ExitStatus::code(code).with_oom_killed(false));
        assert_eq!(fake.backend.lifecycle().unwrap().wait(&id()).await.unwrap(), expected, "{code}");
        let inspected = fake.backend.inspect(&id()).await.unwrap();
        assert_eq!((inspected.exit, inspected.reason.as_deref()), (expected, Some("no")), "{code}");
    }
}

#[tokio::test]
async fn a_history_that_cannot_be_had_leaves_the_exit_unknown() {
    let fake = Fake::new(|request| match request {
        _ if request.contains("/events?") => Reply::message(403, "a proxy forbids it"),
        _ => Reply::ok(&failed_start(127)),
    });
    assert_eq!(fake.backend.lifecycle().unwrap().wait(&id()).await.unwrap(), None);
    assert_eq!(fake.backend.inspect(&id()).await.unwrap().exit, None);
}

#[tokio::test]
async fn a_label_of_that_name_leaves_the_exit_unknown() {
    let labelled = failed_start(127).replace(r#""Labels":{}"#, r#""Labels":{"exitCode":"42"}"#);
    let fake = daemon(labelled, die(1_001, 42), Vec::new());
    assert_eq!(fake.backend.lifecycle().unwrap().wait(&id()).await.unwrap(), None);
    assert_eq!(fake.backend.inspect(&id()).await.unwrap().exit, None);
}

/// The time, in nanoseconds, that a request for the history has under this name.
fn asked(request: &str, name: &str) -> Option<i128> {
    let (_, value) = request.split_once(name)?;
    let (seconds, nanos) = value.split('&').next()?.split_once('.')?;
    Some(seconds.parse::<i128>().ok()? * 1_000_000_000 + nanos.parse::<i128>().ok()?)
}

/// The answer of a daemon whose clock shows `now`, with these ends in its history.
fn history(request: &str, now: i64, ends: &[(i64, i32)]) -> Reply {
    let (since, until) = (asked(request, "since=").unwrap(), asked(request, "&until=").unwrap_or(i128::MAX));
    let ends = ends.iter().filter(|(after, _)| (since..=until).contains(&nanos(*after)));
    let bytes = ends.map(|(after, code)| die(*after, *code)).collect::<String>().into_bytes();
    if until <= nanos(now) { Reply::Stream { bytes, whole: true } } else { Reply::Open(bytes) }
}

/// A daemon whose clock shows `now`, with this container and these ends in its history.
fn daemon_at(now: i64, inspection: String, ends: Vec<(i64, i32)>) -> Fake {
    Fake::new(move |request| match request {
        _ if request.contains("/events?") => history(request, now, &ends),
        _ if request.contains("/logs?") => Reply::Stream { bytes: Vec::new(), whole: true },
        _ => Reply::ok(&inspection),
    })
}

const YEAR: i64 = 365 * 24 * 3_600_000;

#[tokio::test]
async fn the_history_is_asked_for_by_the_daemons_clock() {
    // Behind ours, and ahead of it.
    for clock in [0, 80 * YEAR] {
        let now = clock + 60_000;
        let ends = vec![(clock - 900, 9), (clock - 30, 9), (clock + 1_001, 0)];
        let failed = daemon_at(now, failed_start_after(127, clock), ends.clone());
        let expected = Some(ExitStatus::code(0).with_oom_killed(false));
        assert_eq!(failed.backend.lifecycle().unwrap().wait(&id()).await.unwrap(), expected, "{clock}");
        assert_eq!(failed.backend.inspect(&id()).await.unwrap().exit, expected, "{clock}");
        let lost = daemon_at(now, failed_start_after(127, clock), Vec::new());
        assert_eq!(lost.backend.inspect(&id()).await.unwrap().exit, None, "{clock}");

        let state = format!(
            r#""Status":"running","Running":true,"StartedAt":"{}","FinishedAt":"{}""#,
            time(clock),
            time(clock - 40)
        );
        let runs = daemon_at(now, inspection(&state), ends);
        assert_eq!(since_that_is_asked(&runs, at(clock)).await, at(clock - 30) + Duration::from_nanos(1));

        for fake in [failed, lost, runs] {
            let asked: Vec<_> = fake.seen().iter().filter_map(|request| asked(request, "&until=")).collect();
            assert!(
                !asked.is_empty() && asked.iter().all(|until| *until <= nanos(now)),
                "the response ends: {asked:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_history_whose_response_does_not_end_counts_as_far_as_it_came() {
    let state = format!(r#""Status":"running","Running":true,"StartedAt":"{}","FinishedAt":"{}""#, time(0), time(-40));
    for events in [[die(-900, 0), die(-30, 0)].concat(), [die(-30, 0), die(5_000, 0)].concat()] {
        let inspection = inspection(&state);
        let fake = Fake::new(move |request| match request {
            _ if request.contains("/events?") => Reply::Open(events.clone().into_bytes()),
            _ if request.contains("/logs?") => Reply::Stream { bytes: Vec::new(), whole: true },
            _ => Reply::ok(&inspection),
        });
        assert_eq!(since_that_is_asked(&fake, at(0)).await, at(-30) + Duration::from_nanos(1));
    }
}

async fn lines(fake: &Fake, options: LogOptions) -> Vec<String> {
    let mut stream = fake.backend.logs().unwrap().logs(&id(), options).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await {
        lines.push(String::from_utf8(line.unwrap().bytes.to_vec()).unwrap());
    }
    lines
}

/// The `since` of the one request for the log that a read with this `since` makes.
async fn since_that_is_asked(fake: &Fake, since: SystemTime) -> SystemTime {
    let _ = lines(fake, LogOptions::default().with_since(since)).await;
    let requests: Vec<String> = fake.seen().into_iter().filter(|request| request.contains("/logs?")).collect();
    assert_eq!(requests.len(), 1, "{requests:?}");
    Timestamp::from_nanosecond(asked(&requests[0], "&since=").unwrap()).unwrap().into()
}

#[tokio::test]
async fn a_follow_goes_no_further_than_the_message_of_its_end() {
    let runs = inspection(&format!(r#""Status":"running","Running":true,"StartedAt":"{}""#, time(0)));
    let log =
        [frame(-600, "before\n"), frame(-1, "first\n"), frame(1_000, "last\n"), frame(1_200, "next run\n")].concat();
    let fake = daemon(runs, [die(-500, 0), die(1_001, 0)].concat(), log);
    assert_eq!(lines(&fake, LogOptions::default().with_follow()).await, ["before\n", "first\n", "last\n"]);
}

/// Follows a run of three lines, of which the daemon leaves out the last one (moby#37391), and which is over when the next run has
/// printed 600 lines. `stored`: the entries of the whole log that are still there.
async fn followed_before_a_run_of_600_lines(stored: std::ops::RangeFrom<usize>) -> Vec<Result<String, ErrorKind>> {
    let runs = |start| inspection(&format!(r#""Status":"running","Running":true,"StartedAt":"{}""#, time(start)));
    let own = [(100, "first\n"), (200, "second\n"), (1_000, "last\n")].map(|(after, text)| frame(after, text));
    let next = (0..600).map(|n| frame(1_200 + n, "next run\n"));
    let log: Vec<Vec<u8>> = own.into_iter().chain(next).collect();
    let is_followed = AtomicBool::new(false);
    let fake = Fake::new(move |request| {
        let stream = |entries: &[Vec<u8>]| Reply::Stream { bytes: entries.concat(), whole: true };
        match request {
            _ if request.contains("/events?") => Reply::ok(&die(1_001, 0)),
            _ if request.contains("&follow=true") => {
                is_followed.store(true, Ordering::SeqCst);
                stream(&log[..2])
            }
            _ if request.contains("&tail=512") => stream(&log[log.len() - 512..]),
            _ if request.contains("/logs?") => stream(&log[stored.clone()]),
            _ if is_followed.load(Ordering::SeqCst) => Reply::ok(&runs(1_100)),
            _ => Reply::ok(&runs(0)),
        }
    });
    let stream = fake.backend.logs().unwrap().logs(&id(), LogOptions::default().with_follow()).await.unwrap();
    let text = |line: LogLine| String::from_utf8(line.bytes.to_vec()).unwrap();
    stream.map(|line| line.map(text).map_err(|error| error.kind())).collect().await
}

#[tokio::test]
async fn the_last_lines_of_a_run_are_found_behind_any_number_of_the_next_ones() {
    let lines = followed_before_a_run_of_600_lines(0..).await;
    assert_eq!(lines, ["first\n", "second\n", "last\n"].map(|line| Ok(line.to_owned())));
    let rotated = followed_before_a_run_of_600_lines(10..).await;
    let (error, lines) = rotated.split_last().unwrap();
    assert_eq!(lines, ["first\n", "second\n"].map(|line| Ok(line.to_owned())));
    assert_eq!(*error, Err(ErrorKind::Unexpected), "the missing lines are gone");
}

#[tokio::test]
async fn a_since_that_is_the_start_of_the_run_begins_after_the_end_of_the_run_before() {
    let state = format!(r#""Status":"running","Running":true,"StartedAt":"{}","FinishedAt":"{}""#, time(0), time(-40));
    for (events, since, expected) in [
        ([die(-900, 0), die(-30, 0), die(5_000, 0)].concat(), at(0), at(-30) + Duration::from_nanos(1)),
        (String::new(), at(0), at(-20)),
        (die(-30, 0), at(-1), at(-1)),
        (die(-30, 0), at(1), at(1)),
    ] {
        let fake = daemon(inspection(&state), events, Vec::new());
        assert_eq!(since_that_is_asked(&fake, since).await, expected);
    }
}
