//! Logs compared byte for byte with what the `docker` command prints of them: each driver, with and without a terminal, with and
//! without times, lines around the daemon's 16 KiB, and runs that end without a newline.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use runtide_conformance::report;
use runtide_core::{
    InstanceId,
    manager::{LogLine, LogOptions, LogSource},
};

use super::{bench::Bench, log::read};
use crate::docker_command::{docker, output};

/// The first run prints a line of each length and a line of stderr; each further run one line, without a newline at its end; the
/// last one three long lines. The second waits, so that it can be followed.
const SCRIPT: &str = "
    p() { head -c $1 /dev/zero | tr '\\0' $2; }
    n=$(cat /n 2>/dev/null || echo 0); echo $((n + 1)) > /n
    case $n in
        0) for l in 0 1 16382 16383 16384 16385 32767 32768 32769 70000; do p $l a; echo; done; p 20000 e >&2; echo >&2 ;;
        1) sleep 1; p 40000 b; echo; p 16383 b ;;
        2) p 16384 c ;;
        3) p 16385 d ;;
        4) p 32768 f ;;
        5) printf 'no newline' ;;
        *) p 70000 g; echo; p 70000 h; echo; p 70000 i ;;
    esac";
const RUNS: usize = 7;

/// The lines as the command prints them: each entry behind its time, if it has one.
fn printed(lines: &[LogLine], source: LogSource) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines.iter().filter(|line| line.source == source || line.source == LogSource::Console) {
        if let Some(at) = line.at {
            let at = Timestamp::try_from(at).unwrap();
            text.extend(at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string().into_bytes());
        }
        text.extend_from_slice(&line.bytes);
    }
    text
}

fn without_times(lines: &[LogLine]) -> Vec<LogLine> {
    lines.iter().map(|line| LogLine::new(line.source, None, line.bytes.clone())).collect()
}

#[track_caller]
fn assert_same(ours: &[u8], theirs: &[u8], what: &str) {
    let differs = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs);
    let at = differs.unwrap_or(ours.len().min(theirs.len()));
    let near = |bytes: &[u8]| {
        bytes[at.saturating_sub(40).min(bytes.len())..(at + 40).min(bytes.len())].escape_ascii().to_string()
    };
    assert!(
        ours == theirs,
        "{what}: {} bytes, and the command has {}; at {at} '{}' and '{}'",
        ours.len(),
        theirs.len(),
        near(ours),
        near(theirs),
    );
}

/// Ours against the command's, with these arguments for it.
async fn compare(bench: &Bench, id: &InstanceId, tty: bool, options: LogOptions, arguments: &[&str], what: &str) {
    let mut command = docker("logs").unwrap();
    let endpoint = std::env::var("RUNTIDE_TEST_DOCKER").unwrap();
    let theirs = output(command.args(["-H", &endpoint, "logs"]).args(arguments).arg(id.as_str()));
    assert!(theirs.status.success(), "{what}: {theirs:?}");
    let ours = read(bench, id, options).await;
    assert_same(&printed(&ours, LogSource::Stdout), &theirs.stdout, what);
    if !tty {
        assert_same(&printed(&ours, LogSource::Stderr), &theirs.stderr, what);
    }
}

async fn compare_driver(driver: &str) {
    let Some(bench) = Bench::new(&format!("log-against-{driver}")).await else { return };
    if docker("logs").is_none() {
        return;
    }
    for tty in [false, true] {
        let what = format!("{driver}, terminal {tty}");
        let mut spec = bench.spec(&format!("tty-{tty}"), SCRIPT);
        for (key, value) in
            [("log_driver", driver), ("network_mode", "none"), ("tty", if tty { "true" } else { "false" })]
        {
            spec.native.insert(key.to_owned(), value.to_owned());
        }
        let id = bench.provision().create(&spec).await.unwrap();
        let mut followed = Vec::new();
        for run in 0..RUNS {
            if let Err(error) = bench.lifecycle().start(&id).await {
                assert!(driver == "journald" && run == 0, "{what}: {error}");
                report::skip("logs", "journald", format!("the daemon has no journal here: {error}"));
                return;
            }
            if run == 1 {
                let follow = LogOptions::default().with_follow();
                let (plain, stamped) =
                    tokio::join!(read(&bench, &id, follow.clone()), read(&bench, &id, follow.with_timestamps()));
                // The command itself may lose the end of what it follows, so ours is compared with what is stored.
                let stored = read(&bench, &id, LogOptions::default().with_timestamps()).await;
                for (followed, stored) in [(&plain, &without_times(&stored)), (&stamped, &stored)] {
                    for source in [LogSource::Stdout, LogSource::Stderr] {
                        assert_same(&printed(followed, source), &printed(stored, source), &format!("{what}, followed"));
                    }
                }
                followed = plain;
            }
            bench.lifecycle().wait(&id).await.unwrap();
        }
        assert!(!followed.is_empty());
        let plain = LogOptions::default();
        let stamped = plain.clone().with_timestamps();
        compare(&bench, &id, tty, plain.clone(), &[], &what).await;
        compare(&bench, &id, tty, stamped.clone(), &["-t"], &format!("{what}, times")).await;
        for tail in [1_u64, 4, 7, 20] {
            let count = tail.to_string();
            let what = format!("{what}, tail {tail}");
            compare(&bench, &id, tty, plain.clone().with_tail(tail), &["--tail", &count], &what).await;
            compare(&bench, &id, tty, stamped.clone().with_tail(tail), &["-t", "--tail", &count], &what).await;
            // With an `until` the reader counts, not the daemon; this one leaves nothing out.
            let later = SystemTime::now() + Duration::from_secs(3600);
            let until = later.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().to_string();
            let counted = plain.clone().with_tail(tail).with_until(later);
            compare(&bench, &id, tty, counted, &["--until", &until, "--tail", &count], &what).await;
        }
        let (plain, stamped) = (read(&bench, &id, plain).await, read(&bench, &id, stamped).await);
        for source in [LogSource::Stdout, LogSource::Stderr] {
            let what = format!("{what}: the times are not in the bytes");
            assert_same(&printed(&without_times(&stamped), source), &printed(&plain, source), &what);
        }
        assert!(stamped.iter().all(|line| line.at.is_some()));
    }
}

#[tokio::test]
async fn logs_of_json_file_are_what_the_command_prints() {
    compare_driver("json-file").await;
}

#[tokio::test]
async fn logs_of_local_are_what_the_command_prints() {
    compare_driver("local").await;
}

#[tokio::test]
async fn logs_of_journald_are_what_the_command_prints() {
    compare_driver("journald").await;
}
