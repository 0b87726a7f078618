//! Errors: [`Error`], its [`ErrorKind`] and its [`Retry`].

use std::{collections::BTreeMap, error::Error as StdError, fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// Result of every fallible call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error of one operation: its kind, its context, and the chance that the same call succeeds later.
///
/// One pointer wide. `Display` is one line, `Debug` many; no credential is ever in either, nor in the context.
///
/// ```
/// use runtide_core::{Error, ErrorKind, Retry};
///
/// let error = Error::new(ErrorKind::Unavailable, "docker.list", "the daemon does not answer")
///     .with_context("backend", "docker:local");
/// assert_eq!(error.to_string(), "docker.list: unavailable: the daemon does not answer (backend=docker:local)");
/// assert_eq!(error.retry(), Retry::Backoff);
/// ```
pub struct Error(Box<Repr>);

struct Repr {
    kind: ErrorKind,
    retry: Retry,
    operation: &'static str,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Chance that the same call succeeds later though the caller changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// The call fails again until the caller or the runtime changes something.
    Never,
    /// The call may succeed after a growing pause.
    Backoff,
    /// The call may succeed after this time, which the runtime itself named.
    After(Duration),
    /// Nothing listens at the address, so the call reached no daemon and cost none any work. It may succeed as soon as one
    /// listens: repeat it at this constant interval, for as long as it takes. A watch keeps the interval between 10 ms and 1 s,
    /// and counts no such attempt as a failure. [`poll_interval`](crate::backend::poll_interval) gives this advice for the
    /// error of a socket.
    Poll(Duration),
}

/// Kind of an error, for callers to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The runtime reported that the object does not exist.
    NotFound,
    /// An object of that name exists already.
    AlreadyExists,
    /// The object's present state, or a precondition, forbids the call.
    Conflict,
    /// This backend, or this server, has no such ability; the context names the feature, the backend and the reason.
    Unsupported,
    /// The caller's input is wrong, and nothing was sent.
    InvalidInput,
    /// The caller is known and may not do this.
    PermissionDenied,
    /// The caller is not known: credentials are missing or wrong.
    Unauthenticated,
    /// The runtime cannot be reached, or reports that it is not ready. [`Retry::Poll`] says that nothing listens there.
    Unavailable,
    /// A deadline passed: the outcome is unknown.
    Timeout,
    /// The runtime asks for fewer calls.
    RateLimited,
    /// A position is no longer in the history: start over from a listing.
    Expired,
    /// The runtime's answer makes no sense.
    Protocol,
    /// Stored bytes are corrupt.
    Corrupt,
    /// The backend was closed.
    Cancelled,
    /// Anything else.
    Unexpected,
}

impl ErrorKind {
    /// The kind as it is written in JSON and in `Display`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::Unsupported => "unsupported",
            Self::InvalidInput => "invalid_input",
            Self::PermissionDenied => "permission_denied",
            Self::Unauthenticated => "unauthenticated",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::Expired => "expired",
            Self::Protocol => "protocol",
            Self::Corrupt => "corrupt",
            Self::Cancelled => "cancelled",
            Self::Unexpected => "unexpected",
        }
    }

    /// The retry that the kind implies when nothing more is known.
    fn retry(self) -> Retry {
        match self {
            Self::Unavailable | Self::Timeout | Self::RateLimited | Self::Protocol => Retry::Backoff,
            _ => Retry::Never,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error {
    /// An error of `kind` in `operation` (`"docker.list"`), with one line for people.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Repr { kind, retry: kind.retry(), operation, message, context: Vec::new(), source: None }))
    }

    /// Adds a fact. Keys are a small fixed vocabulary: `backend`, `instance`, `feature`, `reason`, `endpoint`, `path`, `key`, …
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// Overrides the retry that the kind implies.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Kind of an error, for callers to branch on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Chance that the same call succeeds later.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// The call that failed.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The line for people, without operation, kind and context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The facts that were added, in order.
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repr = &self.0;
        write!(f, "{}: {}: {}", repr.operation, repr.kind, repr.message)?;
        for (n, (key, value)) in repr.context.iter().enumerate() {
            write!(f, "{}{key}={value}", if n == 0 { " (" } else { ", " })?;
        }
        if repr.context.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repr = &self.0;
        writeln!(f, "{}: {}: {}", repr.operation, repr.kind, repr.message)?;
        for (key, value) in &repr.context {
            writeln!(f, "    {key}: {value}")?;
        }
        write!(f, "    retry: {:?}", repr.retry)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n    caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// The part of an [`Error`] that can travel: events, logs and partial results carry it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failure {
    /// Kind of the error, for readers to branch on.
    pub kind: ErrorKind,
    /// The call that failed.
    pub operation: String,
    /// One line for people, causes included.
    pub message: String,
    /// The error's facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, String>,
}

impl Failure {
    /// A failure that never was an [`Error`].
    pub fn new(kind: ErrorKind, operation: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, operation: operation.into(), message: message.into(), context: BTreeMap::new() }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let mut message = error.message().to_owned();
        let mut cause = error.source();
        while let Some(source) = cause {
            message.push_str(": ");
            message.push_str(&source.to_string());
            cause = source.source();
        }
        let context = error.context().iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        Self { kind: error.kind(), operation: error.operation().to_owned(), message, context }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.operation, self.kind, self.message)
    }
}

const _: () = assert!(size_of::<Error>() == size_of::<usize>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_and_debug_shows_the_causes() {
        let io = std::io::Error::other("broken pipe");
        let error =
            Error::new(ErrorKind::Timeout, "docker.stop", "no answer").with_context("instance", "c1").with_source(io);
        assert_eq!(error.to_string(), "docker.stop: timeout: no answer (instance=c1)");
        let debug = format!("{error:?}");
        assert!(debug.contains("caused by: broken pipe") && debug.lines().count() >= 4, "{debug}");
        assert_eq!(Failure::from(&error).message, "no answer: broken pipe");
    }

    #[test]
    fn kinds_are_written_the_same_in_json_and_in_text() {
        let json = serde_json::to_string(&ErrorKind::PermissionDenied).unwrap();
        assert_eq!(json, format!("\"{}\"", ErrorKind::PermissionDenied));
    }
}
