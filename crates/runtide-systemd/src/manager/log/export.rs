//! Decoder of the journal's export format, pure: chunks of bytes in, entries out.
//!
//! A field is `NAME=value` and a newline; or, if the value is not printable, `NAME`, a newline, the value's length in
//! eight bytes (little endian), the value, a newline. An empty line ends an entry. Fields that begin with an underscore
//! are the journal's own: a unit cannot forge them.
//!
//! A length is untrusted input, so nothing is allocated for it: the buffer grows with the bytes that arrive, up to
//! [`LONGEST`].

use bytes::{Buf, BytesMut};

/// Longest accepted field, in bytes. journald itself splits the output of a unit into entries of 48 KiB (`LineMax=`);
/// an entry of its own protocol may be longer.
pub(super) const LONGEST: usize = 64 * 1024 * 1024;

/// Largest buffer that is reused; one that a long entry made larger is freed.
const KEPT: usize = 1024 * 1024;

/// One entry, with the fields that are used here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Cursor of the entry.
    pub(super) cursor: String,
    /// Time at which journald received it, in microseconds since 1970.
    pub(super) at: u64,
    /// InvocationID of the run that printed it.
    pub(super) invocation: Option<String>,
    /// Printed bytes, with the newline or zero byte that ended them in the output.
    pub(super) bytes: Vec<u8>,
}

/// The stream is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Malformed {
    /// A field is longer than [`LONGEST`].
    TooLong,
    /// This line is no field.
    Field(String),
    /// The stream ended inside an entry.
    Truncated,
}

/// Splits a stream of bytes into entries. Fill the buffer, take entries until there is none, fill it again.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
    /// Length of the prefix of the buffer that has no newline.
    searched: usize,
    /// Name of a binary field whose length and value come next.
    binary: Option<Name>,
    draft: Option<Draft>,
}

#[derive(Debug, Clone, Copy)]
enum Name {
    Cursor,
    At,
    Invocation,
    LineBreak,
    Message,
    Other,
}

impl Name {
    fn of(name: &[u8]) -> Self {
        match name {
            b"__CURSOR" => Self::Cursor,
            b"__REALTIME_TIMESTAMP" => Self::At,
            b"_SYSTEMD_INVOCATION_ID" => Self::Invocation,
            b"_LINE_BREAK" => Self::LineBreak,
            b"MESSAGE" => Self::Message,
            _ => Self::Other,
        }
    }
}

#[derive(Debug, Default)]
struct Draft {
    entry: Entry,
    message: Option<Vec<u8>>,
    ending: Ending,
}

/// The byte that ended a line in the output. journald removes it, and records which it was.
#[derive(Debug, Default)]
enum Ending {
    #[default]
    Newline,
    Zero,
    /// The output ended, the line was too long, or another process continued it.
    Nothing,
}

impl Draft {
    fn take(&mut self, name: Name, value: &[u8]) -> Result<(), Malformed> {
        let text = || std::str::from_utf8(value).map_err(|_| Malformed::Field(shown(value)));
        match name {
            Name::Cursor => text()?.clone_into(&mut self.entry.cursor),
            Name::At => self.entry.at = text()?.parse().map_err(|_| Malformed::Field(shown(value)))?,
            Name::Invocation => self.entry.invocation = Some(text()?.to_owned()),
            Name::LineBreak => {
                self.ending = if value == b"nul" { Ending::Zero } else { Ending::Nothing };
            }
            // An entry of journald's own protocol may have several; the first is the one that journalctl shows.
            Name::Message if self.message.is_none() => {
                let mut message = Vec::with_capacity(value.len() + 1);
                message.extend_from_slice(value);
                self.message = Some(message);
            }
            Name::Message | Name::Other => {}
        }
        Ok(())
    }

    /// Completes the entry; `None`: it has no message.
    fn finish(self) -> Option<Entry> {
        let mut bytes = self.message?;
        match self.ending {
            Ending::Newline => bytes.push(b'\n'),
            Ending::Zero => bytes.push(0),
            Ending::Nothing => {}
        }
        Some(Entry { bytes, ..self.entry })
    }
}

