//! `cargo xtask test`: every test that can run on this machine, and a report of those that could not.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::clock::Clock;
use crate::counts::{Counts, Tally};
use crate::examples::{self, Run as Example};
use crate::failure::{Doing, Failure, Outcome};
use crate::part::Part;
use crate::process;
use crate::programs::{self, Built, Program};
use crate::report::{self, Finding, Verdict};
use crate::stage::{self, Stage, backend};
use crate::terminal::say;
use crate::{handover, lint, matrix, testbed, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The crates to test, as core, docker, examples (default: everything)
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    daemons: stage::Options,
    /// Write docs/support-matrix.md from the results
    #[arg(long)]
    matrix: bool,
    /// Lint as well: the short steps first, those that build something in parallel with the tests
    #[arg(long)]
    lint: bool,
    /// If no more than this many tests failed, each runs again, alone, at the end: one that passes then is flaky, and no failure
    #[arg(long, value_name = "TESTS", default_value_t = 0)]
    again: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<()> {
    let part = Part::named(&arguments.names)?;
    if !part.is_everything() && (arguments.matrix || arguments.lint) {
        return Err(Failure::refused("--matrix and --lint are for a run of everything"));
    }
    let mut required = list(&env::var("RUNTIDE_REQUIRE_REAL").unwrap_or_default());
    if arguments.daemons.no_real && !required.is_empty() {
        return Err(Failure::refused("--no-real contradicts RUNTIDE_REQUIRE_REAL"));
    }
    required.retain(|daemon| part.meets(daemon));
    process::catch_interrupts()?;
    let _alone = alone()?;
    let reports = empty_reports()?;
    let clock = Clock::start();

    if arguments.lint {
        let failed = lint::short(&clock)?;
        if !failed.is_empty() {
            return Err(Failure::failed(format_args!("lint: {} failed, so nothing is tested", failed.join(", "))));
        }
    }
    // Each waits for other things: the daemons for files to come, the build for the processor.
    let (stage, built) = thread::scope(|scope| {
        let stage = scope.spawn(|| clock.time("daemons", || set(arguments, &part)));
        let built = clock.time("build", || programs::build(&part.selection()));
        (stage.join(), built)
    });
    let mut stage = stage.map_err(|_| Failure::failed("the start of the daemons came to no end"))??;
    let run = Run { part: &part, stage: &stage, reports: &reports, clock: &clock, arguments };
    let ran = built.and_then(|built| run.all(built));
    let cleared = clock.time("daemons, down", || stage.clear());
    let Ran { tally, examples, unlinted } = ran?;

    let mut problems: Vec<String> = cleared.err().into_iter().map(|failure| failure.to_string()).collect();
    problems.extend(unlinted.into_iter().map(|step| format!("lint: {step}")));
    let findings = report::read(&reports).unwrap_or_else(|failure| {
        problems.push(failure.to_string());
        Vec::new()
    });
    problems.extend(report::unproven(&required, &findings));
    problems.extend(stage.missing.iter().filter_map(|(daemon, why)| unmet(&required, daemon, why)));
    if arguments.matrix
        && !findings.is_empty()
        && let Err(failure) = matrix::write(&findings)
    {
        problems.push(failure.to_string());
    }

    let mut counts = with_skipped_laws(tally.counts, &findings);
    counts += examples::count(&examples);
    counts.failed += u64::try_from(problems.len()).unwrap_or(u64::MAX);
    summarise(&stage, &findings, &examples, &tally, &problems, &clock);
    let Counts { passed, failed, skipped } = counts;
    let flaky = if tally.flaky.is_empty() { String::new() } else { format!(", {} flaky", tally.flaky.len()) };
    say!("{passed} passed, {failed} failed, {skipped} skipped{flaky}");
    if counts.failed == 0 { Ok(()) } else { Err(Failure::silent()) }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The failure of a missing further daemon whose backend is required for real: no suite would show the missing tests.
fn unmet(required: &[String], daemon: &str, why: &str) -> Option<String> {
    let backend = backend(daemon);
    let is_unmet = backend != daemon && required.iter().any(|name| name == backend);
    is_unmet.then(|| format!("{backend}: required for real, and {daemon} is {why}"))
}

/// `true` for a program whose tests are about the daemon, of whatever version it is.
fn is_of_the_daemon(target: &str) -> bool {
    target.ends_with("conformance")
}

fn alone() -> Outcome<File> {
    fs::create_dir_all(workspace::target("")).doing("cannot make target")?;
    let path = workspace::target(workspace::TEST_LOCK);
    let file = File::create(&path).doing(format_args!("cannot write {}", workspace::relative(&path)))?;
    file.try_lock().map_err(|_| Failure::refused("another `cargo xtask test` runs in this checkout"))?;
    Ok(file)
}

fn empty_reports() -> Outcome<PathBuf> {
    let folder = workspace::target(report::FOLDER);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::failed(format_args!("cannot empty target/{}: {error}", report::FOLDER)));
        }
        _ => {}
    }
    fs::create_dir_all(&folder).doing(format_args!("cannot make target/{}", report::FOLDER))?;
    Ok(folder)
}

