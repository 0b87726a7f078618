//! A unit's output with its places in the journal, so that a reader goes on where it, or another before it, left off.

use std::{
    fmt,
    pin::Pin,
    str::FromStr,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use runtide_core::{
    Error, ErrorKind, Incarnation, Result,
    backend::setters,
    manager::{LogLine, LogOptions},
};
use serde::{Deserialize, Serialize};

/// What to read of a unit's journal. By default everything that is there, of all lives.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct JournaldOptions {
    /// As for any log.
    pub logs: LogOptions,
    /// Only what was printed in this run: the [`incarnation`](runtide_core::Instance::incarnation) of the instance then.
    pub invocation: Option<Incarnation>,
    /// Only what comes behind this entry.
    pub after: Option<JournaldCursor>,
}

setters!(JournaldOptions {
    /// As for any log.
    with_logs: logs: LogOptions;
    /// Only what was printed in this run.
    with_invocation: invocation: Option<Incarnation>;
    /// Only what comes behind this entry.
    with_after: after: Option<JournaldCursor>;
});

/// The place of an entry in the journal, in journald's own words; they can be kept and are good for any reader of that journal,
/// also after a rotation of its files and a boot. What is in them is journald's affair. Cheap to clone.
///
/// ```
/// use runtide_systemd::JournaldCursor;
///
/// let kept = "s=739ad463348b4ceca5a9e69c95a3c93f;i=4ece7;b=6c7c6013a8144c5d8f1c8d16c0ef8bd1;m=4fc72436e;t=4c508a72423d9;x=d3e5610681098c10";
/// let cursor: JournaldCursor = kept.parse()?;
/// assert_eq!(cursor.to_string(), kept);
/// assert!(JournaldCursor::new("s=1\n").is_err());
/// # Ok::<(), runtide_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JournaldCursor(Arc<str>);

impl JournaldCursor {
    /// The longest text that is taken, in bytes. journald's are below 160.
    pub const LONGEST: usize = 512;

    /// Takes a text that a cursor was written as.
    ///
    /// # Errors
    /// `InvalidInput` if it is empty, longer than [`LONGEST`](Self::LONGEST), or of anything but printable ASCII without
    /// blanks. Whether an entry has it shows when it is read from.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self> {
        let text = text.into();
        let why = if text.is_empty() {
            "a cursor is not empty"
        } else if text.len() > Self::LONGEST {
            "a cursor has at most 512 bytes"
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            "a cursor is of printable ASCII without blanks"
        } else {
            return Ok(Self(text));
        };
        let shown: String = text.chars().take(64).collect();
        Err(Error::new(ErrorKind::InvalidInput, "systemd.journal.cursor", why)
            .with_context("cursor", format!("{shown:?}")))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JournaldCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for JournaldCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for JournaldCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for JournaldCursor {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(text)
    }
}

impl From<JournaldCursor> for String {
    fn from(cursor: JournaldCursor) -> Self {
        cursor.as_str().to_owned()
    }
}

/// A piece of output, and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JournaldLine {
    /// What was printed.
    pub line: LogLine,
    /// To go on behind it, give this as [`JournaldOptions::after`].
    pub cursor: JournaldCursor,
}

/// Output as it comes, with its places; back-pressure reaches journalctl.
pub struct JournaldStream(Pin<Box<dyn Stream<Item = Result<JournaldLine>> + Send>>);

impl JournaldStream {
    pub(crate) fn new(inner: impl Stream<Item = Result<JournaldLine>> + Send + 'static) -> Self {
        Self(Box::pin(inner))
    }

    /// The next line; `None` after the end.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<JournaldLine>> {
        std::future::poll_fn(|cx| self.0.as_mut().poll_next(cx)).await
    }
}

impl Stream for JournaldStream {
    type Item = Result<JournaldLine>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for JournaldStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournaldStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_one_bounded_word_also_where_it_is_read_from_json() {
        let longest = "x".repeat(JournaldCursor::LONGEST);
        for text in ["s=1;i=2", &longest] {
            let json = serde_json::to_string(&JournaldCursor::new(text).unwrap()).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<JournaldCursor>(&json).unwrap().as_str(), text);
        }
        for text in ["", "a b", "a\n", "a\0", "é", &format!("{longest}x")] {
            assert_eq!(JournaldCursor::new(text).unwrap_err().kind(), ErrorKind::InvalidInput, "{text:?}");
            let json = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<JournaldCursor>(&json).is_err(), "{text:?}");
        }
    }
}
