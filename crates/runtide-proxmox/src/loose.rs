//! Values of answers, whose types Proxmox does not keep: a number comes as `24` or `"24"`, a flag as `0`, `"1"`, `true` or not at all.

use serde_json::{Map, Value};

/// The whole number of a field, if it has one.
pub(crate) fn number(row: &Map<String, Value>, key: &str) -> Option<u64> {
    match row.get(key)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The text of a field that is not empty. A number is its digits: a guest may be called `7`.
pub(crate) fn text(row: &Map<String, Value>, key: &str) -> Option<String> {
    match row.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns true if a field is set to anything that Perl takes for true.
pub(crate) fn flag(row: &Map<String, Value>, key: &str) -> bool {
    match row.get(key) {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !matches!(text.as_str(), "" | "0"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn flags_and_numbers_are_read_in_every_form() {
        let row =
            json!({"a": 1, "b": "1", "c": true, "d": 0, "e": "0", "f": false, "g": null, "h": "24", "i": -1, "j": [1]});
        let row = row.as_object().unwrap();
        let set: Vec<_> = "abcdefghijk".chars().filter(|key| flag(row, &key.to_string())).collect();
        assert_eq!(set, ['a', 'b', 'c', 'h', 'i']);
        assert_eq!(number(row, "h"), Some(24));
        assert_eq!(
            (number(row, "a"), number(row, "g"), number(row, "i"), number(row, "j")),
            (Some(1), None, None, None)
        );
    }
}
