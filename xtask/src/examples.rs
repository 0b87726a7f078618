//! Runs the examples as a user would, and checks their output.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::counts::Counts;
use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, Interrupt, Said};
use crate::report::Verdict;
use crate::workspace;

const RUN: Duration = Duration::from_secs(60);

/// One example, run once.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) what: String,
    pub(crate) verdict: Verdict,
    pub(crate) reason: Option<String>,
}

/// Expected outcome of a run.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Success,
    /// Success, and this is in stdout.
    Says(&'static str),
    /// Success, each line of stdout a JSON value, and this is in one of them.
    JsonLinesWith(&'static str),
    /// Success, each line of stdout a JSON value, and at least one.
    JsonLines,
    /// Success, and stdout is JSON.
    Json,
    /// Exit code 2, nothing on stdout, and a remedy on stderr.
    Refusal,
    /// As that, in one line.
    OneLineRefusal,
}

/// Runs all of them, each from its file; those for Docker and systemd if the stage has the daemon.
pub(crate) fn run(stage: &BTreeMap<String, String>, built: &BTreeMap<String, PathBuf>) -> Outcome<Vec<Run>> {
    let docker = stage.get("RUNTIDE_TEST_DOCKER").map(String::as_str);
    let nowhere = Some("unix:///nonexistent/docker.sock");
    let nobus = "--bus unix:path=/nonexistent/bus";
    let mut runs = Vec::new();
    for (line, address, expected) in [
        ("changes --backend memory --for 2s", None, Expected::Says("= complete")),
        ("watch --backend memory --for 2s --json", None, Expected::JsonLines),
        ("ps --backend memory --json", None, Expected::Json),
        ("custom_backend --for 2s", None, Expected::Success),
        ("store demo", None, Expected::Success),
        ("watch --no-such-option", None, Expected::Refusal),
        ("ps --no-such-option", None, Expected::Refusal),
        ("store --store nowhere list", None, Expected::OneLineRefusal),
        ("ps --backend docker", nowhere, Expected::OneLineRefusal),
        ("ps", nowhere, Expected::OneLineRefusal),
        ("watch --for 2s", nowhere, Expected::OneLineRefusal),
        ("wal", None, Expected::OneLineRefusal),
        ("logs", None, Expected::OneLineRefusal),
    ] {
        runs.push(one(built, line, &docker_at(address), expected)?);
    }
    for line in [
        format!("ps --backend systemd {nobus}"),
        format!("store --store systemd:/etc/systemd/system {nobus} list"),
        "logs --backend memory no-such-instance".to_owned(),
    ] {
        runs.push(one(built, &line, &[], Expected::OneLineRefusal)?);
    }
    for (line, expected) in [
        ("watch --backend docker --for 2s --json", Expected::JsonLines),
        ("ps --backend docker --all --json", Expected::Json),
    ] {
        runs.push(match docker {
            Some(_) => one(built, line, &docker_at(docker), expected)?,
            None => skipped(line, "no Docker daemon"),
        });
    }
    runs.extend(on_systemd(stage, built)?);
    Ok(runs)
}

/// The examples' own unit, declared, started, watched, read and removed.
const UNIT: &str = "[Service]\nExecStart=/bin/sh -c 'while :; do echo a line of the example; sleep 0.2; done'\n";

fn on_systemd(stage: &BTreeMap<String, String>, built: &BTreeMap<String, PathBuf>) -> Outcome<Vec<Run>> {
    let unit = workspace::target("runtide-example.service");
    let file = unit.display().to_string();
    let store = "store --store systemd:/run/systemd/system --prefix runtide-example";
    // Each after the one before it; the last leaves nothing behind.
    let lines = [
        ("store: apply", format!("{store} apply {file}"), Expected::Says("created    /service//runtide-example at ")),
        ("store: list", format!("{store} list"), Expected::Says("/service//runtide-example ")),
        (
            "store: watch",
            format!("{store} watch --since start --for 1s"),
            Expected::Says("/service//runtide-example at "),
        ),
        ("watch", "watch --backend systemd --for 2s --json".to_owned(), Expected::JsonLinesWith("\"runtide-example\"")),
        ("ps", "ps --backend systemd --name runtide-example".to_owned(), Expected::Says("runtide-example  running")),
        (
            "logs",
            "logs --backend systemd --follow --for 2s runtide-example".to_owned(),
            Expected::Says("a line of the example\n"),
        ),
        ("store: delete", format!("{store} delete /service//runtide-example"), Expected::Says("deleted    /service//")),
    ];
    let named = |what: &str| format!("{what} on systemd");
    let (Some(address), Some(root)) = (stage.get("RUNTIDE_TEST_SYSTEMD"), stage.get("RUNTIDE_TEST_SYSTEMD_ROOT"))
    else {
        return Ok(lines.iter().map(|(what, ..)| skipped(&named(what), "no systemd")).collect());
    };
    fs::write(&unit, UNIT).doing(format_args!("cannot write {file}"))?;
    let bus = [("DBUS_SYSTEM_BUS_ADDRESS", address.as_str())];
    let mut runs = Vec::new();
    for (what, line, expected) in lines {
        if what == "watch" {
            start(address)?;
        }
        let (example, options) = line.split_once(' ').unwrap_or((&line, ""));
        let run = one(built, &format!("{example} --root {root} {options}"), &bus, expected)?;
        runs.push(Run { what: named(what), ..run });
    }
    let _ = fs::remove_file(&unit);
    Ok(runs)
}

/// Starts the unit that the examples watch. A failure is ignored here: the runs after it report it.
fn start(address: &str) -> Outcome<()> {
    let mut command = Command::new("busctl");
    command.arg(format!("--address={address}")).args(["call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"]);
    command.args(["org.freedesktop.systemd1.Manager", "StartUnit", "ss", "runtide-example.service", "replace"]);
    match process::capture(&mut command, RUN, Interrupt::Ends) {
        Err(_) if process::interrupted() => Err(Failure::interrupted()),
        _ => Ok(()),
    }
}

fn skipped(what: &str, why: &str) -> Run {
    Run { what: what.to_owned(), verdict: Verdict::Skipped, reason: Some(why.to_owned()) }
}

/// The environment of Docker's client: if `DOCKER_HOST` is set, it reads nothing else.
fn docker_at(address: Option<&str>) -> Vec<(&'static str, &str)> {
    address.map(|address| ("DOCKER_HOST", address)).into_iter().collect()
}

pub(crate) fn count(runs: &[Run]) -> Counts {
    let count = |verdict| runs.iter().filter(|run| run.verdict == verdict).map(|_| 1).sum();
    Counts { passed: count(Verdict::Passed), failed: count(Verdict::Failed), skipped: count(Verdict::Skipped) }
}

fn one(
    built: &BTreeMap<String, PathBuf>,
    line: &str,
    environment: &[(&str, &str)],
    expected: Expected,
) -> Outcome<Run> {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let Some(program) = built.get(name) else {
        let reason = Some(format!("cargo built no example of the name {name}"));
        return Ok(Run { what: line.to_owned(), verdict: Verdict::Failed, reason });
    };
    let mut command = Command::new(program);
    command.current_dir(workspace::root()).args(words);
    if !environment.is_empty() {
        for name in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "RUNTIDE_SYSTEMD"] {
            command.env_remove(name);
        }
    }
    command.envs(environment.iter().copied());
    let judged = match process::capture(&mut command, RUN, Interrupt::Ends) {
        Ok(said) => judge(&said, expected),
        Err(_) if process::interrupted() => return Err(Failure::interrupted()),
        Err(failure) => Err(failure.to_string()),
    };
    let verdict = if judged.is_ok() { Verdict::Passed } else { Verdict::Failed };
    Ok(Run { what: line.to_owned(), verdict, reason: judged.err() })
}

