//! A custom backend ([`folder`], under 100 lines), printed like `watch`:
//! `cargo run --example custom_backend`.

mod folder;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use runtide_core::{Completeness, InstanceFilter, ListOptions, RuntimeBackend, WatchOptions};
use runtide_examples::{Output, events, folder_churn, note, run};

/// Watch a folder: each file in it is an instance, and its text the state, as "running" or "stopped 0".
#[derive(Debug, Parser)]
#[command(name = "custom_backend")]
struct Args {
    /// The folder; without it, a temporary one whose files change
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

fn main() -> ExitCode {
    run(async |args: Args| {
        let own = tempfile::tempdir()?; // removed at the end
        let path = args.folder.clone().unwrap_or_else(|| own.path().to_owned());
        if args.folder.is_none() {
            folder_churn(&path)?;
        }
        let hint = format!("Try it: echo running > {}", path.join("me").display());
        let backend = folder::FolderBackend::new(path);
        backend.connect().await?;
        note(hint);
        if let Completeness::Partial(failures) = backend.list_instances(ListOptions::default()).await?.completeness {
            for failure in &failures {
                let file = failure.context.get("file").map_or("a file", String::as_str);
                note(format_args!("not shown: {file}: {}", failure.message));
            }
        }
        let stream = backend.watch(WatchOptions::default()).await?;
        events(stream, InstanceFilter::default(), &args.output).await
    })
}
