//! The test programs that cargo builds, run by this tool: those that meet different daemons at the same time.
//!
//! Most of them wait for their daemon most of the time. `cargo test` would run one after the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::counts::Tally;
use crate::failure::{Failure, Outcome};
use crate::process::{self, Interrupt};
use crate::terminal::say;
use crate::workspace;

/// All of the build, from nothing.
const BUILD: Duration = Duration::from_secs(40 * 60);
/// One program.
const RUN: Duration = Duration::from_secs(25 * 60);

/// Which programs share a daemon, and kill it: of them one runs at a time. Those that need none share a lane of their own.
fn lane(package: &str, target: &str) -> Option<u8> {
    match (package, target) {
        ("runtide-docker" | "runtide-examples", _) => Some(0),
        ("runtide-systemd", "runtide_systemd" | "conformance") => Some(1),
        // On the second machine.
        ("runtide-systemd", _) => Some(2),
        ("runtide-etcd", _) => Some(3),
        _ => None,
    }
}

/// A program with tests in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) package: String,
    /// As cargo calls the target: a file's name, or the crate's.
    pub(crate) target: String,
    file: PathBuf,
    /// Where it runs: the package's.
    folder: PathBuf,
}

/// What cargo says of something that it built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds what this selects, and says which programs have tests; the rest, examples among it, is only built.
pub(crate) fn build(selection: &[&str]) -> Outcome<Vec<Program>> {
    let mut command = workspace::cargo();
    command.arg("test").args(selection).args(["--no-run", "--message-format=json-render-diagnostics"]);
    say!("test: {}", workspace::shown(&command));
    let mut programs = Vec::new();
    let status = process::each_line(&mut command, BUILD, |line| programs.extend(of_message(line)))?;
    if status.success() {
        Ok(programs)
    } else {
        Err(Failure::failed(format_args!("{}: {status}", workspace::shown(&command))))
    }
}

fn of_message(line: &str) -> Option<Program> {
    let message: Message = serde_json::from_str(line).ok()?;
    if message.reason != "compiler-artifact" || !message.profile?.test {
        return None;
    }
    let folder = message.manifest_path?.parent()?.to_path_buf();
    let package = folder.file_name()?.to_string_lossy();
    let package = if package.starts_with("runtide-") { package.into_owned() } else { format!("runtide-{package}") };
    Some(Program { package, target: message.target?.name, file: message.executable?, folder })
}

impl Program {
    /// What it is called in what this tool prints.
    fn shown(&self) -> String {
        format!("{} {}", self.package, self.target)
    }

    fn lane(&self) -> Option<u8> {
        lane(&self.package, &self.target)
    }

