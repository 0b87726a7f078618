//! Lists the present instances: `cargo run --example ps -- --help`.

use std::process::ExitCode;

use clap::Parser;
use runtide_core::{Completeness, InstanceState};
use runtide_examples::{Stop, Target, Wanted, choose, instances, note, run};

/// List the present instances. An unknown field is shown as -, an empty one as a blank.
#[derive(Debug, Parser)]
#[command(name = "ps")]
struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    wanted: Wanted,
    /// Also instances that do not run: created, stopped, failed
    #[arg(short, long)]
    all: bool,
    /// An array in JSON, one instance per line
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    run(async |args: Args| {
        let backend = choose(&args.target).await?;
        let listing = backend.list_instances(args.wanted.list_options()).await?;
        let mut shown = listing.instances;
        let found = shown.len();
        shown.retain(|instance| args.all || runs(instance.state));
        shown.sort_by(|one, other| one.name.cmp(&other.name));
        instances(&shown, args.json)?;
        if shown.is_empty() && found > 0 && !args.json {
            note(format_args!("no instance runs; --all shows the others"));
        }
        match listing.completeness {
            Completeness::Partial(failures) => {
                let first = failures.first().map(ToString::to_string).unwrap_or_default();
                Err(Stop::refused(format_args!(
                    "the list is incomplete, {} could not be read: {first}",
                    failures.len()
                )))
            }
            _ => Ok(()),
        }
    })
}

/// `true` also for an instance that starts, stops, or waits for its restart.
fn runs(state: InstanceState) -> bool {
    !matches!(state, InstanceState::Created | InstanceState::Stopped | InstanceState::Failed)
}
