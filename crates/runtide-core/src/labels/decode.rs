//! Dotted keys, read into a type of the application's.

use std::{cell::Cell, collections::BTreeMap, fmt};

use serde::{
    de::{
        self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Visitor,
        value::{MapAccessDeserializer, SeqDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};

use super::Labels;
use crate::error::{Error, ErrorKind};

/// Implements [`Labels::decode`].
pub(super) fn decode<T: DeserializeOwned>(labels: &Labels, prefix: &str) -> crate::error::Result<T> {
    // `http.` and `http` are one prefix; `example.com/` has its separator already.
    let prefix = prefix.strip_suffix('.').unwrap_or(prefix);
    let separator = usize::from(!prefix.is_empty() && !prefix.ends_with('/'));
    let mut root = Node { path: prefix.to_owned(), below: prefix.len() + separator, ..Node::default() };
    for (key, value) in labels.iter() {
        let label = Label { key, value };
        match key.strip_prefix(prefix) {
            Some("") => root.label = Some(label),
            Some(rest) if separator == 0 || rest.starts_with('.') => root.insert(label),
            _ => {}
        }
    }
    T::deserialize(At::node(&root)).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, "labels.decode", error.message)
            .with_context("key", error.key.as_deref().unwrap_or(prefix))
    })
}

#[derive(Clone, Copy)]
struct Label<'a> {
    key: &'a str,
    value: &'a str,
}

/// The tree that dotted keys spell.
#[derive(Default)]
struct Node<'a> {
    path: String,
    /// Length of a key up to the parts below this node.
    below: usize,
    label: Option<Label<'a>>,
    children: BTreeMap<&'a str, Node<'a>>,
}

impl<'a> Node<'a> {
    /// Iterative, so that a label of 64 KiB of dots costs memory and not the stack.
    fn insert(&mut self, label: Label<'a>) {
        let parts = self.key_below(label).splitn(MAX_DEPTH, '.');
        let mut node = self;
        for part in parts {
            let path = match node.path.as_str() {
                path if path.is_empty() || path.ends_with('/') => format!("{path}{part}"),
                path => format!("{path}.{part}"),
            };
            let below = node.below + part.len() + 1;
            node = node.children.entry(part).or_insert_with(|| Node { path, below, ..Node::default() });
        }
        node.label = Some(label);
    }

    /// The part of a label's key that is below this node.
    fn key_below(&self, label: Label<'a>) -> &'a str {
        label.key.get(self.below..).unwrap_or_default()
    }

    /// This node and those below it that have a value, in the order of their keys.
    fn leaves<'n>(&'n self, out: &mut Vec<&'n Self>) {
        if self.label.is_some() {
            out.push(self);
        }
        self.children.values().for_each(|child| child.leaves(out));
    }
}

/// A node as it is read.
#[derive(Clone, Copy)]
struct At<'n, 'a> {
    node: &'n Node<'a>,
    /// For a value of a map: set if the value is a scalar, so that dots belong to the map's keys.
    dotted: Option<&'n Cell<bool>>,
}

impl<'n, 'a> At<'n, 'a> {
    fn node(node: &'n Node<'a>) -> Self {
        Self { node, dotted: None }
    }

    /// The node of the scalar that is read here, and its text.
    fn text(self) -> Result<(&'n Node<'a>, &'a str), DecodeError> {
        let mut node = self.node;
        if let Some(dotted) = self.dotted {
            dotted.set(true);
            while let (None, Some((_, child))) = (node.label, node.children.first_key_value()) {
                node = child;
            }
        }
        match node.label {
            Some(label) => Ok((node, label.value)),
            None if node.children.is_empty() => Err(DecodeError::at(node, "there is no such label")),
            None => Err(DecodeError::at(node, "a value is missing: there are only keys below it")),
        }
    }

    fn parse<T: std::str::FromStr>(self, expected: &str) -> Result<(&'n Node<'a>, T), DecodeError> {
        let (node, text) = self.text()?;
        match text.trim().parse() {
            Ok(value) => Ok((node, value)),
            Err(_) => Err(DecodeError::at(node, format!("expected {expected}, got '{text}'"))),
        }
    }
}

/// The dots of deeper keys are part of the last name: no type of an application nests so far, and a hostile label must not cost
/// the stack.
const MAX_DEPTH: usize = 64;

