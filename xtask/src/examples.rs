//! Running the examples as a user would, and looking at what they say.

use std::process::Command;
use std::time::Duration;

use crate::counts::Counts;
use crate::failure::{Failure, Outcome};
use crate::process::{self, Interrupt, Said};
use crate::report::Verdict;
use crate::workspace;

const BUILD: Duration = Duration::from_secs(20 * 60);
const RUN: Duration = Duration::from_secs(60);

/// One example, run once.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) what: String,
    pub(crate) verdict: Verdict,
    pub(crate) reason: Option<String>,
}

/// What a run must look like.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Success,
    /// Success, each line of stdout a JSON value, and at least one.
    JsonLines,
    /// Success, and stdout is JSON.
    Json,
    /// Exit code 2, nothing on stdout, and something on stderr that says what to do.
    Refusal,
    /// As that, in one line.
    OneLineRefusal,
}

/// Runs all of them; those for Docker where `docker` is its address.
pub(crate) fn run(docker: Option<&str>) -> Outcome<Vec<Run>> {
    let reason = match process::pass_through(workspace::cargo().args(["build", "--quiet", "--examples"]), BUILD) {
        Ok(status) if status.success() => None,
        Ok(status) => Some(status.to_string()),
        Err(_) if process::interrupted() => return Err(Failure::interrupted()),
        Err(failure) => Some(failure.to_string()),
    };
    if reason.is_some() {
        return Ok(vec![Run { what: "cargo build --examples".to_owned(), verdict: Verdict::Failed, reason }]);
    }
    let nowhere = Some("unix:///nonexistent/docker.sock");
    let mut runs = Vec::new();
    for (line, address, expected) in [
        ("watch --backend memory --for 2s --json", None, Expected::JsonLines),
        ("ps --backend memory --json", None, Expected::Json),
        ("custom_backend --for 2s", None, Expected::Success),
        ("store demo", None, Expected::Success),
        ("watch --no-such-option", None, Expected::Refusal),
        ("ps --no-such-option", None, Expected::Refusal),
        ("store --store nowhere list", None, Expected::OneLineRefusal),
        ("ps --backend docker", nowhere, Expected::OneLineRefusal),
    ] {
        runs.push(one(line, address, expected)?);
    }
    for (line, expected) in [
        ("watch --backend docker --for 2s --json", Expected::JsonLines),
        ("ps --backend docker --all --json", Expected::Json),
    ] {
        runs.push(match docker {
            Some(_) => one(line, docker, expected)?,
            None => {
                Run { what: line.to_owned(), verdict: Verdict::Skipped, reason: Some("no Docker daemon".to_owned()) }
            }
        });
    }
    Ok(runs)
}

pub(crate) fn count(runs: &[Run]) -> Counts {
    let count = |verdict| runs.iter().filter(|run| run.verdict == verdict).map(|_| 1).sum();
    Counts { passed: count(Verdict::Passed), failed: count(Verdict::Failed), skipped: count(Verdict::Skipped) }
}

fn one(line: &str, docker: Option<&str>, expected: Expected) -> Outcome<Run> {
    let mut words = line.split(' ');
    let mut command: Command = workspace::cargo();
    command.args(["run", "--quiet", "--example"]).args(words.next()).arg("--").args(words);
    if let Some(address) = docker {
        command.env("DOCKER_HOST", address).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_TLS_VERIFY");
    }
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
        Expected::Success | Expected::JsonLines | Expected::Json => 0,
        Expected::Refusal | Expected::OneLineRefusal => 2,
    };
    if code != Some(wanted) {
        return Err(format!("exit code {wanted} expected, was {}: {}", said.status, said.complaint()));
    }
    match expected {
        Expected::Success => Ok(()),
        Expected::JsonLines => json_lines(&said.stdout),
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
