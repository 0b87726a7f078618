//! The common value: every format is read into it and written from it.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::Problem;
use crate::store::Document;

/// The content of a document, independent of its format. Each reader nests it at most [`Document::MAX_DEPTH`] deep, so that
/// walking and dropping it take a bounded stack.
#[derive(Clone, Debug)]
pub(in crate::store) enum Value {
    Null,
    Bool(bool),
    /// An integer of zero or above.
    Unsigned(u64),
    /// An integer below zero.
    Negative(i64),
    Float(f64),
    Text(String),
    /// A string of bytes, which only CBOR has.
    #[cfg_attr(not(feature = "cbor"), allow(dead_code, reason = "only CBOR has byte strings"))]
    Bytes(Vec<u8>),
    List(Vec<Value>),
    /// Keys and values in the order of the document; no key occurs twice.
    Map(Vec<(String, Value)>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        u64::try_from(number).map_or(Self::Negative(number), Self::Unsigned)
    }
}

impl Value {
    /// Returns the value of a key, if this is a map that has it.
    pub(in crate::store) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find_map(|(known, value)| (known == key).then_some(value))
    }

    /// Makes a map of these entries; refuses a key that occurs twice.
    pub(super) fn map(entries: Vec<(String, Self)>) -> Result<Self, Problem> {
        match duplicate(&entries) {
            Some(key) => Err(Problem::invalid(format!("the key {} is there twice", shown(key)))),
            None => Ok(Self::Map(entries)),
        }
    }

    /// The name of its type, for messages.
    pub(in crate::store) fn sort(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Unsigned(_) | Self::Negative(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// The number of lists and maps around its innermost value.
    #[cfg(feature = "hcl")]
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Map(entries) => 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Refuses the first value for which `refuse` returns a reason; the message has the path to it.
    pub(super) fn check(&self, refuse: &dyn Fn(&Self) -> Option<&'static str>) -> Result<(), Problem> {
        fn walk(
            value: &Value,
            refuse: &dyn Fn(&Value) -> Option<&'static str>,
        ) -> Result<(), (Vec<String>, &'static str)> {
            if let Some(why) = refuse(value) {
                return Err((Vec::new(), why));
            }
            match value {
                Value::List(items) => items.iter().enumerate().try_for_each(|(at, item)| {
                    walk(item, refuse).map_err(|(mut path, why)| {
                        path.push(format!("[{at}]"));
                        (path, why)
                    })
                }),
                Value::Map(entries) => entries.iter().try_for_each(|(key, value)| {
                    walk(value, refuse).map_err(|(mut path, why)| {
                        path.push(format!(".{}", key.chars().take(SHOWN).collect::<String>()));
                        (path, why)
                    })
                }),
                _ => Ok(()),
            }
        }
        walk(self, refuse).map_err(|(path, why)| {
            let path: String = path.iter().rev().map(String::as_str).collect();
            Problem::unsupported(format!("{why}, at {}", if path.is_empty() { "." } else { &path }))
        })
    }
}

/// Most characters of a key that a message shows: a hostile key may be long.
const SHOWN: usize = 64;

/// A key in quotes for messages, cut to a bounded length.
pub(super) fn shown(key: &str) -> String {
    format!("{:?}", key.chars().take(SHOWN).collect::<String>())
}

/// Returns a key that occurs twice, if there is one.
fn duplicate(entries: &[(String, Value)]) -> Option<&str> {
    // Sorted rather than hashed: no choice of keys makes it slow.
    let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    })
}

/// Returns the depth of a container inside one at `depth`; refuses a depth of more than [`Document::MAX_DEPTH`].
pub(super) fn deeper(depth: usize) -> Result<usize, Problem> {
    if depth < Document::MAX_DEPTH { Ok(depth + 1) } else { Err(too_deep()) }
}

/// Counts one more value; refuses more than [`Document::MAX_VALUES`].
pub(super) fn count(values: &mut usize) -> Result<(), Problem> {
    *values += 1;
    if *values > Document::MAX_VALUES {
        return Err(Problem::invalid(format!("it has more than {} values", Document::MAX_VALUES)));
    }
    Ok(())
}

pub(super) fn too_deep() -> Problem {
    Problem::invalid(format!("it is nested more than {} deep", Document::MAX_DEPTH))
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Negative(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Bytes(value) => serializer.serialize_bytes(value),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}
