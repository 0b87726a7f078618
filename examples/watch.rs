//! Watches a runtime and prints what happens: `cargo run --example watch -- --help`.

use std::process::ExitCode;

use clap::Parser;
use runtide_examples::{Output, Place, Wanted, choose, events, run};

/// Watch what happens to containers, virtual machines and services, one line per change.
#[derive(Debug, Parser)]
#[command(name = "watch")]
struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    output: Output,
}

fn main() -> ExitCode {
    run(async |args: Args| {
        let backend = choose(&args.place).await?;
        let stream = backend.watch(args.wanted.watch_options()).await?;
        events(stream, args.wanted.filter(), &args.output).await
    })
}
