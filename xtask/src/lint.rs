//! `cargo xtask lint`: every check that does not run a test.

use std::time::{Duration, Instant};

use crate::budget;
use crate::clock::Clock;
use crate::failure::{Failure, Outcome};
use crate::links;
use crate::process::{self, Interrupt};
use crate::terminal::say;
use crate::{locks, walls, words, workspace};

const SHORT: Duration = Duration::from_secs(120);

type Step = fn() -> Outcome<()>;

/// All steps, the short ones first.
const STEPS: [(&str, Step); 9] = [
    ("fmt", fmt),
    ("links", page_links),
    ("words", words::check),
    ("walls", walls::check),
    ("locks", locks::check),
    ("budget", core_budget),
    ("deny", deny),
    ("clippy", clippy),
    ("doc", doc),
];

/// The steps that build.
const LONG: [&str; 2] = ["clippy", "doc"];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The steps to run (default: all): fmt, links, words, walls, locks, budget, deny, clippy, doc
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Runs each step, also after one that failed: all findings show at once.
pub(crate) fn run(arguments: &Arguments) -> Outcome<()> {
    process::catch_interrupts()?;
    let steps = chosen(&arguments.names)?;
    let failed = each(&steps, &Clock::start())?;
    if failed.is_empty() { Ok(()) } else { Err(Failure::failed(format_args!("lint: {} failed", failed.join(", ")))) }
}

/// Runs the steps that need no build; returns the names of those that failed.
pub(crate) fn short(clock: &Clock) -> Outcome<Vec<&'static str>> {
    let steps: Vec<_> = STEPS.into_iter().filter(|(name, _)| !LONG.contains(name)).collect();
    each(&steps, clock)
}

/// Runs the steps that build; returns the names of those that failed.
pub(crate) fn long(clock: &Clock) -> Outcome<Vec<&'static str>> {
    let steps: Vec<_> = STEPS.into_iter().filter(|(name, _)| LONG.contains(name)).collect();
    each(&steps, clock)
}

fn each(steps: &[(&'static str, Step)], clock: &Clock) -> Outcome<Vec<&'static str>> {
    let mut failed = Vec::new();
    for (name, step) in steps {
        say!("lint: {name}");
        let begin = Instant::now();
        match clock.time(&format!("lint {name}"), step) {
            Ok(()) => say!("lint: {name}: ok, {} s", begin.elapsed().as_secs()),
            Err(_) if process::interrupted() => return Err(Failure::interrupted()),
            Err(failure) => {
                say!("lint: {name}: {failure}");
                failed.push(*name);
            }
        }
    }
    Ok(failed)
}

/// The steps of these names, in the order in which they run; without names, all.
fn chosen(names: &[String]) -> Outcome<Vec<(&'static str, Step)>> {
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|(known, _)| known != name)) {
        let known = STEPS.map(|(known, _)| known).join(", ");
        return Err(Failure::refused(format_args!("lint: no step is named {unknown}; there are {known}")));
    }
    Ok(STEPS.into_iter().filter(|(known, _)| names.is_empty() || names.iter().any(|name| name == known)).collect())
}

fn fmt() -> Outcome<()> {
    process::must_succeed(workspace::cargo().args(["fmt", "--all", "--", "--check"]))
}

fn page_links() -> Outcome<()> {
    let followed = links::check()?;
    say!("lint: {followed} links from page to page");
    Ok(())
}

fn clippy() -> Outcome<()> {
    let mut command = workspace::cargo();
    command.arg("clippy").args(workspace::ALL).args(["--all-targets", "--quiet", "--", "-D", "warnings"]);
    process::must_succeed(&mut process::patient(&command))
}

fn doc() -> Outcome<()> {
    let mut command = workspace::cargo();
    command.arg("doc").args(workspace::ALL).args(["--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    process::must_succeed(&mut process::patient(&command))
}

fn deny() -> Outcome<()> {
    crate::deny::check()
}

fn core_budget() -> Outcome<()> {
    let arguments = ["tree", "--package", "runtide-core", "--edges", "normal", "--prefix", "none"];
    for (features, flags, most) in
        [("no", &[][..], budget::MOST), ("all", &["--all-features"][..], budget::MOST_WITH_FEATURES)]
    {
        let said = process::capture(workspace::cargo().args(arguments).args(flags), SHORT, Interrupt::Ends)?;
        if !said.status.success() {
            return Err(Failure::failed(said.complaint()));
        }
        let crates = budget::judge(&said.stdout, most)
            .map_err(|why| Failure::failed(format_args!("runtide-core with {features} features: {why}")))?;
        say!("lint: runtide-core with {features} features pulls in {crates} crates, itself among them");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(chosen: &[(&'static str, Step)]) -> Vec<&'static str> {
        chosen.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn without_a_name_each_step_runs_and_with_names_those() {
        assert_eq!(chosen(&[]).unwrap().len(), STEPS.len());
        assert_eq!(names(&chosen(&["links".to_owned(), "fmt".to_owned()]).unwrap()), ["fmt", "links"]);
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let failure = chosen(&["clipy".to_owned()]).unwrap_err();
        assert_eq!(failure.code(), 2);
        let line = failure.to_string();
        assert!(STEPS.iter().all(|(name, _)| line.contains(name)), "{line}");
    }

    #[test]
    fn the_help_names_each_step() {
        let command = <Arguments as clap::Args>::augment_args(clap::Command::new("lint"));
        let help = command.get_arguments().next().unwrap().get_help().unwrap().to_string();
        assert!(STEPS.iter().all(|(name, _)| help.contains(name)), "{help}");
    }
}
