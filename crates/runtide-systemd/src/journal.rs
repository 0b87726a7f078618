//! A unit's output with its cursors in the journal, so that a reader continues where it, or an earlier one, stopped.

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

/// Options of reading a unit's journal. By default everything that is there, of all runs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct JournaldOptions {
    /// The options of any log.
    pub logs: LogOptions,
    /// Only lines of this run: the [`incarnation`](runtide_core::Instance::incarnation) that the instance had.
    pub invocation: Option<Incarnation>,
    /// Only lines after this entry.
    pub after: Option<JournaldCursor>,
}

setters!(JournaldOptions {
    /// Sets the options of any log.
    with_logs: logs: LogOptions;
    /// Restricts the lines to those of one run.
    with_invocation: invocation: Option<Incarnation>;
    /// Restricts the lines to those after an entry.
    with_after: after: Option<JournaldCursor>;
});

/// The position of an entry in the journal, in journald's own format. It can be stored and is valid for any reader of
/// that journal, also after a rotation of its files and a boot. Its content is opaque. Cheap to clone.
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
    /// Longest accepted text, in bytes. journald's are below 160.
    pub const LONGEST: usize = 512;

    /// Parses the text of a cursor.
    ///
    /// # Errors
    /// `InvalidInput` if it is empty, longer than [`LONGEST`](Self::LONGEST), or has a character other than printable
    /// ASCII without blanks. The existence of the entry is checked when it is read from.
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

    /// The text of the cursor, as it can be stored.
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

/// A piece of output, with its cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JournaldLine {
    /// The printed output.
    pub line: LogLine,
    /// Cursor of this line; to continue after it, pass it as [`JournaldOptions::after`].
    pub cursor: JournaldCursor,
}

/// Output as it arrives, with its cursors; back-pressure reaches journalctl.
pub struct JournaldStream(Pin<Box<dyn Stream<Item = Result<JournaldLine>> + Send>>);

impl JournaldStream {
    pub(crate) fn new(inner: impl Stream<Item = Result<JournaldLine>> + Send + 'static) -> Self {
        Self(Box::pin(inner))
    }

    /// Returns the next line; `None` after the end.
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
    fn a_cursor_is_one_bounded_word_also_when_read_from_json() {
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
