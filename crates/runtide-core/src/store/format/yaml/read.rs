//! Builds a value from the events of the YAML parser.

use std::{borrow::Cow, collections::HashMap};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Tag};

use super::{
    Outcome, Problem, Value, documents, json, kubectl,
    manifest::{self, Named},
    options, plain, value,
};
use crate::store::{Document, YamlSchema};

/// Most values and bytes of text, together, that anchors and aliases may add to the document. A "billion laughs" bomb needs
/// more.
const EXPANSION: usize = 1 << 20;

/// Reads a stream of exactly one document.
pub(in super::super) fn read(text: &str, schema: YamlSchema) -> Outcome<Value> {
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
    let named = match schema {
        YamlSchema::Auto => manifest::names_itself(text),
        YamlSchema::Core => Named::No,
        YamlSchema::Kubectl => Named::Both,
    };
    match named {
        Named::Both => kubectl_reads(text),
        Named::No => parse(text, false).map_err(|failed| failed.problem),
        // The lenient reading shows if the document names itself.
        Named::Unreadable => match kubectl_reads(text) {
            Ok(value) if is_named(&value) => Ok(value),
            _ => parse(text, false).map_err(|failed| failed.problem),
        },
    }
}

fn is_named(value: &Value) -> bool {
    let Value::Map(map) = value else { return false };
    let has =
        |name: &str| map.iter().any(|(key, value)| key == name && !matches!(value, Value::List(_) | Value::Map(_)));
    has("apiVersion") && has("kind")
}

/// Reads as kubectl does.
fn kubectl_reads(text: &str) -> Outcome<Value> {
    if text.trim_start().starts_with('{')
        && let Ok(value) = json::read(text)
    {
        return Ok(value);
    }
    // kubectl hands each line to its parser with a break, the last one too.
    let mut text = if text.ends_with('\n') { Cow::Borrowed(text) } else { Cow::Owned(format!("{text}\n")) };
    let deepest = text.lines().map(|line| line.len() - line.trim_start_matches(' ').len()).max().unwrap_or(0);
    let mut left = REPARSED;
    loop {
        match parse(&text, true) {
            // kubectl needs no indentation in a text in quotes, and a line's indentation is no part of such a text.
            Err(Failed { unindented: Some(at), .. }) if left >= text.len() && text.is_char_boundary(at) => {
                left -= text.len();
                text.to_mut().insert_str(at, &" ".repeat(deepest + 1));
            }
            outcome => return outcome.map_err(|failed| failed.problem),
        }
    }
}

/// Most bytes that are parsed again, because lines of texts in quotes had to be indented.
const REPARSED: usize = 64 << 20;

struct Failed {
    problem: Problem,
    /// Offset in a line of a text in quotes that is not indented as the parser demands.
    unindented: Option<usize>,
}

fn parse(text: &str, is_kubectl: bool) -> Result<Value, Failed> {
    let mut reader = Reader { is_kubectl, ..Reader::default() };
    for event in Parser::new_from_str_with_options(text, options()) {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            let message = format!("{}, in line {} column {}", error.info(), marker.line(), marker.col() + 1);
            let kinds = [ErrorKind::InvalidQuotedScalarIndent, ErrorKind::TabInIndentation];
            let is_unindented = kinds.contains(error.kind());
            let unindented = marker.byte_offset().filter(|_| is_unindented);
            Failed { problem: Problem::invalid(message), unindented }
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
            Failed { problem, unindented: None }
        })?;
    }
    let nothing = || Failed { problem: Problem::invalid("there is no document in it"), unindented: None };
    reader.root.map(|node| node.value).ok_or_else(nothing)
}

/// A value, and the cost of a copy of it.
#[derive(Clone)]
struct Node {
    value: Value,
    /// Number of values plus bytes of text.
    weight: usize,
    depth: usize,
    origin: Origin,
}

/// Origin of a value, as far as a merge key or a map must know it.
#[derive(Clone, Copy, Default, PartialEq)]
enum Origin {
    #[default]
    Written,
    Alias,
    /// The scalar `<<` that means a merge, if it is a key.
    Merge,
}

enum Frame {
    List { items: Vec<Value>, anchor: usize, weight: usize, depth: usize },
    Map { entries: Vec<Entry>, key: Option<Key>, anchor: usize, weight: usize, depth: usize },
}

