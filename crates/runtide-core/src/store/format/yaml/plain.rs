//! Resolves plain scalars by the core schema of YAML 1.2.2, section 10.3.2.

use super::{Outcome, Problem, Value};

/// Returns the value of a plain scalar. `no`, `on` and `1_000` are texts, and `012` is twelve.
pub(super) fn resolve(text: &str) -> Outcome<Value> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Value::Float(f64::NEG_INFINITY),
        // A text with another first character is no number; most texts end here.
        _ if !text.starts_with(['+', '-', '.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) => {
            Value::Text(text.to_owned())
        }
        _ => match number(text) {
            Some(number) => number?,
            None => Value::Text(text.to_owned()),
        },
    })
}

/// Parses a number; `None` if the text is none.
fn number(text: &str) -> Option<Outcome<Value>> {
    let digits = |text: &str, radix| !text.is_empty() && text.chars().all(|digit| digit.is_digit(radix));
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return digits(rest, radix)
                .then(|| u64::from_str_radix(rest, radix).map(Value::Unsigned).map_err(|_| does_not_fit(text)));
        }
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits(unsigned, 10) {
        let whole = text.parse().map(Value::Unsigned).or_else(|_| text.parse::<i64>().map(Value::from));
        return Some(whole.map_err(|_| does_not_fit(text)));
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let written = |part: &str| part.is_empty() || digits(part, 10);
    let is_number = written(whole)
        && written(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| digits(exponent, 10));
    is_number.then(|| match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Value::Float(number)),
        _ => Err(does_not_fit(text)),
    })
}

fn does_not_fit(text: &str) -> Problem {
    let shown: String = text.chars().take(40).collect();
    Problem::invalid(format!("the number {shown} does not fit into 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_schema_and_nothing_of_yaml_1_1() {
        for text in
            ["no", "on", "y", "1_000", "0b1", "12:30", "2001-01-01", "-", "+", ".", "e3", "0o8", "0x", "1e", "-0x1"]
        {
            assert!(matches!(resolve(text), Ok(Value::Text(same)) if same == text), "{text}");
        }
        for (text, number) in [("012", 12), ("+7", 7), ("0o14", 12), ("0xfF", 255), ("18446744073709551615", u64::MAX)]
        {
            assert!(matches!(resolve(text), Ok(Value::Unsigned(same)) if same == number), "{text}");
        }
        for (text, number) in [("1e3", 1e3), ("1.", 1.0), (".5", 0.5), ("-0.0", -0.0), ("1.5E-7", 1.5e-7_f64)] {
            assert!(matches!(resolve(text), Ok(Value::Float(same)) if same.to_bits() == number.to_bits()), "{text}");
        }
        assert!(matches!(resolve("-9223372036854775808"), Ok(Value::Negative(i64::MIN))));
        for text in ["18446744073709551616", "-9223372036854775809", "1e400", "0xfffffffffffffffff"] {
            assert!(resolve(text).is_err(), "{text}");
        }
    }
}
