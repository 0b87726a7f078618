//! JSON, read strictly: refuses a key that occurs twice, and an integer that the parser would round.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

use super::{Bounded, Outcome, Problem, Value, too_long, value};

pub(super) fn read(text: &str) -> Outcome<Value> {
    scan(text)?;
    let Read(value) = serde_json::from_str(text).map_err(|error| Problem::invalid(error.to_string()))?;
    Ok(value)
}

pub(super) fn write(value: &Value, out: &mut Bounded) -> Outcome<()> {
    value.check(&|value| match value {
        Value::Bytes(_) => Some("it has no byte strings"),
        Value::Float(number) if !number.is_finite() => Some("it has neither infinity nor NaN"),
        _ => None,
    })?;
    // Only `Bounded` can return an error.
    serde_json::to_writer_pretty(&mut *out, value).map_err(|_| too_long())?;
    out.put("\n")
}

/// Checks that the parser does not make: depth, number of values, and integers that it would round.
fn scan(text: &str) -> Outcome<()> {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut values) = (0, 0, 0);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => {
                depth = value::deeper(depth)?;
                value::count(&mut values)?;
            }
            b',' => value::count(&mut values)?,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => at = end_of_text(bytes, at),
            b'-' | b'0'..=b'9' => {
                let rest = text.get(at - 1..).unwrap_or_default();
                let end = rest.find(|next: char| !matches!(next, '-' | '+' | '.' | 'e' | 'E' | '0'..='9'));
                let number = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
                at += number.len().saturating_sub(1);
                let whole = number.bytes().all(|byte| matches!(byte, b'-' | b'0'..=b'9'));
                // Fewer than 19 characters always fit, and most numbers are far shorter.
                if whole && number.len() >= 19 && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Err(Problem::invalid(format!("the integer {} does not fit into 64 bits", brief(number))));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A number for messages, cut to 40 bytes: a hostile one may have a million digits.
fn brief(number: &str) -> String {
    number.get(..40).map_or_else(|| number.to_owned(), |begin| format!("{begin}…"))
}

/// Offset behind the closing quote of the text that contains `at`.
fn end_of_text(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        at += found;
        if bytes.get(at) == Some(&b'"') {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

/// A value read through serde, which refuses a key that occurs twice.
struct Read(Value);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Read, E> {
        Ok(Read(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Read, E> {
        Ok(Read(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Read, E> {
        Ok(Read(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Read, E> {
        Ok(Read(Value::Unsigned(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Read, E> {
        Ok(Read(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Read, E> {
        Ok(Read(Value::Text(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Read, E> {
        Ok(Read(Value::Text(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Read, A::Error> {
        let mut items = Vec::new();
        while let Some(Read(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Read(Value::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Read, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, Read(value))) = access.next_entry::<String, Read>()? {
            entries.push((key, value));
        }
        Value::map(entries).map(Read).map_err(|problem| de::Error::custom(problem.message))
    }
}
