//! Prints the output of an instance: `cargo run --example logs -- --help`.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anstream::adapter::strip_bytes;
use clap::Parser;
use runtide_core::{
    ErrorKind,
    manager::{LogOptions, LogSource},
};
use runtide_examples::{Stop, Target, Until, ago, choose, duration, find, run};

/// Print the output of an instance, its stdout on stdout and its stderr on stderr.
///
/// If the runtime does not distinguish the two (a terminal, the journal of systemd), all of it is on stdout.
#[derive(Debug, Parser)]
#[command(name = "logs")]
struct Args {
    /// Its name, or its id, as ps shows them
    name: String,
    #[command(flatten)]
    target: Target,
    /// Follow the output to its end
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines of the stored output
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<u64>,
    /// Only later lines: a time before now, as 10m, or a time, as 2025-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = ago)]
    since: Option<SystemTime>,
    /// End after this time, as 500ms, 10s, 5m or 1h30m; without it, the output's end or Ctrl-C ends it
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
}

fn main() -> ExitCode {
    run(async |args: Args| {
        let backend = choose(&args.target).await?;
        let found = find(&*backend, &args.name).await?;
        let Some(logs) = backend.logs() else {
            return Err(Stop::refused(format_args!("{} stores no output", backend.kind())));
        };
        let mut options = LogOptions::default().with_tail(args.tail).with_since(args.since);
        options.follow = args.follow;
        let mut lines = match found {
            Ok(instance) => logs.logs(&instance.id, options).await?,
            // A runtime may have the output of what it no longer lists, as systemd's journal of a unit that has run.
            Err(absent) => match logs.logs(&args.name.as_str().into(), options).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Err(absent),
                lines => lines?,
            },
        };
        let until = Until::after(args.time);
        while let Some(Some(line)) = until.get(lines.next()).await {
            let line = line?;
            match line.source {
                LogSource::Stderr => put(io::stderr(), &line.bytes)?,
                _ => put(io::stdout(), &line.bytes)?,
            }
        }
        Ok(())
    })
}

/// Writes the bytes unchanged and flushes. A terminal gets them without escapes.
fn put(mut out: impl Write + IsTerminal, bytes: &[u8]) -> Result<(), Stop> {
    if out.is_terminal() {
        out.write_all(&strip_bytes(bytes).into_vec())?;
    } else {
        out.write_all(bytes)?;
    }
    Ok(out.flush()?)
}
