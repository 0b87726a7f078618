//! `cargo xtask chaos`: one backend at work on one daemon of the testbed, which is broken again and again.
//!
//! The run itself is the test program `chaos` of the backend's crate; this brings the daemon, the time and the seed.

use std::time::{Duration, SystemTime};

use crate::failure::{Failure, Outcome};
use crate::process;
use crate::programs;
use crate::stage::{self, Stage, backend};
use crate::terminal::say;
use crate::testbed;

/// The daemons that a run can break.
const DAEMONS: [&str; 7] = ["docker", "docker26", "podman", "podman5", "systemd", "systemd257", "etcd"];

/// Longest time of a run beyond the one that is asked for: each check point waits until the daemon is at rest.
const BEYOND: Duration = Duration::from_secs(20 * 60);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The daemon to break: docker, docker26, podman, podman5, systemd, systemd257 or etcd
    #[arg(value_name = "DAEMON")]
    daemon: String,
    /// Time to go on for, as 30s, 10m or 2h
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = time)]
    time: Duration,
    /// Repeat the schedule of an earlier run (default: another one each time)
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Install the packages that the testbed needs (implied by CI=true)
    #[arg(long)]
    install: bool,
}

/// A number and its unit.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number and its unit, as 30s, 10m or 2h".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    seconds.filter(|seconds| (1..=7 * 86_400).contains(seconds)).map(Duration::from_secs).ok_or_else(wrong)
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<()> {
    let is_it = |daemon: &&str| DAEMONS.contains(daemon) && *daemon == arguments.daemon;
    let Some(daemon) = testbed::KNOWN.into_iter().find(is_it) else {
        return Err(Failure::refused(format_args!(
            "chaos: there is no {}; there are {}",
            arguments.daemon,
            DAEMONS.join(", ")
        )));
    };
    process::catch_interrupts()?;
    let package = format!("runtide-{}", backend(daemon));
    let selection = ["--package", package.as_str(), "--test", "chaos", "--all-features"].map(str::to_owned);
    let built = programs::build(&selection)?;
    let program = built.programs.first().ok_or_else(|| Failure::failed("cargo built no program"))?;

    let mut stage = Stage::empty(stage::Options { no_real: false, install: arguments.install })?;
    stage.add(daemon)?;
    if let Some((_, why)) = stage.missing.first() {
        return Err(Failure::refused(format_args!("chaos: {daemon} is {why}")));
    }
    // A seed by default is small, so that it can be typed.
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let seed = arguments.seed.unwrap_or(now % 1_000_000);
    say!("chaos: {daemon} for {} s, seed {seed}", arguments.time.as_secs());
    let mut command = program.command();
    command.args(["--nocapture", "--exact", "chaos"]);
    command.env("RUNTIDE_CHAOS_SECONDS", arguments.time.as_secs().to_string());
    command.env("RUNTIDE_CHAOS_SEED", seed.to_string());
    stage.apply(&mut command);
    if testbed::LATER.contains(&daemon)
        && let Some(again) = stage.again_on(daemon)
    {
        command.envs(again);
    }
    let ran = process::pass_through(&mut command, arguments.time + BEYOND);
    let cleared = stage.clear();
    let status = ran?;
    cleared?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::failed(format_args!(
        "chaos: {daemon} failed; repeat it with: cargo xtask chaos {daemon} --for {}s --seed {seed}",
        arguments.time.as_secs()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7_200)));
        for text in ["", "s", "10", "0s", "-1m", "1d", "9h9", "99999999999999999h", "ä"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_daemon_that_can_be_broken_is_one_of_the_testbeds() {
        assert!(DAEMONS.iter().all(|daemon| testbed::KNOWN.contains(daemon)));
    }
}