fn judge(said: &Said, expected: Expected) -> Result<(), String> {
    let code = said.status.code();
    let wanted = match expected {
        Expected::Success | Expected::Says(_) | Expected::JsonLines | Expected::JsonLinesWith(_) | Expected::Json => 0,
        Expected::Refusal | Expected::OneLineRefusal => 2,
    };
    if code != Some(wanted) {
        return Err(format!("exit code {wanted} expected, was {}: {}", said.status, said.complaint()));
    }
    match expected {
        Expected::Success => Ok(()),
        Expected::Says(what) => has(&said.stdout, what),
        Expected::JsonLines => json_lines(&said.stdout),
        Expected::JsonLinesWith(what) => json_lines(&said.stdout).and_then(|()| has(&said.stdout, what)),
        Expected::Json => json(&said.stdout),
        Expected::Refusal | Expected::OneLineRefusal => {
            let lines = said.stderr.lines().filter(|line| !line.trim().is_empty()).count();
            match (expected, lines) {
                _ if !said.stdout.is_empty() => Err("a refusal belongs on stderr, this one is on stdout".to_owned()),
                (_, 0) => Err("nothing on stderr says why".to_owned()),
                (Expected::OneLineRefusal, 2..) => Err(format!("one clear line on stderr expected, {lines} there")),
                _ => Ok(()),
            }
        }
    }
}

