//! [`run`] and [`run_undone`]: parse the command line, run the work, and return the exit code.

use std::{ffi::OsString, process::ExitCode};

use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::{Stop, note, show::clean};

/// Exit code for a wrong option, and for a condition that the user must change first.
const REFUSED: u8 = 2;

/// Most columns of a help text; fewer on a terminal that has fewer.
const HELP_WIDTH: usize = 80;

/// Parses the words of a command line.
///
/// # Errors
/// `Err(Ok(text))`: help or a version was asked for. `Err(Err(line))`: the words are wrong; one line that says how.
pub fn parse<A: Parser>(words: impl IntoIterator<Item = OsString>) -> Result<A, Result<clap::Error, String>> {
    let mut command = A::command().max_term_width(HELP_WIDTH);
    let error = match command.try_get_matches_from_mut(words) {
        Ok(matches) => match A::from_arg_matches(&matches) {
            Ok(args) => return Ok(args),
            Err(error) => error.format(&mut command),
        },
        Err(error) => error,
    };
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Err(Ok(error));
    }
    Err(Err(usage(&command, &error)))
}

/// Parses the options and runs the work until it ends, or until Ctrl-C or SIGTERM, which are regular ends.
pub fn run<A: Parser>(work: impl AsyncFnOnce(A) -> Result<(), Stop>) -> ExitCode {
    // Ctrl-C drops the work, and with it the stream, its driver and its connections.
    run_undone(async |args, mut interrupts| {
        tokio::select! {
            done = work(args) => done,
            Some(()) = interrupts.recv() => Ok(()),
        }
    })
}

/// Parses the options and runs the work until it ends. It gets each Ctrl-C and each SIGTERM, and has the time to undo what it
/// did.
pub fn run_undone<A: Parser>(work: impl AsyncFnOnce(A, Receiver<()>) -> Result<(), Stop>) -> ExitCode {
    let args = match parse(std::env::args_os()) {
        Ok(args) => args,
        Err(Ok(help)) => {
            let _ = help.print(); // `--help | head` is no failure
            return ExitCode::SUCCESS;
        }
        Err(Err(line)) => return refuse(&format!("{line} (--help shows all options)")),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("no runtime for async tasks: {error}")),
    };
    let (tell, interrupts) = channel(8);
    runtime.spawn(tell_each(tell));
    match runtime.block_on(work(args, interrupts)) {
        Ok(()) | Err(Stop::Unread) => ExitCode::SUCCESS,
        Err(Stop::Exit(code)) => ExitCode::from(code),
        Err(Stop::Refused(line)) => refuse(&line),
    }
}

/// Tells each Ctrl-C, and each SIGTERM, with which a service manager or a shell's `kill` asks for the end.
#[cfg(unix)]
async fn tell_each(tell: Sender<()>) {
    use tokio::signal::unix::{SignalKind, signal};
    // Without a handler, a signal ends the program at once.
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    loop {
        tokio::select! {
            Some(()) = interrupt.recv() => {}
            Some(()) = terminate.recv() => {}
            else => return,
        }
        if tell.send(()).await.is_err() {
            return;
        }
    }
}

/// Tells each Ctrl-C.
#[cfg(not(unix))]
async fn tell_each(tell: Sender<()>) {
    while tokio::signal::ctrl_c().await.is_ok() && tell.send(()).await.is_ok() {}
}

fn refuse(line: &str) -> ExitCode {
    let bold = anstyle::AnsiColor::Red.on_default().bold();
    note(format_args!("{bold}error:{bold:#} {}", clean(line)));
    ExitCode::from(REFUSED)
}

/// clap's error in one line, with everything that it lists below that line.
fn usage(command: &clap::Command, error: &clap::Error) -> String {
    if matches!(error.kind(), ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
        let of = last_named(command, error);
        let names: Vec<&str> =
            of.get_subcommands().map(clap::Command::get_name).filter(|name| *name != "help").collect();
        return format!("a command is missing: expected one of {}", names.join(", "));
    }
    let missing = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(missing)) if error.kind() == ErrorKind::MissingRequiredArgument => {
            missing.join(", ")
        }
        _ => String::new(),
    };
    if !missing.is_empty() {
        return format!("missing: {missing}");
    }
    let rendered = error.render().to_string();
    // clap's own advice on --help is left out: the caller's line has it.
    let is_said = |line: &&str| !line.is_empty() && !line.starts_with("For more information");
    let mut lines = rendered.lines().map(str::trim).filter(is_said);
    let first = lines.next().unwrap_or_default();
    let mut short = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    for line in lines.take_while(|line| !line.starts_with("Usage:")) {
        let tip = line.strip_prefix("tip: ").map(|tip| format!("; {tip}"));
        let below = tip.unwrap_or_else(|| format!(" {line}"));
        short.push_str(&below); // what may stand there, or what else is in conflict
    }
    short
}

/// The command whose own command is missing: the error names the program and the commands up to it.
fn last_named<'a>(command: &'a clap::Command, error: &clap::Error) -> &'a clap::Command {
    let named = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(named)) => named.split(' ').next_back().unwrap_or_default(),
        _ => "",
    };
    command.find_subcommand(named).unwrap_or(command)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "demo", about = "A description")]
    struct Demo {
        #[command(subcommand)]
        command: Sub,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Sub {
        Copy {
            from: PathBuf,
            #[arg(long)]
            to: PathBuf,
            #[arg(long, conflicts_with = "quiet")]
            json: bool,
            #[arg(long)]
            quiet: bool,
        },
        Count {
            times: u32,
        },
        List,
    }

    fn line(words: &[&str]) -> String {
        let words = ["demo"].iter().chain(words).map(OsString::from);
        match parse::<Demo>(words) {
            Err(Err(line)) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_usage_error_is_one_line_with_its_names_and_its_tip() {
        assert_eq!(line(&[]), "a command is missing: expected one of copy, count, list");
        assert_eq!(line(&["copy"]), "missing: --to <TO>, <FROM>");
        assert_eq!(line(&["copy", "a"]), "missing: --to <TO>");
        assert_eq!(line(&["copi"]), "unrecognized subcommand 'copi'; a similar subcommand exists: 'copy'");
        let unknown = line(&["copy", "a", "--too", "b"]);
        assert_eq!(unknown, "unexpected argument '--too' found; a similar argument exists: '--to'");
        let conflict = line(&["copy", "a", "--to", "b", "--json", "--quiet"]);
        assert!(conflict.contains("--json") && conflict.contains("--quiet"), "{conflict}");
        let wrong = line(&["count", "x"]);
        assert_eq!(wrong, "invalid value 'x' for '<TIMES>': invalid digit found in string");
        for words in [&["copy", "a", "--to"][..], &["list", "x"], &["copy", "a", "--to", "b", "--json=1"]] {
            let line = line(words);
            assert!(!line.contains('\n') && !line.contains("Usage") && !line.contains("description"), "{line}");
        }
    }
}
