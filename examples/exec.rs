//! Runs a command inside an instance: `cargo run --example exec -- --help`.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
};

use clap::Parser;
use runtide_core::{
    ExitCause, RuntimeBackendExt,
    manager::{ByteWriter, ExecOptions, ExecSession, LogLine, LogSource, TtySize},
};
use runtide_examples::{Stop, Target, Terminal, choose, find, run};
use tokio::{io::AsyncWriteExt, sync::mpsc};

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
    /// A variable for the command's environment; several: all of them
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = variable)]
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
    run(async |args: Args| {
        let options = args.options()?;
        let backend = choose(&args.target).await?;
        let instance = find(&*backend, &args.name).await??;
        let exec = backend.exec().ok_or_else(|| backend.unsupported("exec_run"))?;
        if args.detach {
            exec.exec_detached(&instance.id, options).await?;
            return Ok(());
        }
        let session = exec.exec(&instance.id, options).await?;
        let terminal = if args.tty && args.stdin { Some(Terminal::raw()?) } else { None };
        follow(session, terminal).await
    })
}

impl Args {
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

/// Passes everything on, in both directions, to the end.
async fn follow(session: ExecSession, mut terminal: Option<Terminal>) -> Result<(), Stop> {
    let ExecSession { stdin, mut output, control } = session;
    if let Some(stdin) = stdin {
        tokio::spawn(feed(stdin));
    }
    loop {
        tokio::select! {
            line = output.next() => match line {
                Some(line) => put(&line?)?,
                None => break,
            },
            size = resized(terminal.as_mut()) => if let Some(size) = size {
                // It may end at this very moment, which its output shows.
                let _ = control.resize(size).await;
            },
        }
    }
    drop(terminal);
    let exit = control.wait().await?;
    match exit.map(|exit| exit.end) {
        Some(ExitCause::Code(0)) => Ok(()),
        Some(ExitCause::Code(code)) => Err(Stop::Exit(u8::try_from(code).unwrap_or(u8::MAX))),
        Some(ExitCause::Signal(signal)) => Err(Stop::Exit(128_u8.saturating_add(signal.number()))),
        _ => Err(Stop::refused("how the command ended is not known")),
    }
}

async fn resized(terminal: Option<&mut Terminal>) -> Option<TtySize> {
    match terminal {
        Some(terminal) => terminal.resized().await,
        None => std::future::pending().await,
    }
}

/// Writes the bytes unchanged and flushes: the command may draw on the terminal.
fn put(line: &LogLine) -> io::Result<()> {
    let mut out: Box<dyn Write> = match line.source {
        LogSource::Stderr => Box::new(io::stderr().lock()),
        _ => Box::new(io::stdout().lock()),
    };
    out.write_all(&line.bytes)?;
    out.flush()
}

/// Passes stdin on, to its end. A thread reads it: a read of tokio's own would hold the end of the program back until the next key.
async fn feed(mut stdin: ByteWriter) {
    let (keys, mut read) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut chunk = vec![0; 32 << 10];
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut chunk) {
            let chunk = chunk.get(..count).unwrap_or_default().to_vec();
            if keys.blocking_send(chunk).is_err() {
                return;
            }
        }
    });
    while let Some(chunk) = read.recv().await {
        // A command that has ended, or closed its input, takes no more.
        if stdin.write_all(&chunk).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
    let _ = stdin.shutdown().await;
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
