//! Writes a value as a body of attributes.

use std::fmt::Write as _;

use super::{Bounded, DEPTH, Outcome, Problem, Value, value::shown};

pub(in super::super) fn write(value: &Value, out: &mut Bounded) -> Outcome<()> {
    let Value::Map(entries) = value else {
        return Err(Problem::unsupported(format!("its outermost value must be a map, and this is {}", value.sort())));
    };
    value.check(&|value| match value {
        Value::Bytes(_) => Some("it has no byte strings"),
        Value::Float(number) if !number.is_finite() => Some("it has neither infinity nor NaN"),
        _ => None,
    })?;
    if value.depth() > DEPTH {
        return Err(Problem::unsupported(format!("it is nested more than {DEPTH} deep")));
    }
    for (key, value) in entries {
        if !is_name(key) {
            return Err(Problem::unsupported(format!("the key {} cannot be an attribute's name", shown(key))));
        }
        out.put(key)?;
        out.put(" = ")?;
        expression(value, 0, out)?;
        out.put("\n")?;
    }
    Ok(())
}

fn expression(value: &Value, indent: usize, out: &mut Bounded) -> Outcome<()> {
    match value {
        Value::Null => out.put("null"),
        Value::Bool(value) => out.put(if *value { "true" } else { "false" }),
        Value::Unsigned(value) => out.put(&value.to_string()),
        Value::Negative(value) => out.put(&value.to_string()),
        // The shortest digits that are read back as the same float, never as an integer.
        Value::Float(value) => out.put(&format!("{value:?}")),
        Value::Text(text) => out.put(&quoted(text)),
        Value::List(items) if items.is_empty() => out.put("[]"),
        Value::Map(entries) if entries.is_empty() => out.put("{}"),
        Value::List(items) => {
            out.put("[\n")?;
            for item in items {
                out.indent(indent + 2)?;
                expression(item, indent + 2, out)?;
                out.put(",\n")?;
            }
            out.indent(indent)?;
            out.put("]")
        }
        Value::Map(entries) => {
            out.put("{\n")?;
            for (key, value) in entries {
                out.indent(indent + 2)?;
                // A bare `for` would begin an expression, and a bare `null` would not be a text.
                if is_name(key) && !matches!(key.as_str(), "for" | "if" | "in" | "null" | "true" | "false") {
                    out.put(key)?;
                } else {
                    out.put(&quoted(key))?;
                }
                out.put(" = ")?;
                expression(value, indent + 2, out)?;
                out.put("\n")?;
            }
            out.indent(indent)?;
            out.put("}")
        }
        // `write` has refused byte strings.
        Value::Bytes(_) => Ok(()),
    }
}

/// Returns true for names of ASCII letters, digits, `_` and `-`. HCL allows letters of other scripts too; they are quoted here.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    let mut chars = text.chars().peekable();
    let mut before = None;
    while let Some(char) = chars.next() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // `${` is escaped by doubling its sign, except behind the same sign, since `$$${` would be ambiguous.
            '$' | '%' if chars.peek() == Some(&'{') && before != Some(char) => out.extend([char, char]),
            '$' | '%' if chars.peek() == Some(&'{') => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            char if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            char => out.push(char),
        }
        before = Some(char);
    }
    out.push('"');
    out
}
