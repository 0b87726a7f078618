//! `cargo xtask handover`: the log's hand-over, built with `--cfg shuttle`, under a checker that tries orders of threads.

use std::process::Command;

use crate::counts::{Counts, Tally};
use crate::failure::{Failure, Outcome};
use crate::terminal::say;
use crate::{process, programs, workspace};

/// In its own target folder: other flags need another build, which then stays.
fn command() -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--package", "runtide-core", "--lib", "wal::tests::handover"]);
    command.env("RUSTFLAGS", "--cfg shuttle").env("CARGO_TARGET_DIR", workspace::target("shuttle"));
    command
}

/// Runs it. A run in which nothing passed is a failure as well: then the filter matches no test any more.
pub(crate) fn tests(tally: &mut Tally) -> Outcome<()> {
    let before = tally.counts;
    programs::cargo_test(&mut process::patient(&command()), tally)?;
    must_have_run(before, tally);
    Ok(())
}

fn must_have_run(before: Counts, tally: &mut Tally) {
    if tally.counts.passed == before.passed && tally.counts.failed == before.failed {
        tally.counts.failed += 1;
        tally.failures.push("the hand-over under its checker: no test of it ran".to_owned());
    }
}

pub(crate) fn run() -> Outcome<()> {
    process::catch_interrupts()?;
    let mut tally = Tally::default();
    tests(&mut tally)?;
    for name in &tally.failures {
        say!("failed: {name}");
    }
    let counts = tally.counts;
    say!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    if counts.failed == 0 { Ok(()) } else { Err(Failure::silent()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_matches_nothing_is_a_failure() {
        let before = Counts { passed: 7, failed: 0, skipped: 1 };
        let mut tally = Tally { counts: before, ..Tally::default() };
        must_have_run(before, &mut tally);
        assert_eq!(tally.counts, Counts { failed: 1, ..before });
        assert_eq!(tally.failures.len(), 1);
    }

    #[test]
    fn counts_of_tests_that_ran_are_left_as_they_are() {
        let before = Counts { passed: 7, failed: 0, skipped: 1 };
        for after in [Counts { passed: 8, ..before }, Counts { failed: 1, ..before }] {
            let mut tally = Tally { counts: after, ..Tally::default() };
            must_have_run(before, &mut tally);
            assert_eq!((tally.counts, tally.failures.len()), (after, 0));
        }
    }
}
