//! Errors: [`Error`], its [`ErrorKind`] and its [`Retry`].

use std::{borrow::Cow, collections::BTreeMap, error::Error as StdError, fmt, io, time::Duration};

use serde::{Deserialize, Serialize};

/// Result of every fallible call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error of one operation: its kind, its context, and the chance that the same call succeeds later.
///
/// One pointer wide. No credential is ever in a form of it, nor in the context. Each form shows each text once:
///
/// | form | what it is | the causes |
/// |---|---|---|
/// | `{error}` | one line | are left to a printer of chains, as is the convention |
/// | `{error:#}` | one line, for a log or a user | are in it |
/// | `{error:?}` | some lines, as `fn main() -> Result<(), Error>` prints them | are in it, one a line |
///
/// ```
/// use runtide_core::{Error, ErrorKind, Retry};
///
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let error = Error::new(ErrorKind::Unavailable, "docker.list", "the daemon does not answer")
///     .with_context("backend", "docker:local")
///     .with_source(refused);
/// assert_eq!(format!("{error}"), "docker.list: unavailable: the daemon does not answer (backend=docker:local)");
/// assert_eq!(
///     format!("{error:#}"),
///     "docker.list: unavailable: the daemon does not answer: connection refused (backend=docker:local)"
/// );
/// assert_eq!(error.retry(), Retry::Backoff);
/// ```
pub struct Error(Box<Repr>);

struct Repr {
    kind: ErrorKind,
    retry: Retry,
    operation: Cow<'static, str>,
    message: String,
    /// No key occurs twice.
    context: Vec<(Cow<'static, str>, String)>,
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

    /// The kind of an error of a disk: `NotFound`, `PermissionDenied` (a read-only disk too), `Unavailable` if it is full, else
    /// `Unexpected`.
    ///
    /// ```
    /// # use runtide_core::ErrorKind;
    /// let read_only = std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem);
    /// assert_eq!(ErrorKind::of_disk(&read_only), ErrorKind::PermissionDenied);
    /// ```
    pub fn of_disk(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::PermissionDenied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Unavailable,
            _ => Self::Unexpected,
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
        let (message, operation) = (message.into(), operation.into());
        Self(Box::new(Repr { kind, retry: kind.retry(), operation, message, context: Vec::new(), source: None }))
    }

    /// Adds a fact, unless the key has one already: what is nearest to the cause knows best. Keys are a small fixed vocabulary:
    /// `backend`, `instance`, `feature`, `reason`, `endpoint`, `path`, `key`, …
    #[must_use]
    pub fn with_context(self, key: &'static str, value: impl fmt::Display) -> Self {
        self.with_fact(key.into(), value.to_string())
    }

    fn with_fact(mut self, key: Cow<'static, str>, value: String) -> Self {
        if self.fact(&key).is_none() {
            if let Some(cause) = self.cause_mut() {
                cause.forget(&key, &value);
            }
            self.0.context.push((key, value));
        }
        self
    }

    /// Adds the cause. Each text is shown once: a cause that the message has already is left out, and so is a fact of a cause that
    /// this error has.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        let context = std::mem::take(&mut self.0.context);
        if let Some(cause) = self.cause_mut() {
            for (key, value) in &context {
                cause.forget(key, value);
            }
        }
        self.0.context = context;
        let (is_doubled, texts) = distinct(&self.0.message, self.source());
        if is_doubled {
            self.0.source = CauseText::chain(texts).map(|causes| Box::new(causes) as Box<_>);
        }
        self
    }

    /// Adds the causes of an error as texts, without the error itself: for one whose own text the message has in other words.
    #[must_use]
    pub fn with_causes_of(mut self, error: &dyn StdError) -> Self {
        let texts = distinct(&self.0.message, error.source()).1;
        self.0.source = CauseText::chain(texts).map(|causes| Box::new(causes) as Box<_>);
        self
    }

