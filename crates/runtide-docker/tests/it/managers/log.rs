//! Output, on a real daemon.

use std::{
    cell::Cell,
    time::{Duration, Instant, SystemTime},
};

use ring::digest::{Context, SHA256};
use runtide_conformance::{
    proxy::{Action, Rule},
    report,
    testbed::Testbed,
};
use runtide_core::{
    ErrorKind, InstanceId, RuntimeBackend as _,
    manager::{LogLine, LogManager, LogOptions, LogSource, Mount, MountSource, RemoveOptions},
};

use super::{
    bench::Bench,
    exec::{LIMIT, argv, waited},
};
use crate::name::known_as;

const BOTH: &str = "for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; sleep 0.02; done";

pub(super) async fn read(bench: &Bench, id: &InstanceId, options: LogOptions) -> Vec<LogLine> {
    let mut stream = bench.logs().logs(id, options).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await {
        lines.push(line.unwrap());
    }
    lines
}

fn text(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| std::str::from_utf8(&line.bytes).unwrap().trim_end()).collect()
}

async fn ended(bench: &Bench, name: &str, script: &str) -> InstanceId {
    let id = bench.run(name, script).await;
    bench.lifecycle().wait(&id).await.unwrap();
    id
}

#[tokio::test]
async fn outputs_are_kept_apart_and_each_can_be_had_alone() {
    let Some(bench) = Bench::new("log-apart").await else { return };
    let id = ended(&bench, "a", BOTH).await;
    let all = read(&bench, &id, LogOptions::default()).await;
    assert_eq!(all.len(), 10);
    for (source, word) in [(LogSource::Stdout, "out"), (LogSource::Stderr, "err")] {
        let of_all: Vec<_> = all.iter().filter(|line| line.source == source).cloned().collect();
        assert_eq!(text(&of_all), (1..=5).map(|n| format!("{word} {n}")).collect::<Vec<_>>());
        assert_eq!(read(&bench, &id, LogOptions::default().with_sources(vec![source])).await, of_all);
    }
    assert!(read(&bench, &id, LogOptions::default().with_sources(vec![LogSource::Console])).await.is_empty());
}

#[tokio::test]
async fn a_tail_counts_lines_of_the_selected_output() {
    let Some(bench) = Bench::new("log-tail").await else { return };
    // The daemon reads the two outputs one beside the other: only what it has stored is surely before what comes.
    let script =
        "echo one; echo two; until [ -e /tmp/go ]; do sleep 0.02; done; for n in 1 2 3 4 5; do echo err $n >&2; done";
    let id = bench.run("a", script).await;
    bench.says(&id, "two").await;
    let go = bench.exec().exec(&id, argv(&["touch", "/tmp/go"])).await.unwrap();
    waited(&go).await;
    bench.lifecycle().wait(&id).await.unwrap();
    let tail = |n: u64| LogOptions::default().with_tail(n);
    assert_eq!(text(&read(&bench, &id, tail(2)).await), ["err 4", "err 5"]);
    assert!(read(&bench, &id, tail(0)).await.is_empty());
    assert_eq!(read(&bench, &id, tail(u64::MAX)).await.len(), 7);
    let stdout = tail(1).with_sources(vec![LogSource::Stdout]);
    assert_eq!(text(&read(&bench, &id, stdout.clone()).await), ["two"]);
    assert_eq!(text(&read(&bench, &id, stdout.with_follow()).await), ["two"]);
    let first = read(&bench, &id, LogOptions::default().with_timestamps()).await;
    let until = first.iter().find(|line| line.source == LogSource::Stderr).unwrap().at.unwrap();
    assert_eq!(text(&read(&bench, &id, tail(1).with_until(until)).await), ["two"]);
}