impl Decoder {
    /// Returns the buffer for the next bytes.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = BytesMut::new();
        }
        &mut self.buffer
    }

    /// Returns the next entry; `None` when more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Malformed> {
        loop {
            if let Some(name) = self.binary {
                let Some((head, rest)) = self.buffer.split_first_chunk::<8>() else { return Ok(None) };
                let length = usize::try_from(u64::from_le_bytes(*head)).unwrap_or(usize::MAX);
                if length > LONGEST {
                    return Err(Malformed::TooLong);
                }
                let Some((value, after)) = rest.split_at_checked(length) else { return Ok(None) };
                match after.first() {
                    None => return Ok(None),
                    Some(b'\n') => self.draft.get_or_insert_default().take(name, value)?,
                    Some(_) => return Err(Malformed::Field("a value that is longer than its length field".to_owned())),
                }
                self.buffer.advance(8 + length + 1);
                self.binary = None;
            }
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(newline) = unsearched.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return if self.searched > LONGEST { Err(Malformed::TooLong) } else { Ok(None) };
            };
            let end = self.searched + newline;
            self.searched = 0;
            let line = self.buffer.get(..end).unwrap_or_default();
            if line.is_empty() {
                self.buffer.advance(1);
                if let Some(entry) = self.draft.take().and_then(Draft::finish) {
                    return Ok(Some(entry));
                }
                continue;
            }
            match line.iter().position(|byte| *byte == b'=') {
                Some(equals) => {
                    let (name, value) = line.split_at_checked(equals).unwrap_or_default();
                    self.draft.get_or_insert_default().take(Name::of(name), value.get(1..).unwrap_or_default())?;
                }
                None if line.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') => {
                    self.binary = Some(Name::of(line));
                }
                None => return Err(Malformed::Field(shown(line))),
            }
            self.buffer.advance(end + 1);
        }
    }

    /// Checks after the last byte that the stream did not end inside an entry.
    pub(super) fn finish(&self) -> Result<(), Malformed> {
        let is_between = self.buffer.is_empty() && self.draft.is_none() && self.binary.is_none();
        if is_between { Ok(()) } else { Err(Malformed::Truncated) }
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..80).unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(fields: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in fields {
            bytes.extend_from_slice(name.as_bytes());
            if value.iter().all(|byte| (b' '..127).contains(byte)) {
                bytes.push(b'=');
            } else {
                bytes.push(b'\n');
                bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
            }
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        bytes.push(b'\n');
        bytes
    }

    fn decode(input: &[u8], sizes: &[usize]) -> (Vec<Entry>, Result<(), Malformed>) {
        let mut decoder = Decoder::default();
        let (mut entries, mut rest, mut sizes) = (Vec::new(), input, sizes.iter().cycle());
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at((*sizes.next().unwrap()).clamp(1, rest.len()));
            decoder.buffer().extend_from_slice(chunk);
            rest = after;
            loop {
                match decoder.next() {
                    Ok(Some(entry)) => entries.push(entry),
                    Ok(None) => break,
                    Err(error) => return (entries, Err(error)),
                }
            }
        }
        (entries, decoder.finish())
    }

    #[test]
    fn the_ending_of_a_line_is_restored() {
        for (line_break, bytes) in [
            (None, &b"hello\n"[..]),
            (Some("nul"), b"hello\0"),
            (Some("eof"), b"hello"),
            (Some("line-max"), b"hello"),
            (Some("pid-change"), b"hello"),
        ] {
            let mut fields: Vec<(&str, &[u8])> = vec![("__CURSOR", b"s=1;i=2"), ("__REALTIME_TIMESTAMP", b"17")];
            fields.extend(line_break.map(|line_break| ("_LINE_BREAK", line_break.as_bytes())));
            fields.extend([("MESSAGE", &b"hello"[..]), ("_SYSTEMD_INVOCATION_ID", b"ab")]);
            let (entries, end) = decode(&text(&fields), &[7]);
            assert_eq!(end, Ok(()));
            let entry =
                Entry { cursor: "s=1;i=2".into(), at: 17, invocation: Some("ab".into()), bytes: bytes.to_vec() };
            assert_eq!(entries, [entry]);
        }
    }

    #[test]
    fn an_entry_without_a_message_is_skipped() {
        let input = [text(&[("__CURSOR", b"1")]), text(&[("__CURSOR", b"2"), ("MESSAGE", b"")])].concat();
        let (entries, end) = decode(&input, &[100]);
        assert_eq!((entries.len(), entries[0].bytes.as_slice(), end), (1, &b"\n"[..], Ok(())));
    }

    #[test]
    fn a_hostile_length_allocates_nothing() {
        for length in [u64::MAX, LONGEST as u64 + 1] {
            let mut input = b"MESSAGE\n".to_vec();
            input.extend(length.to_le_bytes());
            assert_eq!(decode(&input, &[3]).1, Err(Malformed::TooLong));
        }
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(b"MESSAGE=");
        for _ in 0..LONGEST / KEPT {
            decoder.buffer().extend_from_slice(&vec![b'x'; KEPT]);
            if let Err(error) = decoder.next() {
                assert_eq!(error, Malformed::TooLong);
                return;
            }
        }
        panic!("a line without an end is refused");
    }

    #[test]
    fn an_invalid_field_and_a_truncated_entry_are_errors() {
        assert!(matches!(decode(b"-- No entries --\n", &[5]).1, Err(Malformed::Field(_))));
        let whole = text(&[("__CURSOR", b"1"), ("MESSAGE", b"\xff\n\0")]);
        for cut in 1..whole.len() {
            assert_eq!(decode(&whole[..cut], &[4]), (vec![], Err(Malformed::Truncated)), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_message_arrives_wherever_it_is_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..10),
            sizes in prop::collection::vec(1usize..100, 1..6),
        ) {
            let input: Vec<u8> = messages.iter().flat_map(|message| text(&[("__CURSOR", b"1"), ("MESSAGE", message)])).collect();
            let (entries, end) = decode(&input, &sizes);
            prop_assert_eq!(end, Ok(()));
            let seen: Vec<_> = entries.iter().map(|entry| entry.bytes[..entry.bytes.len() - 1].to_vec()).collect();
            prop_assert_eq!(seen, messages);
        }

        #[test]
        fn any_bytes_end_without_a_panic(
            input in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'='), Just(b'A'), any::<u8>()], 0..400),
            sizes in prop::collection::vec(1usize..100, 1..5),
        ) {
            let (_, _) = decode(&input, &sizes);
        }
    }
}