    /// The cause, if it is an error of this type.
    fn cause_mut(&mut self) -> Option<&mut Self> {
        let source: &mut (dyn StdError + 'static) = &mut **self.0.source.as_mut()?;
        source.downcast_mut()
    }

    /// Drops a fact that the error around this one shows, here and in the causes.
    fn forget(&mut self, key: &str, value: &str) {
        self.0.context.retain(|(known, fact)| known != key || fact != value);
        if let Some(cause) = self.cause_mut() {
            cause.forget(key, value);
        }
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
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// The line for people, without operation, kind and context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The line for people with the causes, each behind a colon.
    fn message_and_causes(&self) -> String {
        let mut message = self.message().to_owned();
        let mut cause = self.source();
        while let Some(source) = cause {
            message.push_str(": ");
            message.push_str(&source.to_string());
            cause = source.source();
        }
        message
    }

    /// The facts that were added, in order. No key occurs twice.
    pub fn context(&self) -> &[(Cow<'static, str>, String)] {
        &self.0.context
    }

    /// The fact with this key, if there is one.
    ///
    /// ```
    /// # use runtide_core::{Error, ErrorKind};
    /// let error = Error::new(ErrorKind::Conflict, "store.apply", "it was changed").with_context("revision", 7);
    /// assert_eq!((error.fact("revision"), error.fact("path")), (Some("7"), None));
    /// ```
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.0.context.iter().find_map(|(known, value)| (known == key).then_some(value.as_str()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repr = &self.0;
        let message: Cow<'_, str> =
            if f.alternate() { self.message_and_causes().into() } else { repr.message.as_str().into() };
        write!(f, "{}: {}: {message}", repr.operation, repr.kind)?;
        facts(f, &message, repr.context.iter().map(|(key, value)| (&**key, value)))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repr = &self.0;
        writeln!(f, "{}: {}: {}", repr.operation, repr.kind, repr.message)?;
        for (key, value) in repr.context.iter().filter(|(key, value)| !is_repeated(&repr.message, key, value)) {
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

/// Returns true if the text of a cause is contained in one before it, and the texts of the causes for which it is not.
fn distinct(message: &str, source: Option<&(dyn StdError + 'static)>) -> (bool, Vec<String>) {
    let (mut texts, mut is_doubled) = (Vec::<String>::new(), false);
    let mut cause = source;
    while let Some(error) = cause {
        let text = error.to_string();
        if message.contains(&text) || texts.iter().any(|before| before.contains(&text)) {
            is_doubled = true;
        } else {
            texts.push(text);
        }
        cause = error.source();
    }
    (is_doubled, texts)
}

/// The text of a cause, in place of the cause itself.
#[derive(Debug)]
struct CauseText {
    text: String,
    source: Option<Box<CauseText>>,
}

impl CauseText {
    fn chain(texts: Vec<String>) -> Option<Self> {
        texts.into_iter().rev().fold(None, |source, text| Some(Self { text, source: source.map(Box::new) }))
    }
}

impl fmt::Display for CauseText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for CauseText {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
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
        let message = error.message_and_causes();
        let context = error.context().iter().map(|(key, value)| (key.clone().into_owned(), value.clone())).collect();
        Self { kind: error.kind(), operation: error.operation().to_owned(), message, context }
    }
}

/// The error again, with its facts. Its causes are in the message, and its retry is the one that the kind implies.
///
/// ```
/// use runtide_core::{Error, ErrorKind, Failure};
///
/// let error = Error::new(ErrorKind::NotFound, "docker.inspect", "no such container").with_context("instance", "c1");
/// assert_eq!(Error::from(Failure::from(&error)).to_string(), error.to_string());
/// ```
impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { kind, operation, message, context } = failure;
        let mut error = Self::new(kind, "", message);
        error.0.operation = operation.into();
        context.into_iter().fold(error, |error, (key, value)| error.with_fact(key.into(), value))
    }
}

/// One line, as that of the error.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.operation, self.kind, self.message)?;
        facts(f, &self.message, self.context.iter().map(|(key, value)| (key.as_str(), value)))
    }
}

impl StdError for Failure {}

/// Returns true if the message has the fact already, as it often has the reason.
fn is_repeated(message: &str, key: &str, value: &str) -> bool {
    key == "reason" && message.contains(value)
}

/// Writes the facts in brackets, if there are any.
fn facts<'a>(
    f: &mut fmt::Formatter<'_>,
    message: &str,
    facts: impl Iterator<Item = (&'a str, &'a String)>,
) -> fmt::Result {
    let mut before = " (";
    for (key, value) in facts.filter(|(key, value)| !is_repeated(message, key, value)) {
        write!(f, "{before}{key}={value}")?;
        before = ", ";
    }
    if before == ", " { f.write_str(")") } else { Ok(()) }
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
        assert_eq!(format!("{error:#}"), "docker.stop: timeout: no answer: broken pipe (instance=c1)");
        assert_eq!(format!("{error:#}"), Failure::from(&error).to_string(), "the form that travels is the same");
    }

    #[test]
    fn a_printer_of_chains_shows_the_causes_once() {
        let inner = Error::new(ErrorKind::Protocol, "c.d", "no http").with_source(io::Error::other("broken pipe"));
        let error = Error::new(ErrorKind::Timeout, "a.b", "no answer").with_context("path", "/x").with_source(inner);
        assert_eq!(chain(&error), ["a.b: timeout: no answer (path=/x)", "c.d: protocol: no http", "broken pipe"]);
        let line = "a.b: timeout: no answer: c.d: protocol: no http: broken pipe (path=/x)";
        assert_eq!(format!("{error:#}"), line);
        let boxed: Box<dyn StdError> = Box::new(error);
        assert_eq!(format!("{boxed:#}"), line);
    }

    /// All that a printer of chains writes.
    fn chain(error: &Error) -> Vec<String> {
        let mut texts = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            texts.push(error.to_string());
            cause = error.source();
        }
        texts
    }