/// Starts the daemons that the tests of this part need.
fn set(arguments: &Arguments, part: &Part) -> Outcome<Stage> {
    let mut stage = Stage::empty(arguments.daemons)?;
    // Kubernetes is built from source: it is started where its crate is named, where it must be met, and for the matrix.
    let is_required = list(&env::var("RUNTIDE_REQUIRE_REAL").unwrap_or_default()).contains(&"k8s".to_owned());
    let is_named = !part.is_everything() && part.has("runtide-k8s");
    let has_k8s = is_named || arguments.matrix || is_required;
    let meets = |daemon: &str| part.meets(daemon) && (has_k8s || backend(daemon) != "k8s");
    // Minutes of one core, once per machine, while everything else is built.
    for daemon in testbed::BUILT.into_iter().filter(|daemon| meets(daemon)) {
        stage.build(daemon);
    }
    let wanted = |daemon: &&str| meets(daemon) && (arguments.matrix || !testbed::LATER.contains(daemon));
    for daemon in testbed::KNOWN.into_iter().filter(wanted) {
        stage.add(daemon)?;
    }
    Ok(stage)
}

/// A run, once everything is built and the daemons are up.
struct Run<'a> {
    part: &'a Part,
    stage: &'a Stage,
    reports: &'a Path,
    clock: &'a Clock,
    arguments: &'a Arguments,
}

/// A test that failed.
struct Failed {
    program: Program,
    test: String,
    /// The environment of the daemons that replaced the usual ones, or empty.
    again: BTreeMap<String, String>,
}

/// Result of the run.
struct Ran {
    tally: Tally,
    examples: Vec<Example>,
    /// The steps of the lint that failed.
    unlinted: Vec<&'static str>,
}

impl Run<'_> {
    /// Runs all test programs in parallel with the cargo steps; then the examples, which would disturb the programs' daemons.
    fn all(&self, built: Built) -> Outcome<Ran> {
        let Built { programs, examples } = built;
        let mut tally = Tally::default();
        let (ran, in_cargo) = thread::scope(|scope| {
            let in_cargo = scope.spawn(|| self.cargo_steps());
            let ran = self.programs(&programs, &BTreeMap::new(), &mut tally);
            (ran, in_cargo.join().map_err(|_| Failure::failed("a cargo step panicked")))
        });
        let mut failed = ran?;
        let (more, unlinted) = in_cargo??;
        tally += more;
        for daemon in testbed::LATER {
            let Some(again) = self.stage.again_on(daemon) else { continue };
            let package = format!("runtide-{}", backend(daemon));
            let is_again = |program: &&Program| program.package == package && is_of_the_daemon(&program.target);
            let again_run: Vec<Program> = programs.iter().filter(is_again).cloned().collect();
            failed.extend(self.programs(&again_run, &again, &mut tally)?);
        }
        self.run_again(&failed, &mut tally);
        let mut runs = Vec::new();
        if self.part.has("runtide-examples") {
            say!("test: examples");
            runs = self.clock.time("examples", || examples::run(&self.stage.environment, &examples))?;
        }
        Ok(Ran { tally, examples: runs, unlinted })
    }

    /// Runs the programs, and returns the tests that failed; `again` is the environment of the daemons that replace the usual ones, or empty.
    fn programs(
        &self,
        programs: &[Program],
        again: &BTreeMap<String, String>,
        tally: &mut Tally,
    ) -> Outcome<Vec<Failed>> {
        let prepare = |command| self.prepared(command, again, self.reports);
        let failed = programs::run(programs, prepare, self.clock, tally)?;
        Ok(failed.into_iter().map(|(program, test)| Failed { program, test, again: again.clone() }).collect())
    }

    fn prepared(&self, mut command: Command, again: &BTreeMap<String, String>, reports: &Path) -> Command {
        command.env("RUNTIDE_REPORT_DIR", reports);
        self.stage.apply(&mut command);
        if !again.is_empty() {
            for name in programs::OF_USUAL_ALONE {
                command.env_remove(name);
            }
            command.envs(again);
        }
        // The ports that containers of a daemon publish are reached in its network alone.
        match again.iter().find_map(|(name, path)| name.ends_with("_NET").then(|| format!("--net={path}"))) {
            Some(network) => process::through(&["nsenter", &network], &command),
            None => command,
        }
    }

    /// Runs the tests that failed once more, one at a time, with nothing else running; more than a few are not worth it.
    fn run_again(&self, failed: &[Failed], tally: &mut Tally) {
        if failed.len() > self.arguments.again {
            return;
        }
        let reports = self.reports.join(report::AGAIN);
        for Failed { program, test, again } in failed {
            say!("\ntest: again, alone: {}: {test}", program.shown());
            let prepare = |command| self.prepared(command, again, &reports);
            if !process::interrupted() && programs::run_one(program, test, prepare, self.clock) {
                tally.passed_again(&format!("{}: {test}", program.shown()));
            }
        }
    }

    /// One cargo after the other, since each locks the target folder: the rest of the lint, the doc tests, the hand-over.
    fn cargo_steps(&self) -> Outcome<(Tally, Vec<&'static str>)> {
        let mut tally = Tally::default();
        let unlinted = if self.arguments.lint { lint::long(self.clock)? } else { Vec::new() };
        if let Some(documented) = self.part.documented()? {
            let mut command = workspace::cargo();
            command.args(["test", "--doc"]).args(documented.selection()).arg("--no-fail-fast");
            self.stage.apply(&mut command);
            self.clock.time("doc tests", || programs::cargo_test(&mut process::patient(&command), &mut tally))?;
        }
        if self.part.is_everything() {
            self.clock.time("hand-over", || handover::tests(&mut tally))?;
        }
        Ok((tally, unlinted))
    }
}

