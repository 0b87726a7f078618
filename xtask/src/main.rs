//! The chores of the workspace, as `cargo xtask <chore>`.
//!
//! Exit codes: 0 all is well, 1 a check failed, 2 the chore could not be done at all
//! (an unknown option, no root, a package that is missing), 130 interrupted.

mod budget;
mod chaos;
mod clock;
mod counts;
mod deny;
mod examples;
mod failure;
mod handover;
mod links;
mod lint;
mod locks;
mod matrix;
mod modules;
mod part;
mod process;
mod programs;
mod report;
mod stage;
mod targets;
mod terminal;
mod test;
#[cfg(target_os = "linux")]
mod testbed;
#[cfg(not(target_os = "linux"))]
#[path = "testbed_elsewhere.rs"]
mod testbed;
mod walls;
mod words;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::terminal::complain;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The chores of the Runtide workspace", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Start and stop real daemons in a private folder below target/testbed (Linux, root)
    Testbed(testbed::Arguments),
    /// Run every test that can run on this machine, and report those that could not
    Test(test::Arguments),
    /// Break a real daemon again and again while a backend works on it, and check that nothing is lost, left or leaked
    Chaos(chaos::Arguments),
    /// Write docs/support-matrix.md from the last run's reports
    SupportMatrix(matrix::Arguments),
    /// Check the hand-over between the log's appenders and its commit thread, in many orders (part of `test`)
    Handover,
    /// Check everything that can be checked without running a test, or the steps that are named
    Lint(lint::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().chore {
        Chore::Testbed(arguments) => testbed::run(&arguments),
        Chore::Test(arguments) => test::run(&arguments),
        Chore::Chaos(arguments) => chaos::run(&arguments),
        Chore::SupportMatrix(arguments) => matrix::run(&arguments),
        Chore::Handover => handover::run(),
        Chore::Lint(arguments) => lint::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(line) = failure.line() {
                complain!("xtask: {line}");
            }
            ExitCode::from(failure.code())
        }
    }
}