    fn command(&self) -> Command {
        let is_patient = self.lane().is_none();
        // What needs no daemon leaves the processor to those who do, and are judged by when they see what it does.
        let mut command = if is_patient && cfg!(unix) { Command::new("nice") } else { Command::new(&self.file) };
        if is_patient && cfg!(unix) {
            command.args(["-n", "10"]).arg(&self.file);
        }
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

/// Runs all of them, each lane beside the others, with what `prepare` adds to their environment, and says what each printed when it has ended.
pub(crate) fn run(programs: &[Program], prepare: impl Fn(&mut Command) + Sync, tally: &mut Tally) -> Outcome<()> {
    let lanes = lanes(programs);
    let run = |lane: &[&Program]| {
        let mut tally = Tally::default();
        for program in lane.iter().take_while(|_| !process::interrupted()) {
            let mut command = program.command();
            prepare(&mut command);
            one(program, &mut command, &mut tally);
        }
        tally
    };
    let tallies = thread::scope(|scope| {
        let running: Vec<_> = lanes.iter().map(|lane| scope.spawn(|| run(lane))).collect();
        running.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    for ended in tallies {
        let ended = ended.map_err(|_| Failure::failed("a lane of test programs came to no end"))?;
        tally.counts += ended.counts;
        tally.failures.extend(ended.failures);
    }
    if process::interrupted() { Err(Failure::interrupted()) } else { Ok(()) }
}

/// Programs in the order in which they were built, lane by lane.
fn lanes(programs: &[Program]) -> Vec<Vec<&Program>> {
    let mut lanes: BTreeMap<Option<u8>, Vec<&Program>> = BTreeMap::new();
    for program in programs {
        lanes.entry(program.lane()).or_default().push(program);
    }
    lanes.into_values().collect()
}

fn one(program: &Program, command: &mut Command, tally: &mut Tally) {
    let begin = Instant::now();
    let (own, text) = ran(command);
    let shown = program.shown();
    say!("\ntest: {shown}: {} s\n{}", begin.elapsed().as_secs(), text.trim());
    tally.counts += own.counts;
    tally.failures.extend(own.failures.into_iter().map(|failure| format!("{shown}: {failure}")));
}

/// What the tests of a program come to, and what it printed.
fn ran(command: &mut Command) -> (Tally, String) {
    let mut tally = Tally::default();
    let mut text = Vec::new();
    let status = process::gather(command, RUN, Interrupt::Ends, &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().for_each(|line| tally.take(line));
    let why = match status {
        Ok(status) if status.success() || tally.counts.failed > 0 => None,
        // A test took the whole program down, or none was begun.
        Ok(status) => Some(format!("{status}, and no test says why")),
        Err(failure) => Some(failure.to_string()),
    };
    if let Some(why) = why {
        tally.counts.failed += 1;
        tally.failures.push(why);
    }
    (tally, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(package: &str, target: &str) -> Program {
        let folder = PathBuf::from("crates").join(package);
        Program { package: package.to_owned(), target: target.to_owned(), file: "/bin/true".into(), folder }
    }

    #[test]
    fn only_programs_with_tests_are_taken_from_what_cargo_says() {
        let artifact = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"x","manifest_path":"/w/crates/runtide-core/Cargo.toml","target":{{"kind":["test"],"name":"golden","src_path":"/w/x.rs"}},"profile":{{"opt_level":"1","test":{test}}},"features":[],"filenames":[],"executable":{executable},"fresh":true}}"#
            )
        };
        let found = of_message(&artifact(true, r#""/w/target/debug/deps/golden-1""#)).unwrap();
        assert_eq!((found.package.as_str(), found.target.as_str()), ("runtide-core", "golden"));
        assert_eq!(found.folder, PathBuf::from("/w/crates/runtide-core"));
        assert_eq!(of_message(&artifact(false, r#""/w/target/debug/examples/ps""#)), None);
        assert_eq!(of_message(&artifact(true, "null")), None);
        assert_eq!(of_message(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(of_message("warning: something"), None);
    }

    #[test]
    fn who_shares_a_daemon_shares_a_lane_and_nobody_is_left_out() {
        let all = [
            program("runtide-core", "golden"),
            program("runtide-docker", "conformance"),
            program("runtide-systemd", "storm"),
            program("runtide-systemd", "conformance"),
            program("runtide-systemd", "units"),
            program("runtide-examples", "killed"),
            program("runtide-memory", "journal"),
        ];
        let named: Vec<Vec<&str>> =
            lanes(&all).iter().map(|lane| lane.iter().map(|program| program.target.as_str()).collect()).collect();
        assert_eq!(
            named,
            [vec!["golden", "journal"], vec!["conformance", "killed"], vec!["conformance"], vec!["storm", "units"]]
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_dies_is_a_failure_though_no_test_of_it_failed() {
        let sh = |script: &str| ran(Command::new("sh").args(["-c", script])).0;
        let dead = sh("echo running 1 test; exit 101");
        assert_eq!((dead.counts.failed, dead.failures.len()), (1, 1));
        assert!(dead.failures[0].ends_with("and no test says why"), "{:?}", dead.failures);
        let failed = sh("echo 'test a ... FAILED'; echo 'test result: FAILED. 2 passed; 1 failed'; exit 101");
        assert_eq!((failed.counts.passed, failed.counts.failed), (2, 1));
        assert_eq!(failed.failures, ["a"]);
    }
}