/// Cargo counts a law that skipped itself as passed, since its test returned; here it counts as skipped.
fn with_skipped_laws(counts: Counts, findings: &[Finding]) -> Counts {
    let skipped = report::count(findings).skipped.min(counts.passed);
    Counts { passed: counts.passed - skipped, skipped: counts.skipped + skipped, ..counts }
}

fn summarise(stage: &Stage, findings: &[Finding], runs: &[Example], tally: &Tally, problems: &[String], clock: &Clock) {
    say!("\n{}", report::table(findings));
    let mut rows = vec![["example", "", ""].map(str::to_owned)];
    for run in runs {
        let verdict = match run.verdict {
            Verdict::Passed => "passed",
            Verdict::Skipped => "skipped",
            Verdict::Failed => "failed",
        };
        rows.push([run.what.clone(), verdict.to_owned(), run.reason.clone().unwrap_or_default()]);
    }
    if !runs.is_empty() {
        say!("{}", report::aligned(&rows));
    }
    say!("{}", clock.table());
    for (daemon, state) in &stage.daemons {
        say!("daemon {daemon}: {state}");
    }
    for name in &tally.flaky {
        say!("flaky: {name}: it failed beside others and passed alone");
    }
    for name in &tally.failures {
        say!("failed: {name}");
    }
    for problem in problems {
        say!("failed: {problem}");
    }
    let counts = tally.counts;
    say!(
        "cargo test: {} passed, {} failed, {} ignored; all of it took {} s\n",
        counts.passed,
        counts.failed,
        counts.skipped,
        clock.elapsed().as_secs()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::variable;

    #[test]
    fn lists_are_read_with_blanks_and_without() {
        assert_eq!(list("docker, podman,,"), ["docker", "podman"]);
        assert!(list("").is_empty());
    }

    #[test]
    fn each_daemon_has_its_variable_and_its_backend() {
        assert_eq!(variable("etcd"), "RUNTIDE_TEST_ETCD");
        assert_eq!(variable("podman5"), "RUNTIDE_TEST_PODMAN5");
        assert_eq!((backend("podman5"), backend("docker26"), backend("etcd")), ("podman", "docker", "etcd"));
        assert_eq!(variable("systemd-user"), "RUNTIDE_TEST_SYSTEMD_USER");
        let required = list("docker,systemd");
        assert_eq!(unmet(&required, "systemd", "not there: why"), None, "its suite says so");
        assert_eq!(unmet(&list("docker"), "systemd2", "not there: why"), None);
        assert_eq!(
            unmet(&required, "systemd-user", "not there: why").as_deref(),
            Some("systemd: required for real, and systemd-user is not there: why")
        );
    }

    #[test]
    fn a_law_that_skipped_itself_did_not_pass() {
        let counts = Counts { passed: 10, failed: 1, skipped: 2 };
        let found = with_skipped_laws(counts, &report::tests::findings());
        assert_eq!(found, Counts { passed: 9, failed: 1, skipped: 3 });
    }
}