#[tokio::test]
async fn since_is_inclusive_and_until_exclusive_to_the_nanosecond() {
    let Some(bench) = Bench::new("log-times").await else { return };
    let id = ended(&bench, "a", "for n in 1 2 3 4 5; do echo $n; sleep 0.02; done").await;
    let all = read(&bench, &id, LogOptions::default().with_timestamps()).await;
    assert_eq!(text(&all), ["1", "2", "3", "4", "5"], "the time is not in the bytes");
    let at: Vec<SystemTime> = all.iter().map(|line| line.at.unwrap()).collect();
    assert!(at.is_sorted());
    let between = LogOptions::default().with_since(at[1]).with_until(at[3]);
    assert_eq!(text(&read(&bench, &id, between.clone()).await), ["2", "3"]);
    let stamped = read(&bench, &id, between.with_timestamps()).await;
    assert_eq!(stamped, all[1..3]);
    let after = LogOptions::default().with_since(at[1] + Duration::from_nanos(1));
    assert_eq!(text(&read(&bench, &id, after).await), ["3", "4", "5"]);
    assert!(read(&bench, &id, LogOptions::default().with_until(SystemTime::UNIX_EPOCH)).await.is_empty());
    assert!(read(&bench, &id, LogOptions::default().with_until(at[0])).await.is_empty());
    let old = LogOptions::default().with_since(SystemTime::UNIX_EPOCH - Duration::from_secs(5));
    assert_eq!(read(&bench, &id, old).await.len(), 5);
}

#[tokio::test]
async fn following_goes_to_the_end_of_the_output() {
    let Some(bench) = Bench::new("log-follow").await else { return };
    // It goes on behind the first lines when each follow has had one of them.
    let script = "until [ -e /go/on ]; do echo first; sleep 0.1; done; echo same; echo same; echo err >&2; printf last";
    // Again and again: Docker 20.10 loses the last lines of some of these (moby#37391).
    for n in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = bench.spec(&format!("a{n}"), script);
        spec.mounts = vec![Mount::new(MountSource::Bind(folder.path().to_owned()), "/go")];
        let id = bench.run_spec(&spec).await;
        let (begun, follows) = (Cell::new(0), 4);
        let follow = async |options: LogOptions| {
            let mut stream = bench.logs().logs(&id, options).await.unwrap();
            let mut lines = Vec::new();
            while let Some(line) = tokio::time::timeout(LIMIT, stream.next()).await.expect("a line or the end") {
                if lines.is_empty() {
                    begun.set(begun.get() + 1);
                    if begun.get() == follows {
                        std::fs::write(folder.path().join("on"), "").unwrap();
                    }
                }
                lines.push(line.unwrap());
            }
            lines
        };
        let options = LogOptions::default().with_follow();
        let stdout = options.clone().with_sources(vec![LogSource::Stdout]);
        let (all, some, none, stamped) = tokio::join!(
            follow(options.clone()),
            follow(stdout.clone().with_tail(1)),
            follow(stdout.with_tail(0)),
            follow(options.clone().with_timestamps()),
        );
        let mut sorted = text(&all);
        sorted.retain(|line| *line != "first");
        sorted.sort_unstable();
        assert_eq!(sorted, ["err", "last", "same", "same"]);
        assert!(all.iter().all(|line| line.at.is_none()) && stamped.iter().all(|line| line.at.is_some()));
        assert_eq!(stamped.len(), all.len());
        for (lines, what) in [(&some, "the last line, and what comes"), (&none, "what comes")] {
            let behind: Vec<_> = text(lines).into_iter().skip_while(|line| *line == "first").collect();
            assert_eq!(behind, ["same", "same", "last"], "{what}");
        }
        assert_eq!(read(&bench, &id, options).await.len(), all.len(), "at once when it is over");
    }
}

/// A container that counts its runs, prints the count in many lines, and ends when this file is there.
const COUNTED: &str = "
    n=$(cat /n 2>/dev/null || echo 0); echo $((n + 1)) > /n
    for i in $(seq 200); do echo $n first $i; done
    until [ -e /go/$n ]; do sleep 0.02; done
    for i in $(seq 200); do echo $n last $i; done; printf \"$n end\"";

