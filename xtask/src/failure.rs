//! Failure of a chore: one line, and an exit code.

use std::fmt;

pub(crate) type Outcome<T> = Result<T, Failure>;

/// One line for the person at the terminal, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    line: Option<String>,
    code: u8,
}

impl Failure {
    /// A check failed.
    pub(crate) fn failed(line: impl fmt::Display) -> Self {
        Self { line: Some(line.to_string()), code: 1 }
    }

    /// As `failed`, if the output has already named the finding.
    pub(crate) fn silent() -> Self {
        Self { line: None, code: 1 }
    }

    /// The chore cannot be done here, or its arguments are wrong.
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

/// Adds the action that failed to an error.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Outcome<T> {
        self.map_err(|error| Failure::failed(format_args!("{what}: {error}")))
    }
}
