//! Messages in the form that the daemon gives to nearly all of them, read twice as fast as any JSON: objects without spaces, known
//! members that are text without escapes, times that are whole numbers. Decoding was a third of what a message costs on its way to the
//! consumer.
//!
//! Any other message is left to the general decoder, which reads each of these as this one does.

use std::borrow::Cow;

use runtide_engine::Text;

use super::{Actor, Attributes, Event};

/// The message at the beginning of the text, and the length up to its end. `None`: it is not of this form, or not whole.
pub(super) fn message(text: &str) -> Option<(Event<'_>, usize)> {
    let mut scanner = Scanner { text, at: text.len() - text.trim_start_matches([' ', '\n', '\r', '\t']).len() };
    let message = scanner.message()?;
    Some((message, scanner.at))
}

/// Length of the text before the first byte that is a quote, a backslash or a control character. Eight bytes are looked at together.
fn unescaped(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The highest bit of each byte that is below the limit; above the first one also of others, which do not count.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH;
    let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = bytes.as_chunks();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = below(word, u64::from(b' ')) | is(word, b'"') | is(word, b'\\');
        if found != 0 {
            return Some(n * 8 + usize::try_from(found.trailing_zeros()).ok()? / 8);
        }
    }
    let at = rest.iter().position(|byte| *byte < b' ' || matches!(byte, b'"' | b'\\'))?;
    Some(words.len() * 8 + at)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let begin = self.at;
        self.at += unescaped(self.text.as_bytes().get(begin..)?)?;
        let string = self.text.get(begin..self.at);
        self.expect(b'"')?;
        string
    }

    /// Whole, not negative, and of at most 19 digits, which fit.
    fn number(&mut self) -> Option<u64> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let (mut number, mut length) = (0, 0);
        while let Some(digit) = rest.get(length).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
            if length == 19 {
                return None;
            }
            number = number * 10 + u64::from(digit);
            length += 1;
        }
        self.at += length;
        let is_whole = length == 1 || (length > 1 && rest.first() != Some(&b'0'));
        is_whole.then_some(number)
    }

    /// After a member: true if another one follows.
    fn goes_on(&mut self) -> Option<bool> {
        match self.next()? {
            b',' => Some(true),
            b'}' => Some(false),
            _ => None,
        }
    }

    /// The name of the next member, up to its value.
    fn key(&mut self) -> Option<&'a str> {
        let key = self.string()?;
        self.expect(b':')?;
        Some(key)
    }

    fn message(&mut self) -> Option<Event<'a>> {
        self.expect(b'{')?;
        let (mut kind, mut action, mut status, mut id) = (None, None, None, None);
        let (mut time_nano, mut actor) = (None, None);
        loop {
            match self.key()? {
                "Type" => once(&mut kind, self.string()?)?,
                "Action" => once(&mut action, self.string()?)?,
                "status" => once(&mut status, self.string()?)?,
                "id" => once(&mut id, self.string()?)?,
                "timeNano" => once(&mut time_nano, self.number()?)?,
                "Actor" => once(&mut actor, self.actor()?)?,
                _ if self.peek() == Some(b'"') => {
                    self.string()?;
                }
                _ => {
                    self.number()?;
                }
            }
            if !self.goes_on()? {
                break;
            }
        }
        let (kind, action, status, id) = (text(kind), text(action), text(status), text(id));
        Some(Event { kind, action, actor, status, id, time_nano })
    }

    fn actor(&mut self) -> Option<Actor<'a>> {
        self.expect(b'{')?;
        let (mut id, mut attributes) = (None, None);
        loop {
            match self.key()? {
                "ID" => once(&mut id, self.string()?)?,
                "Attributes" => once(&mut attributes, self.attributes()?)?,
                _ => return None,
            }
            if !self.goes_on()? {
                return Some(Actor { id: text(id), attributes });
            }
        }
    }

    fn attributes(&mut self) -> Option<Attributes<'a>> {
        self.expect(b'{')?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Some(Attributes::default());
        }
        let mut pairs = Vec::with_capacity(16);
        loop {
            let key = self.key()?;
            pairs.push((text(Some(key)), text(Some(self.string()?))));
            if !self.goes_on()? {
                return Some(Attributes(pairs));
            }
        }
    }
}

