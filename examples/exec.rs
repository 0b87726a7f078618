//! Runs a command inside an instance: `cargo run --example exec -- --help`.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Parser;
use runtide_core::{RuntimeBackendExt, manager::ExecOptions};
use runtide_examples::{Stop, Target, Terminal, choose, find, follow, run_undone, variable};

/// Exit code after Ctrl-C, as a shell has it: the command goes on, and how it ends is not known.
const INTERRUPTED: u8 = 130;

/// Run a command inside an instance that runs, and end with its exit code.
///
/// Interactively, with this terminal: exec -it NAME sh
#[derive(Debug, Parser)]
#[command(name = "exec")]
struct Args {
    #[command(flatten)]
    target: Target,
    /// Pass stdin on to the command
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Run the command with a terminal, of the size of this one
    #[arg(short, long)]
    tty: bool,
    /// Leave the command running, without its output
    #[arg(short, long, conflicts_with_all = ["stdin", "tty"])]
    detach: bool,
    /// A variable for the command's environment, KEY alone for the value that it has here; several: all of them
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The user to run it as, and optionally the group, as USER:GROUP
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The folder to run it in
    #[arg(short, long, value_name = "FOLDER")]
    workdir: Option<String>,
    /// The instance's name, or its id, as ps shows them
    name: String,
    /// The command and its arguments, as they are: no shell reads them
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    run_undone(async |args: Args, mut interrupts| {
        tokio::select! {
            end = args.exec() => end,
            Some(()) = interrupts.recv() => Err(Stop::Exit(INTERRUPTED)),
        }
    })
}

impl Args {
    async fn exec(&self) -> Result<(), Stop> {
        let options = self.options()?;
        let backend = choose(&self.target).await?;
        let instance = find(&*backend, &self.name).await??;
        let exec = backend.exec().ok_or_else(|| backend.unsupported("exec_run"))?;
        if self.detach {
            exec.exec_detached(&instance.id, options).await?;
            return Ok(());
        }
        let session = exec.exec(&instance.id, options).await?;
        let terminal = if self.tty && self.stdin { Some(Terminal::raw()?) } else { None };
        follow(session, terminal).await
    }

    fn options(&self) -> Result<ExecOptions, Stop> {
        let mut options = ExecOptions::default()
            .with_argv(self.command.clone())
            .with_env(self.env.iter().cloned().collect::<BTreeMap<_, _>>())
            .with_user(self.user.clone())
            .with_working_dir(self.workdir.clone());
        options.stdin = self.stdin;
        if self.tty {
            if self.stdin && !io::stdin().is_terminal() {
                return Err(Stop::refused("-t takes the keys of a terminal, and stdin is none: leave -t or -i out"));
            }
            let size =
                Terminal::size().ok_or_else(|| Stop::refused("-t takes the size of a terminal, and there is none"))?;
            options.tty = Some(size);
        }
        Ok(options)
    }
}
