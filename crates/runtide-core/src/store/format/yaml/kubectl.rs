//! Resolves scalars and keys as kubectl does: by YAML 1.1 with the exceptions of Go's library, and then as JSON.

use granit_parser::Tag;

use super::{Outcome, Problem, Value};

const I64_MAX: u64 = i64::MAX.unsigned_abs();

/// Returns the value of a scalar. A text in quotes is resolved only by its tag, if it has one.
pub(super) fn scalar(text: &str, is_plain: bool, tag: Option<&Tag>) -> Outcome<Value> {
    let Some(tag) = tag else {
        return Ok(if is_plain { resolve(text) } else { Value::Text(text.to_owned()) });
    };
    let name = known(tag);
    match (name.as_deref(), resolve(text)) {
        (Some("binary"), _) => binary(text).map(Value::Text),
        (Some("null"), Value::Null) => Ok(Value::Null),
        (Some("bool"), value @ Value::Bool(_))
        | (Some("int"), value @ (Value::Unsigned(_) | Value::Negative(_)))
        // A float without a fraction is an integer in JSON, so an integer that is tagged as a float stays one.
        | (Some("float"), value @ (Value::Float(_) | Value::Unsigned(0..=I64_MAX) | Value::Negative(_))) => Ok(value),
        (Some("timestamp"), Value::Text(text)) if is_time(&text) => Ok(Value::Text(text)),
        (Some(sort @ ("null" | "bool" | "int" | "float" | "timestamp")), _) => {
            Err(Problem::invalid(format!("a value is tagged as {sort}, but is none")))
        }
        // `!!str`, and every unknown tag.
        _ => Ok(Value::Text(text.to_owned())),
    }
}

/// Returns the name of one of YAML's own tags, as `str` of `!!str`.
fn known(tag: &Tag) -> Option<String> {
    let name = format!("{}{}", tag.handle(), tag.suffix());
    name.strip_prefix("tag:yaml.org,2002:").map(str::to_owned)
}

/// Returns true if the key of an entry means that its value is merged into the map.
pub(super) fn is_merge(text: &str, is_plain: bool, tag: Option<&Tag>) -> bool {
    text == "<<"
        && match tag {
            None => is_plain,
            Some(tag) => tag.original() == "!" || known(tag).as_deref() == Some("merge"),
        }
}

/// Returns the key as text, and its own type.
pub(super) fn key(value: &Value) -> Outcome<(String, &'static str)> {
    let text = match value {
        Value::Text(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Unsigned(value @ 0..=I64_MAX) => value.to_string(),
        Value::Negative(value) => value.to_string(),
        Value::Float(value) => float_key(*value),
        other => {
            let message = format!("a key is {}, and kubectl takes only texts, numbers and booleans", other.sort());
            return Err(Problem::invalid(message));
        }
    };
    Ok((text, value.sort()))
}

/// Returns the value of a plain scalar, as Go's library resolves it.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes() {
        // Behind a point, underscores are allowed only between digits.
        [b'.', rest @ ..] => {
            let around = |at: usize| rest.get(at).is_some_and(u8::is_ascii_digit);
            let between = |at: usize| at.checked_sub(1).is_some_and(around) && around(at + 1);
            let fits = rest.iter().enumerate().all(|(at, byte)| *byte != b'_' || between(at));
            if fits { float(&text.replace('_', "")) } else { None }
        }
        [b'0'..=b'9' | b'+' | b'-', ..] => {
            let plain = text.replace('_', "");
            integer(&plain).or_else(|| float(&plain)).or_else(|| signed_binary(&plain))
        }
        _ => None,
    };
    number.unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// Parses an integer with a sign and a base prefix: `0x`, `0o`, `0b`, or `0` for octal.
fn integer(text: &str) -> Option<Value> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (digits.get(2..)?, 16),
        [b'0', b'o' | b'O', _, ..] => (digits.get(2..)?, 8),
        [b'0', b'b' | b'B', _, ..] => (digits.get(2..)?, 2),
        [b'0', _, ..] => (digits.get(1..)?, 8),
        _ => (digits, 10),
    };
    // The parser would take another sign.
    let all_digits = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
    let number = if all_digits { u64::from_str_radix(digits, radix).ok()? } else { return None };
    if is_negative {
        return 0_i64.checked_sub_unsigned(number).map(Value::from);
    }
    // An unsigned number that needs all 64 bits takes no sign.
    (number <= I64_MAX || !text.starts_with('+')).then_some(Value::Unsigned(number))
}

/// Parses `0b-1`, which Go's library takes for a number.
fn signed_binary(text: &str) -> Option<Value> {
    i64::from_str_radix(text.strip_prefix("0b")?, 2).ok().map(Value::from)
}

/// Parses a decimal float; one beyond the range of floats is none.
fn float(text: &str) -> Option<Value> {
    let digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_float = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent));
    let number = if is_float { text.parse::<f64>().ok()? } else { return None };
    number.is_finite().then_some(Value::Float(number))
}

/// Returns the value as it is in JSON: there a float without a fraction is written as an integer, and read as one where it
/// fits.
pub(super) fn in_json(value: Value) -> Outcome<Value> {
    match value {
        Value::Float(number) if !number.is_finite() => {
            Err(Problem::invalid("a value is infinite or NaN, which kubectl cannot send"))
        }
        // The shortest digits, with zeros behind them: what Go writes.
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e21 => {
            Ok(number.to_string().parse::<i64>().map_or(Value::Float(number), Value::from))
        }
        value => Ok(value),
    }
}

/// Returns the text that kubectl makes of a key that is a float: of single precision, in Go's shortest form.
#[allow(clippy::cast_possible_truncation, reason = "kubectl writes keys in single precision")]
fn float_key(number: f64) -> String {
    let single = number as f32;
    if !single.is_finite() {
        return if single.is_nan() {
            ".nan"
        } else if single > 0.0 {
            ".inf"
        } else {
            "-.inf"
        }
        .to_owned();
    }
    let written = format!("{single:e}");
    let Some((mantissa, exponent)) = written.split_once('e') else { return written };
    match exponent.parse::<i32>() {
        Ok(exponent @ (..-4 | 6..)) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => single.to_string(),
    }
}

/// Returns true if the text begins as a date: Go's library takes it for a time, which is a text in JSON.
fn is_time(text: &str) -> bool {
    let date = text.split(['T', 't', ' ']).next().unwrap_or_default();
    let parts: Vec<&str> = date.split('-').collect();
    matches!(parts[..], [year, month, day] if year.len() == 4 && (1..=2).contains(&month.len()) && (1..=2).contains(&day.len()))
        && parts.concat().bytes().all(|digit| digit.is_ascii_digit())
}

/// Decodes base64. Bytes that are no UTF-8 become U+FFFD, each for itself, as in the JSON that kubectl sends.
fn binary(text: &str) -> Outcome<String> {
    let invalid = || Problem::invalid("a value is tagged as binary, but is no base64");
    let text: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (groups, rest) = text.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(invalid());
    }
    for (at, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || padding > 0 && at + 1 != groups.len() {
            return Err(invalid());
        }
        let mut bits = 0_u32;
        for byte in group {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => 0,
                _ => return Err(invalid()),
            };
            bits = bits << 6 | u32::from(six);
        }
        if group.iter().take(4 - padding).any(|byte| *byte == b'=') {
            return Err(invalid());
        }
        let [_, three @ ..] = bits.to_be_bytes();
        bytes.extend(three.into_iter().take(3 - padding));
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Ok(out)
}
