//! Declares resources in a store: `cargo run --example store -- --help`.

mod address;
mod apply;
mod command;
mod difference;
mod input;
mod naming;
mod parse;
mod session;
mod show;

use std::process::ExitCode;

use clap::Parser;
use runtide_examples::{Stop, note, run};

use self::{
    address::{Address, Store, Units},
    command::Command,
    input::Lines,
    session::Session,
};

/// Declare resources, list them, and watch them change.
///
/// Without a command it reads commands from stdin, one per line, in the same form: a store in memory ends with the
/// process, and this way serves more than one command. `apply -` then takes the lines up to one of three dots.
#[derive(Debug, Parser)]
#[command(name = "store")]
struct Args {
    #[arg(long, value_name = "STORE", default_value = "memory", help = address::help())]
    store: Address,
    #[command(flatten)]
    units: Units,
    #[command(subcommand)]
    command: Option<Command>,
}

fn main() -> ExitCode {
    run(async |args: Args| {
        let store = args.store.open(&args.units).await?;
        match args.command {
            None => Session::new(&store, Lines::of_stdin()).run().await,
            Some(Command::Demo) => {
                refuse_unless_empty(&store).await?;
                Session::new(&store, Lines::script(DEMO)).aloud().run().await
            }
            Some(command) => {
                if matches!(args.store, Address::Memory) {
                    note("A store in memory ends with this command; without one, commands are read from stdin.");
                }
                command.perform(&store, None).await
            }
        }
    })
}

/// The demo replaces and deletes resources: none of them may be a user's.
async fn refuse_unless_empty(store: &Store) -> Result<(), Stop> {
    match store.stats().await?.resource_count {
        0 => Ok(()),
        count => Err(Stop::refused(format_args!(
            "the demo replaces and deletes resources, and this store has {count}: give it an empty store, or none, for one \
             in memory"
        ))),
    }
}

/// The lines of `demo`, as a user would type them.
const DEMO: &str = include_str!("demo.txt");
