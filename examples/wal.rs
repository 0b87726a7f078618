//! Inspects a write-ahead log of any content: `cargo run --example wal -- --help`.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use runtide_core::wal::{
    Anchor, Corruption, ReadFrom, Seq, Verified, WalKey, WalOptions, WalReader, dump_with, salvage_with, verify_with,
};
use runtide_examples::{Progress, Stop, log_files, note, run};

/// Inspect a write-ahead log, also while it is written.
#[derive(Debug, Parser)]
#[command(name = "wal")]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// The file with the 32 bytes of the log's key, if it has one
    #[arg(long, global = true, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print every record as a line of JSON, and every corrupt range as one
    Dump {
        /// The log's directory
        dir: PathBuf,
        /// Begin with this record
        #[arg(long, value_name = "SEQ")]
        from: Option<u64>,
    },
    /// Print the last records as lines of JSON
    Tail {
        /// The log's directory
        dir: PathBuf,
        /// Number of records
        #[arg(short, default_value_t = 10)]
        n: u64,
    },
    /// Check every record, every commit and the chain through all of them
    Verify {
        /// The log's directory
        dir: PathBuf,
        /// An anchor that `stats` printed earlier: reveals a tail that was cut off or rewritten
        #[arg(long)]
        anchor: Option<Anchor>,
    },
    /// Print the log's counts and its present anchor
    Stats {
        /// The log's directory
        dir: PathBuf,
    },
    /// Copy the readable records of a corrupt log into a new one
    Salvage {
        /// The corrupt log's directory, which is not changed
        dir: PathBuf,
        /// The new log's directory
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    run(async |args: Args| {
        let key = args.key.as_deref().map(read_key).transpose()?;
        // The work reads and computes without waiting, so it runs on a blocking thread.
        let work = move || inspect(&args.command, key);
        tokio::task::spawn_blocking(work).await.map_err(Stop::refused)?
    })
}

fn read_key(file: &Path) -> Result<WalKey, Stop> {
    let bytes = fs::read(file).map_err(|error| Stop::refused(format_args!("{}: {error}", file.display())))?;
    let bytes = <[u8; 32]>::try_from(bytes);
    let length = |bytes: Vec<u8>| Stop::refused(format_args!("{}: {} bytes, not 32", file.display(), bytes.len()));
    bytes.map(WalKey::new).map_err(length)
}

fn inspect(command: &Command, key: Option<WalKey>) -> Result<(), Stop> {
    let progress = |dir: &Path, doing: &'static str| Progress::over(dir, doing);
    let options = |progress: &Progress| WalOptions::default().with_key(key.clone()).with_disk(progress.disk());
    match command {
        Command::Dump { dir, from } => {
            let from = from.map_or(ReadFrom::Start, |seq| ReadFrom::Seq(Seq(seq)));
            print(dir, from, &options(&progress(dir, "dumping")))
        }
        Command::Tail { dir, n } => {
            let quiet = WalOptions::default().with_key(key);
            let end = WalReader::open(dir, ReadFrom::End, quiet.clone())?.next_seq();
            let first = WalReader::open(dir, ReadFrom::Start, quiet.clone())?.next_seq();
            print(dir, ReadFrom::Seq(Seq(end.0.saturating_sub(*n)).max(first)), &quiet)
        }
        Command::Verify { dir, anchor } => {
            let progress = progress(dir, "verifying");
            let verified = verify_with(dir, anchor.as_ref(), &options(&progress))?;
            progress.done();
            verdict(&verified, anchor.is_some())
        }
        Command::Stats { dir } => {
            let progress = progress(dir, "reading");
            let verified = verify_with(dir, None, &options(&progress))?;
            progress.done();
            stats(dir, &verified)
        }
        Command::Salvage { dir, out } => {
            let progress = progress(dir, "salvaging");
            let report = salvage_with(dir, out, &options(&progress))?;
            progress.done();
            for lost in &report.lost {
                note(format_args!("lost: {lost}"));
            }
            if report.foreign > 0 {
                note(format_args!("left out: {} records that do not belong to what the log is for", report.foreign));
            }
            print_text(&format!(
                "{} records in {}, {} ranges lost\n",
                report.recovered,
                out.display(),
                report.lost.len()
            ))
        }
    }
}

fn print(dir: &Path, from: ReadFrom, options: &WalOptions) -> Result<(), Stop> {
    let mut out = io::stdout().lock();
    match dump_with(dir, from, &mut out, options) {
        Ok(_) => Ok(()),
        // The output has no reader any more (`| head`), which is a regular end.
        Err(error) if unread(&error) => Err(Stop::Unread),
        Err(error) => Err(error.into()),
    }
}

fn unread(error: &runtide_core::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints the result; a fault is on stderr and in the exit code.
fn verdict(verified: &Verified, wanted: bool) -> Result<(), Stop> {
    let Verified { records, commits, segments, .. } = verified;
    print_text(&format!("{records} records in {commits} commits and {segments} segments\n"))?;
    if let Some(torn) = &verified.torn {
        note(format_args!("unfinished tail, which the next opening cuts: {torn}"));
    }
    if let Some(corruption) = &verified.corruption {
        return Err(Stop::refused(format_args!("corrupt: {corruption}; `wal salvage` copies the readable records")));
    }
    match (wanted, verified.anchored) {
        (true, false) => Err(Stop::refused("the anchor is not in this log: its tail was cut off or rewritten")),
        (true, true) => print_text("sound, and the anchor is in it\n"),
        _ => print_text("sound; only an anchor reveals a tail that was cut off\n"),
    }
}

fn stats(dir: &Path, verified: &Verified) -> Result<(), Stop> {
    let sizes = log_files(dir).map_err(|error| Stop::refused(format_args!("{}: {error}", dir.display())))?;
    let (files, bytes) = (sizes.len(), sizes.iter().sum::<u64>());
    let mut text = String::new();
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "{what:<10}{value}");
    };
    line("records", format!("{} (from {})", verified.records, verified.first));
    line("commits", verified.commits.to_string());
    line("segments", format!("{files} files, {bytes} bytes"));
    if let Some(head) = &verified.head {
        line("anchor", head.to_string());
    }
    let whole = |found: &Option<Corruption>| found.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    line("corruption", whole(&verified.corruption));
    line("torn tail", whole(&verified.torn));
    print_text(&text)
}

fn print_text(text: &str) -> Result<(), Stop> {
    Ok(io::Write::write_all(&mut io::stdout(), text.as_bytes())?)
}
