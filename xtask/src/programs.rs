//! The test programs that cargo builds, run by this tool: those with different daemons in parallel.
//!
//! Most of them wait for their daemon most of the time. `cargo test` would run one after the other.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::clock::Clock;
use crate::counts::{Counts, Tally};
use crate::failure::{Failure, Outcome};
use crate::process::{self, Interrupt};
use crate::terminal::say;
use crate::workspace;

/// Limit of the whole build, from nothing.
const BUILD: Duration = Duration::from_secs(40 * 60);
/// Limit of one program, or of one `cargo test` with its build.
const RUN: Duration = Duration::from_secs(30 * 60);

/// A queue of programs that share a daemon and kill it: one of them runs at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Docker,
    Podman,
    Systemd,
    Systemd2,
    Etcd,
    K8s,
    /// No daemon: programs that only compute.
    Alone,
}

/// The lanes that may take a program; the first that is free does.
fn lanes_of(package: &str, target: &str) -> &'static [Lane] {
    match (package, target) {
        ("runtide-k8s", _) | ("runtide-examples-tests", "k8s") => &[Lane::K8s],
        ("runtide-docker" | "runtide-examples-tests", _) => &[Lane::Docker],
        ("runtide-podman", _) => &[Lane::Podman],
        ("runtide-systemd", "runtide_systemd" | "conformance" | "chaos") => &[Lane::Systemd],
        // It needs no more than a part of a folder of units, of either machine.
        ("runtide-systemd", "store_conformance") => &[Lane::Systemd2, Lane::Systemd],
        ("runtide-systemd", _) => &[Lane::Systemd2],
        ("runtide-etcd", _) => &[Lane::Etcd],
        _ => &[Lane::Alone],
    }
}

/// Variables that name the second systemd machine to the tests; without them, the first one serves.
const SECOND_MACHINE: [&str; 2] = ["RUNTIDE_TEST_SYSTEMD2", "RUNTIDE_TEST_SYSTEMD2_ROOT"];

/// Variables of the usual daemons that must not be set when a backend's suite runs on another: named, the second machine would be taken for
/// the one that the store is to use, and the other API server has no fake node.
pub(crate) const OF_USUAL_ALONE: [&str; 3] =
    ["RUNTIDE_TEST_SYSTEMD2", "RUNTIDE_TEST_SYSTEMD2_ROOT", "RUNTIDE_TEST_K8S_FAKE"];

/// The programs that cargo built.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) programs: Vec<Program>,
    /// The examples, each with its file.
    pub(crate) examples: BTreeMap<String, PathBuf>,
}

/// A program with tests in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) package: String,
    /// As cargo calls the target: a file's name, or the crate's.
    pub(crate) target: String,
    file: PathBuf,
    /// Its working directory: the package's folder.
    folder: PathBuf,
}

/// Cargo's message about an artifact.
#[derive(Deserialize)]
struct Message {
    reason: String,
    package_id: String,
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds what this selects: the programs that have tests, and the examples.
pub(crate) fn build(selection: &[String]) -> Outcome<Built> {
    let mut built = Built::default();
    let mut command = workspace::cargo();
    command.arg("test").args(selection).args(["--no-run", "--message-format=json-render-diagnostics"]);
    say!("test: {}", workspace::shown(&command));
    let status = process::each_line(&mut command, BUILD, |line| built.take(line))?;
    if status.success() {
        Ok(built)
    } else {
        Err(Failure::failed(format_args!("{}: {status}", workspace::shown(&command))))
    }
}

impl Built {
    fn take(&mut self, line: &str) {
        let Ok(message) = serde_json::from_str::<Message>(line) else { return };
        let (Some(file), true) = (message.executable, message.reason == "compiler-artifact") else { return };
        if message.profile.test {
            let folder = message.manifest_path.parent().map(PathBuf::from).unwrap_or_default();
            let package = package(&message.package_id);
            self.programs.push(Program { package, target: message.target.name, file, folder });
        } else if message.target.kind.iter().any(|kind| kind == "example") {
            self.examples.insert(message.target.name, file);
        }
    }
}

/// The name in `path+file:///w/crates/runtide-core#0.1.0`, or in `path+file:///w/examples#runtide-examples@0.1.0`.
fn package(id: &str) -> String {
    let (address, rest) = id.split_once('#').unwrap_or((id, ""));
    let folder = address.rsplit('/').next().unwrap_or(address);
    rest.split_once('@').map_or(folder, |(name, _)| name).to_owned()
}

impl Program {
    /// Its name in the output of this tool.
    pub(crate) fn shown(&self) -> String {
        format!("{} {}", self.package, self.target)
    }

    fn lanes(&self) -> &'static [Lane] {
        lanes_of(&self.package, &self.target)
    }

    /// The command that runs it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.file);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }

    fn command_in(&self, lane: Lane) -> Command {
        let command = self.command();
        // A program without a daemon yields the processor to those with one, whose tests depend on time.
        if lane == Lane::Alone { process::patient(&command) } else { command }
    }
}