/// A key that waits for its value.
enum Key {
    Text(String, Option<&'static str>),
    Merge,
}

struct Entry {
    key: String,
    /// The type of the key before it became a text; `None` if it was merged, or in the core schema.
    sort: Option<&'static str>,
    value: Value,
}

#[derive(Default)]
struct Reader {
    is_kubectl: bool,
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
                let (is_plain, tag) = (style == ScalarStyle::Plain, tag.as_deref());
                let is_merge = self.is_kubectl && kubectl::is_merge(&text, is_plain, tag);
                let value =
                    if self.is_kubectl { kubectl::scalar(&text, is_plain, tag)? } else { scalar(text, is_plain, tag)? };
                let weight = 1 + if let Value::Text(text) = &value { text.len() } else { 0 };
                let origin = if is_merge { Origin::Merge } else { Origin::Written };
                self.put(Node { value, weight, depth: 0, origin }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.untagged(tag.as_deref(), "seq")?;
                value::deeper(self.frames.len())?;
                self.frames.push(Frame::List { items: Vec::new(), anchor, weight: 1, depth: 1 });
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                self.untagged(tag.as_deref(), "map")?;
                value::deeper(self.frames.len())?;
                self.frames.push(Frame::Map { entries: Vec::new(), key: None, anchor, weight: 1, depth: 1 });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.frames.pop() {
                Some(Frame::List { items, anchor, weight, depth }) => {
                    self.put(Node { value: Value::List(items), weight, depth, origin: Origin::Written }, anchor)
                }
                Some(Frame::Map { entries, anchor, weight, depth, .. }) => {
                    let value = if self.is_kubectl {
                        last_wins(entries)?
                    } else {
                        Value::map(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())?
                    };
                    self.put(Node { value, weight, depth, origin: Origin::Written }, anchor)
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
                let node = Node { origin: Origin::Alias, ..node.clone() };
                self.put(node, 0)
            }
            Event::UnresolvedAlias(_) => Err(Problem::invalid("an alias names an unknown anchor")),
            Event::DocumentStart(..) if self.root.is_some() => Err(Problem::invalid("another document begins")),
            _ => Ok(()),
        }
    }

    fn put(&mut self, mut node: Node, anchor: usize) -> Outcome<()> {
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
        // A key becomes a text by the value that it had before JSON.
        if self.is_kubectl && !matches!(self.frames.last(), Some(Frame::Map { key: None, .. })) {
            node.value = kubectl::in_json(node.value)?;
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
                    Some(Key::Text(key, sort)) => entries.push(Entry { key, sort, value: node.value }),
                    Some(Key::Merge) => merge(node, entries)?,
                    None if node.origin == Origin::Merge => *key = Some(Key::Merge),
                    None if self.is_kubectl => {
                        let (text, sort) = kubectl::key(&node.value)?;
                        *key = Some(Key::Text(text, Some(sort)));
                    }
                    None => match node.value {
                        Value::Text(text) => *key = Some(Key::Text(text, None)),
                        other => {
                            return Err(Problem::unsupported(format!("a key is {}, but must be a text", other.sort())));
                        }
                    },
                }
            }
        }
        Ok(())
    }

    /// Refuses every tag except the one that a list or map has by default. kubectl ignores all of them.
    fn untagged(&self, tag: Option<&Tag>, sort: &str) -> Outcome<()> {
        match tag {
            Some(tag) if !self.is_kubectl && tag.core_suffix() != Some(sort) && tag.original() != "!" => {
                Err(tagged(tag))
            }
            _ => Ok(()),
        }
    }
}

/// Adds the entries of a map, or of a list of maps, behind those that the map has. In a list the first map counts most.
fn merge(node: Node, entries: &mut Vec<Entry>) -> Outcome<()> {
    let maps = match node.value {
        Value::List(maps) if node.origin != Origin::Alias => maps,
        map => vec![map],
    };
    for map in maps.into_iter().rev() {
        let Value::Map(map) = map else {
            return Err(Problem::invalid("the value of a merge key is no map, and no list of maps"));
        };
        entries.extend(map.into_iter().map(|(key, value)| Entry { key, sort: None, value }));
    }
    Ok(())
}

/// Makes a map in which a key that comes twice has its last value, as kubectl takes it.
fn last_wins(entries: Vec<Entry>) -> Outcome<Value> {
    let mut map: Vec<(String, Value)> = Vec::with_capacity(entries.len());
    let mut known: HashMap<String, (usize, Option<&'static str>)> = HashMap::new();
    for Entry { key, sort, value } in entries {
        let (at, first) = *known.entry(key.clone()).or_insert((map.len(), sort));
        // kubectl takes one of the two at random.
        if first.zip(sort).is_some_and(|(first, second)| first != second) {
            let message = format!("the key {} is there as a text and as another value", value::shown(&key));
            return Err(Problem::invalid(message));
        }
        match map.get_mut(at) {
            Some((_, known)) => *known = value,
            None => map.push((key, value)),
        }
    }
    Ok(Value::Map(map))
}

fn expands_too_far() -> Problem {
    Problem::invalid("its anchors and aliases expand to too much")
}

/// Returns the value of a scalar, by its tag if it has one.
fn scalar(text: Cow<'_, str>, is_plain: bool, tag: Option<&Tag>) -> Outcome<Value> {
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

fn tagged(tag: &Tag) -> Problem {
    Problem::unsupported(format!("a value has the tag {}", value::shown(&tag.original())))
}
