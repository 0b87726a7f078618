//! Prints the output of instances: `cargo run --example logs -- --help`.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anstream::adapter::strip_bytes;
use anstyle::AnsiColor;
use clap::Parser;
use jiff::Timestamp;
use runtide_core::{
    ErrorKind, RuntimeBackend,
    manager::{LogLine, LogOptions, LogSource, LogStream},
};
use runtide_examples::{Stop, Target, Until, ago, choose, duration, find, note, run};
use tokio::sync::mpsc;

/// Print the output of instances, their stdout on stdout and their stderr on stderr.
///
/// If the runtime does not distinguish the two (a terminal, the journal of systemd), all of it is on stdout.
#[derive(Debug, Parser)]
#[command(name = "logs")]
struct Args {
    /// The instance's name, or its id, as ps shows them; several: the lines of all, with their names in front
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    target: Target,
    /// Follow the output to its end
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines of the stored output
    #[arg(short = 'n', long, value_name = "N", value_parser = tail, allow_hyphen_values = true)]
    tail: Option<Tail>,
    /// Only later lines: a time before now, as 10m, or a time, as 2025-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = ago)]
    since: Option<SystemTime>,
    /// Only earlier lines, by the same forms
    #[arg(long, value_name = "WHEN", value_parser = ago)]
    until: Option<SystemTime>,
    /// The time of each line in front of it, in UTC
    #[arg(short, long)]
    timestamps: bool,
    /// End after this time, as 500ms, 10s, 5m or 1h30m; without it, the output's end or Ctrl-C ends it
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
}

fn main() -> ExitCode {
    run(async |args: Args| {
        let backend = choose(&args.target).await?;
        let mut streams = Vec::new();
        for name in &args.names {
            streams.push(open(&*backend, name, &args).await?);
        }
        let (tell, mut lines) = mpsc::channel(64);
        for (number, mut stream) in streams.into_iter().enumerate() {
            let tell = tell.clone();
            tokio::spawn(async move {
                while let Some(line) = stream.next().await {
                    if tell.send((number, line)).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let (mut prefixes, until) = (Prefixes::of(&args), Until::after(args.time));
        let mut failed = None;
        while let Some(Some((number, line))) = until.get(lines.recv()).await {
            match line {
                Ok(line) => prefixes.put(number, &line)?,
                // The others go on.
                Err(error) if args.names.len() > 1 => {
                    note(format_args!("{}: {error:#}", args.names.get(number).map_or("", String::as_str)));
                    failed = Some(Stop::Exit(2));
                }
                Err(error) => return Err(error.into()),
            }
        }
        failed.map_or(Ok(()), Err)
    })
}

async fn open(backend: &dyn RuntimeBackend, name: &str, args: &Args) -> Result<LogStream, Stop> {
    let found = find(backend, name).await?;
    let Some(logs) = backend.logs() else {
        return Err(Stop::refused(format_args!("{} stores no output", backend.kind())));
    };
    let mut options = LogOptions::default().with_since(args.since).with_until(args.until);
    options.tail = args.tail.and_then(|Tail(count)| count);
    options.follow = args.follow;
    options.timestamps = args.timestamps;
    match found {
        Ok(instance) => Ok(logs.logs(&instance.id, options).await?),
        // A runtime may have the output of what it no longer lists, as systemd's journal of a unit that has run.
        Err(absent) => match logs.logs(&name.into(), options).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(absent),
            lines => Ok(lines?),
        },
    }
}

/// Number of lines; `None`: all of them, as the engines' own tools take `all` and -1.
#[derive(Clone, Copy, Debug)]
struct Tail(Option<u64>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" | "-1" => Ok(Tail(None)),
        _ => text.parse().map(|count| Tail(Some(count))).map_err(|_| "expected a number of lines, or all".to_owned()),
    }
}

/// The names in front of the lines, where there are several, and their times, where they are asked for.
struct Prefixes {
    names: Vec<String>,
    timed: bool,
    /// The output whose last line is not ended yet.
    open: Option<(usize, LogSource)>,
}

impl Prefixes {
    fn of(args: &Args) -> Self {
        const COLOURS: [AnsiColor; 5] =
            [AnsiColor::Cyan, AnsiColor::Yellow, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::Blue];
        let names = &args.names;
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
        let styled = |(name, colour): (&String, AnsiColor)| {
            let style = colour.on_default();
            format!("{style}{name:width$} |{style:#} ")
        };
        let names = names.iter().zip(COLOURS.into_iter().cycle()).filter(|_| names.len() > 1).map(styled).collect();
        Self { names, timed: args.timestamps, open: None }
    }

    /// Writes the bytes of one output: unchanged, but for the prefix of each line.
    fn put(&mut self, number: usize, line: &LogLine) -> Result<(), Stop> {
        let name = self.names.get(number).map_or("", String::as_str);
        if name.is_empty() && !self.timed {
            return Ok(put(line.source, &line.bytes)?);
        }
        let at = line.at.filter(|_| self.timed).and_then(|at| Timestamp::try_from(at).ok());
        let prefix = name.to_owned() + &at.map(|at| format!("{at:.9} ")).unwrap_or_default();
        for part in line.bytes.split_inclusive(|byte| *byte == b'\n') {
            let here = (number, line.source);
            if self.open != Some(here) {
                if let Some((_, source)) = self.open {
                    put(source, b"\n")?;
                }
                label(line.source, &prefix)?;
            }
            put(line.source, part)?;
            self.open = Some(here).filter(|_| !part.ends_with(b"\n"));
        }
        Ok(())
    }
}

/// Writes a prefix, in its colour where the output has colours.
fn label(source: LogSource, prefix: &str) -> io::Result<()> {
    match source {
        LogSource::Stderr => write!(anstream::stderr().lock(), "{prefix}"),
        _ => write!(anstream::stdout().lock(), "{prefix}"),
    }
}

/// Writes the bytes unchanged and flushes. A terminal gets them without escapes.
fn put(source: LogSource, bytes: &[u8]) -> io::Result<()> {
    match source {
        LogSource::Stderr => write(io::stderr(), bytes),
        _ => write(io::stdout(), bytes),
    }
}

fn write(mut out: impl Write + IsTerminal, bytes: &[u8]) -> io::Result<()> {
    if out.is_terminal() {
        out.write_all(&strip_bytes(bytes).into_vec())?;
    } else {
        out.write_all(bytes)?;
    }
    out.flush()
}
