//! [`Stop`]: the reason for which an example ends early.

use std::{
    fmt::{self, Write as _},
    io,
};

use runtide_core::Error;

/// The reason for which an example ends early.
#[derive(Debug)]
pub enum Stop {
    /// It cannot continue; one line with advice. Exit code 2.
    Refused(String),
    /// The output has no reader any more (`| head`), which is a regular end. Exit code 0.
    Unread,
    /// The program that it ran elsewhere ended with this code, which is passed on.
    Exit(u8),
}

impl Stop {
    /// A refusal of one line, with advice.
    pub fn refused(line: impl fmt::Display) -> Self {
        Self::Refused(crate::show::clean(&line.to_string()))
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::refused(format_args!("the output cannot be written: {error}")),
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::refused(format_args!("{error:#}"))
    }
}

/// The message, the context and the innermost cause, for a line that begins with the address. Backend and endpoint are left out:
/// the user has them in that line.
pub(crate) fn describe(error: &Error) -> String {
    let mut line = error.message().to_owned();
    let facts = error.context().iter().filter(|(key, _)| !matches!(&**key, "backend" | "endpoint"));
    let facts: Vec<String> = facts.map(|(key, value)| format!("{key} {value}")).collect();
    if !facts.is_empty() {
        let _ = write!(line, " ({})", facts.join(", "));
    }
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause.and_then(std::error::Error::source) {
        cause = Some(next);
    }
    if let Some(cause) = cause {
        let _ = write!(line, ": {cause}");
    }
    line
}

#[cfg(test)]
mod tests {
    use runtide_core::ErrorKind;

    use super::*;

    #[test]
    fn a_refusal_is_one_line() {
        let error = Error::new(ErrorKind::Protocol, "x.list", "two\nlines").with_context("path", "/x");
        let Stop::Refused(line) = Stop::from(error) else { panic!("refused") };
        assert!(!line.contains('\n') && line.ends_with("(path=/x)"), "{line}");
        let error = Error::new(ErrorKind::Unavailable, "x.list", "no answer").with_source(io::Error::other("refused"));
        let Stop::Refused(line) = Stop::from(error) else { panic!("refused") };
        assert_eq!(line, "x.list: unavailable: no answer: refused", "with its cause");
    }

    #[test]
    fn a_closed_pipe_is_not_an_error() {
        assert!(matches!(Stop::from(io::Error::from(io::ErrorKind::BrokenPipe)), Stop::Unread));
        assert!(matches!(Stop::from(io::Error::from(io::ErrorKind::StorageFull)), Stop::Refused(_)));
    }
}
