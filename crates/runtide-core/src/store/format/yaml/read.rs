//! Builds a value from the events of the YAML parser.

use std::{borrow::Cow, collections::HashMap};

use granit_parser::{Event, Parser, ScalarStyle, Tag};

use super::{Outcome, Problem, Value, documents, plain, value};
use crate::store::Document;

/// Most values and bytes of text, together, that anchors and aliases may add to the document. A "billion laughs" bomb needs
/// more.
const EXPANSION: usize = 1 << 20;

/// Reads a stream of exactly one document.
pub(in super::super) fn read(text: &str) -> Outcome<Value> {
    // The parser takes a NUL character for the end of the text.
    let control = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r');
    if let Some(byte) = text.as_bytes().iter().find(|byte| control(byte)) {
        return Err(Problem::invalid(format!("the character {byte:#04x} is allowed only as an escape")));
    }
    let documents = documents(text);
    let [range] = documents.as_slice() else {
        let count = documents.len();
        return Err(Problem::invalid(match count {
            0 => "there is no document in it".to_owned(),
            _ => format!("there are {count} documents in it; `Document::split` separates them"),
        }));
    };
    let text = text.get(range.clone()).unwrap_or_default();
    let mut options = granit_parser::options! {
        flow_nesting_limit: Document::MAX_DEPTH,
        block_nesting_limit: Document::MAX_DEPTH,
    };
    options.set_emit_comments(false);
    let mut reader = Reader::default();
    let mut parser = Parser::new_from_str_with_options(text, options);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            Problem::invalid(format!("{}, in line {} column {}", error.info(), marker.line(), marker.col() + 1))
        })?;
        let line = span.start.line();
        // The parser reports a node without any text as `~`.
        let event = match event {
            Event::Scalar(text, ScalarStyle::Plain, anchor, tag) if text == "~" && span.is_empty() => {
                Event::Scalar("".into(), ScalarStyle::Plain, anchor, tag)
            }
            event => event,
        };
        reader.handle(event).map_err(|mut problem| {
            problem.message = format!("{}, in line {line}", problem.message);
            problem
        })?;
    }
    reader.root.map(|node| node.value).ok_or_else(|| Problem::invalid("there is no document in it"))
}

/// A value, and the cost of a copy of it.
#[derive(Clone)]
struct Node {
    value: Value,
    /// Number of values plus bytes of text.
    weight: usize,
    depth: usize,
}

enum Frame {
    List { items: Vec<Value>, anchor: usize, weight: usize, depth: usize },
    Map { entries: Vec<(String, Value)>, key: Option<String>, anchor: usize, weight: usize, depth: usize },
}

#[derive(Default)]
struct Reader {
    frames: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    expansion: usize,
    values: usize,
    root: Option<Node>,
}

impl Reader {
    fn handle(&mut self, event: Event<'_>) -> Outcome<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(text, style, tag.as_deref())?;
                let weight = 1 + if let Value::Text(text) = &value { text.len() } else { 0 };
                self.put(Node { value, weight, depth: 0 }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                untagged(tag.as_deref(), "seq")?;
                value::deeper(self.frames.len())?;
                self.frames.push(Frame::List { items: Vec::new(), anchor, weight: 1, depth: 1 });
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                untagged(tag.as_deref(), "map")?;
                value::deeper(self.frames.len())?;
                self.frames.push(Frame::Map { entries: Vec::new(), key: None, anchor, weight: 1, depth: 1 });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.frames.pop() {
                Some(Frame::List { items, anchor, weight, depth }) => {
                    self.put(Node { value: Value::List(items), weight, depth }, anchor)
                }
                Some(Frame::Map { entries, anchor, weight, depth, .. }) => {
                    self.put(Node { value: Value::map(entries)?, weight, depth }, anchor)
                }
                None => Err(Problem::invalid("a list or map ends that did not begin")),
            },
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor);
                let node = node.ok_or_else(|| Problem::invalid("an alias lies within the node that it names"))?;
                self.expansion += node.weight;
                if self.expansion > EXPANSION {
                    return Err(expands_too_far());
                }
                let node = node.clone();
                self.put(node, 0)
            }
            Event::UnresolvedAlias(_) => Err(Problem::invalid("an alias names an unknown anchor")),
            Event::DocumentStart(..) if self.root.is_some() => Err(Problem::invalid("another document begins")),
            _ => Ok(()),
        }
    }

    fn put(&mut self, node: Node, anchor: usize) -> Outcome<()> {
        value::count(&mut self.values)?;
        if self.frames.len() + node.depth > Document::MAX_DEPTH {
            return Err(value::too_deep());
        }
        if anchor != 0 {
            // The node kept for aliases is a copy, and copies can be nested.
            self.expansion += node.weight;
            if self.expansion > EXPANSION {
                return Err(expands_too_far());
            }
            self.anchors.insert(anchor, node.clone());
        }
        match self.frames.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, weight, depth, .. }) => {
                items.push(node.value);
                *weight += node.weight;
                *depth = (*depth).max(node.depth + 1);
            }
            Some(Frame::Map { entries, key, weight, depth, .. }) => {
                *weight += node.weight;
                *depth = (*depth).max(node.depth + 1);
                match key.take() {
                    Some(key) => entries.push((key, node.value)),
                    None => match node.value {
                        Value::Text(text) => *key = Some(text),
                        other => {
                            return Err(Problem::unsupported(format!("a key is {}, but must be a text", other.sort())));
                        }
                    },
                }
            }
        }
        Ok(())
    }
}

fn expands_too_far() -> Problem {
    Problem::invalid("its anchors and aliases expand to too much")
}

/// Returns the value of a scalar, by its tag if it has one.
fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Outcome<Value> {
    let is_plain = style == ScalarStyle::Plain;
    let Some(tag) = tag else {
        if is_plain && text == "<<" {
            // A YAML 1.1 reader would merge, and a 1.2 reader would not: refuse instead of guessing.
            return Err(Problem::unsupported("YAML 1.2 has no merge key, `<<` (in quotes it is a text)"));
        }
        return if is_plain { plain::resolve(&text) } else { Ok(Value::Text(text.into_owned())) };
    };
    if tag.original() == "!" || tag.core_suffix() == Some("str") {
        return Ok(Value::Text(text.into_owned()));
    }
    let value = plain::resolve(&text)?;
    match (tag.core_suffix(), &value) {
        (Some("null"), Value::Null)
        | (Some("bool"), Value::Bool(_))
        | (Some("int"), Value::Unsigned(_) | Value::Negative(_))
        | (Some("float"), Value::Float(_)) => Ok(value),
        (Some("float"), Value::Unsigned(_) | Value::Negative(_)) => {
            text.parse().map(Value::Float).map_err(|_| Problem::invalid("it is tagged as a float, but is none"))
        }
        (Some(sort), _) => Err(Problem::invalid(format!("a value is tagged as {sort}, but is none"))),
        (None, _) => Err(tagged(tag)),
    }
}

/// Refuses every tag except the one that a list or map has by default.
fn untagged(tag: Option<&Tag>, sort: &str) -> Outcome<()> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(sort) && tag.original() != "!" => Err(tagged(tag)),
        _ => Ok(()),
    }
}

fn tagged(tag: &Tag) -> Problem {
    Problem::unsupported(format!("a value has the tag {}", value::shown(&tag.original())))
}
