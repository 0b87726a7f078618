//! Prints steps and the state of the link, the shortest program on a runtime: `cargo run --example changes -- --help`.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use runtide_core::RuntimeBackendExt;
use runtide_examples::{Target, Until, Wanted, choose_or_script, duration, run};

/// Print each step of each instance (+ ~ -), when everything is shown (=), and outages (!).
#[derive(Debug, Parser)]
#[command(name = "changes")]
struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    wanted: Wanted,
    /// End after this time, as 500ms, 10s, 5m or 1h30m; without it, Ctrl-C ends it
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
}

fn main() -> ExitCode {
    run(async |args: Args| {
        let backend = choose_or_script(&args.target).await?;
        let mut changes = backend.transitions(args.wanted.watch_options()).await?;
        let until = Until::after(args.time);
        while let Some(Some(change)) = until.get(changes.next()).await {
            writeln!(io::stdout(), "{}", change?)?;
        }
        Ok(())
    })
}
