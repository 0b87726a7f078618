//! CBOR, limited to the values that a document can have: keys are texts, and no value is tagged.

use ciborium::value::Value as Item;

use super::{Bounded, Outcome, Problem, Value, too_long, value};
use crate::store::Document;

pub(super) fn read(bytes: &[u8]) -> Outcome<Value> {
    count(bytes)?;
    let mut rest = bytes;
    let item: Item = ciborium::de::from_reader_with_recursion_limit(&mut rest, LIMIT).map_err(|error| match error {
        ciborium::de::Error::Io(_) => Problem::invalid("it ends in the middle"),
        ciborium::de::Error::Syntax(at) => Problem::invalid(format!("it is not CBOR, at byte {at}")),
        ciborium::de::Error::Semantic(Some(at), why) => Problem::invalid(format!("{why}, at byte {at}")),
        ciborium::de::Error::Semantic(None, why) => Problem::invalid(why),
        ciborium::de::Error::RecursionLimitExceeded => value::too_deep(),
    })?;
    if !rest.is_empty() {
        return Err(Problem::invalid(format!("there are bytes behind its end, at byte {}", bytes.len() - rest.len())));
    }
    convert(item, 0)
}

/// Counts the items before the parser allocates them: each byte can be one. Bytes that are no CBOR are left to the parser.
fn count(mut bytes: &[u8]) -> Outcome<()> {
    let mut values = 0;
    while let Some((first, rest)) = bytes.split_first() {
        value::count(&mut values)?;
        let width = match first & 0x1f {
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => 0,
        };
        let Some((argument, rest)) = rest.split_at_checked(width) else { break };
        let argument = match argument {
            [] => u64::from(first & 0x1f),
            bytes => bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        };
        // Skip the content of byte strings and texts of a known length.
        let length = match (first >> 5, first & 0x1f) {
            (2 | 3, 0..=27) => usize::try_from(argument).unwrap_or(usize::MAX),
            _ => 0,
        };
        bytes = rest.get(length..).unwrap_or_default();
    }
    Ok(())
}

/// Recursion limit of the parser. Tags use it up as well, though no value keeps them; `convert` checks the depth of the values.
const LIMIT: usize = Document::MAX_DEPTH + 1;

fn convert(item: Item, depth: usize) -> Outcome<Value> {
    Ok(match item {
        Item::Null => Value::Null,
        Item::Bool(value) => Value::Bool(value),
        Item::Integer(number) => {
            let number = i128::from(number);
            match (u64::try_from(number), i64::try_from(number)) {
                (Ok(number), _) => Value::Unsigned(number),
                (_, Ok(number)) => Value::Negative(number),
                _ => return Err(Problem::invalid(format!("the integer {number} does not fit into 64 bits"))),
            }
        }
        Item::Float(number) => Value::Float(number),
        Item::Text(text) => Value::Text(text),
        Item::Bytes(bytes) => Value::Bytes(bytes),
        Item::Array(items) => {
            let depth = value::deeper(depth)?;
            Value::List(items.into_iter().map(|item| convert(item, depth)).collect::<Outcome<_>>()?)
        }
        Item::Map(entries) => {
            let depth = value::deeper(depth)?;
            let entries = entries.into_iter().map(|(key, value)| match key {
                Item::Text(key) => Ok((key, convert(value, depth)?)),
                _ => Err(Problem::unsupported("a key is not a text")),
            });
            Value::map(entries.collect::<Outcome<_>>()?)?
        }
        Item::Tag(2 | 3, number) if number.is_bytes() => {
            return Err(Problem::invalid("an integer does not fit into 64 bits"));
        }
        Item::Tag(tag, _) => return Err(Problem::unsupported(format!("a value has the tag {tag}"))),
        _ => return Err(Problem::unsupported("a value has a type that is unknown here")),
    })
}

pub(super) fn write(value: &Value, out: &mut Bounded) -> Outcome<()> {
    // Only `Bounded` can return an error.
    ciborium::into_writer(value, &mut *out).map_err(|_| too_long())
}