/// Each run's output in a follow, while the next run begins as soon as the last one has ended; the reader is slow, so that the
/// next run's output is there while the last one's is still read.
#[tokio::test]
async fn a_follow_ends_with_its_run_though_the_next_one_begins_at_once() {
    let Some(bench) = Bench::new("log-runs").await else { return };
    let mut cases = Vec::new();
    for (tty, driver) in [(false, "json-file"), (true, "json-file"), (false, "local"), (true, "local")] {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = bench.spec(&format!("{driver}-{tty}"), COUNTED);
        spec.mounts = vec![Mount::new(MountSource::Bind(folder.path().to_owned()), "/go")];
        spec.native.insert("log_driver".to_owned(), driver.to_owned());
        spec.native.insert("tty".to_owned(), tty.to_string());
        cases.push((bench.provision().create(&spec).await.unwrap(), folder));
    }
    let (bench, cases) = (&bench, &cases);
    futures_util::future::join_all(cases.iter().map(async |(id, folder)| {
        let _ = bench.lifecycle().start(id).await.unwrap();
        for run in 0..4 {
            bench.says(id, &format!("{run} first 200")).await;
            let started = bench.backend.inspect(id).await.unwrap().started_at.unwrap();
            let follow = LogOptions::default().with_follow();
            let mut whole = bench.logs().logs(id, follow.clone()).await.unwrap();
            let mut own = bench.logs().logs(id, follow.with_since(started)).await.unwrap();
            let (mut whole_text, mut own_text) = (Vec::new(), Vec::new());
            whole_text.extend_from_slice(&whole.next().await.unwrap().unwrap().bytes);
            own_text.extend_from_slice(&own.next().await.unwrap().unwrap().bytes);
            std::fs::write(folder.path().join(run.to_string()), "").unwrap();
            let _ = bench.lifecycle().wait(id).await.unwrap();
            let _ = bench.lifecycle().start(id).await.unwrap();
            bench.says(id, &format!("{} first 200", run + 1)).await;
            while let Some(line) = whole.next().await {
                whole_text.extend_from_slice(&line.unwrap().bytes);
            }
            while let Some(line) = own.next().await {
                own_text.extend_from_slice(&line.unwrap().bytes);
            }
            let lines = |run: usize, part: &'static str| (1..=200).map(move |i| format!("{run} {part} {i}\n"));
            let of_run = |run: usize| {
                lines(run, "first").chain(lines(run, "last")).chain([format!("{run} end")]).collect::<String>()
            };
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace("\r\n", "\n");
            assert_eq!(text(own_text), of_run(run), "{id}: from the first line of the run to its last");
            assert_eq!(text(whole_text), (0..=run).map(of_run).collect::<String>(), "{id}: all runs so far");
            // The stored output of the present run begins with its first line too.
            let started = bench.backend.inspect(id).await.unwrap().started_at.unwrap();
            let stored = read(bench, id, LogOptions::default().with_since(started)).await;
            assert_eq!(stored[0].bytes.trim_ascii(), format!("{} first 1", run + 1).as_bytes(), "{id}");
        }
    }))
    .await;
}