#[derive(Debug)]
struct DecodeError {
    key: Option<String>,
    message: String,
}

impl DecodeError {
    fn at(node: &Node<'_>, message: impl Into<String>) -> Self {
        Self { key: Some(node.path.clone()), message: message.into() }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { key: None, message: message.to_string() }
    }
}

/// Names the key for an error that serde raised without one.
fn located<T>(node: &Node<'_>, result: Result<T, DecodeError>) -> Result<T, DecodeError> {
    result.map_err(|error| DecodeError { key: error.key.or_else(|| Some(node.path.clone())), ..error })
}

impl IntoDeserializer<'_, DecodeError> for At<'_, '_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The keys and values below a node, as a map.
struct Children<'n, 'a> {
    of: &'n Node<'a>,
    rest: std::collections::btree_map::Iter<'n, &'a str, Node<'a>>,
    /// The value whose key was read.
    value: Option<&'n Node<'a>>,
    /// The scalars below the last child whose dots belong to the keys, in reverse.
    leaves: Vec<&'n Node<'a>>,
}

impl<'n, 'a> Children<'n, 'a> {
    fn of(node: &'n Node<'a>) -> Self {
        Self { of: node, rest: node.children.iter(), value: None, leaves: Vec::new() }
    }

    fn key<'de, K: DeserializeSeed<'de>>(&self, leaf: &Node<'a>, seed: K) -> Result<K::Value, DecodeError> {
        let key = leaf.label.map_or("", |label| self.of.key_below(label));
        located(leaf, seed.deserialize(StrDeserializer::new(key)))
    }
}

impl<'de> MapAccess<'de> for Children<'_, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some((key, node)) = self.rest.next() else { return Ok(None) };
        self.value = Some(node);
        located(node, seed.deserialize(StrDeserializer::new(key))).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        match self.value.take() {
            Some(node) => located(node, seed.deserialize(At::node(node))),
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }

    /// Reads the value first: only the type of the value says whether `a.b` is a key in a map of scalars, or `b` a key below `a`.
    fn next_entry_seed<K: DeserializeSeed<'de>, V: DeserializeSeed<'de>>(
        &mut self,
        key: K,
        value: V,
    ) -> Result<Option<(K::Value, V::Value)>, DecodeError> {
        if let Some(leaf) = self.leaves.pop() {
            let value = located(leaf, value.deserialize(At::node(leaf)))?;
            return Ok(Some((self.key(leaf, key)?, value)));
        }
        let Some((name, node)) = self.rest.next() else { return Ok(None) };
        let dotted = Cell::new(false);
        let value = located(node, value.deserialize(At { node, dotted: Some(&dotted) }))?;
        if !dotted.get() {
            return Ok(Some((located(node, key.deserialize(StrDeserializer::new(name)))?, value)));
        }
        node.leaves(&mut self.leaves);
        self.leaves.reverse();
        let first = self.leaves.pop().unwrap_or(node);
        Ok(Some((self.key(first, key)?, value)))
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty, $expected:literal;)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let (node, value) = self.parse::<$type>($expected)?;
            located(node, visitor.$visit(value))
        }
    )* };
}

impl<'de> de::Deserializer<'de> for At<'_, '_> {
    type Error = DecodeError;

