//! [`Frames`]: the event stream's values as messages.

use runtide_core::InstanceId;
use runtide_engine::{self as engine, Values};

use crate::normalize::Event;

/// One value of the stream.
#[derive(Debug)]
pub(crate) enum Framed<'a> {
    /// A readable message.
    Event(Event<'a>),
    /// The bytes of a value that is no readable message.
    Unreadable(&'a [u8]),
}

/// Reads the buffered bytes value by value.
#[derive(Debug)]
pub(crate) struct Frames<'a>(Values<'a, Event<'a>>);

impl<'a> Frames<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(Values::of(bytes))
    }

    /// Bytes that the values so far took.
    pub(crate) fn read(&self) -> usize {
        self.0.read()
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Framed<'a>;

    /// `None`: the next value is incomplete.
    fn next(&mut self) -> Option<Framed<'a>> {
        if let Some((event, length)) = Event::plain(self.0.rest()) {
            self.0.pass(length);
            return Some(Framed::Event(event));
        }
        self.0.next().map(|framed| match framed {
            engine::Framed::Value(event) => Framed::Event(event),
            engine::Framed::Unreadable(bytes) => Framed::Unreadable(bytes),
        })
    }
}

/// The container that an unreadable message is about.
pub(crate) fn subject(bytes: &[u8]) -> Option<InstanceId> {
    let message: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let actor = message.get("Actor");
    let of_network = message.get("Type").and_then(serde_json::Value::as_str) == Some("network");
    let id = if of_network {
        actor?.get("Attributes")?.get("container")?
    } else {
        actor.and_then(|actor| actor.get("ID")).or_else(|| message.get("id"))?
    };
    id.as_str().filter(|id| !id.is_empty()).map(InstanceId::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: &str =
        r#"{"Type":"container","Action":"start","Actor":{"ID":"a1","Attributes":{"name":"{\"}"}},"timeNano":1}"#;

    fn all(bytes: &[u8]) -> (Vec<String>, usize) {
        let (mut found, mut frames, mut read) = (Vec::new(), Frames::of(bytes), 0);
        while let Some(framed) = frames.next() {
            assert!(frames.read() > read, "an empty frame would be read indefinitely");
            read = frames.read();
            found.push(match framed {
                Framed::Event(event) => event.container().unwrap_or("-").to_owned(),
                Framed::Unreadable(bytes) => {
                    format!("?{}", subject(bytes).map_or_else(String::new, |id| id.to_string()))
                }
            });
        }
        (found, bytes.len() - read)
    }

    #[test]
    fn values_need_no_newline_between_them() {
        let text = format!("{START}{START}\r\n\n{START}\n");
        assert_eq!(all(text.as_bytes()).0, ["a1", "a1", "a1"]);
    }

    #[test]
    fn an_unreadable_value_hides_no_other() {
        let odd_type = r#"{"Type":"container","Action":7,"Actor":{"ID":"b2"}}"#;
        let odd_network = r#"{"Type":"network","Action":7,"Actor":{"ID":"n","Attributes":{"container":"c3"}}}"#;
        let text = format!("{START}{odd_type}\n[1]\nnonsense {{\n{odd_network}{START}");
        assert_eq!(all(text.as_bytes()).0, ["a1", "?b2", "?", "?", "?c3", "a1"]);
    }

    #[test]
    fn bytes_that_are_not_text_are_unreadable() {
        let mut text = br#"{"Type":"container","Action":""#.to_vec();
        text.extend([0xff, 0xfe, b'"', b'}', b'\n']);
        text.extend(START.as_bytes());
        assert_eq!(all(&text).0, ["?", "a1"]);
    }

    proptest! {
        #[test]
        fn chunks_may_end_anywhere(cuts in prop::collection::vec(0usize..500, 0..12), newlines in any::<bool>()) {
            let one = if newlines { format!("{START}\n") } else { START.to_owned() };
            let text = one.repeat(4);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let (mut buffer, mut fed, mut found) = (Vec::new(), 0, 0);
            for cut in cuts {
                buffer.extend_from_slice(&text.as_bytes()[fed..cut]);
                fed = cut;
                let (events, left) = all(&buffer);
                prop_assert!(events.iter().all(|event| event == "a1"));
                found += events.len();
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
