//! [`Session`]: commands from stdin, one per line.

use std::io::{IsTerminal, Write};

use clap::Parser;
use runtide_examples::{Stop, note, parse};

use crate::{address::Store, command::Command, input::Lines};

/// A line, as clap reads it.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, disable_help_flag = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

pub(crate) struct Session<'a> {
    store: &'a Store,
    lines: Lines,
    aloud: bool,
    /// The lines come from a terminal: a mistake does not end the session.
    typed: bool,
}

impl<'a> Session<'a> {
    pub(crate) fn new(store: &'a Store, lines: Lines) -> Self {
        let typed = matches!(lines, Lines::Stdin(_)) && std::io::stdin().is_terminal();
        Self { store, lines, aloud: false, typed }
    }

    /// Prints each command before it is carried out.
    pub(crate) fn aloud(mut self) -> Self {
        self.aloud = true;
        self
    }

    /// Carries out every line. The first mistake ends the session, unless the lines come from a terminal.
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
            let done = match parse::<Line>(words.into_iter().map(Into::into)) {
                Ok(line) => line.command.perform(self.store, Some(&mut self.lines)).await,
                Err(Ok(help)) => {
                    write!(std::io::stdout(), "{}", help.render())?;
                    Ok(())
                }
                Err(Err(line)) => Err(Stop::refused(line)),
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

/// Splits a line at blanks; a quoted blank is part of its word. A comment begins with `#`.
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