/// `None` for a member that comes twice, which the general decoder refuses.
fn once<T>(member: &mut Option<T>, value: T) -> Option<()> {
    member.replace(value).is_none().then_some(())
}

fn text(text: Option<&str>) -> Text<'_> {
    Text(Cow::Borrowed(text.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIE: &str = r#"{"status":"die","id":"c1","from":"i","Type":"container","Action":"die","Actor":{"ID":"c1","Attributes":{"exitCode":"3","name":"größe","x":""}},"scope":"local","time":5,"timeNano":5000000007}"#;

    /// The general decoder's reading of the first value.
    fn general(text: &str) -> Option<(String, usize)> {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Event<'_>>();
        let event = values.next()?.ok()?;
        Some((format!("{event:?}"), values.byte_offset()))
    }

    fn agrees(text: &str) -> bool {
        let plain = message(text).map(|(event, length)| (format!("{event:?}"), length));
        plain.is_none() || plain == general(text)
    }

    #[test]
    fn plain_messages_are_read_as_the_general_decoder_reads_them() {
        for text in [DIE, &format!("\r\n {DIE}{DIE}"), r#"{"Type":"x","Actor":{"ID":"","Attributes":{}}}"#] {
            assert!(message(text).is_some() && agrees(text), "{text}");
        }
        let recorded = include_str!("../../../tests/fixtures/1.41/events.ndjson");
        assert!(recorded.lines().all(agrees));
        assert!(recorded.lines().filter(|line| message(line).is_some()).count() * 2 > recorded.lines().count());
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_general_decoder() {
        for text in [
            "",
            "{",
            "{}",
            r#"{"Type":"a","Type":"b"}"#,
            r#"{"Type":"a\n"}"#,
            "{\"Type\":\"a\u{1}\"}",
            r#"{"Type":null}"#,
            r#"{"Type" :"a"}"#,
            r#"{"timeNano":1.5}"#,
            r#"{"timeNano":-1}"#,
            r#"{"timeNano":01}"#,
            r#"{"timeNano":18446744073709551615}"#,
            r#"{"timeNano":12345678901234567890}"#,
            r#"{"other":{"a":1}}"#,
            r#"{"Actor":{"ID":"a","more":"b"}}"#,
            &DIE[..DIE.len() - 1],
        ] {
            assert!(message(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_never_disagrees_with_the_general_decoder(parts in prop::collection::vec(prop::sample::select(vec![
            "{", "}", ":", ",", " ", "\n", "[", "null", "0", "01", "7", "1.5", "2e3", "-1", "18446744073709551615", "\"", "\\", "\u{1f}",
            "\"Type\":", "\"Action\":", "\"id\":", "\"status\":", "\"Actor\":{", "\"ID\":", "\"Attributes\":{", "\"timeNano\":",
            "\"other\":", "\"a\"", "\"a\\\"b\"", "\"\u{e9}\u{7f}\"", "\"container\",", "\"a longer text, of 30 letters\",", "},", "}}",
        ]), 0..16)) {
            let text = format!("{{{}", parts.concat());
            prop_assert!(agrees(&text), "{}", text);
        }

        #[test]
        fn a_message_that_was_damaged_is_read_as_the_general_decoder_reads_it(at in 0..DIE.len(), with in any::<Option<char>>()) {
            let end = (at..=DIE.len()).find(|end| DIE.is_char_boundary(*end)).unwrap();
            let begin = (0..=at).rev().find(|begin| DIE.is_char_boundary(*begin)).unwrap();
            let text = format!("{}{}{}", &DIE[..begin], with.map(String::from).unwrap_or_default(), &DIE[end..]);
            prop_assert!(agrees(&text), "{}", text);
        }

        #[test]
        fn text_ends_at_its_first_quote_backslash_or_control_character(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let expected = bytes.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            prop_assert_eq!(unescaped(&bytes), expected);
        }
    }
}
