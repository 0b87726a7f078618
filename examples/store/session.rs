//! Commands from stdin, one per line.

use std::io::{BufRead, IsTerminal, Write};

use clap::Parser;
use runtide_core::store::StoreBackend;
use runtide_examples::{Stop, note};
use tokio::sync::mpsc;

use crate::command::Command;

/// What a session's lines come from.
pub(crate) enum Lines {
    Stdin(mpsc::Receiver<std::io::Result<String>>),
    Script(std::str::Lines<'static>),
}

impl Lines {
    /// Read on a thread that nobody waits for: Ctrl-C ends the program while it reads.
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

    async fn next(&mut self) -> Result<Option<String>, Stop> {
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

/// A line, as clap reads it.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, disable_help_flag = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

pub(crate) struct Session<'a> {
    store: &'a dyn StoreBackend,
    lines: Lines,
    aloud: bool,
    /// Somebody types: a mistake does not end it.
    typed: bool,
}

impl<'a> Session<'a> {
    pub(crate) fn new(store: &'a dyn StoreBackend, lines: Lines) -> Self {
        let typed = matches!(lines, Lines::Stdin(_)) && std::io::stdin().is_terminal();
        Self { store, lines, aloud: false, typed }
    }

    /// Prints each command before it is done.
    pub(crate) fn aloud(mut self) -> Self {
        self.aloud = true;
        self
    }

    /// Until the lines end; unless somebody types them, the first mistake ends it.
    pub(crate) async fn run(mut self) -> Result<(), Stop> {
        if self.typed {
            note(format_args!(
                "{}: apply, get, list, delete, watch, snapshot, restore, stats; help; Ctrl-D ends it",
                self.store.name()
            ));
        }
        while let Some(line) = self.next().await? {
            let words = words(&line);
            if words.is_empty() {
                continue;
            }
            if self.aloud {
                writeln!(std::io::stdout(), "> {line}")?;
            }
            let done = match Line::try_parse_from(words) {
                Ok(line) => line.command.perform(self.store, Some(&mut self.lines)).await,
                Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
                    write!(std::io::stdout(), "{}", error.render())?;
                    Ok(())
                }
                Err(error) => {
                    let text = error.render().to_string();
                    let first = text.lines().next().unwrap_or_default();
                    Err(Stop::refused(first.strip_prefix("error: ").unwrap_or(first)))
                }
            };
            match done {
                Err(Stop::Refused(why)) if self.typed => note(why),
                done => done?,
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<String>, Stop> {
        if self.typed {
            let mut out = std::io::stdout();
            write!(out, "> ")?;
            out.flush()?;
        }
        self.lines.next().await
    }
}

/// Words with blanks between them; in quotes, a blank is part of one. A comment begins with `#`.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for char in line.chars() {
        match (char, quote) {
            (char, Some(open)) if char == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => break,
            (char, None) if char.is_whitespace() => words.extend(word.take()),
            (char, _) => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}
