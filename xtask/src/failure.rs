//! How a chore ends when it does not end well: one line, and an exit code.

use std::fmt;

pub(crate) type Outcome<T> = Result<T, Failure>;

/// One line for the person at the terminal, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    line: Option<String>,
    code: u8,
}

impl Failure {
    /// Something that was checked does not hold.
    pub(crate) fn failed(line: impl fmt::Display) -> Self {
        Self { line: Some(line.to_string()), code: 1 }
    }

    /// As `failed`, where the output has already said what.
    pub(crate) fn silent() -> Self {
        Self { line: None, code: 1 }
    }

    /// The chore cannot be done here, or was asked for wrongly.
    pub(crate) fn refused(line: impl fmt::Display) -> Self {
        Self { line: Some(line.to_string()), code: 2 }
    }

    pub(crate) fn interrupted() -> Self {
        Self { line: Some("interrupted".to_owned()), code: 130 }
    }

    pub(crate) fn line(&self) -> Option<&str> {
        self.line.as_deref()
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.line().unwrap_or("failed"))
    }
}

/// Says what was being done when it went wrong.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Outcome<T> {
        self.map_err(|error| Failure::failed(format_args!("{what}: {error}")))
    }
}
