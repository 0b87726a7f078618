//! Lists what is there now: `cargo run --example ps -- --help`.

use std::process::ExitCode;

use clap::Parser;
use runtide_core::{Completeness, InstanceState};
use runtide_examples::{Place, Stop, Wanted, choose, instances, note, run};

/// List what is there now. Unknown is shown as -, known to be none as a blank.
#[derive(Debug, Parser)]
#[command(name = "ps")]
struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    wanted: Wanted,
    /// Also what does not run: created, stopped, failed
    #[arg(short, long)]
    all: bool,
    /// An array in JSON, one instance per line
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    run(async |args: Args| {
        let backend = choose(&args.place).await?;
        let snapshot = backend.list_instances(args.wanted.list_options()).await?;
        let mut shown = snapshot.instances;
        let found = shown.len();
        shown.retain(|instance| args.all || runs(instance.state));
        shown.sort_by(|one, other| one.name.cmp(&other.name));
        instances(&shown, args.json)?;
        if shown.is_empty() && found > 0 && !args.json {
            note(format_args!("nothing runs; --all shows what does not"));
        }
        match snapshot.completeness {
            Completeness::Partial(failures) => {
                let first = failures.first().map(ToString::to_string).unwrap_or_default();
                Err(Stop::refused(format_args!("this is not all, {} could not be read: {first}", failures.len())))
            }
            _ => Ok(()),
        }
    })
}

/// Also what comes up, goes down, or waits to be started again.
fn runs(state: InstanceState) -> bool {
    !matches!(state, InstanceState::Created | InstanceState::Stopped | InstanceState::Failed)
}