    #[test]
    fn nothing_is_shown_twice() {
        let io = || io::Error::other("broken pipe");
        let said = Error::new(ErrorKind::Timeout, "a.b", "no answer: broken pipe").with_source(io());
        assert_eq!(chain(&said), ["a.b: timeout: no answer: broken pipe"]);
        // The cause of a cause is shown though the cause is not.
        let inner = Error::new(ErrorKind::Protocol, "c.d", "no http").with_context("path", "/x").with_source(io());
        let outer = Error::new(ErrorKind::Timeout, "a.b", format!("no answer: {inner}")).with_source(inner);
        assert_eq!(chain(&outer)[1..], ["broken pipe"]);
        // A fact of both is shown outside, whichever was first.
        let inner =
            || Error::new(ErrorKind::Protocol, "c.d", "no http").with_context("path", "/x").with_context("key", 1);
        let expected = ["a.b: timeout: no answer (path=/x)", "c.d: protocol: no http (key=1)"];
        let outer = || Error::new(ErrorKind::Timeout, "a.b", "no answer");
        assert_eq!(chain(&outer().with_source(inner()).with_context("path", "/x")), expected);
        assert_eq!(chain(&outer().with_context("path", "/x").with_source(inner())), expected);
        // A key has one value.
        let twice = outer().with_context("path", "/near").with_context("path", "/far").with_context("path", "/near");
        assert_eq!(twice.to_string(), "a.b: timeout: no answer (path=/near)");
        let unsupported = outer().with_context("reason", "no answer").with_context("feature", "x");
        assert_eq!(unsupported.to_string(), "a.b: timeout: no answer (feature=x)");
        assert_eq!(unsupported.fact("reason"), Some("no answer"));
        let texts = outer().with_causes_of(&Error::new(ErrorKind::Protocol, "c.d", "other words").with_source(io()));
        assert_eq!(chain(&texts)[1..], ["broken pipe"]);
    }

    #[test]
    fn a_failure_is_the_error_again_with_its_facts() {
        let io = io::Error::other("broken pipe");
        let error =
            Error::new(ErrorKind::Timeout, "docker.stop", "no answer").with_context("instance", "c1").with_source(io);
        let failure = Failure::from(&error);
        let again = Error::from(failure.clone());
        assert_eq!(again.to_string(), "docker.stop: timeout: no answer: broken pipe (instance=c1)");
        assert_eq!((again.to_string(), again.fact("instance")), (failure.to_string(), Some("c1")));
        assert_eq!((again.operation(), again.kind(), again.retry()), ("docker.stop", error.kind(), Retry::Backoff));
        assert_eq!(Failure::from(&again), failure);
    }

    #[test]
    fn kinds_are_written_the_same_in_json_and_in_text() {
        let json = serde_json::to_string(&ErrorKind::PermissionDenied).unwrap();
        assert_eq!(json, format!("\"{}\"", ErrorKind::PermissionDenied));
    }
}
