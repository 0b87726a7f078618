//! Tests of the plan of a read; and reads of a real journal.

use std::time::Instant;

use futures_util::StreamExt as _;
use runtide_core::manager::LogLine;
use zbus::Variant;

use super::{
    super::fixture::{Fixture, Gate, random},
    *,
};
use crate::journal::JournaldLine;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn at(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

fn run() -> Run {
    Run { incarnation: Some(Incarnation::from("a".repeat(32))), began: Some(at(5_000)) }
}

#[test]
fn until_is_exclusive_and_since_inclusive_by_the_microsecond() {
    for (since, until, expected) in
        [(2_000, 4_000, (2, 3)), (2_001, 4_001, (3, 4)), (1_999, 3_999, (2, 3)), (0, 1, (0, 0))]
    {
        let options = LogOptions::default().with_since(at(since)).with_until(at(until));
        let plan = Plan::new("a.service", None, &options, NOW).unwrap();
        assert_eq!((plan.since, plan.until), (Some(expected.0), Some(expected.1)), "{since} {until}");
    }
    let nothing = LogOptions::default().with_until(SystemTime::UNIX_EPOCH);
    assert_eq!(Plan::new("a.service", None, &nothing, NOW), None);
}

#[test]
fn only_a_run_that_lasts_beyond_now_is_followed() {
    let follow = LogOptions::default().with_follow();
    let plan = |run, options: &LogOptions| Plan::new("a.service", run, options, at(1_000_000));
    assert_eq!(plan(Some(run()), &follow).unwrap().follows, Some(run()));
    assert_eq!(plan(Some(run()), &LogOptions::default()).unwrap().follows, None);
    assert_eq!(plan(None, &follow).unwrap().follows, None);
    let past = plan(Some(run()), &follow.clone().with_until(at(10))).unwrap();
    assert_eq!((past.follows, past.deadline), (None, None));
    assert_eq!(plan(None, &follow.clone().with_tail(0)), None);
    assert!(plan(Some(run()), &follow.with_tail(0)).is_some());
}

#[test]
fn a_tail_beyond_the_counter_is_all() {
    let plan = Plan::new("a.service", None, &LogOptions::default().with_tail(u64::MAX), NOW).unwrap();
    assert_eq!(plan.tail, None);
}

#[test]
fn output_that_goes_elsewhere_is_reported() {
    let outputs = |out: &str, err: &str, namespace: &str| Outputs {
        standard_output: Some(out.to_owned()),
        standard_error: Some(err.to_owned()),
        log_namespace: Some(namespace.to_owned()),
    };
    for (out, err) in [("journal", "inherit"), ("null", "journal"), ("journal+console", "inherit"), ("syslog", "null")]
    {
        assert_eq!(outputs(out, err, "").elsewhere(), None, "{out} {err}");
    }
    for (out, err) in [("null", "inherit"), ("file", "append"), ("kmsg", "inherit"), ("inherit", "inherit")] {
        assert!(outputs(out, err, "").elsewhere().is_some(), "{out} {err}");
    }
    assert!(outputs("journal", "inherit", "own").elsewhere().is_some());
    assert_eq!(Outputs::default().elsewhere(), None);
}

impl Fixture {
    fn logs(&self) -> Logs {
        Logs::new(self.client.clone())
    }

    async fn read(&self, id: &InstanceId, options: LogOptions) -> Vec<LogLine> {
        self.logs().logs(id, options).await.unwrap().map(Result::unwrap).collect().await
    }

    /// A unit that printed the lines 1 to 5 and ended. journald gives lines that it reads together the same time: each
    /// was printed when the one before was in the journal.
    async fn five_lines(&self) -> InstanceId {
        let gate = Gate::of(self);
        let script = format!("for i in 1 2 3 4 5; do echo $i; {}; {}; done", gate.passed(), gate.close());
        let id = self.start(&script, vec![]).await;
        for line in 1..=5 {
            while self.read(&id, LogOptions::default()).await.len() < line {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            gate.open();
        }
        self.ended(&id).await;
        id
    }

    async fn text(&self, id: &InstanceId, options: LogOptions) -> String {
        text(&self.read(id, options).await)
    }
}

/// The text of a log up to its end.
async fn rest_of(log: runtide_core::manager::LogStream) -> String {
    let lines = tokio::time::timeout(Duration::from_secs(60), log.map(Result::unwrap).collect::<Vec<_>>());
    text(&lines.await.unwrap())
}

fn text(lines: &[LogLine]) -> String {
    lines.iter().map(|line| String::from_utf8_lossy(&line.bytes)).collect()
}

/// The children of this process that read the journal of this unit.
fn children(id: &InstanceId) -> Vec<String> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let texts = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let all: Vec<String> =
        texts.flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    let command = |child: &String| std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
    all.into_iter().filter(|child| command(child).contains(id.as_str())).collect()
}

#[tokio::test]
async fn the_output_is_complete_when_the_unit_ended() {
    let Some(fixture) = Fixture::find().await else { return };
    let script = r"echo out; echo err >&2; printf 'nul\000x\n'; printf 'bin\377\376\n'; printf 'no end'";
    let id = fixture.start(script, vec![]).await;
    fixture.ended(&id).await;
    let lines = fixture.read(&id, LogOptions::default().with_timestamps()).await;
    let bytes: Vec<u8> = lines.iter().flat_map(|line| line.bytes.to_vec()).collect();
    assert_eq!(bytes, b"out\nerr\nnul\0x\nbin\xff\xfe\nno end");
    assert!(lines.iter().all(|line| line.source == LogSource::Console && line.at.is_some()));
    let apart =
        fixture.logs().logs(&id, LogOptions::default().with_sources(vec![LogSource::Stderr])).await.unwrap_err();
    assert_eq!(apart.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn tails_and_times_are_exact() {
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.five_lines().await;
    let lines = fixture.read(&id, LogOptions::default().with_timestamps()).await;
    assert_eq!(text(&lines), "1\n2\n3\n4\n5\n");
    let all = LogOptions::default;
    let time = |n: usize| lines[n].at.unwrap();
    let tick = Duration::from_nanos(1);
    for (options, expected) in [
        (all().with_tail(2), "4\n5\n"),
        (all().with_tail(0), ""),
        (all().with_tail(9), "1\n2\n3\n4\n5\n"),
        (all().with_since(time(2)), "3\n4\n5\n"),
        (all().with_since(time(2) + tick), "4\n5\n"),
        (all().with_until(time(2)), "1\n2\n"),
        (all().with_until(time(2) + tick), "1\n2\n3\n"),
        (all().with_since(time(1)).with_until(time(3)), "2\n3\n"),
        (all().with_since(time(1)).with_tail(2), "4\n5\n"),
        (all().with_since(time(3)).with_tail(4), "4\n5\n"),
        (all().with_until(time(3)).with_tail(2), "2\n3\n"),
        (all().with_until(time(0)).with_tail(2), ""),
        (all().with_since(time(2)).with_until(time(4)).with_tail(3), "3\n4\n"),
        (all().with_since(SystemTime::now() + Duration::from_secs(400_000_000_000)), ""),
    ] {
        assert_eq!(fixture.text(&id, options.clone()).await, expected, "{options:?}");
    }
}

#[tokio::test]
async fn following_ends_with_the_run_and_has_its_last_line() {
    let Some(fixture) = Fixture::find().await else { return };
    for options in [LogOptions::default(), LogOptions::default().with_tail(0), LogOptions::default().with_tail(100)] {
        let gate = Gate::of(&fixture);
        let print = "for i in $(seq 200); do echo $i; done; sleep 0.1; echo last";
        let id = fixture.start(&format!("{}; {print}", gate.passed()), vec![]).await;
        let log = fixture.logs().logs(&id, options.with_follow()).await.unwrap();
        gate.open();
        let seen = rest_of(log).await;
        assert_eq!(seen.lines().count(), 201, "{seen}");
        assert!(seen.starts_with("1\n2\n") && seen.ends_with("200\nlast\n"), "{seen}");
    }
}

#[tokio::test]
async fn following_ends_with_the_run_though_the_next_one_prints() {
    let Some(fixture) = Fixture::find().await else { return };
    let more = vec![("Restart", Variant::from("always")), ("RestartUSec", Variant::from(0u64))];
    let gate = Gate::of(&fixture);
    // Each run closes the gate behind it.
    let script = format!("echo begin $$$$ && {} && {} && echo end $$$$", gate.passed(), gate.close());
    let id = fixture.start(&script, more).await;
    let log = fixture.logs().logs(&id, LogOptions::default().with_follow()).await.unwrap();
    gate.open();
    let seen = rest_of(log).await;
    let now = loop {
        match fixture.run(&id).await {
            Some(run) => break run.incarnation,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let options = JournaldOptions::default().with_logs(LogOptions::default().with_follow()).with_invocation(now);
    let of_now = fixture.logs().journal(&id, options).await.unwrap();
    gate.open();
    let of_now: Vec<_> = of_now.map(|entry| entry.unwrap().line).collect().await;
    fixture.stop(&id).await;
    let words: Vec<_> = seen.split_whitespace().collect();
    assert!(matches!(words[..], ["begin", one, "end", other] if one == other), "{seen}");
    assert_eq!(of_now.len(), 2);
    assert!(!text(&of_now).contains(words[1]), "another run's");
}

#[tokio::test]
async fn following_goes_up_to_a_time() {
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.start("while :; do echo x; sleep 0.05; done", vec![]).await;
    while fixture.read(&id, LogOptions::default()).await.len() < 6 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let until = SystemTime::now() + Duration::from_millis(300);
    let options = LogOptions::default().with_follow().with_timestamps().with_until(until);
    let lines = tokio::time::timeout(Duration::from_secs(60), fixture.read(&id, options)).await.unwrap();
    fixture.stop(&id).await;
    assert!(lines.len() > 5 && lines.iter().all(|line| line.at.unwrap() < until), "{}", lines.len());
}

#[tokio::test]
async fn a_unit_that_ran_and_is_not_loaded_has_its_output_by_both_names() {
    let Some(fixture) = Fixture::find().await else { return };
    // Without a file: it was transient, and was collected.
    let id = fixture.start("echo transient", vec![]).await;
    // With one that is not loaded, as that of a job.
    let job = format!("rt-job-{:x}.service", random());
    let root = fixture.client.config().root.clone().unwrap();
    let file = root.join("run/systemd/system").join(&job);
    std::fs::write(&file, "[Service]\nType=oneshot\nExecStart=/bin/echo filed\n").unwrap();
    fixture.client.manager("test", "StartUnit", &(job.as_str(), "replace")).await.unwrap();
    for (unit, expected) in [(id.as_str(), "transient\n"), (&job, "filed\n")] {
        let is_loaded = async || run::about(&fixture.client, "test", unit).await.unwrap().is_some();
        while is_loaded().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for name in [unit, unit.strip_suffix(".service").unwrap()] {
            // The job's start may be queued still: then it is not loaded yet.
            let seen = async {
                loop {
                    match fixture.logs().logs(&name.into(), LogOptions::default()).await {
                        Ok(log) => match text(&log.map(Result::unwrap).collect::<Vec<_>>().await).as_str() {
                            "" => tokio::time::sleep(Duration::from_millis(20)).await,
                            seen => break seen.to_owned(),
                        },
                        Err(error) => panic!("{name}: {error}"),
                    }
                }
            };
            let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
            assert_eq!(seen.as_deref(), Ok(expected), "{name}");
        }
    }
    std::fs::remove_file(file).unwrap();
    let error = fixture.logs().logs(&"no-such/unit".into(), LogOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_missing_unit_is_not_found() {
    let Some(fixture) = Fixture::find().await else { return };
    for ending in ["", ".service", ".timer"] {
        let id = InstanceId::from(format!("rt-none-{:x}{ending}", random()));
        let error = fixture.logs().logs(&id, LogOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    let elsewhere = fixture.start("sleep 1000", vec![("StandardOutput", Variant::from("null"))]).await;
    let error = fixture.logs().logs(&elsewhere, LogOptions::default()).await.unwrap_err();
    fixture.stop(&elsewhere).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn a_dropped_log_leaves_no_child() {
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.start("while :; do echo x; sleep 0.05; done", vec![]).await;
    let mut started = Vec::new();
    for _ in 0..10 {
        let mut log = fixture.logs().logs(&id, LogOptions::default().with_follow()).await.unwrap();
        log.next().await.unwrap().unwrap();
        // The kernel may leave out one, if another child ends while they are listed.
        let own = loop {
            let own = children(&id);
            if !own.is_empty() {
                break own;
            }
            tokio::task::yield_now().await;
        };
        started.extend(own);
        drop(log);
    }
    fixture.stop(&id).await;
    // An exited child that is not reaped would keep its number.
    let is_left = || started.iter().any(|child| std::fs::exists(format!("/proc/{child}")).unwrap());
    let since = Instant::now();
    while is_left() {
        assert!(since.elapsed() < Duration::from_secs(60), "of {started:?} some are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_killed_child_is_no_end() {
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.start("while :; do echo x; sleep 0.05; done", vec![]).await;
    let journal = Journal::find(&fixture.client, OPERATION, id.as_str(), None).await.unwrap();
    let run = fixture.run(&id).await;
    let plan = Plan::new(id.as_str(), run, &LogOptions::default().with_follow(), SystemTime::now());
    let mut reading = Reading::open(fixture.client.clone(), journal, plan.unwrap()).await.unwrap();
    reading.line().await.unwrap().unwrap();
    reading.kill();
    let error = loop {
        match reading.line().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a complete log"),
            Err(error) => break error,
        }
    };
    fixture.stop(&id).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn entries_dropped_during_a_read_are_expired_and_not_skipped() {
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.start("while :; do echo x; sleep 0.05; done", vec![]).await;
    let journal = Journal::find(&fixture.client, OPERATION, id.as_str(), None).await.unwrap();
    let options = LogOptions::default().with_follow().with_tail(1);
    let plan = Plan::new(id.as_str(), fixture.run(&id).await, &options, SystemTime::now());
    while fixture.read(&id, LogOptions::default()).await.len() < 6 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut reading = Reading::open(fixture.client.clone(), journal, plan.unwrap()).await.unwrap();
    // Some more may be there at once; what comes later is read behind the last one.
    let error = loop {
        match reading.line().await {
            Ok(line) => assert!(line.is_some(), "a complete log"),
            Err(error) => break error,
        }
        reading.lose_last();
    };
    fixture.stop(&id).await;
    assert_eq!(error.kind(), ErrorKind::Expired, "{error}");
}

#[tokio::test]
async fn the_journals_files_change_under_a_follower() {
    const SIGUSR2: i32 = 12;
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.start("sleep 0.3; for i in $(seq 3000); do echo $i; done; sleep 1; echo last", vec![]).await;
    let rotations = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let journald = ("systemd-journald.service", "main", SIGUSR2);
            fixture.client.manager("test", "KillUnit", &journald).await.unwrap();
        }
    };
    let follow = tokio::time::timeout(Duration::from_secs(60), fixture.text(&id, LogOptions::default().with_follow()));
    let (seen, ()) = tokio::join!(follow, rotations);
    let expected: String = (1..=3000).map(|n| format!("{n}\n")).chain(["last\n".to_owned()]).collect();
    assert_eq!(seen.unwrap(), expected);
}

/// A reader that meets a new file before journald has written its header has not met corruption.
#[tokio::test]
async fn a_log_is_read_during_rotations() {
    const SIGUSR2: i32 = 12;
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.start("echo 1; echo 2", vec![]).await;
    fixture.ended(&id).await;
    let rotations = async {
        for _ in 0..10 {
            let journald = ("systemd-journald.service", "main", SIGUSR2);
            fixture.client.manager("test", "KillUnit", &journald).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reads = async {
        for _ in 0..10 {
            assert_eq!(fixture.text(&id, LogOptions::default()).await, "1\n2\n");
        }
    };
    tokio::join!(reads, rotations);
}

/// journald writes an entry a second time when a file is full: the testbed's file must have room for all of this.
#[tokio::test]
async fn a_hundred_megabytes_arrive_whole() {
    let Some(fixture) = Fixture::find().await else { return };
    let megabytes: usize = std::env::var("RUNTIDE_TEST_LOG_MB").ok().and_then(|mb| mb.parse().ok()).unwrap_or(20);
    let line = "x".repeat(1023 - 9);
    let script =
        format!("i=0; while [ $i -lt {} ]; do printf '%08d %s\\n' $i {line}; i=$((i+1)); done", megabytes * 1024);
    for follow in [false, true] {
        let id = fixture.start(&script, vec![]).await;
        let begun = Instant::now();
        if !follow {
            fixture.ended(&id).await;
        }
        let printed = begun.elapsed();
        let mut options = LogOptions::default();
        options.follow = follow;
        let begun = Instant::now();
        let (before, mut peak) = (resident(), 0);
        let mut log = fixture.logs().logs(&id, options).await.unwrap();
        let opened = begun.elapsed();
        let (mut digest, mut bytes, mut lines) = (blake3::Hasher::new(), 0, 0);
        while let Some(line) = log.next().await {
            let line = line.unwrap();
            digest.update(&line.bytes);
            bytes += line.bytes.len();
            lines += 1;
            if lines % 1024 == 0 {
                peak = peak.max(resident());
            }
        }
        let mut expected = blake3::Hasher::new();
        (0..megabytes * 1024).for_each(|n| {
            expected.update(format!("{n:08} {line}\n").as_bytes());
        });
        assert_eq!(bytes, megabytes * 1024 * 1024, "follow: {follow}");
        assert_eq!(digest.finalize(), expected.finalize());
        // The memory held is bounded by law M4, which runs alone in its process.
        let (took, grown) = (begun.elapsed(), peak.saturating_sub(before));
        eprintln!(
            "{megabytes} MB, follow: {follow}: printed in {printed:?}, opened in {opened:?}, read in {took:?}, {grown} KiB more resident"
        );
    }
}

/// Resident memory, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

impl Fixture {
    async fn journal(&self, id: &InstanceId, options: JournaldOptions) -> Vec<JournaldLine> {
        self.logs().journal(id, options).await.unwrap().map(Result::unwrap).collect().await
    }

    async fn refused(&self, id: &InstanceId, options: JournaldOptions) -> ErrorKind {
        self.logs().journal(id, options).await.unwrap_err().kind()
    }
}

fn words(lines: &[JournaldLine]) -> String {
    lines.iter().map(|entry| String::from_utf8_lossy(&entry.line.bytes)).collect()
}

fn behind(entry: &JournaldLine) -> JournaldOptions {
    JournaldOptions::default().with_after(entry.cursor.clone())
}

#[tokio::test]
async fn a_reader_continues_after_another() {
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.start("for i in $(seq 1000); do echo $i; done", vec![]).await;
    fixture.ended(&id).await;
    let all = fixture.journal(&id, JournaldOptions::default()).await;
    assert_eq!(all.len(), 1000);
    let mut half = fixture.logs().journal(&id, JournaldOptions::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 500 {
        seen.push(half.next().await.unwrap().unwrap());
    }
    drop(half);
    let kept: JournaldCursor = seen.last().unwrap().cursor.to_string().parse().unwrap();
    let another = fixture.another();
    seen.extend(another.journal(&id, JournaldOptions::default().with_after(kept)).await);
    assert_eq!(seen, all);
    assert_eq!(fixture.journal(&id, behind(&all[999])).await, []);
}

#[tokio::test]
async fn a_follower_continues_after_another() {
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.start("for i in $(seq 40); do echo $i; sleep 0.05; done", vec![]).await;
    let follow = || JournaldOptions::default().with_logs(LogOptions::default().with_follow());
    let mut seen: Vec<JournaldLine> = Vec::new();
    // Each for a moment; the last to the end.
    for take in [1, 1, 5, 10, usize::MAX] {
        let options = follow().with_after(seen.last().map(|entry| entry.cursor.clone()));
        let log = fixture.logs().journal(&id, options).await.unwrap();
        let more = log.take(take).map(Result::unwrap).collect::<Vec<_>>();
        seen.extend(tokio::time::timeout(Duration::from_secs(60), more).await.unwrap());
    }
    let text = words(&seen);
    let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_of_two_runs_is_read_alone() {
    let Some(fixture) = Fixture::find().await else { return };
    let more = vec![("Restart", Variant::from("on-failure")), ("RestartUSec", Variant::from(0u64))];
    let file = format!("/run/rt-{:x}", random());
    // Without semicolons: after a reload systemd 252 reads those of a transient unit as the end of the command.
    let second = format!("rm {file} 2>/dev/null && echo c && echo d && exec sleep 1000");
    let gate = Gate::of(&fixture);
    let script = format!("{second} || touch {file} && echo a && echo b && {} && exit 3", gate.passed());
    let id = fixture.start(&script, more).await;
    let follow = LogOptions::default().with_follow();
    let first = fixture.run(&id).await.unwrap().incarnation;
    gate.open();
    let second = loop {
        let log = fixture.logs().journal(&id, JournaldOptions::default().with_logs(follow.clone())).await.unwrap();
        let lines: Vec<_> = log.take(4).map(Result::unwrap).collect().await;
        if lines.len() == 4 {
            assert_eq!(words(&lines), "a\nb\nc\nd\n");
            break fixture.run(&id).await.unwrap().incarnation;
        }
    };
    fixture.stop(&id).await;
    fixture.ended(&id).await;
    let all = fixture.journal(&id, JournaldOptions::default()).await;
    let of = |run: &Option<Incarnation>| JournaldOptions::default().with_invocation(run.clone());
    assert_ne!(first, second);
    for (options, expected) in [
        (of(&first), "a\nb\n"),
        (of(&second), "c\nd\n"),
        (of(&first).with_logs(LogOptions::default().with_tail(1)), "b\n"),
        (of(&first).with_after(all[0].cursor.clone()), "b\n"),
        (of(&second).with_after(all[0].cursor.clone()), "c\nd\n"),
        (of(&second).with_after(all[2].cursor.clone()), "d\n"),
        (of(&first).with_after(all[2].cursor.clone()), ""),
    ] {
        assert_eq!(words(&fixture.journal(&id, options.clone()).await), expected, "{options:?}");
    }
    let no_run = of(&Some(Incarnation::from("first")));
    assert_eq!(fixture.refused(&id, no_run).await, ErrorKind::InvalidInput);
    // The unit is gone by now.
    let another = of(&Some(Incarnation::from("0".repeat(32))));
    assert_eq!(fixture.refused(&id, another).await, ErrorKind::NotFound);
}

#[tokio::test]
async fn times_hold_behind_a_cursor_and_tails_are_refused() {
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.five_lines().await;
    let timed = LogOptions::default().with_timestamps();
    let all = fixture.journal(&id, JournaldOptions::default().with_logs(timed)).await;
    let time = |n: usize| all[n].line.at.unwrap();
    let logs = LogOptions::default;
    for (logs, expected) in [
        (logs().with_since(time(3)), "4\n5\n"),
        (logs().with_since(time(0)), "3\n4\n5\n"),
        (logs().with_until(time(4)), "3\n4\n"),
        (logs().with_until(time(1)), ""),
    ] {
        let options = behind(&all[1]).with_logs(logs);
        assert_eq!(words(&fixture.journal(&id, options.clone()).await), expected, "{options:?}");
    }
    assert_eq!(fixture.refused(&id, behind(&all[1]).with_logs(logs().with_tail(1))).await, ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_read_after_a_missing_entry_is_expired() {
    let Some(fixture) = Fixture::find().await else { return };
    let id = fixture.start("echo 1; echo 2; sleep 1000", vec![]).await;
    let other = fixture.start("echo other", vec![]).await;
    fixture.ended(&other).await;
    let follow = JournaldOptions::default().with_logs(LogOptions::default().with_follow());
    let log = fixture.logs().journal(&id, follow.clone()).await.unwrap();
    let own: Vec<_> = log.take(2).map(Result::unwrap).collect().await;
    let others = fixture.journal(&other, JournaldOptions::default()).await;
    let (first, rest) = own[0].cursor.as_str().split_at(3);
    // Entries that were dropped, of another journal, of the future, of another unit.
    let gone = [
        own[0].cursor.as_str().replace(";x=", ";x=f"),
        format!("{first}{}{}", if rest.starts_with('0') { '1' } else { '0' }, &rest[1..]),
        "s=00000000000000000000000000000000;i=ffffff;b=00000000000000000000000000000000;m=1;t=ffffffffffff;x=1"
            .to_owned(),
        others[0].cursor.to_string(),
    ];
    for cursor in gone {
        for options in [JournaldOptions::default(), follow.clone()] {
            let options = options.with_after(JournaldCursor::new(cursor.as_str()).unwrap());
            let asked = tokio::time::timeout(Duration::from_secs(60), fixture.refused(&id, options));
            assert_eq!(asked.await.unwrap(), ErrorKind::Expired, "{cursor}");
        }
    }
    let made_up = JournaldOptions::default().with_after(JournaldCursor::new("--made-up--").unwrap());
    assert_eq!(fixture.refused(&id, made_up).await, ErrorKind::InvalidInput);
    fixture.stop(&id).await;
    let gone = InstanceId::from(format!("rt-none-{:x}.service", random()));
    assert_eq!(fixture.refused(&gone, behind(&own[0])).await, ErrorKind::Expired);
}
