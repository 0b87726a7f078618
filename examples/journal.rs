//! Watches a runtime into a folder, and resumes where it ended: `cargo run --example journal -- --help`.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use runtide_core::wal::{self, Anchor};
use runtide_examples::{Output, Stop, Target, Wanted, choose_or_script, events_after, note, run};
use runtide_journal::{JournalOptions, RuntimeJournal};

/// Store events in a folder: killed and started again, it resumes where it ended, and shows the missed events.
#[derive(Debug, Parser)]
#[command(name = "journal")]
struct Args {
    /// The folder of the journal; created if it is missing
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// Only verify the journal, against the anchor that an earlier run printed
    #[arg(long, value_name = "ANCHOR")]
    verify: Option<Anchor>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    output: Output,
}

fn main() -> ExitCode {
    run(async |args: Args| {
        if let Some(anchor) = &args.verify {
            return verify(&args.dir, anchor);
        }
        let backend = choose_or_script(&args.target).await?;
        let journal = RuntimeJournal::open(&args.dir, JournalOptions::default())?;
        let known = journal.table();
        match journal.cursor(backend.id()) {
            Some(_) => note(format_args!("{} instances were known; the events since come first", known.len())),
            None => note("The journal has no event of this runtime yet."),
        }
        if let Some(repair) = journal.repaired() {
            note(format_args!("an unfinished end was cut off; a copy lies in {}", repair.copy.display()));
        }
        let stream = journal.watch(backend, args.wanted.watch_options()).await?;
        note(format_args!("Store this elsewhere, for --verify: {}", journal.anchor()));
        events_after(known, stream, args.wanted.filter(), &args.output).await?;
        note(format_args!("And at the end: {}", journal.anchor()));
        Ok(journal.close()?)
    })
}

fn verify(dir: &Path, anchor: &Anchor) -> Result<(), Stop> {
    let found = wal::verify(dir, Some(anchor), None)?;
    if let Some(corruption) = &found.corruption {
        return Err(Stop::refused(format_args!("the journal is corrupt: {corruption:?}")));
    }
    if !found.anchored {
        return Err(Stop::refused("the journal does not contain the anchor: its end was cut off or rewritten"));
    }
    let Some(head) = found.head else { return Err(Stop::refused("the journal is empty")) };
    writeln!(
        io::stdout(),
        "{} records in {} commits, anchored at {}\n{head}",
        found.records,
        found.commits,
        anchor.seq
    )?;
    Ok(())
}