/// The daemon itself goes on into the next run where its reader is behind.
#[tokio::test]
async fn a_follow_that_is_behind_ends_with_its_run_too() {
    const LINES: usize = 300_000;
    let Some(bench) = Bench::new("log-behind").await else { return };
    let script = format!(
        "if [ -e /n ]; then echo next run; exec sleep 600; fi
         touch /n; echo first; sleep 1; yes 'the quick brown fox jumps over the lazy dog' | head -n {LINES}"
    );
    let id = bench.run("a", &script).await;
    bench.says(&id, "first").await;
    let mut stream = bench.logs().logs(&id, LogOptions::default().with_follow()).await.unwrap();
    assert_eq!(&stream.next().await.unwrap().unwrap().bytes[..], b"first\n");
    let _ = bench.lifecycle().wait(&id).await.unwrap();
    let _ = bench.lifecycle().start(&id).await.unwrap();
    let tail = LogOptions::default().with_tail(1);
    while text(&read(&bench, &id, tail.clone()).await) != ["next run"] {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut lines = 0;
    while let Some(line) = stream.next().await {
        assert_eq!(&line.unwrap().bytes[..], b"the quick brown fox jumps over the lazy dog\n", "after {lines} lines");
        lines += 1;
    }
    assert_eq!(lines, LINES);
}

#[tokio::test]
async fn following_ends_at_its_time_though_nothing_is_said() {
    let Some(bench) = Bench::new("log-until").await else { return };
    let id = bench.run("a", "echo first; exec sleep 600").await;
    bench.says(&id, "first").await;
    let begun = Instant::now();
    let options = LogOptions::default().with_follow().with_until(SystemTime::now() + Duration::from_millis(1500));
    let lines = tokio::time::timeout(LIMIT, read(&bench, &id, options)).await.unwrap();
    assert_eq!(text(&lines), ["first"]);
    assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_terminal_is_one_output() {
    let Some(bench) = Bench::new("log-tty").await else { return };
    let mut spec = bench.spec("a", "echo out; echo err >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; printf end");
    spec.native.insert("tty".to_owned(), "true".to_owned());
    let id = bench.run_spec(&spec).await;
    bench.lifecycle().wait(&id).await.unwrap();
    for options in [LogOptions::default(), LogOptions::default().with_timestamps()] {
        let stamped = options.timestamps;
        let lines = read(&bench, &id, options).await;
        assert!(lines.iter().all(|line| line.source == LogSource::Console && line.at.is_some() == stamped));
        let bytes: Vec<u8> = lines.iter().flat_map(|line| line.bytes.to_vec()).collect();
        let expected = format!("out\r\nerr\r\n{}\r\nend", "x".repeat(40_000));
        assert_eq!(bytes.len(), expected.len());
        assert!(bytes == expected.as_bytes());
    }
    let stdout = LogOptions::default().with_sources(vec![LogSource::Stdout]);
    assert_eq!(bench.logs().logs(&id, stdout).await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_long_line_has_its_bytes_and_no_time_inside() {
    let Some(bench) = Bench::new("log-long").await else { return };
    let id = ended(&bench, "a", "head -c 100000 /dev/zero | tr '\\0' y; echo; echo next").await;
    let plain = read(&bench, &id, LogOptions::default()).await;
    let stamped = read(&bench, &id, LogOptions::default().with_timestamps()).await;
    for lines in [&plain, &stamped] {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| line.bytes.to_vec()).collect();
        assert!(bytes == [&vec![b'y'; 100_000][..], b"\nnext\n"].concat());
    }
    assert!(stamped.iter().all(|line| line.at.is_some()));
}

#[tokio::test]
async fn any_byte_survives_a_driver_that_keeps_bytes() {
    let Some(bench) = Bench::new("log-bytes").await else { return };
    let mut spec = bench.spec("a", r"printf '\001\200\377\000\376x\n'; printf '\002\000\000\000\000\000\000\001' >&2");
    spec.native.insert("log_driver".to_owned(), "local".to_owned());
    let id = bench.run_spec(&spec).await;
    bench.lifecycle().wait(&id).await.unwrap();
    let lines = read(&bench, &id, LogOptions::default()).await;
    let of = |source| {
        lines.iter().filter(|line| line.source == source).flat_map(|line| line.bytes.to_vec()).collect::<Vec<u8>>()
    };
    assert_eq!(of(LogSource::Stdout), b"\x01\x80\xff\0\xfex\n");
    assert_eq!(of(LogSource::Stderr), b"\x02\0\0\0\0\0\0\x01");
}

#[tokio::test]
async fn a_driver_that_keeps_nothing_is_unsupported_and_says_so() {
    let Some(bench) = Bench::new("log-none").await else { return };
    let mut spec = bench.spec("a", "echo gone");
    spec.native.insert("log_driver".to_owned(), "none".to_owned());
    let id = bench.run_spec(&spec).await;
    let error = bench.logs().logs(&id, LogOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.context().iter().any(|(key, value)| *key == "reason" && value.contains("none")), "{error}");
    let absent = InstanceId::from("runtide-no-such-container");
    assert_eq!(bench.logs().logs(&absent, LogOptions::default()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_hundred_megabytes_arrive_whole_in_bounded_memory() {
    const EACH: usize = 50 << 20;
    let Some(bench) = Bench::new("log-100mb").await else { return };
    let script = format!(
        "(yes 'the quick brown fox jumps over the lazy dog' | head -c {EACH}) & \
         (yes 'pack my box with five dozen liquor jugs and something more' | head -c {EACH} >&2) & wait"
    );
    let id = bench.run("a", &script).await;
    let begun = Instant::now();
    let mut stream = bench.logs().logs(&id, LogOptions::default().with_follow()).await.unwrap();
    let mut digests = [Context::new(&SHA256), Context::new(&SHA256)];
    let (mut bytes, mut peak, before) = (0, 0, resident());
    while let Some(line) = stream.next().await {
        let line = line.unwrap();
        digests[usize::from(line.source == LogSource::Stderr)].update(&line.bytes);
        if bytes / (1 << 20) != (bytes + line.bytes.len()) / (1 << 20) {
            peak = peak.max(resident());
        }
        bytes += line.bytes.len();
    }
    let took = begun.elapsed();
    assert_eq!(bytes, 2 * EACH);
    for (digest, line) in digests.into_iter().zip([
        "the quick brown fox jumps over the lazy dog\n",
        "pack my box with five dozen liquor jugs and something more\n",
    ]) {
        let mut expected = Context::new(&SHA256);
        let mut left = EACH;
        while left > 0 {
            let part = &line.as_bytes()[..line.len().min(left)];
            expected.update(part);
            left -= part.len();
        }
        assert_eq!(digest.finish().as_ref(), expected.finish().as_ref());
    }
    let grown = peak.saturating_sub(before) / 1024;
    eprintln!("100 MB followed while written: {took:?}, memory grew by {grown} KiB");
    // Other tests share the process; a stream that was kept would be far above this.
    assert!(grown < 50 * 1024, "memory grew by {grown} KiB");
    let begun = Instant::now();
    let mut stream = bench.logs().logs(&id, LogOptions::default()).await.unwrap();
    let mut again = 0;
    while let Some(line) = stream.next().await {
        again += line.unwrap().bytes.len();
    }
    assert_eq!(again, bytes);
    eprintln!("100 MB read back: {:?}", begun.elapsed());
}

/// Two outputs, some lines of which are equal and follow one another, and the last of which is long.
const TALK: &str = "n=0; while [ $n -lt 300 ]; do n=$((n+1)); echo out $((n/3)); [ $((n%2)) = 0 ] || echo err $n >&2; sleep 0.01; done; \
    head -c 20000 /dev/zero | tr '\\0' x; echo; echo last";

/// Follows to the end; `meanwhile` is called after each 50 lines. What came must be what is stored, each line once.
async fn followed_whole(
    bench: &Bench,
    logs: &dyn LogManager,
    id: &InstanceId,
    options: LogOptions,
    mut meanwhile: impl AsyncFnMut(),
) {
    let mut stream = logs.logs(id, options.clone().with_follow()).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) =
        tokio::time::timeout(Duration::from_secs(120), stream.next()).await.expect("it does not hang")
    {
        lines.push(line.unwrap());
        if lines.len().is_multiple_of(50) {
            meanwhile().await;
        }
    }
    let stored = read(bench, id, options).await;
    assert_eq!(text(&lines), text(&stored));
    assert!(lines.len() > 150 && text(&lines).ends_with(&["last"]), "{}", lines.len());
    assert_eq!(lines, stored);
}

#[tokio::test]
async fn a_follow_goes_on_behind_its_last_line_when_its_connection_is_cut() {
    let Some(bench) = Bench::new("log-cut").await else { return };
    let (proxy, backend) = bench.behind_a_proxy().await;
    let mut cuts = 0;
    for (name, sources) in [("a", vec![]), ("b", vec![LogSource::Stdout])] {
        let id = bench.run(name, TALK).await;
        let options = LogOptions::default().with_sources(sources).with_timestamps();
        let cut = async || {
            proxy.sever();
            cuts += 1;
        };
        followed_whole(&bench, backend.logs().unwrap(), &id, options, cut).await;
    }
    assert!(cuts >= 6, "{cuts}");
}

#[tokio::test]
async fn a_follow_goes_on_when_the_daemon_is_killed_and_started_again() {
    let Some(testbed) = Testbed::of(known_as()) else {
        return report::skip("managers", "docker", "RUNTIDE_TESTBED is not set");
    };
    let Some(bench) = Bench::alone("log-killed").await else { return };
    let id = bench.run("a", TALK).await;
    let mut restarts = 0;
    let restart = async || {
        if restarts < 2 {
            testbed.run(&["kill"]).await.unwrap();
            testbed.run(&["start"]).await.unwrap();
            restarts += 1;
        }
    };
    followed_whole(&bench, bench.logs(), &id, LogOptions::default(), restart).await;
    assert_eq!(restarts, 2);
}

#[tokio::test]
async fn a_follow_whose_container_goes_during_an_outage_ends_with_an_error() {
    let Some(bench) = Bench::new("log-gone").await else { return };
    let (proxy, backend) = bench.behind_a_proxy().await;
    let id = bench.run("a", "echo up; sleep 600").await;
    let mut stream = backend.logs().unwrap().logs(&id, LogOptions::default().with_follow()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().bytes, "up\n");
    proxy.add(Rule::on("/", Action::Cut(0)));
    proxy.sever();
    let (next, ()) = tokio::join!(stream.next(), async {
        let _ = bench.lifecycle().remove(&id, RemoveOptions::default().with_kill()).await.unwrap();
        proxy.heal();
    });
    let error = next.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(stream.next().await.is_none());
}
