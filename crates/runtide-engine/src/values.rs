//! [`Values`]: a stream's JSON values, framed by the JSON itself and not by newlines, which not every daemon sends (trap D13).

use std::marker::PhantomData;

use serde::Deserialize;
use serde_json::value::RawValue;

/// One value of the stream.
#[derive(Debug)]
pub enum Framed<'a, T> {
    /// A readable message.
    Value(T),
    /// The bytes of a value that is no readable message.
    Unreadable(&'a [u8]),
}

/// Reads the buffered bytes value by value. UTF-8 is checked once for all of them.
#[derive(Debug)]
pub struct Values<'a, T> {
    bytes: &'a [u8],
    /// Longest prefix that is UTF-8; the rest is cut inside a character, or no text.
    text: &'a str,
    read: usize,
    value: PhantomData<fn() -> T>,
}

impl<'a, T: Deserialize<'a>> Values<'a, T> {
    /// The values in these bytes.
    pub fn of(bytes: &'a [u8]) -> Self {
        let text = match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => bytes.get(..error.valid_up_to()).and_then(|valid| str::from_utf8(valid).ok()).unwrap_or(""),
        };
        Self { bytes, text, read: 0, value: PhantomData }
    }

    /// Bytes that the values so far took.
    pub fn read(&self) -> usize {
        self.read
    }

    /// The text that is still to be read, up to where it is no text.
    pub fn rest(&self) -> &'a str {
        self.text.get(self.read..).unwrap_or_default()
    }

    /// Marks the first `length` bytes of the rest as read, by a caller who found a value there.
    pub fn pass(&mut self, length: usize) {
        self.read += length;
    }
}

impl<'a, T: Deserialize<'a>> Iterator for Values<'a, T> {
    type Item = Framed<'a, T>;

    /// `None`: the next value is incomplete.
    fn next(&mut self) -> Option<Framed<'a, T>> {
        let text = first(serde_json::Deserializer::from_str(self.rest()));
        let (framed, length) = match text {
            Some((Ok(value), length)) => (Framed::Value(value), length),
            Some((Err(error), _)) if error.is_eof() && self.text.len() == self.bytes.len() => return None,
            _ => next(self.bytes.get(self.read..)?)?,
        };
        self.read += length;
        Some(framed)
    }
}

fn first<'a, T: Deserialize<'a>, R: serde_json::de::Read<'a>>(
    values: serde_json::Deserializer<R>,
) -> Option<(serde_json::Result<T>, usize)> {
    let mut values = values.into_iter();
    let value = values.next()?;
    Some((value, values.byte_offset()))
}

/// The first value of `bytes` and its length; `None`: the value is incomplete.
fn next<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<(Framed<'a, T>, usize)> {
    let (value, length) = first(serde_json::Deserializer::from_slice(bytes))?;
    match value {
        Ok(value) => Some((Framed::Value(value), length)),
        Err(error) if error.is_eof() => None,
        Err(error) => {
            let length = if error.is_data() { value_length(bytes) } else { None }.unwrap_or_else(|| line_length(bytes));
            Some((Framed::Unreadable(bytes.get(..length).unwrap_or_default()), length))
        }
    }
}

/// Length of a value that is JSON, but no message.
fn value_length(bytes: &[u8]) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<&RawValue>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

/// Length of a line that is no JSON: the next value may begin after its newline.
fn line_length(bytes: &[u8]) -> usize {
    let content = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    bytes.iter().skip(content).position(|byte| *byte == b'\n').map_or(bytes.len(), |at| content + at + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::Text;

    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        id: Text<'a>,
    }

    const ONE: &str = r#"{"id":"a1","more":{"name":"{\"}"},"n":1}"#;

    fn all(bytes: &[u8]) -> (Vec<String>, usize) {
        let (mut found, mut values, mut read) = (Vec::new(), Values::<Message<'_>>::of(bytes), 0);
        while let Some(framed) = values.next() {
            assert!(values.read() > read, "an empty value would be read indefinitely");
            read = values.read();
            found.push(match framed {
                Framed::Value(message) => message.id.to_string(),
                Framed::Unreadable(bytes) => format!("?{}", bytes.len()),
            });
        }
        (found, bytes.len() - read)
    }

    #[test]
    fn values_need_no_newline_between_them() {
        let text = format!("{ONE}{ONE}\r\n\n{ONE}\n");
        assert_eq!(all(text.as_bytes()).0, ["a1", "a1", "a1"]);
    }

    #[test]
    fn an_unreadable_value_hides_no_other() {
        let text = format!("{ONE}{{\"id\":7}}\n[1]\nnonsense {{\n{ONE}");
        assert_eq!(all(text.as_bytes()).0, ["a1", "?8", "?4", "?12", "a1"]);
        let mut bytes = br#"{"id":""#.to_vec();
        bytes.extend([0xff, 0xfe, b'"', b'}', b'\n']);
        bytes.extend(ONE.as_bytes());
        assert_eq!(all(&bytes).0, ["?12", "a1"], "bytes that are not text");
    }

    proptest! {
        #[test]
        fn chunks_may_end_anywhere(cuts in prop::collection::vec(0usize..500, 0..12), newlines in any::<bool>()) {
            let one = if newlines { format!("{ONE}\n") } else { ONE.to_owned() };
            let text = one.repeat(4);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let (mut buffer, mut fed, mut found) = (Vec::new(), 0, 0);
            for cut in cuts {
                buffer.extend_from_slice(&text.as_bytes()[fed..cut]);
                fed = cut;
                let (values, left) = all(&buffer);
                prop_assert!(values.iter().all(|value| value == "a1"));
                found += values.len();
                buffer.drain(..buffer.len() - left);
            }
            prop_assert_eq!(found, 4);
        }

        #[test]
        fn no_input_stalls_or_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            all(&bytes);
        }
    }
}