/// Runs all of them, the lanes in parallel, each as `prepare` makes it. Each one's output is printed at its end. Returns the tests that failed,
/// each with its program.
pub(crate) fn run(
    programs: &[Program],
    prepare: impl Fn(Command) -> Command + Sync,
    clock: &Clock,
    tally: &mut Tally,
) -> Outcome<Vec<(Program, String)>> {
    let waiting = Mutex::new(programs.iter().collect::<VecDeque<_>>());
    let failed = Mutex::new(Vec::new());
    let run = |lane: Lane| {
        let mut tally = Tally::default();
        while let Some(program) = next(&waiting, lane).filter(|_| !process::interrupted()) {
            let mut command = prepare(program.command_in(lane));
            if lane == Lane::Systemd && program.lanes().len() > 1 {
                // Named, the second machine would be taken, by a program that may run on either.
                for name in SECOND_MACHINE {
                    command.env_remove(name);
                }
            }
            let own = clock.time(&program.shown(), || one(program, &mut command));
            let tests = own.failures.iter().map(|test| (program.clone(), test.clone()));
            failed.lock().unwrap_or_else(PoisonError::into_inner).extend(tests);
            tally += own.of(&program.shown());
        }
        tally
    };
    let run = &run;
    let lanes = [Lane::Docker, Lane::Podman, Lane::Systemd, Lane::Systemd2, Lane::Etcd, Lane::K8s, Lane::Alone];
    let tallies = thread::scope(|scope| {
        let running = lanes.map(|lane| scope.spawn(move || run(lane)));
        running.map(thread::ScopedJoinHandle::join)
    });
    for ended in tallies {
        let ended = ended.map_err(|_| Failure::failed("a lane of test programs came to no end"))?;
        *tally += ended;
    }
    if process::interrupted() {
        return Err(Failure::interrupted());
    }
    Ok(failed.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Runs one test of a program, and nothing else of it, as `prepare` makes it; `true` if that test ran and passed.
pub(crate) fn run_one(program: &Program, test: &str, prepare: impl Fn(Command) -> Command, clock: &Clock) -> bool {
    let mut command = program.command();
    command.args(["--exact", test]);
    let own = clock.time(&format!("again {}", program.shown()), || one(program, &mut prepare(command)));
    own.counts == Counts { passed: 1, failed: 0, skipped: 0 }
}

/// The next program that this lane may run: one that no other may, before one that others may as well.
fn next<'a>(waiting: &Mutex<VecDeque<&'a Program>>, lane: Lane) -> Option<&'a Program> {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let own = waiting.iter().position(|program| program.lanes() == [lane]);
    let shared = || waiting.iter().position(|program| program.lanes().contains(&lane));
    let at = own.or_else(shared)?;
    waiting.remove(at)
}

fn one(program: &Program, command: &mut Command) -> Tally {
    let begin = Instant::now();
    let (own, text) = ran(command);
    say!("\ntest: {}: {} s\n{}", program.shown(), begin.elapsed().as_secs(), text.trim());
    own
}

/// Runs one `cargo test`, prints its output when it has ended, and adds up its counts.
pub(crate) fn cargo_test(command: &mut Command, tally: &mut Tally) -> Outcome<()> {
    let begin = Instant::now();
    let shown = workspace::shown(command);
    let (own, text) = ran(command);
    say!("\ntest: {shown}: {} s\n{}", begin.elapsed().as_secs(), text.trim());
    *tally += own;
    if process::interrupted() { Err(Failure::interrupted()) } else { Ok(()) }
}

/// The counts of a program's tests, and its output.
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
    fn programs_with_tests_and_examples_are_taken_from_cargos_messages_alone() {
        let artifact = |kind: &str, name: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///w/crates/runtide-core#0.1.0","manifest_path":"/w/crates/runtide-core/Cargo.toml","target":{{"kind":["{kind}"],"name":"{name}","src_path":"/w/x.rs"}},"profile":{{"opt_level":"1","test":{test}}},"features":[],"filenames":[],"executable":{executable},"fresh":true}}"#
            )
        };
        let mut built = Built::default();
        for line in [
            artifact("test", "it", true, r#""/w/target/debug/deps/it-1""#),
            artifact("lib", "runtide_core", true, "null"),
            artifact("example", "ps", false, r#""/w/target/debug/examples/ps""#),
            artifact("bin", "xtask", false, r#""/w/target/debug/xtask""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
            "warning: something".to_owned(),
        ] {
            built.take(&line);
        }
        let [program] = &built.programs[..] else { panic!("{built:?}") };
        assert_eq!((program.package.as_str(), program.target.as_str()), ("runtide-core", "it"));
        assert_eq!(program.folder, PathBuf::from("/w/crates/runtide-core"));
        assert_eq!(built.examples, BTreeMap::from([("ps".to_owned(), PathBuf::from("/w/target/debug/examples/ps"))]));
    }

    #[test]
    fn a_package_is_named_by_its_folder_unless_its_id_names_it() {
        assert_eq!(package("path+file:///w/crates/runtide-core#0.1.0"), "runtide-core");
        assert_eq!(package("path+file:///w/examples/tests#runtide-examples-tests@0.1.0"), "runtide-examples-tests");
    }

    #[test]
    fn programs_that_share_a_daemon_run_in_one_lane_and_each_once() {
        let all = [
            program("runtide-core", "it"),
            program("runtide-docker", "conformance"),
            program("runtide-systemd", "store_conformance"),
            program("runtide-systemd", "it"),
            program("runtide-systemd", "conformance"),
            program("runtide-examples-tests", "it"),
        ];
        let waiting = Mutex::new(all.iter().collect::<VecDeque<_>>());
        let target = |lane| next(&waiting, lane).map(|program| program.target.as_str());
        assert_eq!(target(Lane::Systemd), Some("conformance"), "what only it can run comes first");
        assert_eq!(target(Lane::Systemd), Some("store_conformance"), "then what it may take from another");
        assert_eq!([target(Lane::Systemd), target(Lane::Systemd2)], [None, Some("it")]);
        assert_eq!([target(Lane::Docker), target(Lane::Docker)], [Some("conformance"), Some("it")]);
        assert_eq!([target(Lane::Alone), target(Lane::Etcd)], [Some("it"), None]);
        assert!(waiting.lock().unwrap().is_empty());
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
