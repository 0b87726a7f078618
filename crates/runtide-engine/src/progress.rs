//! Progress of pulls, loads, pushes and builds: lines of JSON, the last of which may be an error inside a successful answer
//! (trap D30).

use std::{future::poll_fn, pin::Pin};

use bytes::Bytes;
use futures_core::Stream;
use runtide_core::{ErrorKind, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    dialect::Dialect,
    own_answer::OwnAnswer,
    values::{Framed, Values},
};

/// Bytes of the longest line; a longer one is an error.
const MAX_LINE: usize = 8 * 1024 * 1024;

/// One line. Each field is `None` where the line does not have it, or has it in a form that is none of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Output of a build or a load.
    pub stream: Option<String>,
    /// A step in words, as `Downloading`.
    pub status: Option<String>,
    /// The layer or the image that the line is about.
    pub id: Option<String>,
    /// Bytes that are done, and all of them where that is known.
    pub bytes: Option<(u64, Option<u64>)>,
    /// Reason why it failed. Nothing after it counts.
    pub error: Option<String>,
    /// A result in JSON, as `{"ID":"sha256:…"}` of a build.
    pub aux: Option<serde_json::Value>,
    /// Ids of the images that Podman pulled, or names of those that it loaded.
    pub images: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, rename = "progressDetail")]
    detail: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow, rename = "errorDetail")]
    error_detail: Option<&'a RawValue>,
    #[serde(borrow)]
    aux: Option<&'a RawValue>,
    #[serde(borrow, alias = "Names")]
    images: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Detail {
    current: u64,
    total: Option<u64>,
}

#[derive(Deserialize)]
struct ErrorDetail {
    message: String,
}

fn read<T: for<'a> Deserialize<'a>>(raw: Option<&RawValue>) -> Option<T> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

impl From<Line<'_>> for Progress {
    fn from(line: Line<'_>) -> Self {
        let text = |raw| read::<String>(raw).filter(|text| !text.is_empty());
        let detail = read::<Detail>(line.detail);
        // An error in a form of its own is an error all the same.
        let error = text(line.error)
            .or_else(|| read::<ErrorDetail>(line.error_detail).map(|detail| detail.message))
            .or_else(|| line.error.filter(|raw| !matches!(raw.get(), "null" | "\"\"")).map(|raw| raw.get().to_owned()));
        Self {
            stream: text(line.stream),
            status: text(line.status),
            id: text(line.id),
            bytes: detail.map(|detail| (detail.current, detail.total.filter(|total| *total > 0))),
            error,
            aux: read(line.aux).filter(|aux: &serde_json::Value| !aux.is_null()),
            images: read(line.images).unwrap_or_default(),
        }
    }
}

/// Cuts bytes into lines of progress, pure.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    read: usize,
}

impl Lines {
    /// Adds the next chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(chunk);
    }

    /// The next line; `None` when it needs more bytes. A line that is no JSON object is an empty one.
    #[allow(clippy::should_implement_trait, reason = "it is an iterator only up to the next chunk")]
    pub fn next(&mut self) -> Option<Progress> {
        let mut values = Values::<Line<'_>>::of(self.buffer.get(self.read..)?);
        let progress = match values.next()? {
            Framed::Value(line) => Progress::from(line),
            Framed::Unreadable(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                tracing::warn!(line = %text.chars().take(80).collect::<String>().escape_debug(), "left out: no line of progress");
                Progress::default()
            }
        };
        self.read += values.read();
        Some(progress)
    }

    /// Bytes of an unfinished line.
    fn unfinished(&self) -> usize {
        self.buffer.len() - self.read
    }
}

/// The lines of one answer.
#[derive(Debug)]
pub struct ProgressBody<D: Dialect> {
    answer: OwnAnswer<D>,
    lines: Lines,
    over: bool,
}

impl<D: Dialect> ProgressBody<D> {
    /// The lines of an answer on a connection of its own.
    pub fn new(answer: OwnAnswer<D>) -> Self {
        Self { answer, lines: Lines::default(), over: false }
    }

    /// The next line; `None` at the end of the answer. A line with an error is returned as a line: its kind depends on what was
    /// asked for.
    ///
    /// # Errors
    /// `Unavailable` for an answer that broke off, also within a line; `Protocol` for a line over 8 MiB.
    ///
    /// # Cancel safety
    /// A dropped future loses no line. Dropping the body closes the connection, and with it ends what was asked for.
    pub async fn next(&mut self) -> Result<Option<Progress>> {
        loop {
            if let Some(line) = self.lines.next() {
                return Ok(Some(line));
            }
            if self.over {
                let rest = self.lines.buffer.get(self.lines.read..).unwrap_or_default();
                if rest.iter().all(u8::is_ascii_whitespace) {
                    return Ok(None);
                }
                return Err(self.answer.site().error(ErrorKind::Unavailable, "the answer broke off inside a line"));
            }
            match poll_fn(|cx| Pin::new(&mut self.answer).poll_next(cx)).await {
                None => self.over = true,
                Some(chunk) => {
                    let data: Bytes = chunk?;
                    if self.lines.unfinished().saturating_add(data.len()) > MAX_LINE {
                        return Err(self
                            .answer
                            .site()
                            .error(ErrorKind::Protocol, "a line of progress is longer than 8 MiB"));
                    }
                    self.lines.push(&data);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, chunk: usize) -> Vec<Progress> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for chunk in text.as_bytes().chunks(chunk) {
            lines.push(chunk);
            found.extend(std::iter::from_fn(|| lines.next()));
        }
        assert_eq!(lines.unfinished(), text.len() - text.trim_end().len());
        found
    }

    #[test]
    fn lines_are_read_wherever_they_are_cut() {
        let text = concat!(
            r#"{"status":"Downloading","progressDetail":{"current":5,"total":10},"progress":"[=>]","id":"a1"}"#,
            "\r\n",
            r#"{"status":"Extracting","progressDetail":{},"id":"a1"}"#,
            "\n",
            r#"{"stream":"Step 1/2 : FROM scratch\n"}{"aux":{"ID":"sha256:1"}}"#,
            "\n",
            r#"{"images":["sha256:2"],"id":"sha256:2"}"#,
            "\n",
            r#"{"errorDetail":{"code":1,"message":"it failed"},"error":"it failed"}"#,
            "\n"
        );
        for chunk in 1..text.len() {
            let lines = all(text, chunk);
            assert_eq!(lines.len(), 6);
            assert_eq!((lines[0].bytes, lines[0].id.as_deref()), (Some((5, Some(10))), Some("a1")));
            assert_eq!((lines[1].bytes, lines[1].status.as_deref()), (None, Some("Extracting")));
            assert_eq!(lines[2].stream.as_deref(), Some("Step 1/2 : FROM scratch\n"));
            assert_eq!(lines[3].aux, Some(serde_json::json!({"ID": "sha256:1"})));
            assert_eq!(lines[4].images, ["sha256:2"]);
            assert_eq!(lines[5].error.as_deref(), Some("it failed"));
        }
    }

    #[test]
    fn a_field_of_another_form_hides_no_other() {
        let odd = all(
            r#"{"status":7,"id":"a","progressDetail":{"current":-1},"error":null}{"error":{"a":1}}{"errorDetail":{"message":"m"}}[1]"#,
            1000,
        );
        assert_eq!(odd[0], Progress { id: Some("a".to_owned()), ..Progress::default() });
        assert_eq!(odd[1].error.as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(odd[2].error.as_deref(), Some("m"));
        assert_eq!(odd[3], Progress::default());
    }
}