fn has(text: &str, what: &str) -> Result<(), String> {
    if text.contains(what) { Ok(()) } else { Err(format!("{what:?} is not on stdout: {text:?}")) }
}

fn json_lines(text: &str) -> Result<(), String> {
    for (at, line) in text.lines().enumerate() {
        serde_json::from_str::<serde_json::Value>(line)
            .map_err(|error| format!("line {}: not JSON: {error}", at + 1))?;
    }
    if text.lines().next().is_none() { Err("not one line".to_owned()) } else { Ok(()) }
}

/// One value, or several one after another.
fn json(text: &str) -> Result<(), String> {
    let mut values = 0;
    for value in serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>() {
        value.map_err(|error| format!("not JSON: {error}"))?;
        values += 1;
    }
    if values == 0 { Err("nothing on stdout".to_owned()) } else { Ok(()) }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn said(code: i32, stdout: &str, stderr: &str) -> Said {
        Said { status: ExitStatus::from_raw(code << 8), stdout: stdout.to_owned(), stderr: stderr.to_owned() }
    }

    #[test]
    fn every_line_must_be_json_and_there_must_be_one() {
        assert_eq!(judge(&said(0, "{\"a\":1}\n{}\n", ""), Expected::JsonLines), Ok(()));
        assert!(judge(&said(0, "", ""), Expected::JsonLines).is_err());
        assert!(judge(&said(0, "{}\nhello\n", ""), Expected::JsonLines).unwrap_err().contains("line 2"));
        assert!(judge(&said(0, "{}\n\n", ""), Expected::JsonLines).is_err(), "an empty line is not JSON");
        assert!(judge(&said(1, "{}\n", "no daemon"), Expected::JsonLines).unwrap_err().contains("no daemon"));
    }

    #[test]
    fn an_expected_text_must_be_on_stdout() {
        assert_eq!(judge(&said(0, "created web\n", ""), Expected::Says("created")), Ok(()));
        assert!(judge(&said(0, "", "created web"), Expected::Says("created")).is_err());
        assert!(judge(&said(0, "{}\n", ""), Expected::JsonLinesWith("web")).unwrap_err().contains("web"));
    }

    #[test]
    fn a_listing_may_be_one_value_or_many() {
        assert_eq!(judge(&said(0, "[\n]\n", ""), Expected::Json), Ok(()));
        assert_eq!(judge(&said(0, "{}\n{}\n", ""), Expected::Json), Ok(()));
        assert!(judge(&said(0, "", ""), Expected::Json).is_err());
    }

    #[test]
    fn a_refusal_has_code_2_and_says_why() {
        assert_eq!(judge(&said(2, "", "error\n\nusage\n"), Expected::Refusal), Ok(()));
        assert_eq!(judge(&said(2, "", "start the daemon\n"), Expected::OneLineRefusal), Ok(()));
        assert!(judge(&said(2, "", "a\nb\n"), Expected::OneLineRefusal).is_err());
        assert!(judge(&said(2, "", ""), Expected::Refusal).is_err());
        assert!(judge(&said(1, "", "error"), Expected::Refusal).is_err());
    }
}
