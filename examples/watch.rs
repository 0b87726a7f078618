//! Watches a runtime and prints its events: `cargo run --example watch -- --help`.

use std::process::ExitCode;

use clap::Parser;
use runtide_examples::{Output, Target, Wanted, choose_or_script, events, run};

/// Watch containers, virtual machines and services, one line per change.
#[derive(Debug, Parser)]
#[command(name = "watch")]
struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    output: Output,
}

fn main() -> ExitCode {
    run(async |args: Args| {
        let backend = choose_or_script(&args.target).await?;
        let stream = backend.watch(args.wanted.watch_options()).await?;
        events(stream, args.wanted.filter(), &args.output).await
    })
}
