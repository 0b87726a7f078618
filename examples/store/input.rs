//! Input of the commands: the lines of a session or of a script, and files.

use std::{io::BufRead, path::Path};

use runtide_examples::Stop;
use tokio::sync::mpsc;

/// Source of a session's lines.
pub(crate) enum Lines {
    Stdin(mpsc::Receiver<std::io::Result<String>>),
    Script(std::str::Lines<'static>),
}

impl Lines {
    /// Reads stdin on a thread that the program does not join, so that Ctrl-C ends it during a read.
    pub(crate) fn of_stdin() -> Self {
        let (send, receive) = mpsc::channel(1);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                if send.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Self::Stdin(receive)
    }

    pub(crate) fn script(text: &'static str) -> Self {
        Self::Script(text.lines())
    }

    pub(crate) async fn next(&mut self) -> Result<Option<String>, Stop> {
        match self {
            Self::Script(lines) => Ok(lines.next().map(str::to_owned)),
            Self::Stdin(lines) => {
                lines.recv().await.transpose().map_err(|error| Stop::refused(format_args!("stdin: {error}")))
            }
        }
    }

    /// The lines up to one of three dots, which is how a YAML document ends.
    pub(crate) async fn body(&mut self) -> Result<String, Stop> {
        let mut body = String::new();
        while let Some(line) = self.next().await?.filter(|line| line.trim_end() != "...") {
            body.push_str(&line);
            body.push('\n');
        }
        Ok(body)
    }
}

/// The refusal of a file that cannot be read or written.
pub(crate) fn unreadable(file: &Path, error: &std::io::Error) -> Stop {
    Stop::refused(format_args!("{}: {error}", file.display()))
}
