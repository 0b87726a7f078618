//! `cargo xtask handover`: the log's hand-over, built with `--cfg shuttle`, under a checker that tries orders of threads.

use std::process::Command;

use crate::counts::Tally;
use crate::failure::{Failure, Outcome};
use crate::terminal::say;
use crate::{process, test, workspace};

/// In a target folder of its own: with other flags everything is built anew, and then that it stays built.
pub(crate) fn command() -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--package", "runtide-core", "--lib", "wal::tests::handover"]);
    command.env("RUSTFLAGS", "--cfg shuttle").env("CARGO_TARGET_DIR", workspace::target("shuttle"));
    command
}

pub(crate) fn run() -> Outcome<()> {
    process::catch_interrupts()?;
    let mut tally = Tally::default();
    test::tests(&mut command(), &mut tally)?;
    let counts = tally.counts;
    say!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    if counts.failed == 0 { Ok(()) } else { Err(Failure::silent()) }
}