    parsed! {
        deserialize_i8 visit_i8 i8, "a whole number from -128 to 127";
        deserialize_i16 visit_i16 i16, "a whole number of 16 bits";
        deserialize_i32 visit_i32 i32, "a whole number of 32 bits";
        deserialize_i64 visit_i64 i64, "a whole number of 64 bits";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number of 32 bits, not negative";
        deserialize_u64 visit_u64 u64, "a whole number of 64 bits, not negative";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
        deserialize_char visit_char char, "one character";
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let (node, text) = self.text()?;
        let flag = match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => return Err(DecodeError::at(node, format!("expected true or false, got '{text}'"))),
        };
        visitor.visit_bool(flag)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let (node, text) = self.text()?;
        located(node, visitor.visit_str(text))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.node.label.is_none() && self.node.children.is_empty() {
            return visitor.visit_none(); // only at the root: any other node is of a label
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let node = self.node;
        if node.children.is_empty() {
            let text = node.label.map_or("", |label| label.value);
            let items: Vec<Node<'_>> = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|value| Node { path: node.path.clone(), label: Some(Label { key: "", value }), ..Node::default() })
                .collect();
            return located(node, visitor.visit_seq(SeqDeserializer::new(items.iter().map(At::node))));
        }
        let mut numbered = Vec::with_capacity(node.children.len());
        for (key, node) in &node.children {
            let Ok(number) = key.parse::<u64>() else {
                return Err(DecodeError::at(node, "expected a number, as this is a list"));
            };
            numbered.push((number, node));
        }
        numbered.sort_by_key(|(number, _)| *number);
        located(node, visitor.visit_seq(SeqDeserializer::new(numbered.into_iter().map(|(_, node)| At::node(node)))))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let node = self.node;
        if let (Some(label), true) = (node.label, node.children.is_empty() && !node.path.is_empty()) {
            let text = label.value;
            return Err(DecodeError::at(node, format!("expected keys below it, got the value '{text}'")));
        }
        located(node, visitor.visit_map(Children::of(node)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let node = self.node;
        match node.label {
            Some(label) if node.children.is_empty() => {
                located(node, visitor.visit_enum(StrDeserializer::new(label.value.trim())))
            }
            _ if node.children.len() == 1 => {
                located(node, visitor.visit_enum(MapAccessDeserializer::new(Children::of(node))))
            }
            _ => Err(DecodeError::at(node, "expected exactly one of the variants")),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.node.children.is_empty() { self.deserialize_str(visitor) } else { self.deserialize_map(visitor) }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { i128 u128 bytes byte_buf unit unit_struct tuple_struct identifier }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Proxy {
        #[serde(default)]
        enable: bool,
        routers: BTreeMap<String, Router>,
        #[serde(default)]
        mode: Mode,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Router {
        host: String,
        ports: Vec<u16>,
        weight: Option<f32>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        #[default]
        Http,
        Tcp {
            timeout: u32,
        },
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    #[test]
    fn nested_keys_lists_maps_and_enums_are_read() {
        let read: Proxy = labels(&[
            ("proxy.enable", "Yes"),
            ("proxy.routers.a.host", "a.example"),
            ("proxy.routers.a.ports", "80, 443"),
            ("proxy.routers.b.host", "b.example"),
            ("proxy.routers.b.ports.10", "3"),
            ("proxy.routers.b.ports.9", "2"),
            ("proxy.routers.b.weight", "0.5"),
            ("proxy.mode.tcp.timeout", "7"),
            ("proxyless", "x"),
        ])
        .decode("proxy")
        .unwrap();
        assert!(read.enable);
        assert_eq!(read.routers["a"].ports, [80, 443]);
        assert_eq!(read.routers["b"].ports, [2, 3], "numeric order, not that of text");
        assert_eq!(read.routers["b"].weight, Some(0.5));
        assert_eq!(read.mode, Mode::Tcp { timeout: 7 });
    }

    #[test]
    fn the_key_that_does_not_parse_is_named() {
        let cases = [
            (labels(&[("p.routers.a.host", "h"), ("p.routers.a.ports", "80,x")]), "p.routers.a.ports"),
            (labels(&[("p.enable", "maybe"), ("p.routers.a.host", "h")]), "p.enable"),
            (labels(&[("p.routers.a.ports", "1")]), "p.routers.a"),
            (labels(&[("p.routers.a.host", "h"), ("p.routers.a.ports.x", "1")]), "p.routers.a.ports.x"),
            (labels(&[("p.routers", "a")]), "p.routers"),
            (labels(&[("p.mode", "udp"), ("p.routers.a.host", "h")]), "p.mode"),
        ];
        for (labels, key) in cases {
            let error = labels.decode::<Proxy>("p").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert_eq!(error.context(), [("key".into(), key.to_owned())], "{error}");
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Http {
        port: u16,
    }

    #[test]
    fn labels_that_are_not_there_are_none() {
        let other = labels(&[("https.port", "1"), ("httpd", "x")]);
        for none in [labels(&[]), other] {
            for prefix in ["http", "http."] {
                assert_eq!(none.decode::<Option<Http>>(prefix).unwrap(), None);
                assert_eq!(none.decode::<Option<u16>>(prefix).unwrap(), None);
                assert_eq!(none.decode::<Vec<u16>>(prefix).unwrap(), [0; 0]);
                assert_eq!(none.decode::<BTreeMap<String, u16>>(prefix).unwrap(), BTreeMap::new());
                let error = none.decode::<u16>(prefix).unwrap_err();
                assert!(error.to_string().contains("no such label"), "{error}");
            }
        }
        assert_eq!(labels(&[]).decode::<Option<Http>>("").unwrap(), None);
        let there = labels(&[("http.port", "80")]);
        assert_eq!(there.decode::<Option<Http>>("http").unwrap(), Some(Http { port: 80 }));
        // A label that is there and wrong is an error, never `None`.
        let wrong = labels(&[("http.prot", "80")]);
        assert!(wrong.decode::<Option<Http>>("http").unwrap_err().to_string().contains("port"));
        assert!(labels(&[("http", "80")]).decode::<Option<Http>>("http").is_err());
    }

    #[test]
    fn a_prefix_may_end_with_its_separator() {
        let dotted = labels(&[("http.port", "80"), ("httpx.port", "81")]);
        assert_eq!(dotted.decode::<Http>("http.").unwrap(), Http { port: 80 });
        let wrong = labels(&[("http.port", "x")]);
        assert_eq!(wrong.decode::<Http>("http.").unwrap_err().context(), [("key".into(), "http.port".to_owned())]);
        let slashed = labels(&[("example.com/port", "80"), ("example.com/a.b", "2")]);
        assert_eq!(slashed.decode::<Http>("example.com/").unwrap(), Http { port: 80 });
        let all: BTreeMap<String, u8> = slashed.decode("example.com/").unwrap();
        assert_eq!(all, BTreeMap::from([("a.b".to_owned(), 2), ("port".to_owned(), 80)]));
        let wrong = labels(&[("example.com/port", "x")]);
        assert_eq!(
            wrong.decode::<Http>("example.com/").unwrap_err().context(),
            [("key".into(), "example.com/port".to_owned())]
        );
    }

    #[test]
    fn a_map_of_scalars_takes_dotted_keys() {
        // Maps in a field, below a fixed key, and next to a map whose values are structures.
        #[derive(Debug, PartialEq, Deserialize)]
        struct Site {
            headers: BTreeMap<String, String>,
            services: BTreeMap<String, Http>,
        }

        let dotted =
            labels(&[("p.a", "1"), ("p.a.b", "2"), ("p.a.b.c", "3"), ("p.d.e", "4"), ("p..f", "5"), ("p.g.", "6")]);
        let expected = [("a", "1"), ("a.b", "2"), ("a.b.c", "3"), ("d.e", "4"), (".f", "5"), ("g.", "6")];
        let text: BTreeMap<String, String> = dotted.decode("p").unwrap();
        assert_eq!(text, expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
        let numbers: std::collections::HashMap<String, Option<u8>> = dotted.decode("p").unwrap();
        assert_eq!(numbers.len(), 6);
        assert_eq!(numbers["a.b.c"], Some(3));
        let read: Labels = dotted.decode("p").unwrap();
        assert_eq!((read.len(), read.get("d.e")), (6, Some("4")));
        let all: BTreeMap<String, String> = dotted.decode("").unwrap();
        assert_eq!(all["p.a.b"], "2");

        let wrong = labels(&[("p.a.b", "1"), ("p.a.c", "x")]);
        let error = wrong.decode::<BTreeMap<String, u8>>("p").unwrap_err();
        assert_eq!(error.context(), [("key".into(), "p.a.c".to_owned())]);

        let site: Site =
            labels(&[("s.headers.x.y", "1"), ("s.headers.z", "2"), ("s.services.a.port", "80")]).decode("s").unwrap();
        assert_eq!(site.headers.keys().collect::<Vec<_>>(), ["x.y", "z"]);
        assert_eq!(site.services["a"], Http { port: 80 });
    }

    #[derive(Debug, Deserialize)]
    struct Tree(#[expect(dead_code, reason = "the decoded value is not used")] BTreeMap<String, serde_json::Value>);

    #[test]
    fn hostile_labels_neither_panic_nor_overflow() {
        let deep = format!("p.{}", "a.".repeat(40_000));
        let labels: Labels = [(deep, "1".to_owned()), ("p..".to_owned(), String::new())].into_iter().collect();
        labels.decode::<Tree>("p").unwrap();
        let whole: BTreeMap<String, String> = labels.decode("p").unwrap();
        assert!(whole.keys().any(|key| key.len() == 80_000), "a key is never cut");
    }
}
