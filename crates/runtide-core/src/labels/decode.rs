//! Dotted keys, read into a type of the application's.

use std::{collections::BTreeMap, fmt};

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
    let mut root = Node { path: prefix.to_owned(), ..Node::default() };
    for (key, value) in labels.iter() {
        let below = if prefix.is_empty() {
            Some(key)
        } else {
            key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'))
        };
        match below {
            Some(below) => root.insert(below, value),
            None if key == prefix => root.value = Some(value),
            None => {}
        }
    }
    T::deserialize(&root).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, "labels.decode", error.message)
            .with_context("key", error.key.as_deref().unwrap_or(prefix))
    })
}

/// The tree that dotted keys spell.
#[derive(Default)]
struct Node<'a> {
    path: String,
    value: Option<&'a str>,
    children: BTreeMap<&'a str, Node<'a>>,
}

impl<'a> Node<'a> {
    /// Iterative, so that a label of 64 KiB of dots costs memory and not the stack.
    fn insert(&mut self, below: &'a str, value: &'a str) {
        let mut node = self;
        for part in below.split('.').take(MAX_DEPTH) {
            let path = if node.path.is_empty() { part.to_owned() } else { format!("{}.{part}", node.path) };
            node = node.children.entry(part).or_insert_with(|| Node { path, ..Node::default() });
        }
        node.value = Some(value);
    }

    fn text(&self) -> Result<&'a str, DecodeError> {
        self.value.ok_or_else(|| DecodeError::at(self, "a value is missing: there are only keys below it"))
    }

    fn parse<T: std::str::FromStr>(&self, expected: &str) -> Result<T, DecodeError> {
        let text = self.text()?;
        text.trim().parse().map_err(|_| DecodeError::at(self, format!("expected {expected}, got '{text}'")))
    }
}

/// Deeper keys than this are cut: no type of an application nests so far, and a hostile label must not cost the stack.
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

impl<'a> IntoDeserializer<'_, DecodeError> for &'a Node<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Children<'a> {
    rest: std::collections::btree_map::Iter<'a, &'a str, Node<'a>>,
    value: Option<&'a Node<'a>>,
}

impl<'de> MapAccess<'de> for Children<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some((key, node)) = self.rest.next() else { return Ok(None) };
        self.value = Some(node);
        located(node, seed.deserialize(StrDeserializer::new(key))).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        match self.value.take() {
            Some(node) => located(node, seed.deserialize(node)),
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty, $expected:literal;)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            located(self, visitor.$visit(self.parse::<$type>($expected)?))
        }
    )* };
}

impl<'de, 'a> de::Deserializer<'de> for &'a Node<'a> {
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
        let text = self.text()?;
        let flag = match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => return Err(DecodeError::at(self, format!("expected true or false, got '{text}'"))),
        };
        visitor.visit_bool(flag)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        located(self, visitor.visit_str(self.text()?))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.children.is_empty() {
            let text = self.value.unwrap_or_default();
            let items: Vec<Node<'_>> = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Node { path: self.path.clone(), value: Some(item), children: BTreeMap::new() })
                .collect();
            return located(self, visitor.visit_seq(SeqDeserializer::new(items.iter())));
        }
        let mut numbered = Vec::with_capacity(self.children.len());
        for (key, node) in &self.children {
            let Ok(number) = key.parse::<u64>() else {
                return Err(DecodeError::at(node, "expected a number, as this is a list"));
            };
            numbered.push((number, node));
        }
        numbered.sort_by_key(|(number, _)| *number);
        located(self, visitor.visit_seq(SeqDeserializer::new(numbered.into_iter().map(|(_, node)| node))))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if let (Some(text), true) = (self.value, self.children.is_empty() && !self.path.is_empty()) {
            return Err(DecodeError::at(self, format!("expected keys below it, got the value '{text}'")));
        }
        located(self, visitor.visit_map(Children { rest: self.children.iter(), value: None }))
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
        match self.value {
            Some(text) if self.children.is_empty() => {
                located(self, visitor.visit_enum(StrDeserializer::new(text.trim())))
            }
            _ if self.children.len() == 1 => located(
                self,
                visitor.visit_enum(MapAccessDeserializer::new(Children { rest: self.children.iter(), value: None })),
            ),
            _ => Err(DecodeError::at(self, "expected exactly one of the variants")),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.children.is_empty() { self.deserialize_str(visitor) } else { self.deserialize_map(visitor) }
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

    #[derive(Debug, Deserialize)]
    struct Tree(#[expect(dead_code, reason = "the decoded value is not used")] BTreeMap<String, serde_json::Value>);

    #[test]
    fn hostile_labels_neither_panic_nor_overflow() {
        let deep = format!("p.{}", "a.".repeat(40_000));
        let labels: Labels = [(deep, "1".to_owned()), ("p..".to_owned(), String::new())].into_iter().collect();
        labels.decode::<Tree>("p").unwrap();
    }
}
