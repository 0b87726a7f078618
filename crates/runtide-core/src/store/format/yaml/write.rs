//! Writes a value as YAML that readers of YAML 1.1 and 1.2 resolve to the same value.

use std::fmt::Write as _;

use super::{Bounded, Outcome, Value, plain};

/// Longest key in bytes that is written without a question mark: a parser searches only 1024 characters for the colon
/// (YAML 1.2.2, 7.4.2).
const KEY: usize = 1000;

pub(in super::super) fn write(value: &Value, out: &mut Bounded) -> Outcome<()> {
    value.check(&|value| matches!(value, Value::Bytes(_)).then_some("it has no byte strings"))?;
    if is_block(value) { block(value, 0, out) } else { scalar(value, 2, out) }
}

/// Returns true if the value is written on its own lines.
fn is_block(value: &Value) -> bool {
    match value {
        Value::List(items) => !items.is_empty(),
        Value::Map(entries) => !entries.is_empty(),
        _ => false,
    }
}

/// Writes the lines of a list or a map. The caller has indented the first line.
fn block(value: &Value, indent: usize, out: &mut Bounded) -> Outcome<()> {
    match value {
        Value::List(items) => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.indent(indent)?;
                }
                out.put("- ")?;
                if is_block(item) { block(item, indent + 2, out)? } else { scalar(item, indent + 2, out)? }
            }
        }
        Value::Map(entries) => {
            for (at, (key, value)) in entries.iter().enumerate() {
                if at > 0 {
                    out.indent(indent)?;
                }
                entry(key, value, indent, out)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn entry(key: &str, value: &Value, indent: usize, out: &mut Bounded) -> Outcome<()> {
    let key = if is_plain(key) { key.to_owned() } else { quoted(key) };
    let long = key.len() > KEY;
    if long {
        out.put("? ")?;
        out.put(&key)?;
        out.put("\n")?;
        out.indent(indent)?;
    } else {
        out.put(&key)?;
    }
    match value {
        Value::List(_) if is_block(value) && !long => {
            out.put(":\n")?;
            out.indent(indent)?;
            block(value, indent, out)
        }
        _ if is_block(value) => {
            out.put(":\n")?;
            out.indent(indent + 2)?;
            block(value, indent + 2, out)
        }
        _ => {
            out.put(": ")?;
            scalar(value, indent + 2, out)
        }
    }
}

/// Writes the rest of a line and its end. The lines of a text are indented by `indent`.
fn scalar(value: &Value, indent: usize, out: &mut Bounded) -> Outcome<()> {
    match value {
        Value::Null => out.put("null")?,
        Value::Bool(value) => out.put(if *value { "true" } else { "false" })?,
        Value::Unsigned(value) => out.put(&value.to_string())?,
        Value::Negative(value) => out.put(&value.to_string())?,
        Value::Float(value) if value.is_nan() => out.put(".nan")?,
        Value::Float(value) if value.is_infinite() => out.put(if *value > 0.0 { ".inf" } else { "-.inf" })?,
        Value::Float(value) => out.put(&fraction(*value))?,
        Value::Text(text) if is_plain(text) => out.put(text)?,
        Value::Text(text) if is_literal(text) => return literal(text, indent, out),
        Value::Text(text) => out.put(&quoted(text))?,
        Value::List(_) => out.put("[]")?,
        Value::Map(_) => out.put("{}")?,
        // `write` has refused byte strings.
        Value::Bytes(_) => {}
    }
    out.put("\n")
}

/// The shortest digits that are read back as the same float, never as an integer. A YAML 1.1 reader takes `1e16` for a text:
/// it expects a point, and a sign before the exponent.
fn fraction(value: f64) -> String {
    let written = format!("{value:?}");
    let Some((mantissa, exponent)) = written.split_once('e') else { return written };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

/// Words that YAML 1.1 resolves to a boolean, in upper or lower case; `true` and `false` are in the core schema.
const WORDS: [&str; 6] = ["y", "n", "yes", "no", "on", "off"];

/// Returns true if every reader of YAML 1.1 and 1.2 takes the text without quotes for the same text.
fn is_plain(text: &str) -> bool {
    let mut chars = text.chars();
    let begins = match chars.next() {
        Some('.') => text.starts_with("./"),
        Some(first) => first.is_alphanumeric() || matches!(first, '/' | '_'),
        None => false,
    };
    if !begins || text.ends_with([' ', ':']) || text.contains(": ") || text.contains(" #") {
        return false;
    }
    if !text.chars().all(|char| char.is_alphanumeric() || char.is_ascii_graphic() || char == ' ') {
        return false;
    }
    // Brackets and commas end a plain scalar in flow style; quotes and backslashes are easily misread.
    if text.contains(['[', ']', '{', '}', ',', '"', '\'', '`', '\\']) {
        return false;
    }
    if text.starts_with(|first: char| first.is_numeric()) {
        // No time, date or number of any base has one of these letters.
        return text.starts_with(|first: char| first.is_ascii_digit())
            && text.chars().any(|char| matches!(char, 'g'..='n' | 'p'..='s' | 'u'..='w' | 'y' | 'G'..='N' | 'P'..='S' | 'U'..='W' | 'Y'));
    }
    !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text)) && matches!(plain::resolve(text), Ok(Value::Text(_)))
}

/// Returns true if a text of several lines can be written as a literal block.
fn is_literal(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    text.contains('\n')
        && !text.starts_with([' ', '\t', '\n'])
        && !body.ends_with('\n')
        && text.chars().all(|char| char == '\n' || char == '\t' || is_printable(char))
        && body.split('\n').all(|line| line.is_empty() || !line.trim_matches([' ', '\t']).is_empty())
}

fn literal(text: &str, indent: usize, out: &mut Bounded) -> Outcome<()> {
    out.put(if text.ends_with('\n') { "|\n" } else { "|-\n" })?;
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        if !line.is_empty() {
            out.indent(indent)?;
            out.put(line)?;
        }
        out.put("\n")?;
    }
    Ok(())
}

/// Returns true if the character is printable, and no line break in any version of YAML.
fn is_printable(char: char) -> bool {
    !char.is_control() && !matches!(char, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if is_printable(char) => out.push(char),
            // Four digits suffice: no character beyond U+FFFF is unprintable here.
            char => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
        }
    }
    out.push('"');
    out
}
