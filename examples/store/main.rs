//! Declares resources in a store: `cargo run --example store -- --help`.

mod apply;
mod command;
mod difference;
mod naming;
mod place;
mod session;
mod show;

use std::process::ExitCode;

use clap::Parser;
use runtide_examples::{note, run};

use self::{
    command::Command,
    place::{Place, Units},
    session::{Lines, Session},
};

/// Declare resources, look at them, and watch them change.
///
/// Without a command it reads commands from stdin, one per line, as they are written here: a store in memory is gone with the
/// process, and this way lives for more than one. `apply -` then takes the lines up to one of three dots.
#[derive(Debug, Parser)]
#[command(name = "store")]
struct Args {
    /// The store: memory, dir:PATH (a folder, made if it is not there), etcd:HOST:PORT or systemd:PATH (the unit files of
    /// a folder, as systemd sees it)
    #[arg(long, value_name = "STORE", default_value = "memory")]
    store: Place,
    #[command(flatten)]
    units: Units,
    #[command(subcommand)]
    command: Option<Command>,
}

fn main() -> ExitCode {
    run(async |args: Args| {
        let store = args.store.open(&args.units).await?;
        match args.command {
            None => Session::new(&*store, Lines::of_stdin()).run().await,
            Some(Command::Demo) => Session::new(&*store, Lines::script(DEMO)).aloud().run().await,
            Some(command) => {
                if matches!(args.store, Place::Memory) {
                    note("A store in memory ends with this command; without one, commands are read from stdin.");
                }
                command.perform(&*store, None).await
            }
        }
    })
}

/// What `demo` does: a session as one would type it.
const DEMO: &str = include_str!("demo.txt");
