//! [`run`]: parses the command line, runs the work, and returns the exit code.

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

use crate::{Stop, note, show::clean};

/// Exit code for a wrong option, and for a condition that the user must change first.
const REFUSED: u8 = 2;

/// Parses the options and runs the work until it ends, or until Ctrl-C, which is a regular end.
pub fn run<A: Parser>(work: impl AsyncFnOnce(A) -> Result<(), Stop>) -> ExitCode {
    let args = match A::try_parse() {
        Ok(args) => args,
        Err(help) if matches!(help.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let _ = help.print(); // `--help | head` is no failure
            return ExitCode::SUCCESS;
        }
        Err(error) => return refuse(&usage(&error.render().to_string())),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("no runtime for async tasks: {error}")),
    };
    // Ctrl-C drops the work, and with it the stream, its driver and its connections.
    let done = runtime.block_on(async {
        tokio::select! {
            done = work(args) => done,
            Ok(()) = tokio::signal::ctrl_c() => Ok(()),
        }
    });
    match done {
        Ok(()) | Err(Stop::Unread) => ExitCode::SUCCESS,
        Err(Stop::Refused(line)) => refuse(&line),
    }
}

fn refuse(line: &str) -> ExitCode {
    let bold = anstyle::AnsiColor::Red.on_default().bold();
    note(format_args!("{bold}error:{bold:#} {}", clean(line)));
    ExitCode::from(REFUSED)
}

/// clap's error, shortened to one line.
fn usage(rendered: &str) -> String {
    let mut lines = rendered.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let mut short = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    for line in lines {
        if let Some(tip) = line.strip_prefix("tip: ") {
            short.push_str("; ");
            short.push_str(tip);
        } else if short.ends_with(':') && line.starts_with('-') {
            short.push(' ');
            short.push_str(line); // the options that are missing
        }
    }
    short.push_str(" (--help shows all options)");
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_is_one_line_with_its_tip() {
        let long = "error: unexpected argument '--jsn' found\n\n  tip: a similar argument exists: '--json'\n\n\
                    Usage: watch --json\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage(long),
            "unexpected argument '--jsn' found; a similar argument exists: '--json' (--help shows all options)"
        );
    }
}
